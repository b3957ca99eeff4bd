package report

import (
	"encoding/json"
	"fmt"
	"time"
)

// What an operator asks about one event or one relay, and what was done. The JSON names are for programs and stay.

// Refusal is an answer to an operator that is no failure of the program: what was asked for cannot be.
type Refusal struct {
	Why  Why
	Text string
}

// Why a request is refused.
type Why uint8

// The reasons.
const (
	Malformed Why = iota // it says nothing that can be done
	Absent               // there is no such relay, sink or event
	Conflict             // not as things stand
	NotReady             // not yet, or not any more
)

func (r *Refusal) Error() string { return r.Text }

// Refuse makes a Refusal.
func Refuse(why Why, format string, args ...any) error {
	return &Refusal{why, fmt.Sprintf(format, args...)}
}

// Story is all that is known of one event.
type Story struct {
	ID       string        `json:"id"`
	Note     string        `json:"note"`
	Now      time.Time     `json:"now"`
	Dir      string        `json:"archive"`
	Archived bool          `json:"archived"`
	Indexed  bool          `json:"indexed"` // the index knows it
	Line     *Line         `json:"line,omitempty"`
	Event    *EventHead    `json:"event,omitempty"`
	Origin   *Origin       `json:"origin,omitempty"`
	Sources  []SourceStory `json:"sources"`
	Sinks    []SinkStory   `json:"sinks"`
}

// MarshalJSON writes lists that are empty as [], as Status does.
func (s Story) MarshalJSON() ([]byte, error) {
	type plain Story
	p := plain(s)
	p.Sources = append([]SourceStory{}, s.Sources...)
	p.Sinks = append([]SinkStory{}, s.Sinks...)
	return json.Marshal(p)
}

// Line is a place in the archive.
type Line struct {
	File    string `json:"file"` // of the segment's text
	Offset  int64  `json:"offset"`
	Ordinal uint64 `json:"ordinal"`
}

// EventHead is what an event is, without what it says.
type EventHead struct {
	Kind      int       `json:"kind"`
	Author    string    `json:"author"` // npub
	PubKey    string    `json:"pubkey"`
	CreatedAt time.Time `json:"created_at"`
}

// Origin is where an event came from first. Unknown origins have no time.
type Origin struct {
	Relay     string    `json:"relay,omitempty"`
	How       string    `json:"how"`
	Received  time.Time `json:"received_at,omitzero"`
	NoDeliver bool      `json:"no_deliver,omitempty"`
}

// SourceStory is what one source has to do with an event.
type SourceStory struct {
	URL   string `json:"url"`
	Name  string `json:"name,omitempty"`
	Asks  bool   `json:"asks"`  // what is asked for there takes it; known of archived events only
	First bool   `json:"first"` // it came from here
	// For an event that is not archived: what this source has refused since the start, and the samples of it.
	Invalid int64    `json:"invalid,omitempty"`
	Unasked int64    `json:"unasked,omitempty"`
	Samples []Sample `json:"samples,omitempty"`
}

// SinkStory is what became of an event at one sink.
type SinkStory struct {
	URL        string    `json:"url"`
	Name       string    `json:"name,omitempty"`
	Configured bool      `json:"configured"` // it is a sink of the config; else it was one
	Fate       string    `json:"fate"`       // delivered, rejected, parked, sent, pending, skipped, settled; none: no ledger yet
	Reason     string    `json:"reason,omitempty"`
	NIP        string    `json:"nip,omitempty"` // of the reason, where it is a row of the table
	Why        string    `json:"why,omitempty"` // that row's
	Text       string    `json:"text,omitempty"`
	At         time.Time `json:"at,omitzero"`  // refused or sent then; delivered or settled: answered before
	Due        time.Time `json:"due,omitzero"` // parked until then
	Parked     string    `json:"parked_for,omitempty"`
	Attempts   int       `json:"attempts,omitempty"`
	Ahead      uint64    `json:"ahead,omitempty"` // events before it
	Stopped    string    `json:"stopped,omitempty"`
}

// Sample is a refused event, kept for the curious.
type Sample struct {
	At     time.Time `json:"at"`
	Reason string    `json:"reason"`
	Size   int       `json:"size"`
	Raw    string    `json:"raw,omitempty"`   // its beginning
	Times  int       `json:"times,omitempty"` // of samples that stand for several: how many; At is the last one's
}

// Relay is the full picture of one relay, beside its rows in Status.
type Relay struct {
	URL       string           `json:"url"`
	Paused    time.Time        `json:"paused_by_operator_since,omitzero"`
	Sessions  int              `json:"sessions"` // since the start
	LastEnd   string           `json:"last_end,omitempty"`
	LastEndAt time.Time        `json:"last_end_at,omitzero"`
	Info      *RelayInfo       `json:"nip11,omitempty"`
	BadFrames map[string]int64 `json:"bad_frames,omitempty"`
	Notices   []Notice         `json:"notices"`            // the last ones, oldest first
	Samples   []Sample         `json:"samples"`            // the last ones, oldest first
	Compared  *Audit           `json:"compared,omitempty"` // the source, with the archive; nil: not since the start
	Lacks     *Lacks           `json:"lacks,omitempty"`    // the sink, of what is archived; nil: never compared
	Parked    []Parked         `json:"parked,omitempty"`
	Window    int              `json:"window,omitempty"` // of the sink: events that may be unanswered
	Sent      uint64           `json:"sent,omitempty"`   // to the sink since the start, again ones included
	Late      uint64           `json:"late,omitempty"`   // OKs that came after their event was parked
	Strays    uint64           `json:"strays,omitempty"` // second OKs, and OKs about nothing that was sent
	LastOK    time.Time        `json:"last_ok,omitzero"`
}

// Audit is what came of comparing a source with the archive.
type Audit struct {
	At     time.Time `json:"at"`
	Full   bool      `json:"full"`             // as far back as history is asked for
	Lacked int       `json:"lacked"`           // events that the relay listed and the archive lacked
	Came   int       `json:"came"`             // of them
	Missed int       `json:"not_given"`        // of them: the relay lists what it does not give
	Ours   int       `json:"ours"`             // events that only the archive has
	Paged  int       `json:"paged"`            // windows that were paged instead
	Text   string    `json:"reason,omitempty"` // why not everything could be compared
}

// Lacks is what came of comparing a sink with the archive.
type Lacks struct {
	At      time.Time `json:"at"`
	Full    bool      `json:"full"`              // as far back as the sink's start
	Listed  int       `json:"listed"`            // archived events that its filter takes
	Lacked  int       `json:"lacked"`            // of them the relay does not list
	Again   int       `json:"again,omitempty"`   // of those it said that it had them: offered again by this comparison
	All     bool      `json:"all,omitempty"`     // it lacks most of what it was sent: all of that is offered again
	More    bool      `json:"more,omitempty"`    // not all that is lacked was offered yet: the next comparison comes soon
	Resting int       `json:"resting,omitempty"` // lacked, and offered not long ago
	Text    string    `json:"reason,omitempty"`  // why not everything could be compared
	// What became of what it said it had and lacked, since the last comparison that found any. The rest of what is lacked is kept back,
	// refused, or still to be sent.
	Offered int64 `json:"offered"`
	Taken   int64 `json:"taken"` // as new
	Had     int64 `json:"had"`   // it says
	Refused int64 `json:"refused"`
}

// RelayInfo is what a relay says of itself (NIP-11). Limits that it does not say are missing.
type RelayInfo struct {
	Fetched  time.Time        `json:"fetched"`
	Name     string           `json:"name,omitempty"`
	Software string           `json:"software,omitempty"`
	Version  string           `json:"version,omitempty"`
	NIPs     []int            `json:"supported_nips,omitempty"`
	Limits   map[string]int64 `json:"limitation,omitempty"`
	Wants    []string         `json:"wants,omitempty"` // auth, payment, restricted writes
}

// Notice is a NOTICE of a relay.
type Notice struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// Parked counts the events that wait on their own for one reason.
type Parked struct {
	Reason string    `json:"reason"`
	Events uint64    `json:"events"`
	Next   time.Time `json:"next_due"`
}

// Rejected is one event that a sink refused for good.
type Rejected struct {
	Sink   string    `json:"sink"`
	Time   time.Time `json:"time"`
	ID     string    `json:"id"`
	Note   string    `json:"note"`
	Kind   *int      `json:"kind,omitempty"` // not known of all of them
	Reason string    `json:"reason"`         // what it is counted under
	Text   string    `json:"text"`           // the relay's words
}

// Retried is what a retry did.
type Retried struct {
	Sink    string            `json:"sink"`
	Offered map[string]uint64 `json:"offered"` // refused events that are offered again, by what they were counted under
	Kept    uint64            `json:"kept"`    // that stay refused: not of the reason
	Due     uint64            `json:"due"`     // parked events that are due now
	Note    string            `json:"note,omitempty"`
}

// Held is what a pause or a resume did.
type Held struct {
	Relay  string    `json:"relay"`
	Paused bool      `json:"paused"`
	Since  time.Time `json:"since,omitzero"` // of the operator's pause, also of one that has just ended
	Was    string    `json:"was,omitempty"`  // what it was before, where that is worth a word
}

// Forgotten is a ledger that is gone.
type Forgotten struct {
	Sink      string `json:"sink"`
	Unread    bool   `json:"unread,omitempty"` // it could not be read: the counts are not known
	Delivered int64  `json:"delivered"`
	Refused   int64  `json:"refused"`
	Pending   int64  `json:"pending"`
	Parked    int64  `json:"parked"`
}

// Compared says which sources and sinks are being compared with the archive, because somebody asked for it.
type Compared struct {
	Asked []Comparison `json:"asked"`
}

// Comparison is one source or sink of it.
type Comparison struct {
	Relay string `json:"relay"`
	Role  string `json:"role"`           // source or sink
	Note  string `json:"note,omitempty"` // what stands in its way now; it is done when that is over
}
