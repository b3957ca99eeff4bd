package sources

import "time"

// Phase says what a source is doing.
type Phase string

// The phases of a source.
const (
	Idle     Phase = "idle" // no session yet, or none now
	CatchUp  Phase = "catch-up"
	Backfill Phase = "history"
	Live     Phase = "live"
	Done     Phase = "done" // a one-shot source has asked for everything
	Paused   Phase = "paused"
)

// Completeness answers whether everything that was asked for came.
type Completeness uint8

// Yes only after an empty page or NIP-67's "finish" at the end of every walk.
const (
	Unknown Completeness = iota
	Yes
	No
)

func (c Completeness) String() string { return [...]string{"unknown", "yes", "no"}[c] }

// Gap is a stretch of created_at that could not be proven.
type Gap struct {
	Filter   string
	From, To int64 // unix seconds, inclusive
	Reason   string
}

// Status of a source.
type Status struct {
	Phase      Phase
	Complete   Completeness
	Text       string // why it is not complete, or why it is paused
	ProvenBack int64  // unix seconds: every filter is proven from here to the last catch-up; 0 with Proven: everything
	Proven     bool   // ProvenBack holds
	Walk       int    // the walk under way, from 1
	Walks      int    // planned
	Pages      int64  // asked for since start
	Asked      int64  // Oldest created_at reached by the walk under way, unix seconds
	Outside    int64  // events outside of their page's window
	Late       int64  // events after their page's EOSE
	LastEvent  time.Time
	CaughtUp   time.Time // wall-clock start of the last completed catch-up
	Gaps       []Gap
}
