package relaytest

import (
	"time"

	"github.com/nbd-wtf/go-nostr"
)

// Script says how a Relay behaves. Its zero value is a good relay.
type Script struct {
	// What it has.
	Events   []string      // stored events, JSON; served newest first, equal times in the order given
	Info     string        // its NIP-11 document; "": it has none (404)
	HoldInfo chan struct{} // hold the NIP-11 document back until this is closed

	// How it lets in.
	Status     int           // refuse the upgrade with this HTTP status
	RetryAfter string        // Retry-After header beside Status
	Handshake  chan struct{} // hold the upgrade back until this is closed
	TLS        bool          // serve wss://; fixed at New
	Compress   bool          // accept permessage-deflate
	NoAccept   bool          // take the TCP connection and the request, answer nothing

	// How it answers a REQ.
	Cap          int                                             // most events of one answer; 0: none
	First        []string                                        // frames' events sent before the stored ones on every REQ, whatever it asks: forged copies
	Between      []string                                        // raw frames sent before every event: garbage
	NoEOSE       bool                                            // never say EOSE
	Hint         string                                          // third element of EOSE (NIP-67)
	CloseAfter   int                                             // drop the connection after so many events sent on it
	StallAfter   int                                             // say nothing more after so many events sent on a connection
	Closed       func(sub string, filters []nostr.Filter) string // not "": CLOSED with that text instead of an answer
	ClosedAfter  string                                          // not "": CLOSED with that text after EOSE
	RefuseLimit0 string                                          // not "": CLOSED with that text for limit:0
	AuthRequired bool                                            // AUTH on connect, CLOSED and OK false with auth-required:
	UntilIgnored bool                                            // serve without regard to until
	Paging       Paging                                          // which of the stored events an answer has
	Answer       func(q Query, frames []string) []string         // what is sent instead of these frames: the events, EOSE. Cut ends the connection

	Count      bool // answer COUNT (NIP-45), counting what Paging.Withheld keeps back too
	Negentropy bool // reconcile (NIP-77)
	NegMost    int  // the newest ids of a filter, no more, without a word; 0: all

	// How it answers an EVENT.
	OK           func(e nostr.Event) Answer // nil: accept. Called with no lock held, from each connection's goroutine
	DropBeforeOK int                        // drop the connection at the so many-th EVENT of a connection, before its OK
	Forget       bool                       // accept without storing or passing on

	// How it behaves as a peer.
	Hello       []string      // raw frames sent on connect (NOTICE, garbage, …)
	IgnorePings bool          // never answer a ping
	PingEvery   time.Duration // ping so often, and drop who has not answered within three times that; 0: never
	Silent      bool          // read everything, answer nothing but pings
	StopReading bool          // never read from the connection

	// Handle sees each message first; true: it has dealt with it. It may use the connection as it likes.
	Handle func(c *Conn, m Message) bool
}

// Answer is what an OK says.
type Answer struct {
	Accepted bool
	Text     string
	None     bool   // send no OK
	Raw      string // send this frame instead, if not ""
}

// Accept is the answer of a good relay.
func Accept() Answer { return Answer{Accepted: true} }

// Reject is an OK false.
func Reject(text string) Answer { return Answer{Text: text} }

// Message is one frame that a relay got.
type Message struct {
	Conn  int    // number of the connection, from 1
	Label string // first element, "" if the frame is not a JSON array that begins with a string
	Raw   string
}
