package sinks

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

// TestListsCutWithoutAWord: what a relay does not list because it lists no more than so many is not lacked; what it did lose is found.
func TestListsCutWithoutAWord(t *testing.T) {
	lines := notes(1500)
	r := lackingRig(t, relaytest.Script{NegMost: 400}, lines...)
	sent := len(r.relay.Got("EVENT"))
	if st := r.compared(); st.Compared.Lacked != 0 || st.Compared.Listed < 1500 || len(r.relay.Got("EVENT")) != sent {
		t.Errorf("compared: %+v; want nothing lacked, and nothing offered", st.Compared)
	}
	lost := r.lose(lines, 30)
	st := r.compared()
	r.has(lines)
	if got := len(r.relay.Got("EVENT")) - sent; got != len(lost) {
		t.Errorf("%d events were sent, want the %d that were lost: %+v", got, len(lost), st.Compared)
	}
}

// TestSinkThatFindsEverythingTooMuch: it is not asked about each second.
func TestSinkThatFindsEverythingTooMuch(t *testing.T) {
	r := lackingRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "NEG-OPEN" {
			c.Send(`["NEG-ERR","` + strings.Split(m.Raw, `"`)[3] + `","blocked: too many query results",10]`)
		}
		return m.Label == "NEG-OPEN"
	}}, notes(300)...)
	r.sink.Reconcile()
	r.await("a comparison", func(s Status) bool { return s.Compared.Text != "" })
	if n := len(r.relay.Got("NEG-OPEN")); n > 100 { // some thirty to come down to a second; stretches without an event between are skipped, and longer again
		t.Errorf("asked %d times", n)
	}
}

// TestMoreThanRowsAreKept: a relay that has lost more than the ledger keeps rows of is offered all of it by the pass.
func TestMoreThanRowsAreKept(t *testing.T) {
	r := newRig(t, relaytest.Script{Negentropy: true})
	r.o.Seen, r.o.Filters = indexed(r), []event.Filter{{}}
	lines := bare(3 * maxOffered)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	r.sink.ledger.mu.Lock()
	r.sink.ledger.lack.Rows = maxLacked // of what was offered before
	r.sink.ledger.mu.Unlock()
	n := 0
	r.relay.Lose(func(string) bool { n++; return n%5 < 2 })
	r.sink.Reconcile()
	r.await("the pass", func(s Status) bool { return s.Compared.All })
	r.settled()
	if got := len(r.relay.Stored()); got != len(lines) {
		t.Errorf("the relay has %d events, want %d", got, len(lines))
	}
}

// TestAnEmptyListEveryOtherTime: a relay that shows all its events, and then none, is not offered all of them the same day again.
func TestAnEmptyListEveryOtherTime(t *testing.T) {
	r := newRig(t, relaytest.Script{Negentropy: true})
	var clock atomic.Int64
	r.o.Now = func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	r.o.Seen, r.o.Filters, r.o.Reconcile = indexed(r), []event.Filter{{}}, Reconcile{Every: time.Hour}
	r.log.add(t, record.Origin{}, bare(maxOffered+2000)...)
	r.start()
	r.settled()
	next := func(d time.Duration) Compared {
		before := r.sink.Status().Compared.At
		clock.Add(int64(d))
		r.sink.comparer.nudge()
		r.await("a comparison", func(s Status) bool { return s.Compared.At.After(before) })
		r.settled()
		return r.sink.Status().Compared
	}
	lose := func() { r.relay.Lose(func(string) bool { return true }) }
	if lose(); !next(2 * time.Hour).All {
		t.Fatal("an emptied relay is not offered everything")
	}
	if c := next(2 * time.Hour); c.Lacked != 0 {
		t.Fatalf("%+v; want nothing lacked", c)
	}
	if lose(); next(2 * time.Hour).All {
		t.Error("offered everything twice in four hours")
	}
	if !next(24 * time.Hour).All {
		t.Error("not offered everything the next day")
	}
}
