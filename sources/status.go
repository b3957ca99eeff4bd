package sources

import (
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
)

// Phase says what a source is doing.
type Phase string

// The phases of a source.
const (
	Idle        Phase = "idle" // no session
	CatchUp     Phase = "catch-up"
	Backfill    Phase = "history"
	Live        Phase = "live"
	Reconciling Phase = "reconciling"
	Done        Phase = "done" // a one-shot source has asked for everything
	Paused      Phase = "paused"
)

// Completeness answers whether everything that was asked for came.
type Completeness uint8

// Yes only after an empty page or NIP-67's "finish" at the end of every walk, and no gap.
const (
	Unknown Completeness = iota
	Yes
	No
)

func (c Completeness) String() string { return [...]string{"unknown", "yes", "no"}[c] }

// Gap is a stretch of created_at that was asked for and could not be proven.
type Gap struct {
	Filter   string
	Words    string // of the filter; "" of old rows
	From, To int64  // unix seconds, inclusive; To above 1<<62: no end
	Reason   string
	Found    int64 // unix seconds
}

// maxGaps that are kept; more are only counted.
const maxGaps = maxKept

// Status of a source.
type Status struct {
	Phase      Phase
	Complete   Completeness // of history, as far as this process has asked
	Text       string       // why it is not Yes
	Note       string       // what the relay said last that was not what we wanted; "" once it is over
	ProvenBack int64        // unix seconds: everything asked for is proven back to here from the last catch-up
	Proven     bool         // ProvenBack holds
	Walk       int          // walks done
	Walks      int          // walks planned
	Pages      int64        // complete or not, since start
	Events     int64        // inside their page's window, repetitions included
	Reached    int64        // unix seconds: the oldest event of the last page
	Oldest     int64        // unix seconds: the oldest event of any page, since start; 0: none came
	Share      float64      // of the time that history asks for, proven; below 1 until all is, and 0 where nobody knows how far back there is anything
	Waits      time.Time    // nothing is asked before; zero: something is
	Negentropy bool         // some of history was proven by comparing it with the archive
	Outside    int64        // events outside of their page's window
	LastEvent  time.Time
	CaughtUp   time.Time // wall-clock start of the last completed catch-up
	Audit      Audit     // the last comparison with the archive; its At is zero if there was none
	Gaps       []Gap     // seconds that are known to hold more first, then what this process could not get
	MoreGaps   int       // beyond 1,000 of each
}

// Status tells how the source stands.
func (s *Source) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.st
	kept, more := s.keptLocked()
	st.Gaps, st.MoreGaps = append(kept, s.st.Gaps...), s.st.MoreGaps+more
	if ns := s.lastEvent.Load(); ns != 0 {
		st.LastEvent = time.Unix(0, ns)
	}
	return st
}

func (s *Source) phase(p Phase) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Phase = p
	if p == Live {
		s.st.Note = ""
	}
}

func (s *Source) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Note = text
}

func (s *Source) caughtUp(at int64) {
	if at == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.CaughtUp = time.Unix(at, 0)
}

// plan begins a new account of history.
func (s *Source) plan(walks int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Walk, s.st.Walks, s.st.Gaps, s.st.MoreGaps = 0, walks, nil, 0
	s.st.Complete, s.st.Text = Unknown, "not asked to the end yet"
	s.worst = Yes
	if walks == 0 {
		s.st.Complete, s.st.Text, s.st.Share = Yes, "", 1
	}
}

// moreWalks books what was split off.
func (s *Source) moreWalks(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Walks += n
}

// conclude books a walk's end. The worst of all walks is the whole's; Yes only after the last one.
func (s *Source) conclude(out outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Walk++
	if rank(out.complete) > rank(s.worst) {
		s.worst, s.st.Complete, s.st.Text = out.complete, out.complete, out.reason
	}
	if s.st.Walk < s.st.Walks {
		return
	}
	if s.worst == Yes {
		s.st.Complete, s.st.Text, s.st.Share = Yes, "", 1
		s.o.Oldest.note(s.st.Oldest, true)
	}
	t := &s.o.Door.Tally
	because(s.o.Log.Info(), s.st.Text).Str("source", s.o.URL).Stringer("complete", s.st.Complete).Int64("received", t.Received.Load()).
		Int64("new", t.New.Load()).Int64("copies", t.Copies.Load()).Msg("asked for everything that is not proven")
}

// because adds the reason, if there is one.
func because(e *zerolog.Event, reason string) *zerolog.Event {
	if reason == "" {
		return e
	}
	return e.Str("reason", reason)
}

func rank(c Completeness) int { return map[Completeness]int{Yes: 0, Unknown: 1, No: 2}[c] }

func (s *Source) gap(f event.Filter, w window, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.st.Gaps) >= maxGaps {
		s.st.MoreGaps++
		return
	}
	f.Since, f.Until = 0, 0
	s.st.Gaps = append(s.st.Gaps, Gap{clipped(f.String()), Words(f), w.lo, w.hi, reason, s.o.Now().Unix()})
}

// paged counts a page.
func (s *Source) paged(a answer, outside int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Pages++
	s.st.Events += int64(a.n)
	s.st.Outside += int64(outside)
	if a.n > 0 {
		s.st.Reached = a.oldest
		if s.st.Oldest == 0 || a.oldest < s.st.Oldest {
			s.st.Oldest = a.oldest
		}
	}
}

// proven works out how far back every atom is proven from its newest window.
func (s *Source) proven(atoms []atom, view map[atomKey]windows) {
	back, all := int64(0), len(atoms) > 0
	for _, a := range atoms {
		ws := view[a.key]
		if len(ws) == 0 {
			all = false
			break
		}
		back = max(back, ws[len(ws)-1].lo)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.ProvenBack, s.st.Proven = back, all
}
