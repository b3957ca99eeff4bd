package sources

import (
	"maps"
	"slices"

	"rebroadcastr/event"
)

// atomKey names an atom in the state: its filter without since and until, which the windows stand for.
type atomKey [16]byte

// atom is one id, else one author, else one value of the first tag that a filter names, with the rest of the filter.
type atom struct {
	key     atomKey
	filter  event.Filter // its own since and until included
	missing windows      // to be asked for, in a plan
}

// atoms takes filters apart. An atom that two filters ask for with the same since and until comes once.
func atoms(filters []event.Filter) []atom {
	type id struct {
		key          atomKey
		since, until int64
	}
	seen := make(map[id]bool)
	var out []atom
	add := func(f event.Filter) {
		bare := f
		bare.Since, bare.Until = 0, 0
		a := atom{key: atomKey(bare.Key()), filter: f}
		if k := (id{a.key, f.Since, f.Until}); !seen[k] {
			seen[k] = true
			out = append(out, a)
		}
	}
	for _, f := range filters {
		tag, values := firstTag(f)
		switch {
		case len(f.IDs) > 0:
			for _, id := range f.IDs {
				one := f
				one.IDs = []event.ID{id}
				add(one)
			}
		case len(f.Authors) > 0:
			for _, p := range f.Authors {
				one := f
				one.Authors = []event.PubKey{p}
				add(one)
			}
		case tag != "":
			for _, v := range values {
				add(withTag(f, tag, []string{v}))
			}
		default:
			add(f)
		}
	}
	return out
}

func firstTag(f event.Filter) (name string, values []string) {
	for _, name := range slices.Sorted(maps.Keys(f.Tags)) {
		if len(f.Tags[name]) > 0 {
			return name, f.Tags[name]
		}
	}
	return "", nil
}

func withTag(f event.Filter, name string, values []string) event.Filter {
	f.Tags = maps.Clone(f.Tags)
	f.Tags[name] = values
	return f
}

// group is atoms that differ only in their id, author or tag value: one filter asks for all of them.
type group struct {
	atoms  []atom
	filter event.Filter
}

// gather joins atoms that have the same rest and the same mark into groups of at most most. The mark is whatever else
// must be equal, such as what is still missing.
func gather(list []atom, most int, mark func(atom) string) []group {
	type class struct {
		rest atomKey
		mark string
	}
	var out []group
	open := make(map[class]int) // the group that still has room
	for _, a := range list {
		c := class{rest(a.filter), mark(a)}
		i, ok := open[c]
		if !ok || len(out[i].atoms) >= most {
			i = len(out)
			open[c] = i
			out = append(out, group{filter: a.filter})
			out[i].atoms = append(out[i].atoms, a)
			continue
		}
		g := &out[i]
		g.atoms = append(g.atoms, a)
	}
	for i := range out {
		out[i].filter = join(out[i].atoms)
	}
	return out
}

// rest names what is left of an atom's filter without its id, author or tag value. An atom that has none of them shares
// its rest with no other atom.
func rest(f event.Filter) atomKey {
	if len(f.IDs) > 0 {
		f.IDs = nil
		k := atomKey(f.Key())
		k[0] ^= 2 // apart from the filters that never had an id
		return k
	}
	if len(f.Authors) > 0 {
		f.Authors = nil
		k := atomKey(f.Key())
		k[0] ^= 1 // apart from the filter that never had an author
		return k
	}
	if tag, _ := firstTag(f); tag != "" {
		return atomKey(withTag(f, tag, []string{"\x00"}).Key())
	}
	return atomKey(f.Key())
}

func join(list []atom) event.Filter {
	f := list[0].filter
	if len(list) == 1 {
		return f
	}
	if len(f.IDs) > 0 {
		f.IDs = make([]event.ID, len(list))
		for i, a := range list {
			f.IDs[i] = a.filter.IDs[0]
		}
		return f
	}
	if len(f.Authors) > 0 {
		f.Authors = make([]event.PubKey, len(list))
		for i, a := range list {
			f.Authors[i] = a.filter.Authors[0]
		}
		return f
	}
	tag, _ := firstTag(f)
	values := make([]string, len(list))
	for i, a := range list {
		values[i] = a.filter.Tags[tag][0]
	}
	return withTag(f, tag, values)
}
