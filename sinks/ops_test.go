package sinks

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
	"rebroadcastr/state"
)

// rec is the record of the log's n-th event.
func (r *rig) rec(n int) *record.Record {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	rec := r.log.recs[n]
	return &rec
}

func (r *rig) story(n int) Story {
	r.t.Helper()
	s, err := r.sink.Story(r.rec(n), relay.Info{Known: true}, true)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// Every fate is told as it is, by a sink that runs and by one that is only looked at.
func TestStory(t *testing.T) {
	hold := make(chan struct{})
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		switch e.Content {
		case "blocked":
			return relaytest.Reject("blocked: not on white-list")
		case "trouble":
			return relaytest.Reject("error: try later")
		case "late":
			<-hold
		}
		return relaytest.Accept()
	}})
	t.Cleanup(func() { close(hold) })
	r.o.Retry = time.Hour
	r.o.Settings.Window = 1
	r.o.Start.Since = day
	sign := func(kind int, at int64, content string) string {
		return relaytest.Sign(relaytest.Key(1), kind, at, nil, content)
	}
	r.log.add(t, record.Origin{}, sign(1, day, "fine"), sign(1, day, "blocked"), sign(1, day, "trouble"), sign(4, day, "dm"))
	r.log.add(t, record.Origin{Relay: r.relay.URL}, sign(1, day, "echo"))
	r.log.add(t, record.Origin{NoDeliver: true}, sign(1, day, "kept"))
	r.log.add(t, record.Origin{}, sign(1, day-1, "old"),
		relaytest.Sign(relaytest.Key(1), 1, day, [][]string{{"expiration", "1700000100"}}, "gone"),
		sign(1, day, "late"), sign(1, day, "next"), sign(4, day, "next but a dm"))
	r.start()
	r.await("all but the last two", func(s Status) bool { return s.InFlight == 1 && s.Frontier >= 9 })
	want := map[int]Story{
		0: {Fate: Delivered}, 1: {Fate: Refused, Reason: "blocked", Text: "blocked: not on white-list"},
		2: {Fate: Parked, Again: parkedForError, Attempts: 1}, 3: {Fate: Skipped, Reason: "dm"}, 4: {Fate: Skipped, Reason: SkipEcho},
		5: {Fate: Skipped, Reason: SkipNoDeliver}, 6: {Fate: Skipped, Reason: SkipBeforeStart}, 7: {Fate: Settled, Reason: "expired"},
		8: {Fate: Sent}, 9: {Fate: Pending, Ahead: 1}, 10: {Fate: Pending, Ahead: 2, Reason: "dm"},
	}
	check := func(what string) {
		t.Helper()
		for n, w := range want {
			got := r.story(n)
			switch got.Fate {
			case Refused, Sent, Delivered, Settled:
				if got.At.IsZero() {
					t.Errorf("%s: event %d: %+v, want a time", what, n, got)
				}
			case Parked:
				if time.Until(got.Due) < 30*time.Minute {
					t.Errorf("%s: event %d is due %s, want in an hour", what, n, got.Due)
				}
			}
			got.At, got.Due = time.Time{}, time.Time{}
			if got != w {
				t.Errorf("%s: event %d: %+v, want %+v", what, n, got, w)
			}
		}
	}
	check("while it runs, partly committed")
	if err := r.sink.ledger.Commit(); err != nil {
		t.Fatal(err)
	}
	check("while it runs, committed")
	waiting, err := r.sink.Parked()
	if err != nil || len(waiting) != 1 || waiting[0].Reason != parkedForError || waiting[0].Events != 1 || waiting[0].Next.IsZero() {
		t.Errorf("parked: %+v, %v; want one for error", waiting, err)
	}
	r.stop()
	if r.sink, err = Look(r.o); err != nil {
		t.Fatal(err)
	}
	want[8] = Story{Fate: Pending, Ahead: 0}
	check("not running")

	// Without the sink's rules only the ledger is asked, and what an event says by itself.
	for n, fate := range map[int]Fate{0: Settled, 1: Refused, 3: Skipped, 5: Skipped} {
		if got, err := r.sink.Story(r.rec(n), relay.Info{}, false); err != nil || got.Fate != fate {
			t.Errorf("event %d without rules: %+v, %v; want %s", n, got, err, fate)
		}
	}
}

func TestLookMakesNothing(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	if _, err := Look(r.o); !errors.Is(err, ErrNoLedger) {
		t.Errorf("look at a sink that never was: %v, want %v", err, ErrNoLedger)
	}
	if urls, err := Ledgers(r.db); err != nil || len(urls) != 0 {
		t.Errorf("ledgers after a look: %v, %v; want none", urls, err)
	}
	if _, err := New(r.o); err != nil {
		t.Fatal(err)
	}
	if urls, err := Ledgers(r.db); err != nil || len(urls) != 1 || urls[0] != r.o.URL {
		t.Errorf("ledgers: %v, %v; want %s", urls, err, r.o.URL)
	}
}

// A ledger that cannot be read is left for the run that says so.
func TestLookAtADamagedLedger(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	bad := []byte("not a record")
	if err := r.db.Update(func(tx *state.Tx) error { return tx.Bucket(sinksBucket, r.o.URL).Put(recordKey, bad) }); err != nil {
		t.Fatal(err)
	}
	if _, err := Look(r.o); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("look at a damaged ledger: %v, want an error", err)
	}
	if err := r.db.View(func(tx *state.Tx) error {
		if got := tx.Bucket(sinksBucket, r.o.URL).Get(recordKey); string(got) != string(bad) {
			t.Errorf("the ledger is now %q, want it as it was", got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// refuser refuses what its rule says until it is told not to.
type refuser struct{ kind atomic.Bool }

func (f *refuser) answer(e nostr.Event) relaytest.Answer {
	switch {
	case f.kind.Load():
	case strings.HasSuffix(e.Content, "0"):
		return relaytest.Reject("blocked: not on white-list")
	case strings.HasSuffix(e.Content, "1"):
		return relaytest.Reject("invalid: created_at too early")
	}
	return relaytest.Accept()
}

// Thousands of refused events are offered again, in ranges, also while the sink is at work; the books balance all the time.
func TestRetry(t *testing.T) {
	lines := bare(3*rowsAtOnce*5 + 5) // a fifth of them is refused
	for _, running := range []bool{true, false} {
		f := &refuser{}
		r := newRig(t, relaytest.Script{OK: f.answer})
		r.log.add(t, record.Origin{}, lines...)
		r.start()
		r.settled()
		refused := r.sink.Status().Counters.Rejected
		if refused["blocked"] < rowsAtOnce || refused["invalid"] < rowsAtOnce {
			t.Fatalf("refused %v, want more than one range of each", refused)
		}
		f.kind.Store(true)
		if !running {
			r.reopen(false)
			var err error
			if r.sink, err = Look(r.o); err != nil {
				t.Fatal(err)
			}
		}
		done, err := r.sink.Retry(t.Context(), "blocked:")
		if err != nil {
			t.Fatal(err)
		}
		if want := map[string]uint64{"blocked": refused["blocked"]}; !maps.Equal(done.Offered, want) || done.Kept != refused["invalid"] {
			t.Errorf("retry of blocked: %+v, want %v and %d kept", done, want, refused["invalid"])
		}
		r.balanced()
		if !running {
			r.start()
		}
		r.await("the blocked ones", func(s Status) bool { return s.Counters.Parked == 0 })
		if c := r.sink.Status().Counters; c.RejectedTotal() != refused["invalid"] {
			t.Errorf("%d are still refused, want the %d invalid ones", c.RejectedTotal(), refused["invalid"])
		}
		if _, err := r.sink.Retry(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		r.await("everything", func(s Status) bool { return s.Counters.Parked == 0 })
		r.balanced()
		r.has(lines)
		if done, err := r.sink.Retry(t.Context(), ""); err != nil || len(done.Offered) != 0 || done.Kept != 0 {
			t.Errorf("nothing is refused any more, and a retry offers %+v, %v", done, err)
		}
		r.stop()
	}
}

// One event: refused, parked, in flight again. A parked one is due at once, once.
func TestRetryOne(t *testing.T) {
	var later atomic.Bool
	later.Store(true)
	f := &refuser{}
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		if later.Load() && e.Content == "note 2" {
			return relaytest.Reject("error: try later")
		}
		return f.answer(e)
	}})
	r.o.Retry = time.Hour
	lines := notes(4)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	f.kind.Store(true)
	later.Store(false)
	for n, want := range []Fate{Refused, Refused, Parked, Settled} {
		if was, err := r.sink.RetryOne(r.rec(n)); err != nil || was != want {
			t.Errorf("retry of event %d: %s, %v; want %s", n, was, err, want)
		}
		r.balanced()
	}
	r.await("all four", func(s Status) bool { return s.Counters.Delivered == 4 })
	r.has(lines)
}

// What an operator took back must not be taken back once more when the relay's refusals turn out to be a ban.
func TestRetryBeforeABan(t *testing.T) {
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Reject("blocked: you are banned") }})
	r.o.Probe = time.Hour
	r.log.add(t, record.Origin{}, notes(refusalsBan-1)...)
	r.start()
	r.settled()
	for range 3 {
		if _, err := r.sink.Retry(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		r.balanced()
		r.await("all are refused again", func(s Status) bool { return s.Counters.Parked == 0 })
	}
	r.log.add(t, record.Origin{}, notes(refusalsBan)...)
	r.await("the ban", func(s Status) bool { return s.Paused != "" })
	r.balanced()
	r.stop()
	if c := r.sink.Status().Counters; c.RejectedTotal()+c.Parked+r.sink.Status().Pending != 2*refusalsBan-1 {
		t.Errorf("after the ban: %+v", c)
	}
}

func TestRejectedInRanges(t *testing.T) {
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		if e.Content == "note 0" {
			return relaytest.Accept()
		}
		return relaytest.Reject("blocked: no")
	}})
	lines := bare(2*rowsAtOnce + 2)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	r.stop()
	var last, n uint64
	if err := r.sink.Rejected(func(row Rejected) bool {
		if n++; row.Ordinal <= last || row.ID == (event.ID{}) {
			t.Errorf("row %d: ordinal %d after %d", n, row.Ordinal, last)
		}
		last = row.Ordinal
		return true
	}); err != nil || n != uint64(len(lines)-1) {
		t.Errorf("%d rows, %v; want %d", n, err, len(lines)-1)
	}
	n = 0
	if err := r.sink.Rejected(func(Rejected) bool { n++; return n < 3 }); err != nil || n != 3 {
		t.Errorf("a look that ends after three rows: %d, %v", n, err)
	}
}

func TestRetryIsCutShort(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	r.log.add(t, record.Origin{}, notes(1)...)
	r.start()
	r.settled()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.sink.Retry(ctx, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("retry with a ctx that has ended: %v, want %v", err, context.Canceled)
	}
}
