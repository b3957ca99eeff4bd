package reconcile

import "errors"

// ErrDense: one second holds more than a window may.
var ErrDense = errors.New("too many events in one second to reconcile")

// Counter is what Spans asks of a Set.
type Counter interface {
	// Count gives the number of items from lo to hi, both inclusive; some may be counted twice.
	Count(lo, hi int64) (int, error)
}

// ErrNoRoom: the disk has no room for the ids of the archive. What can be done without them should be.
var ErrNoRoom = errors.New("no room on the disk to list what is archived")

// IDs is a Set, or what stands for one.
type IDs interface {
	Counter
	// List gives the items from lo to hi, both inclusive, in order and each once; ErrTooMany if they are too many.
	List(lo, hi int64) ([]Item, error)
}

// Spans cuts a stretch of time into windows, newest first: so that ours fits by counting, and the peer's by trying. It does
// no I/O but through Counter.
type Spans struct {
	ours   Counter
	lo, hi int64 // what is left
	now    int64 // where a window without an end is cut
	length int64 // seconds of the next window; 0: all that is left
	target int64 // ids that a window should hold

	from int64 // of the window that is being tried
}

// target is how many ids of both sides a window should hold once their density is known: room for twice as many.
const target = MostItems / 2

// NewSpans takes the seconds from lo to hi, OpenEnd included; now is the present.
func NewSpans(ours Counter, lo, hi, now int64) *Spans {
	return &Spans{ours: ours, lo: max(lo, 0), hi: hi, now: now, target: target}
}

// Next gives the newest window that is left; ok is false when there is none. It is given again until Done or Smaller is
// called.
func (s *Spans) Next() (lo, hi int64, ok bool, err error) {
	if s.lo > s.hi {
		return 0, 0, false, nil
	}
	s.from = s.lo
	if s.length > 0 {
		s.from = max(s.lo, s.end()-s.length+1)
	}
	n, err := s.ours.Count(s.from, s.hi)
	if err != nil {
		return 0, 0, false, err
	}
	if n > MostItems {
		// The longest stretch back from hi that fits.
		fits, not := s.end()+1, s.from
		for not+1 < fits {
			mid := not + (fits-not)/2
			n, err := s.ours.Count(mid, s.hi)
			if err != nil {
				return 0, 0, false, err
			}
			if n > MostItems {
				not = mid
			} else {
				fits = mid
			}
		}
		if fits > s.end() {
			fits = s.end() // this second alone: who lists it finds that it does not fit
		}
		s.from = fits
	}
	return s.from, s.hi, true, nil
}

// end is where the window's length is counted from.
func (s *Spans) end() int64 { return max(s.lo, min(s.hi, s.now)) }

// Done says that the window is reconciled; ids is how many distinct ones both sides have in it.
func (s *Spans) Done(ids int) {
	length := s.end() - s.from + 1
	if s.length > 0 || s.from > s.lo {
		s.length = max(1, min(4*length, length*s.target/int64(max(ids, 1))))
	}
	s.hi = s.from - 1
}

// Smaller halves the window: the peer refused it, or named too many ids. False: it is one second already.
func (s *Spans) Smaller() bool {
	length := s.end() - s.from + 1
	if length <= 1 {
		return false
	}
	s.length = length / 2
	return true
}

// Fewer says that the peer can be told about fewer than ids in one window.
func (s *Spans) Fewer(ids int) { s.target = min(s.target, int64(max(ids/2, 1))) }

// Skip leaves the window out: it could not be reconciled.
func (s *Spans) Skip() { s.hi = s.from - 1 }
