package sources

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/state"
)

// History says how far back a new source is asked.
type History struct {
	None  bool
	Since int64 // unix seconds; 0: everything
}

// Options of a Source.
type Options struct {
	URL     string // normalised
	Door    *Door
	Intake  Intake
	State   *state.DB
	Filters []event.Filter // what to ask for, OR-ed; each request carries one filter
	History History
	Once    bool // backfill: no live subscription; Serve returns nil when history is done
	Again   bool // ask for what is proven too
	Limit   int  // Once: stop after so many events of history; 0: none

	CatchUpEvery time.Duration // while live; 0: 1 h
	Overlap      time.Duration // asked again by each catch-up; 0: 20 min
	Idle         time.Duration // silence that ends a page; 0: 30 s
	Backoff      relay.Backoff // between tries of a page and of a live subscription; zero: relay.DefaultSettings
	Now          func() time.Time
	Log          zerolog.Logger
}

// Source is the role of a source relay.
type Source struct {
	o Options
}

// New makes a Source; it starts nothing.
func New(o Options) *Source { return &Source{o: o} }

// Serve runs the role on one session.
func (s *Source) Serve(ctx context.Context, sess *relay.Session) error {
	return errors.New("serve a source: not yet")
}

// Status tells how the source stands.
func (s *Source) Status() Status { return Status{} }
