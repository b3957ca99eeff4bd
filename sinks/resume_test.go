package sinks

import (
	"errors"
	"strings"
	"testing"

	"rebroadcastr/place"
	"rebroadcastr/relaytest"
)

// TestResume: a ledger goes on at the place that the archive names, with the ordinals it has met counted as met, and keeps that; one that
// has met nothing asks nothing, one that cannot find out goes nowhere.
func TestResume(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lost := errors.New("input/output error")
	r.o.Resume = func(place.Place, uint64) (place.Place, error) { return place.Place{}, lost }
	s, err := New(r.o)
	if err != nil {
		t.Fatalf("a sink that has met nothing: %v", err)
	}
	for n := range uint64(7) {
		it, err := s.ledger.Next(recordAt(n))
		if err != nil {
			t.Fatal(err)
		}
		s.ledger.Ack(it, delivered)
	}
	if err := s.ledger.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := New(r.o); !errors.Is(err, lost) || !strings.Contains(err.Error(), "find where sink "+r.o.URL+" goes on") {
		t.Errorf("where to go on cannot be read: %v", err)
	}

	back, ahead := recordAt(3).Place, recordAt(7).Place
	asked := 0
	r.o.Resume = func(p place.Place, ordinal uint64) (place.Place, error) {
		if asked++; p != ahead || ordinal != 7 {
			t.Errorf("asked where %s goes on that has met %d, want %s and 7", p, ordinal, ahead)
		}
		return back, nil
	}
	if s, err = New(r.o); err != nil {
		t.Fatal(err)
	}
	if got := s.ledger.frontier; got != (mark{7, back}) || asked != 1 {
		t.Errorf("it goes on at %+v after %d questions, want ordinal 7 at %s", got, asked, back)
	}
	r.o.Resume = nil
	if s, err = New(r.o); err != nil {
		t.Fatal(err)
	}
	if got := s.ledger.frontier; got != (mark{7, back}) {
		t.Errorf("another start finds %+v, want what the one before has committed", got)
	}
	renumbered := recordAt(3)
	renumbered.Ordinal = 20
	if _, err := s.ledger.Next(renumbered); err != nil {
		t.Error(err)
	}
	if c, _, _, _ := s.ledger.Account(); c.Skipped[SkipWithdrawn] != 13 || c.Delivered != 7 {
		t.Errorf("counted %+v, want 7 delivered and the 13 ordinals without a line as withdrawn", c)
	}

	r.o.Resume = func(p place.Place, _ uint64) (place.Place, error) { return recordAt(30).Place, nil } // never ahead
	if s, err = New(r.o); err != nil || s.ledger.frontier.Place != back {
		t.Errorf("it went ahead to %+v, %v", s.ledger.frontier, err)
	}
}
