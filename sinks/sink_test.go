package sinks

import (
	"context"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

func TestDeliversAndSendsNothingTwice(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lines := notes(300)
	r.log.add(t, record.Origin{}, lines[:200]...)
	r.start()
	r.settled()
	r.log.add(t, record.Origin{}, lines[200:]...) // live: the reader waits at the end
	r.settled()
	r.has(lines)
	if n := len(r.relay.Got("EVENT")); n != 300 {
		t.Fatalf("%d sends for 300 events", n)
	}
	if c := r.sink.Status().Counters; c.Delivered != 300 {
		t.Fatalf("delivered %d of 300", c.Delivered)
	}
	r.reopen(false)
	r.log.add(t, record.Origin{}, relaytest.Sign(relaytest.Key(1), 1, day, nil, "after the restart"))
	r.start()
	r.settled()
	if n := len(r.relay.Got("EVENT")); n != 301 {
		t.Fatalf("%d sends after a restart with one more event, want 301", n)
	}
}

// TestWhatOneSinkSaysIsItsOwn.
func TestWhatOneSinkSaysIsItsOwn(t *testing.T) {
	a := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Reject("invalid: no") }})
	b := newRig(t, relaytest.Script{})
	b.log, b.o.Open, b.o.End = a.log, a.log.Open, a.log.End
	b.o.State = a.db // one state file for both
	lines := notes(50)
	a.log.add(t, record.Origin{}, lines...)
	a.start()
	b.start()
	a.settled()
	b.settled()
	a.has(nil)
	b.has(lines)
	a.stop()
	b.stop()
}

// TestDrain: what is in flight is heard, nothing more is sent.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { <-release; return relaytest.Accept() }})
	r.o.Settings.Window = 10
	r.log.add(t, record.Origin{}, notes(50)...)
	r.start()
	r.await("a full window", func(st Status) bool { return st.InFlight == 10 })
	done := make(chan error, 1)
	go func() { done <- r.sink.Drain(context.Background()) }()
	r.await("the drain", func(Status) bool { r.sink.mu.Lock(); defer r.sink.mu.Unlock(); return r.sink.draining })
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.stop()
	if st := r.sink.Status(); st.Counters.Delivered != 10 || st.Session.Sent != 10 {
		t.Fatalf("delivered %d of %d sent, want 10 of 10", st.Counters.Delivered, st.Session.Sent)
	}
}

// TestWindowInBytes: large events are not all on their way at once.
func TestWindowInBytes(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { <-release; return relaytest.Accept() }, Forget: true})
	var lines []string
	for i := range 12 {
		lines = append(lines, relaytest.Sign(relaytest.Key(1), 1, day+int64(i), nil, strings.Repeat("x", 1<<20)))
	}
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.await("a full window", func(st Status) bool { return st.InFlight == 3 })
	close(release)
	r.settled()
	if c := r.sink.Status().Counters; c.Delivered != 12 {
		t.Fatalf("delivered %d of 12", c.Delivered)
	}
}
