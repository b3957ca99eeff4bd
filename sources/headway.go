package sources

import (
	"math"
	"sync"
	"time"
)

// Oldest is where all time begins, as far as the sources of one command know together: at the oldest event of one that gave
// everything, unless another has shown an older one. The zero value knows nothing.
type Oldest struct {
	mu   sync.Mutex
	end  int64 // unix seconds: of the sources that gave everything; 0: none did
	seen int64 // of all
}

// note takes in the oldest event of a source; 0: none came. end: it gave everything.
func (o *Oldest) note(at int64, end bool) {
	if o == nil || at <= 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seen == 0 || at < o.seen {
		o.seen = at
	}
	if end && (o.end == 0 || at < o.end) {
		o.end = at
	}
}

// known is 0 where nobody knows.
func (o *Oldest) known() int64 {
	if o == nil {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.end > o.seen {
		return 0
	}
	return o.end
}

// headway is how much of what history asks for is proven. It is kept over sessions, so that it does not begin anew with a
// connection. Its owner is the visit's run.
type headway struct {
	plan  uint64 // number of the plan that it is about
	began int64  // unix seconds; a window without an upper end is measured up to here
	asked map[atomKey]windows
	void  bool // a share was told that nobody can stand by
}

// begin notes what is asked for. fresh: it is for another plan than what was asked for before.
func (h *headway) begin(p *plan, list []atom, now int64) (fresh bool) {
	if fresh = h.asked == nil || h.plan != p.number; fresh {
		*h = headway{plan: p.number, began: now, asked: make(map[atomKey]windows, len(list))}
	}
	for _, a := range list {
		for _, w := range a.missing {
			w.hi = min(w.hi, h.began)
			h.asked[a.key] = h.asked[a.key].add(w)
		}
	}
	return fresh
}

// share is the part of the time asked for that is in proven, each atom counting alike; 0 where it is not known, because nobody
// knows how far back there is anything. Time below floor counts for nothing; 0: none is known.
func (h *headway) share(proven map[atomKey]windows, floor int64) float64 {
	whole, left := 0.0, 0.0
	for key, asked := range h.asked {
		for _, w := range asked {
			if w.lo < firstEvent { // everything is asked for
				if floor == 0 {
					return 0
				}
				w.lo = min(max(w.lo, floor), w.hi)
			}
			whole += float64(w.hi-w.lo) + 1
			for _, m := range proven[key].missing(w) {
				left += float64(m.hi-m.lo) + 1
			}
		}
	}
	if whole == 0 {
		return 0
	}
	return 1 - left/whole
}

// almost is as far as a share goes before everything is proven.
const almost = 0.99

// begins books what history is to ask for.
func (s *Source) begins(p *plan, list []atom, now int64) {
	if !s.headway.begin(p, list, now) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Share = 0
}

// progressed books how far history has come. It never goes back: what turns out to have been measured by too little is not told
// any more.
func (s *Source) progressed() {
	s.mu.Lock()
	oldest := s.st.Oldest
	s.mu.Unlock()
	s.o.Oldest.note(oldest, false)
	share := math.Min(s.headway.share(s.mine, s.o.Oldest.known()), almost)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case share == 0 && s.st.Share > 0:
		s.headway.void, s.st.Share = true, 0
	case !s.headway.void:
		s.st.Share = max(s.st.Share, share)
	}
}

// waits says until when nothing is asked; the zero time: something is.
func (s *Source) waits(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Waits = until
}

// reconciledPart notes that a window was proven by comparing it with the archive.
func (s *Source) reconciledPart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Negentropy = true
}
