// Package report says what a run has done and how it stands, as plain values: the summary of a one-shot command, the
// answer of status, the source of the metrics. Text in report is for people, the JSON names are for programs and stay.
package report

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Status is how a running daemon stands, or what a one-shot command has done.
type Status struct {
	State     string    `json:"state"`            // starting, running, stopping, stopped
	Reason    string    `json:"reason,omitempty"` // why it is not plainly running, in one line
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	Since     time.Time `json:"since"`
	Now       time.Time `json:"now"`
	ConfigOf  time.Time `json:"config_of,omitzero"` // when the config in force was loaded
	Asked     string    `json:"asked,omitempty"`
	Archive   Archive   `json:"archive"`
	Sources   []Source  `json:"sources"`
	Sinks     []Sink    `json:"sinks"`
	Problems  []string  `json:"problems"`
	Interrupt bool      `json:"interrupted,omitempty"`
	Relay     *Relay    `json:"relay,omitempty"` // where one relay was asked about: what is behind its rows
}

// MarshalJSON writes lists that are empty as [], never as null: jq cannot iterate over that.
func (s Status) MarshalJSON() ([]byte, error) {
	type plain Status
	p := plain(s)
	p.Sources = append([]Source{}, s.Sources...)
	p.Sinks = append([]Sink{}, s.Sinks...)
	p.Problems = append([]string{}, s.Problems...)
	return json.Marshal(p)
}

// Only is what s says of one relay.
func (s Status) Only(url string) Status {
	s.Sources = slices.DeleteFunc(slices.Clone(s.Sources), func(r Source) bool { return r.URL != url })
	s.Sinks = slices.DeleteFunc(slices.Clone(s.Sinks), func(k Sink) bool { return k.URL != url })
	s.Problems = slices.DeleteFunc(slices.Clone(s.Problems), func(p string) bool {
		return !strings.HasPrefix(p, "source "+url+": ") && !strings.HasPrefix(p, "sink "+url+": ")
	})
	return s
}

// Archive is the state of the archive on disk.
type Archive struct {
	Dir      string `json:"dir"`
	Lines    uint64 `json:"lines"`             // that hold an event
	Added    uint64 `json:"added"`             // by this process
	Issued   uint64 `json:"issued"`            // ordinals, also those that no event has: what sinks' figures add up to
	Bytes    int64  `json:"bytes"`             // on disk
	Segments int    `json:"segments"`          //
	Free     int64  `json:"free"`              // of its filesystem, bytes
	Waiting  string `json:"waiting,omitempty"` // why appending waits
	Unsynced int    `json:"unsynced"`          // events written and not yet fsynced
}

// ImportName is the URL of the row that is no relay.
const ImportName = "import"

// States of the whole.
const (
	Starting = "starting"
	Running  = "running"
	Stopping = "stopping"
	Stopped  = "stopped"
)

// States of a relay's link.
const (
	Connecting = "connecting"
	Connected  = "connected"
	Waiting    = "waiting" // for the next try
	Paused     = "paused"  // nothing to be done without an operator; probed rarely
	Ended      = "ended"
)

// Complete says whether all that a source stores for the filters was fetched.
type Complete string

// Yes needs proof: an empty page or NIP-67's "finish".
const (
	Yes     Complete = "yes"
	No      Complete = "no"
	Unclear Complete = "unknown"
)

// Source is one source relay, or one import.
//
// Received = Copies + Invalid + Unasked + New + InFlight.
type Source struct {
	URL          string           `json:"url"`
	Name         string           `json:"name,omitempty"`
	State        string           `json:"state"`
	Since        time.Time        `json:"since,omitzero"`
	Tries        int              `json:"tries"`
	Next         time.Time        `json:"next_try,omitzero"`
	Received     int64            `json:"received"`
	New          int64            `json:"new"`
	Copies       int64            `json:"copies"`
	Invalid      int64            `json:"invalid"`
	Unasked      int64            `json:"unasked"`
	InFlight     int64            `json:"in_flight"`
	InvalidBy    map[string]int64 `json:"invalid_by,omitempty"`
	UnaskedBy    map[string]int64 `json:"unasked_by,omitempty"`
	BadFrames    map[string]int64 `json:"bad_frames,omitempty"` // messages that were no EVENT and no other known one
	Complete     Complete         `json:"complete"`
	CompleteNote string           `json:"complete_note,omitempty"`
	ProvenBack   time.Time        `json:"proven_back_to,omitzero"`
	LastEvent    time.Time        `json:"last_event,omitzero"`
	Phase        string           `json:"phase,omitempty"`        // of a relay: idle, catch-up, history, live, reconciling, done, paused
	Share        float64          `json:"proven_share,omitempty"` // of the time that history asks for, proven; 0: not known
	Oldest       time.Time        `json:"oldest_event,omitzero"`  // that came by history since the start
	Negentropy   bool             `json:"negentropy,omitempty"`   // some of history was proven by comparing it with the archive
	Waits        time.Time        `json:"waits_until,omitzero"`   // connected, and nothing is asked before
	Pace         string           `json:"pace,omitempty"`         // while it is slower than what was set
	Slowed       int              `json:"told_slower,omitempty"`  // how often the pace was halved
	Gaps         []Gap            `json:"gaps,omitempty"`
	MoreGaps     int              `json:"more_gaps,omitempty"` // that are not listed
	Note         string           `json:"note,omitempty"`
}

// Gap is a stretch of created_at that was asked for and could not be got whole.
type Gap struct {
	Filter string `json:"filter"`
	Asked  string `json:"asked,omitempty"` // the filter in words
	From   int64  `json:"from"`            // unix seconds, inclusive
	To     int64  `json:"to"`              // above 1<<62: no end
	Reason string `json:"reason"`
	Found  int64  `json:"found,omitempty"` // unix seconds
}

// Imbalance is what Received misses or has too much: zero once nothing is on its way.
func (s Source) Imbalance() int64 {
	return s.Received - s.Copies - s.Invalid - s.Unasked - s.New - s.InFlight
}

// Sink is one sink relay.
//
// Delivered + Superseded + Rejected + Skipped + Pending + Parked = Issued − Start. The figures are those of the ledger,
// over its whole life; Run holds what this process added.
type Sink struct {
	URL        string           `json:"url"`
	Name       string           `json:"name,omitempty"`
	State      string           `json:"state"`
	Since      time.Time        `json:"since,omitzero"`
	Tries      int              `json:"tries"`
	Next       time.Time        `json:"next_try,omitzero"`
	Delivered  int64            `json:"delivered"`  // OK true, or duplicate:
	Duplicate  int64            `json:"duplicate"`  // of them: the sink had it
	Superseded int64            `json:"superseded"` // the sink has a newer version
	Rejected   int64            `json:"rejected"`
	RejectedBy map[string]int64 `json:"rejected_by,omitempty"`
	// RejectedText is what the relay has said last, since the start, by the keys of RejectedBy.
	RejectedText map[string]string `json:"rejected_text,omitempty"`
	Skipped      int64             `json:"skipped"`
	SkippedBy    map[string]int64  `json:"skipped_by,omitempty"` // filter, echo, damaged, kept back by row of the table, …
	Pending      int64             `json:"pending"`
	Parked       int64             `json:"parked"`
	// Recheck is how many archived events a second pass has still to look through for what a changed filter takes now. Until
	// then they count as what they were.
	Recheck int64 `json:"recheck,omitempty"`
	// Again is how many archived events have still to be looked through for what the relay took once and has lost. Until then they
	// count as what they were.
	Again  int64  `json:"again,omitempty"`
	Issued uint64 `json:"issued"` // ordinals issued by the archive
	Start  uint64 `json:"start"`  // the ordinal this ledger began at
	Pace   string `json:"pace,omitempty"`
	Note   string `json:"note,omitempty"`
	Run    *Sink  `json:"run,omitempty"`
}

// Imbalance is zero when the ledger accounts for every line.
func (s Sink) Imbalance() int64 {
	return s.Delivered + s.Superseded + s.Rejected + s.Skipped + s.Pending + s.Parked - int64(s.Issued-s.Start)
}

// Minus is what s has more than before: the share of one run. Pending and Parked are as they stand.
func (s Sink) Minus(before Sink) Sink {
	d := s
	d.Run = nil
	d.Delivered -= before.Delivered
	d.Duplicate -= before.Duplicate
	d.Superseded -= before.Superseded
	d.Rejected -= before.Rejected
	d.Skipped -= before.Skipped
	d.Start = before.Start + uint64(before.Delivered+before.Superseded+before.Rejected+before.Skipped)
	d.RejectedBy = minus(s.RejectedBy, before.RejectedBy)
	d.SkippedBy = minus(s.SkippedBy, before.SkippedBy)
	return d
}

func minus(a, b map[string]int64) map[string]int64 {
	if len(a) == 0 {
		return nil
	}
	d := make(map[string]int64, len(a))
	for k, v := range a {
		if v -= b[k]; v != 0 {
			d[k] = v
		}
	}
	return d
}

// Incomplete lists the sources whose history is not proven complete and the sinks that still miss events.
func (s Status) Incomplete() (sources, sinks []string) {
	for _, src := range s.Sources {
		if src.Complete == No {
			sources = append(sources, src.URL)
		}
	}
	for _, k := range s.Sinks {
		if k.Pending > 0 || k.Recheck > 0 || k.Again > 0 {
			sinks = append(sinks, k.URL)
		}
	}
	return sources, sinks
}

// Unbalanced describes every equation that does not hold. Tests assert that there is none after a run.
func (s Status) Unbalanced() []string {
	var bad []string
	for _, src := range s.Sources {
		if n := src.Imbalance(); n != 0 {
			bad = append(bad, fmt.Sprintf("source %s: received %d is off by %d", src.URL, src.Received, n))
		}
	}
	for _, k := range s.Sinks {
		if n := k.Imbalance(); n != 0 {
			bad = append(bad, fmt.Sprintf("sink %s: the ledger is off by %d", k.URL, n))
		}
	}
	return bad
}

// Merge adds up the rows of one kind of source, as one.
func Merge(url string, rows []Source) Source {
	m := Source{URL: url, State: Ended, Complete: Yes, InvalidBy: make(map[string]int64), UnaskedBy: make(map[string]int64)}
	for _, r := range rows {
		m.Received += r.Received
		m.New += r.New
		m.Copies += r.Copies
		m.Invalid += r.Invalid
		m.Unasked += r.Unasked
		m.InFlight += r.InFlight
		for reason, n := range r.InvalidBy {
			m.InvalidBy[reason] += n
		}
		for reason, n := range r.UnaskedBy {
			m.UnaskedBy[reason] += n
		}
	}
	return m
}
