package sources

import (
	"math"
	"sync/atomic"
	"time"
)

// Oldest is the created_at of the oldest event that a source which gave everything has given: where all time begins for those
// that are still asked. The sources of one command share it. The zero value knows of none.
type Oldest struct{ at atomic.Int64 }

// note takes in what one source came to; 0: it does not know.
func (o *Oldest) note(at int64) {
	for at > 0 {
		was := o.at.Load()
		if was != 0 && was <= at || o.at.CompareAndSwap(was, at) {
			return
		}
	}
}

// headway is how much of what history asks for is proven. It is kept over sessions, so that it does not begin anew with a
// connection. Its owner is the visit's run.
type headway struct {
	plan  uint64 // number of the plan that it is about
	began int64  // unix seconds; a window without an upper end is measured up to here
	asked map[atomKey]windows
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

// progressed books how far history has come. It never goes back: another source may show later that there is more.
func (s *Source) progressed() {
	floor := int64(0)
	if s.o.Oldest != nil {
		floor = s.o.Oldest.at.Load()
	}
	if floor != 0 {
		floor = max(floor, firstEvent)
	}
	share := math.Min(s.headway.share(s.mine, floor), almost)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Share = max(s.st.Share, share)
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
