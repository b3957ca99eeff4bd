package sinks

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// TestSinksThatDoNotReconcile: one line, nothing is paged, and it is not asked again the same day, unless an operator wants it to
// be. Once it does reconcile, all is as if it always had.
func TestSinksThatDoNotReconcile(t *testing.T) {
	for name, script := range map[string]relaytest.Script{
		"NOTICE": {},
		"NIP-11": {Info: `{"supported_nips":[1,11]}`},
		"drops": {Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
			if m.Label == "NEG-OPEN" {
				c.Drop()
			}
			return m.Label == "NEG-OPEN"
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, script)
			var clock atomic.Int64
			r.o.Now = func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
			r.o.Seen, r.o.Filters, r.o.Reconcile = seenOf{r}, []event.Filter{{}}, Reconcile{Every: time.Hour}
			r.log.add(t, record.Origin{}, notes(20)...)
			r.start()
			r.settled()
			next := func(what string, ask func()) Compared {
				before := r.sink.Status().Compared.At
				ask()
				r.await(what, func(s Status) bool { return s.Compared.At.After(before) })
				return r.sink.Status().Compared
			}
			hour := func() { clock.Add(int64(time.Hour + time.Second)); r.sink.comparer.nudge() }
			for i, ask := range []func(){r.sink.Reconcile, hour, hour} {
				if c := next(fmt.Sprint("comparison ", i), ask); !strings.Contains(c.Text, "does not reconcile") || c.Offered != 0 {
					t.Errorf("compared: %+v; want it to say that the relay does not reconcile", c)
				}
			}
			if n := r.out.count("does not reconcile (NIP-77)"); n != 1+r.out.count("compared with the archive") {
				t.Errorf("%d lines say so, want one and each comparison's", n)
			}
			if n := len(r.relay.Got("REQ")); n > 0 {
				t.Errorf("%d REQs to a sink", n)
			}
			if n := len(r.relay.Got("NEG-OPEN")); n > maxDrops {
				t.Errorf("asked %d times", n)
			}
			if name == "NIP-11" {
				return // the document is not read again so soon
			}
			r.relay.Update(func(sc *relaytest.Script) { sc.Negentropy, sc.Handle = true, nil })
			for i, ask := range []func(){r.sink.Reconcile, hour} {
				if c := next(fmt.Sprint("comparison ", i, " of a relay that does"), ask); c.Text != "" || c.Listed != 20 || c.Lacked != 0 {
					t.Errorf("compared: %+v; want all of it, and nothing lacked", c)
				}
			}
			r.balanced()
		})
	}
}

// maxDrops connections that end at a NEG-OPEN, with nothing else under way, tell that it ends them.
const maxDrops = 2

// TestDroppedWithEventsUnderWay: a connection that ends while EVENTs are unanswered does not tell that the NEG-OPEN ended it, and a
// NOTICE about one of them does not refuse it.
func TestDroppedWithEventsUnderWay(t *testing.T) {
	var drops atomic.Int64
	r := newRig(t, relaytest.Script{Negentropy: true, Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if drops.Load() >= maxDrops {
			if m.Label == "NEG-OPEN" {
				c.Send(`["NOTICE","error: could not save"]`)
			}
			return false
		}
		if m.Label == "NEG-OPEN" {
			drops.Add(1)
			c.Drop()
		}
		return true
	}})
	r.o.Seen, r.o.Filters = seenOf{r}, []event.Filter{{}}
	lines := notes(20)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	for n := range int64(maxDrops) {
		r.await("events under way", func(s Status) bool { return drops.Load() > n || s.InFlight > 0 })
		r.sink.Reconcile()
		r.await("the connection's end", func(Status) bool { return drops.Load() > n })
	}
	r.settled()
	if c := r.compared().Compared; c.Text != "" || c.Listed != len(lines) {
		t.Errorf("compared: %+v; want all of it", c)
	}
	r.has(lines)
	if n := r.out.count("does not reconcile"); n > 0 {
		t.Errorf("%d lines say that the relay does not reconcile", n)
	}
}

// asking is another role on the sink's connection, which sends one REQ once a comparison has begun.
type asking struct{ after <-chan struct{} }

func (a asking) Serve(ctx context.Context, sess *relay.Session) error {
	var asked atomic.Bool
	sess.Handle(&relay.Handler{Awaits: asked.Load})
	select {
	case <-a.after:
		asked.Store(true)
		if err := sess.Send(ctx, []byte(`["REQ","page-1",{"kinds":[1]}]`)); err != nil {
			return err
		}
	case <-ctx.Done():
	}
	<-ctx.Done()
	return ctx.Err()
}

// TestDroppedByAnotherRolesREQ: what a source asks for on the same connection may end it too.
func TestDroppedByAnotherRolesREQ(t *testing.T) {
	waits := make(chan struct{}, 1)
	var drops atomic.Int64
	r := newRig(t, relaytest.Script{Negentropy: true, Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		switch {
		case drops.Load() >= maxDrops:
			return false
		case m.Label == "NEG-OPEN":
			waits <- struct{}{}
			return true
		case m.Label == "REQ":
			drops.Add(1)
			c.Drop()
			return true
		}
		return false
	}})
	r.extra = map[string]relay.Role{"source": asking{waits}}
	r.o.Seen, r.o.Filters = seenOf{r}, []event.Filter{{}}
	lines := notes(20)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	if c := r.compared().Compared; c.Text != "" || c.Listed != len(lines) {
		t.Errorf("compared: %+v; want all of it", c)
	}
	if until, why := r.sink.comparer.refused(); !until.IsZero() {
		t.Errorf("not asked before %s: %s", until, why)
	}
}

// TestNegOpenBehindEvents: a relay that deals with its messages in turn, 40 EVENTs a second, comes to a NEG-OPEN behind a full window
// after 12 s.
func TestNegOpenBehindEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t, relaytest.Script{Negentropy: true, Handle: func(_ *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "EVENT" {
			time.Sleep(25 * time.Millisecond)
		}
		return false
	}})
	r.o.Settings.OK = relay.DefaultSettings().OK
	r.o.Seen, r.o.Filters = seenOf{r}, []event.Filter{{}}
	r.log.add(t, record.Origin{}, notes(700)...)
	r.start()
	r.await("a full window", func(s Status) bool { return s.InFlight >= 499 && s.Counters.Delivered > 0 })
	if c := r.compared().Compared; c.Text != "" || c.Listed == 0 {
		t.Errorf("compared: %+v; this relay reconciles", c)
	}
	if until, why := r.sink.comparer.refused(); !until.IsZero() {
		t.Errorf("not asked before %s: %s", until, why)
	}
}
