package sources_test

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// beside is a role on the source's connection: it does what the relay's script tells it to.
type beside struct {
	owes atomic.Bool // the relay owes it an answer
	does chan func(ctx context.Context, s *relay.Session)
}

func (b *beside) Serve(ctx context.Context, s *relay.Session) error {
	s.Handle(&relay.Handler{Awaits: b.owes.Load})
	for {
		select {
		case f := <-b.does:
			f(ctx, s)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// archivedAlready are the events that the archive has had before all of them are asked for.
func archivedAlready(t *testing.T, all []string) (*intake, []event.Filter) {
	in := newIntake(t)
	in.holds(all[:len(all)-1])
	return in, []event.Filter{{Authors: []event.PubKey{author(1)}}}
}

// TestDroppedByAnotherRolesEVENT: what a sink sends on the same connection may end it while a NEG-OPEN waits. After two such ends
// the relay reconciles.
func TestDroppedByAnotherRolesEVENT(t *testing.T) {
	all := run1(40, now-86400*30)
	in, filters := archivedAlready(t, all)
	sink := &beside{does: make(chan func(context.Context, *relay.Session), 1)}
	n := &reconciler{events: all}
	var drops atomic.Int64
	r := relaytest.New(t, relaytest.Script{Events: all, Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		switch {
		case m.Label == "EVENT":
			drops.Add(1)
			c.Drop()
			return true
		case m.Label == "NEG-OPEN" && drops.Load() < 2:
			sink.does <- func(ctx context.Context, s *relay.Session) {
				sink.owes.Store(true)
				_ = s.Send(ctx, []byte(`["EVENT",{}]`))
			}
			return true
		}
		return n.handle(c, m)
	}})
	var log bytes.Buffer
	g := start(t, r, in, openState(t), sources.Options{Filters: filters, Seen: archived{in, all}, Log: zerolog.New(&log)})
	g.link.Add("sink", sink)
	in.until("everything", func() bool { return in.count() == len(all) })
	g.stop()
	if n.count("NEG-OPEN") == 0 || strings.Contains(log.String(), "it is paged") {
		t.Errorf("it was not reconciled:\n%s", log.String())
	}
}

// TestBusyIsPaged: a relay that owes a sink its answers and does not come to a NEG-OPEN is paged. It does not count as one that does
// not reconcile, and is not asked for each window.
func TestBusyIsPaged(t *testing.T) {
	all := run1(40, now-86400*30)
	in, filters := archivedAlready(t, all)
	filters = append(filters, event.Filter{Kinds: []int{7}}, event.Filter{Kinds: []int{1984}})
	sink := &beside{}
	sink.owes.Store(true)
	r := relaytest.New(t, relaytest.Script{Events: all, Handle: func(_ *relaytest.Conn, m relaytest.Message) bool { return m.Label == "NEG-OPEN" }})
	db := openState(t)
	for run := range 2 {
		var log bytes.Buffer
		o := sources.Options{Filters: filters, Seen: archived{in, all}, Again: true, Once: true, Idle: 300 * time.Millisecond, Log: zerolog.New(&log)}
		g := start(t, r, in, db, o)
		g.link.Add("sink", sink)
		in.until("everything", func() bool { return g.source.Status().Complete == sources.Yes })
		g.stop()
		if in.count() != len(all) {
			t.Errorf("%d of %d events came", in.count(), len(all))
		}
		if got := len(r.Got("NEG-OPEN")); got != run+1 {
			t.Errorf("run %d: asked to reconcile %d times in all, want once a run", run, got)
		}
		if strings.Contains(log.String(), "it is paged") {
			t.Errorf("that it does not reconcile is remembered:\n%s", log.String())
		}
	}
}

// TestPageBesideNegOpen: a page that is not answered may be what ends the connection at a sink's NEG-OPEN.
func TestPageBesideNegOpen(t *testing.T) {
	sink := &beside{does: make(chan func(context.Context, *relay.Session), 1)}
	ended := make(chan relay.NegEnd, 1)
	var once atomic.Bool
	r := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		switch {
		case m.Label == "NEG-OPEN":
			c.Drop()
			return true
		case strings.HasPrefix(m.Raw, `["REQ","page-`) && once.CompareAndSwap(false, true):
			sink.does <- func(ctx context.Context, s *relay.Session) {
				_, end, _ := s.Reconcile(ctx, event.Filter{Kinds: []int{1}}, nil, nil, time.Minute)
				ended <- end
			}
			return true
		}
		return false
	}})
	g := start(t, r, newIntake(t), openState(t), sources.Options{})
	g.link.Add("sink", sink)
	if end := <-ended; end.Kind != relay.NegDropped || !end.Beside {
		t.Errorf("%+v; want it dropped, beside something else", end)
	}
}

// TestSilentToSome: a relay that has reconciled on the connection and is silent to other filters (khatru's router is, where one of the relays
// behind it does not reconcile) is asked for one second a few times, and for the next ones not for a while.
func TestSilentToSome(t *testing.T) {
	var all []string
	for s := range 12 {
		all = append(all, notesAt(now-86400*30-int64(s)*100, 10)...)
	}
	in := newIntake(t)
	n := &reconciler{events: all}
	var opens atomic.Int64
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 4, Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "NEG-OPEN" && opens.Add(1) > 1 {
			return true
		}
		return n.handle(c, m)
	}})
	o := ofOne(in, all)
	o.Idle = 300 * time.Millisecond
	o.Filters[0].Kinds = []int{1}
	st := start(t, r, in, openState(t), o).finished()
	if got := opens.Load(); got != 1+negTries {
		t.Errorf("%d NEG-OPENs for 12 seconds that cannot be paged, want one that is answered and %d that are not; complete %v %q", got, negTries, st.Complete, st.Text)
	}
}

// negTries is sources': of one window.
const negTries = 3
