// Package record holds one archived event as the stages after the archive see it: the event, its place, its
// ordinal and where it came from.
package record

import (
	"time"

	"rebroadcastr/event"
	"rebroadcastr/place"
)

// How says by which way an event reached us.
type How uint8

// The ways in. The numbers are stored in origin files: append only.
const (
	Unknown How = iota
	Live
	CatchUp
	Page
	Negentropy
	Import
)

func (h How) String() string {
	names := [...]string{"unknown", "live", "catchup", "page", "neg", "import"}
	if int(h) < len(names) {
		return names[h]
	}
	return "unknown"
}

// Origin says where an event came from first. The zero Origin means "unknown".
type Origin struct {
	Relay     string    // normalised URL; empty for an import
	Received  time.Time // kept to the millisecond
	How       How
	NoDeliver bool // archived, but kept from every sink (--no-deliver)
}

// Record is one line of the archive.
type Record struct {
	Place   place.Place // where its line begins
	End     place.Place // where the next line begins
	Ordinal uint64      // lines as written, from 0, over the archive's life
	Event   event.Event
	Origin  Origin
}
