package sinks

import (
	"errors"
	"sync/atomic"
	"testing"

	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

// TestResume: a ledger goes on at the place that the archive names, with the ordinals it has met counted as met, and keeps that. One that
// has met nothing asks nothing.
func TestResume(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	made := func() *ledger {
		t.Helper()
		s, err := New(r.o)
		if err != nil {
			t.Fatal(err)
		}
		return s.ledger
	}
	commit := func(l *ledger) {
		t.Helper()
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	next := func(l *ledger, at, ordinal uint64) {
		t.Helper()
		rec := recordAt(at)
		rec.Ordinal = ordinal
		it, err := l.Next(rec)
		if err != nil {
			t.Fatal(err)
		}
		l.Ack(it, delivered)
	}
	back, ahead := recordAt(3).Place, recordAt(7).Place
	asked := 0
	where := func(p place.Place, ordinal uint64) (place.Place, error) {
		if asked++; p != ahead || ordinal != 7 {
			t.Errorf("asked where %s goes on that has met %d, want %s and 7", p, ordinal, ahead)
		}
		return back, nil
	}
	l := made()
	if err := l.resume(where); err != nil || asked > 0 {
		t.Errorf("met nothing: asked %d times, %v", asked, err)
	}
	for n := range uint64(7) {
		next(l, n, n)
	}
	commit(l)

	l = made()
	for range 2 {
		if err := l.resume(where); err != nil {
			t.Fatal(err)
		}
	}
	if l.frontier != (mark{7, back}) || asked != 1 {
		t.Errorf("it goes on at %+v after %d questions, want ordinal 7 at %s after one", l.frontier, asked, back)
	}
	commit(l)
	if l = made(); l.frontier != (mark{7, back}) {
		t.Errorf("another start finds %+v", l.frontier)
	}
	if err := l.resume(func(place.Place, uint64) (place.Place, error) { return ahead, nil }); err != nil || l.frontier.Place != back {
		t.Errorf("it went ahead to %+v, %v", l.frontier, err)
	}
	next(l, 3, 20) // renumbered
	if c, _, _, _ := l.Account(); c.Skipped[SkipWithdrawn] != 13 || c.Delivered != 8 {
		t.Errorf("counted %+v, want 8 delivered and the 13 ordinals without a line as withdrawn", c)
	}
}

// TestResumeUnread: while the archive cannot tell where to go on nothing is sent, and the sink comes back to ask.
func TestResumeUnread(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lines := notes(9)
	r.log.add(t, record.Origin{}, lines[:5]...)
	r.start()
	r.settled()
	r.reopen(false)
	r.log.add(t, record.Origin{}, lines[5:]...)
	var asked atomic.Int32
	r.o.Resume = func(p place.Place, _ uint64) (place.Place, error) {
		if asked.Add(1) < 3 {
			return p, errors.New("read origins: input/output error")
		}
		if n := len(r.relay.Stored()); n != 5 {
			t.Errorf("the relay has %d events before it is known where to go on, want 5", n)
		}
		return p, nil
	}
	r.start()
	r.settled()
	r.has(lines)
	if asked.Load() != 3 || r.out.count("find where to go on in the archive: read origins: input/output error") == 0 {
		t.Errorf("asked %d times, want 3; logged %q", asked.Load(), r.out.lines)
	}
}
