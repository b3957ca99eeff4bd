package sources

import (
	"maps"
	"slices"

	"rebroadcastr/event"
)

// second is one that a page may have been cut off in.
type second struct {
	at      int64
	n       int      // events on the page
	given   int      // of them in its window
	newest  int64    // of those
	got     int      // the most that came of it, or of a part, at once
	asked   int      // most that it asked for
	small   bool     // less than is usual
	mixed   bool     // the page held other seconds too: how many are of this one alone has not been asked
	more    bool     // the relay says that there is more
	only    event.ID // if n is 1
	step    step
	since   int64  // stepCheck: of events that are known to be older
	parts   []part // to be asked for, the next one last
	sure    int    // so many events come where the relay has them; 0: not known
	gap     bool   // not everything can be got
	tainted bool   // a message was left out
	doubt   bool   // only because nothing is known of how many events the relay gives
}

// part of what is asked for.
type part struct {
	filter event.Filter
	extra  bool // what is left of it is in a gap already
	whole  bool // asked for in a full page, though smaller ones are asked for now
}

// commonKinds are asked for where a second holds more events of an author than a relay gives at once and no
// kinds are asked for: filters cannot say "all other kinds".
var commonKinds = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 20, 1059, 1063, 1111, 1311, 1984, 4550, 7374, 9734, 9735, 9802, 10000, 10002, 10050,
	30000, 30001, 30003, 30008, 30009, 30017, 30018, 30023, 30024, 30078, 30311, 30315, 31922, 31923, 31989, 31990, 34235, 34550}

// look begins to look at a second.
func (w *walk) look(s *second) {
	if w.second != nil || w.step() != stepDone && !w.m.steady() {
		w.waiting = append(w.waiting, s)
		return
	}
	if s.asked > w.m.page || s.mixed { // how many to ask for was learned since, or n counts others
		w.second, s.step, s.parts = s, stepPart, []part{{filter: w.filter}}
		return
	}
	if w.m.cut == 0 && s.n == 1 && s.asked > 1 && !s.more {
		if max(w.m.largest, w.m.gave, w.m.probed) > 1 {
			w.proveSecond(s)
			return
		}
		w.second, s.step, s.doubt = s, stepProbe, true // does the relay give one event at a time?
		return
	}
	w.second = s
	s.doubt = w.m.cut == 0 && !w.m.trusted() && s.n < s.asked
	if s.doubt && s.n >= w.m.gave && !w.m.tried(s.n+1) {
		// All that ever came was of that second. Does the relay give more at once, of whatever it has?
		s.step = stepProbe
		return
	}
	w.lookOn()
}

// tookProbe learns from what a probe has brought.
func (w *walk) tookProbe(a answer) {
	if s := w.second; w.unsure.n == 0 && s.n == 1 && a.n == 1 {
		if _, same := a.ids[s.only]; !same {
			w.m.cutAt(1, 2)
		}
	}
	w.m.probe(a.n, w.asked.limit)
	w.probed()
}

// lookOn looks at a second, now that all is known that a probe can tell.
func (w *walk) lookOn() {
	s := w.second
	switch {
	case s.doubt && s.n == 1 && w.m.cut == 0 && !s.more:
		w.alone()
	case s.doubt && s.n < w.m.gave:
		w.surely(s)
	default:
		w.takeApart(s)
	}
}

// alone takes a second's one event for all there is.
func (w *walk) alone() {
	s := w.second
	w.second = nil
	w.proveSecond(s)
}

// surely asks for one event more than came: the relay gives that many at once. But what it gives may depend on what it is
// asked for.
func (w *walk) surely(s *second) {
	s.step, s.sure = stepPart, s.n+1
	s.parts = []part{{filter: w.filter}}
}

func (w *walk) takeApart(s *second) {
	s.step = stepPart
	s.parts = []part{{filter: w.filter}}
	w.divide()
}

func (w *walk) tookSecond(a answer) {
	s := w.second
	switch w.asked.step {
	case stepCheck:
		w.second = nil
		if a.n > 0 && a.oldest < s.at && !a.disordered {
			w.proveSecond(s)
			if 2*s.n >= w.m.largest { // else the older ones came only after that page, as they do while a relay is filled
				w.m.cutAt(s.n, s.asked)
			}
			return
		}
		w.m.cutAt(s.n, s.asked)
		w.look(s)
	case stepPart:
		w.fresh, s.got = a.n, max(s.got, a.size())
		s.tainted = s.tainted || w.tainted
		if a.above > 0 && a.n == 0 && !a.finish {
			w.ignores = true
		}
		enough := a.size() < s.sure && !a.more
		s.sure = 0
		if enough && a.total <= a.n || a.size()+a.total == 0 || a.finish && a.total <= a.n || !w.full(&a) {
			s.parts = s.parts[:len(s.parts)-1]
			w.nextPart()
			return
		}
		if s.mixed {
			s.mixed, s.n, s.asked, s.small, s.more = false, a.size(), w.asked.limit, w.asked.small, s.more || a.total > a.n
			w.second = nil
			w.look(s)
			return
		}
		w.divide()
	case stepLeaf: // reconciled
		s.parts = s.parts[:len(s.parts)-1]
		w.nextPart()
	}
}

// failed says that the relay did not answer what is of use but not needed, a probe or a reconciliation, or refused a part.
func (w *walk) failed() verdict {
	w.proved, w.fresh = nil, 0
	switch w.asked.step {
	case stepProbe:
		w.m.probe(0, w.asked.limit)
		w.probed()
	case stepAgain:
		w.tookAgain(answer{})
	case stepLeaf:
		w.miss()
	case stepPart: // it asks for too much
		w.divide()
	}
	return w.verdict()
}

// divide replaces the part that is next by its parts.
func (w *walk) divide() {
	s := w.second
	p := s.parts[len(s.parts)-1]
	halves := divided(p.filter)
	switch {
	case halves != nil:
		s.parts = s.parts[:len(s.parts)-1]
		for _, f := range halves {
			s.parts = append(s.parts, part{filter: f, extra: p.extra})
		}
		s.step = stepPart
	case (s.small || w.asked.small) && !p.whole: // only our own small pages may not hold it
		s.parts[len(s.parts)-1].whole = true
		s.step = stepPart
	case p.extra:
		s.parts = s.parts[:len(s.parts)-1]
		w.nextPart()
	default:
		s.step = stepLeaf
	}
}

// miss notes that the part that is next cannot be got whole, and gets what can be got of it.
func (w *walk) miss() {
	s := w.second
	p := s.parts[len(s.parts)-1]
	s.parts = s.parts[:len(s.parts)-1]
	s.gap = true
	most := s.got
	if most == 0 { // it was not asked for alone: there is nothing to split it by
		most = w.m.cut
	}
	if most == 0 {
		most = s.n
	}
	w.gaps = append(w.gaps, hole{at: s.at, filter: p.filter, most: most, unsure: s.doubt && w.m.cut == 0})
	if len(p.filter.Kinds) == 0 && len(p.filter.IDs) == 0 {
		f := p.filter
		f.Kinds = commonKinds
		s.parts = append(s.parts, part{filter: f, extra: true})
	}
	w.nextPart()
}

// nextPart goes on with the next part, or ends the second.
func (w *walk) nextPart() {
	s := w.second
	s.step = stepPart
	if len(s.parts) > 0 {
		return
	}
	w.second = nil
	if !s.gap {
		w.proveSecond(s)
	}
}

// divided is a filter's two halves: by kind, else author, else a tag's value; nil if it cannot be split.
func divided(f event.Filter) []event.Filter {
	a, b := f, f
	switch {
	case len(f.IDs) > 0:
		return nil
	case len(f.Kinds) > 1:
		a.Kinds, b.Kinds = halves(f.Kinds)
		return []event.Filter{a, b}
	case len(f.Authors) > 1:
		a.Authors, b.Authors = halves(f.Authors)
		return []event.Filter{a, b}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Tags)) {
		if len(f.Tags[name]) > 1 {
			first, rest := halves(f.Tags[name])
			return []event.Filter{withTag(f, name, first), withTag(f, name, rest)}
		}
	}
	return nil
}

func halves[T any](list []T) (a, b []T) {
	n := len(list) / 2
	return list[:n:n], list[n:]
}
