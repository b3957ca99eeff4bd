package sinks

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

// TestVerdicts: what each class of answer makes of an event.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		answer relaytest.Answer
		want   func(Counters) uint64
		what   string
	}{
		{relaytest.Accept(), func(c Counters) uint64 { return c.Delivered }, "delivered"},
		{relaytest.Answer{Accepted: true, Text: "duplicate: have it"}, func(c Counters) uint64 { return c.Duplicate }, "duplicate"},
		{relaytest.Reject("duplicate: have it"), func(c Counters) uint64 { return c.Duplicate }, "duplicate"},
		{relaytest.Reject("replaced: have newer event"), func(c Counters) uint64 { return c.Superseded }, "superseded"},
		{relaytest.Reject("invalid: bad event id"), func(c Counters) uint64 { return c.Rejected["invalid"] }, "rejected as invalid"},
		{relaytest.Reject("invalid: created_at too early"), func(c Counters) uint64 { return c.Rejected["invalid"] }, "rejected as invalid"},
		{relaytest.Reject("blocked: not on white-list"), func(c Counters) uint64 { return c.Rejected["blocked"] }, "rejected as blocked"},
		{relaytest.Reject("pow: 28 bits needed"), func(c Counters) uint64 { return c.Rejected["pow"] }, "rejected for pow"},
		{relaytest.Reject("invalid: created_at too late"), func(c Counters) uint64 { return c.Parked }, "parked"},
		{relaytest.Reject("error: could not connect to the database"), func(c Counters) uint64 { return c.ParkedErrors }, "parked for an error"},
		{relaytest.Reject(""), func(c Counters) uint64 { return c.Parked }, "parked"},
	} {
		t.Run(fmt.Sprintf("%t %s", c.answer.Accepted, c.answer.Text), func(t *testing.T) {
			r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
				if e.Content == "note 0" {
					return c.answer
				}
				return relaytest.Accept()
			}})
			r.o.Retry = time.Hour
			r.log.add(t, record.Origin{}, notes(4)...)
			r.start()
			r.settled()
			got := r.sink.Status().Counters
			want := uint64(1)
			if c.what == "delivered" {
				want = 4
			}
			if c.want(got) != want {
				t.Fatalf("want %d %s, have %+v", want, c.what, got)
			}
			r.stop()
			n := 0
			if err := r.sink.Rejected(func(row Rejected) bool {
				n++
				if row.Text != c.answer.Text || row.ID.String() != relaytest.ID(notes(1)[0]) || row.Time.IsZero() {
					t.Errorf("rejected row %+v, want the event's id, the relay's text and a time", row)
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
			if uint64(n) != got.RejectedTotal() {
				t.Fatalf("%d rejected rows for %d rejected", n, got.RejectedTotal())
			}
		})
	}
}

// TestRetriesEnd: an event that is answered error: for ever is rejected after maxAttempts, an unclassified refusal earlier.
func TestRetriesEnd(t *testing.T) {
	for text, tries := range map[string]int{"error: database is locked": maxAttempts, "no thanks": maxUnclassified} {
		t.Run(text, func(t *testing.T) {
			r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
				if e.Content == "note 0" {
					return relaytest.Reject(text)
				}
				return relaytest.Accept()
			}})
			r.o.Retry = time.Millisecond
			lines := notes(20)
			r.log.add(t, record.Origin{}, lines...)
			r.start()
			r.await("the end of the retries", func(st Status) bool { return st.Counters.RejectedTotal() == 1 })
			sends := 0
			for _, m := range r.relay.Got("EVENT") {
				if strings.Contains(m.Raw, relaytest.ID(lines[0])) {
					sends++
				}
			}
			if sends != tries {
				t.Fatalf("offered %d times, want %d", sends, tries)
			}
		})
	}
}

// TestRateLimited: the sink slows down, parks nothing and loses nothing.
func TestRateLimited(t *testing.T) {
	var seen atomic.Int64
	var mu sync.Mutex
	var until time.Time
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer {
		mu.Lock()
		defer mu.Unlock()
		if seen.Add(1) == 61 {
			until = time.Now().Add(200 * time.Millisecond)
		}
		if time.Now().Before(until) {
			return relaytest.Reject("rate-limited: slow down there chief")
		}
		return relaytest.Accept()
	}})
	r.o.Settings.Window = 20
	lines := notes(100)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.await("a limit", func(st Status) bool { return st.Pace > 0 })
	r.settled()
	r.has(lines)
	if st := r.sink.Status(); st.Counters.Delivered != 100 || st.Session.Slower == 0 || st.Session.Slower > 20 || st.Counters.Parked != 0 {
		t.Fatalf("delivered %d, parked %d, %d times slower; want 100, 0 and at most a window", st.Counters.Delivered, st.Counters.Parked, st.Session.Slower)
	}
	if n := len(r.relay.Got("EVENT")); n != 100+int(r.sink.Status().Session.Slower) {
		t.Fatalf("%d sends for 100 events", n)
	}
}

// TestTroubleOfTheRelayIsNotTheEvents: a relay that answers error: to everything is slowed, and its queue stands.
func TestTroubleOfTheRelayIsNotTheEvents(t *testing.T) {
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Reject("error: disk full") }})
	r.log.add(t, record.Origin{}, notes(400)...)
	r.start()
	r.await("a slower pace", func(st Status) bool { return st.Pace > 0 && st.InFlight == 0 })
	// The first hundred may be parked: until then it could be the events.
	if st := r.sink.Status(); st.Counters.Parked > 101 || st.Counters.RejectedTotal() > 0 || st.Pending < 299 {
		t.Fatalf("parked %d, rejected %d, pending %d; want at most 101, 0, at least 299", st.Counters.Parked, st.Counters.RejectedTotal(), st.Pending)
	}
}
