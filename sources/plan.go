package sources

import (
	"slices"
	"strings"

	"rebroadcastr/event"
	"rebroadcastr/state"
)

// Wish is what a source asks its relay for, and what its door lets in of the answers.
type Wish struct {
	Filters []event.Filter // OR-ed; each request carries one
	History History
	Want    *event.Matcher // the door's; nil: everything
	// Narrow names each thing that Want refuses although Filters ask for it, such as an except. A window is proven for
	// what was let in; once a name is missing, what it kept out is asked for from the beginning.
	Narrow []string
}

// plan is a wish taken apart. It does not change.
type plan struct {
	number  uint64 // counts up
	atoms   []atom
	history History
	narrow  []string // sorted
	// joined is the number of the plan since which an atom is let in as a whole and without a break.
	joined map[atomKey]uint64
}

func newPlan(w Wish, old *plan) *plan {
	p := &plan{number: 1, atoms: atoms(w.Filters), history: w.History, narrow: slices.Clone(w.Narrow), joined: make(map[atomKey]uint64)}
	slices.Sort(p.narrow)
	p.narrow = slices.Compact(p.narrow)
	if old != nil {
		p.number = old.number + 1
	}
	for _, a := range p.atoms {
		p.joined[a.key] = p.number
	}
	if old == nil || !slices.Equal(p.narrow, old.narrow) {
		return p
	}
	before, after := spans(old.atoms), spans(p.atoms)
	for key, span := range after {
		if slices.Equal(span, before[key]) {
			p.joined[key] = old.joined[key]
		}
	}
	return p
}

// spans are the stretches of created_at in which each atom is let in.
func spans(list []atom) map[atomKey][]window {
	out := make(map[atomKey][]window, len(list))
	for _, a := range list {
		out[a.key] = append(out[a.key], window{a.filter.Since, a.filter.Until})
	}
	for _, ws := range out {
		slices.SortFunc(ws, func(a, b window) int {
			if a.lo < b.lo || a.lo == b.lo && a.hi < b.hi {
				return -1
			}
			return 1
		})
	}
	return out
}

// same says whether p asks for what other asks for.
func (p *plan) same(other *plan) bool {
	if len(p.joined) != len(other.joined) || p.history != other.history {
		return false
	}
	for key, since := range p.joined {
		if since != other.joined[key] {
			return false
		}
	}
	return true
}

// Ask changes what is asked for and let in, at any time: the websocket stays, and so do the counts. A live subscription
// that changes is opened under a new id before the old one is closed; history goes on with what the new wish lacks.
func (s *Source) Ask(w Wish) {
	s.asking.Lock()
	defer s.asking.Unlock()
	old := s.asked.Load()
	p := newPlan(w, old)
	if p.same(old) {
		s.o.Door.SetWant(w.Want)
		return
	}
	// In this order. What the door refuses from here on must not be taken as proven by a page that is under way, and
	// nothing is asked for before the door lets it in.
	s.joined.Store(&p.joined)
	s.o.Door.SetWant(w.Want)
	s.asked.Store(p)
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// lets says whether an atom was let in all the time since the plan with that number.
func (s *Source) lets(a atom, number uint64) bool {
	since, is := (*s.joined.Load())[a.key]
	return is && since <= number
}

// replanned says that this visit works on an old plan.
func (v *visit) replanned() bool { return v.s.asked.Load() != v.plan }

var keyNarrow = []byte("narrow") // the names of plan.narrow, each with a NUL behind it

// names are plan.narrow as they are kept.
func (p *plan) names() string {
	var b strings.Builder
	for _, name := range p.narrow {
		b.WriteString(name + "\x00")
	}
	return b.String()
}

// narrowed notes what the door keeps out, and forgets what is proven if it kept out something else before.
func (s *Source) narrowed(tx *state.Tx, p *plan) error {
	b := tx.Bucket(s.path()...)
	if p.wider(b.Get(keyNarrow)) {
		for _, name := range []string{"windows", "unfetchable"} { // the latter holds what was refused
			tx.Bucket(s.path(name)...) // made if it is not there
			if err := b.DeleteBucket([]byte(name)); err != nil {
				return err
			}
		}
	}
	return b.Put(keyNarrow, []byte(p.names()))
}

// wider says whether something that was kept out, by these names, is let in now.
func (p *plan) wider(names []byte) bool {
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if name != "" && !slices.Contains(p.narrow, name) {
			return true
		}
	}
	return false
}
