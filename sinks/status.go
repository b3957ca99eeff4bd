package sinks

import "time"

// SessionCounts are what this process saw; they are not kept.
type SessionCounts struct {
	Sessions uint64 `json:"sessions"`
	Sent     uint64 `json:"sent"`     // events put on the wire, again ones included
	Controls uint64 `json:"controls"` // answers to events sent only to learn whether the relay answers
	Late     uint64 `json:"late"`     // OKs that came after their event was parked
	Strays   uint64 `json:"strays"`   // second OKs, and OKs about nothing that was sent
	Slower   uint64 `json:"slower"`   // answers that asked for a slower pace
}

// Status is how a sink stands.
type Status struct {
	URL      string    `json:"url"`
	Counters Counters  `json:"counters"`
	Pending  uint64    `json:"pending"`   // archived and not settled or parked: open, or not met yet
	Open     int       `json:"open"`      // of these, the ones below the frontier
	InFlight int       `json:"in_flight"` // of these, sent and unanswered
	Cursor   uint64    `json:"cursor"`    // ordinal; everything below it is settled or parked
	Frontier uint64    `json:"frontier"`
	Issued   uint64    `json:"issued"`            // the archive's next ordinal
	At       string    `json:"at"`                // the cursor's place
	Recheck  uint64    `json:"recheck,omitempty"` // of the skipped ordinals' range, what a second pass has still to look at
	Of       uint64    `json:"of,omitempty"`      // the whole range
	Window   int       `json:"window"`            // events that may be in flight now
	Pace     float64   `json:"pace"`              // events a second; 0: no limit
	Paused   string    `json:"paused,omitempty"`
	Since    time.Time `json:"paused_since,omitzero"`
	LastOK   time.Time `json:"last_ok,omitzero"`
	Failing  string    `json:"failing,omitempty"` // why the ledger is not committed
	// Texts are what the relay has said last when it refused, since the start, by the prefix of Counters.Rejected.
	Texts   map[string]string `json:"texts,omitempty"`
	Session SessionCounts     `json:"session"`

	Again     uint64    `json:"again,omitempty"`    // of the ordinals, what is still to be offered anew because the relay lost most
	AgainOf   uint64    `json:"again_of,omitempty"` // all of them
	Compared  Compared  `json:"compared,omitzero"`  // with the archive, the last time
	Lack      LackCount `json:"lack,omitzero"`      // what became of what it lacked
	TakenBack TakenBack `json:"taken_back,omitzero"`
}

// Balance puts the status into the equation that must hold at all times.
func (st Status) Balance() Balance {
	c := st.Counters
	return Balance{
		Delivered: c.Delivered + c.Duplicate, Superseded: c.Superseded, Rejected: c.RejectedTotal(), Skipped: c.SkippedTotal(),
		Pending: st.Pending, Parked: c.Parked, Issued: st.Issued, Before: c.Before,
	}
}

// Status is consistent with itself, whatever runs meanwhile.
func (s *Sink) Status() Status {
	s.mu.Lock()
	st := Status{
		URL: s.o.URL, InFlight: s.inFlight, Window: s.window.now, Pace: s.pace.rate, Paused: s.paused, Since: s.since, LastOK: s.lastOK,
		Failing: s.failing, Session: s.counts,
	}
	s.mu.Unlock()
	st.Texts = s.ledger.Texts()
	p, _ := s.ledger.Passing()
	var cursor, frontier mark
	st.Counters, cursor, frontier, st.Open = s.ledger.Account()
	// Asked after the ledger: it has met nothing that the archive had not issued.
	_, st.Issued = s.o.End()
	st.Issued = max(st.Issued, frontier.Ordinal) // a power cut can take the end of the archive, not of the numbering
	st.Pending = st.Issued - frontier.Ordinal + uint64(st.Open)
	if p != (pass{}) {
		st.Recheck, st.Of = p.To-p.Next, p.To-st.Counters.Before
	}
	if p, _ := s.ledger.Again(); p != (again{}) {
		st.Again, st.AgainOf = p.To-p.Next.Ordinal, p.To-st.Counters.Before
	}
	st.Compared = s.comparer.now().Result
	st.Lack, _, st.TakenBack = s.ledger.Lack()
	st.Cursor, st.Frontier, st.At = cursor.Ordinal, frontier.Ordinal, cursor.Place.String()
	return st
}

// Rejected calls fn with what the sink refused for good, oldest first, until fn returns false. What was refused in the last
// moment may be missing.
func (s *Sink) Rejected(fn func(Rejected) bool) error { return s.ledger.rejectedRows(fn) }
