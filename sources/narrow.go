package sources

import (
	"slices"
	"strings"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

// Some relays refuse filters that ask for too much: too many authors, or more than so many kinds. What is refused is asked for in
// parts, and what is learned holds for all that the relay is asked for later.

// joint is a window of a filter that is asked for in parts, by kind: proven is what all of them have proven.
type joint struct {
	over   *joint // of which it is a part itself
	part   int    // of over
	parts  int
	proven map[atomKey][]windows // by part
	asked  map[atomKey][]windows // to the end, whatever that proved
}

// common adds what a part has proven, or asked for, of an atom, and returns what of it all parts have.
func (t *task) common(a atomKey, ws windows, asked bool) windows {
	for j, part := t.joint, t.part; j != nil && len(ws) > 0; j, part = j.over, j.part {
		of := j.proven
		if asked {
			of = j.asked
		}
		if of[a] == nil {
			of[a] = make([]windows, j.parts)
		}
		for _, w := range ws {
			of[a][part] = of[a][part].add(w)
		}
		for i, other := range of[a] {
			if i != part {
				ws = ws.within(other)
			}
		}
	}
	return ws
}

// each gives what is proven, or asked for, of t's atoms with that of the other parts.
func (t *task) each(ws windows, asked bool, give func(group, windows)) {
	if t.joint == nil {
		give(t.group, ws)
		return
	}
	for _, a := range t.group.atoms {
		if common := t.common(a.key, ws, asked); len(common) > 0 {
			give(group{atoms: []atom{a}, filter: a.filter}, common)
		}
	}
}

// tooWide says that a page ended because its filter asks for too much.
func tooWide(e pageEnd) bool {
	return e.closed && relay.ClassifyClosed(e.reason).Verdict == relay.Narrow
}

// within is what of ws is in other too.
func (ws windows) within(other windows) (out windows) {
	for _, w := range ws {
		for _, o := range other {
			out = out.add(window{max(w.lo, o.lo), min(w.hi, o.hi)}) // which leaves out what is none
		}
	}
	return out
}

// narrow halves what is asked for at once of a relay that refused g in these words; false if that cannot be made smaller.
func (s *Source) narrow(g group, words string) bool {
	kinds, n := len(g.filter.Kinds), len(g.atoms)
	switch {
	case kinds > 1 && (n < 2 || strings.Contains(strings.ToLower(words), "kind")):
		lower(&s.kinds, kinds)
	default:
		return s.narrower(n)
	}
	return true
}

// byKinds are the parts of a filter that a relay takes, as far as is known.
func (s *Source) byKinds(f event.Filter) (parts []event.Filter) {
	most := int(s.kinds.Load())
	if most == 0 || len(f.Kinds) <= most {
		return []event.Filter{f}
	}
	for kinds := range slices.Chunk(f.Kinds, most) {
		f.Kinds = kinds
		parts = append(parts, f)
	}
	return parts
}

// fit splits a task into what the relay takes.
func (c *crew) fit(t *task) (list []*task) {
	for atoms := range slices.Chunk(t.group.atoms, c.v.most()) {
		f := t.group.filter
		if len(atoms) < len(t.group.atoms) {
			kinds := f.Kinds // of the part that t is
			f = join(atoms)
			f.Kinds = kinds
		}
		parts := c.v.s.byKinds(f)
		if len(parts) == 1 {
			list = append(list, &task{group: group{atoms: atoms, filter: f}, window: t.window, joint: t.joint, part: t.part})
			continue
		}
		j := &joint{over: t.joint, part: t.part, parts: len(parts), proven: make(map[atomKey][]windows), asked: make(map[atomKey][]windows)}
		for i, f := range parts {
			list = append(list, &task{group: group{atoms: atoms, filter: f}, window: t.window, joint: j, part: i})
		}
	}
	c.v.s.moreWalks(len(list) - 1)
	return list
}
