package sinks

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/policy"
	"rebroadcastr/record"
	"rebroadcastr/relay"
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

// TestClosesBeforeOK: a write that succeeded says nothing, and nothing is charged to what was in flight.
func TestClosesBeforeOK(t *testing.T) {
	for _, every := range []int{2, 7, 50} {
		t.Run(fmt.Sprint(every), func(t *testing.T) {
			r := newRig(t, relaytest.Script{DropBeforeOK: every})
			lines := notes(20 * every)
			r.log.add(t, record.Origin{}, lines...)
			r.start()
			r.settled()
			r.has(lines)
			if c := r.sink.Status().Counters; c.Parked+c.RejectedTotal() > 0 {
				t.Fatalf("parked %d, rejected %d: a dead session is charged to no event", c.Parked, c.RejectedTotal())
			}
		})
	}
}

// TestThirtyThousandThroughAClosingSink: the relay closes every 5,000 without answering the last.
func TestThirtyThousandThroughAClosingSink(t *testing.T) {
	const total, every = 30_000, 5_000
	var mu sync.Mutex
	taken := make(map[string]bool, total)
	sends := make(map[int]int)
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		s, ok := event.ScanLine([]byte(m.Raw[len(`["EVENT",`) : len(m.Raw)-1]))
		if !ok {
			return false
		}
		mu.Lock()
		sends[c.N]++
		last := sends[c.N] == every
		if !last {
			taken[s.ID.String()] = true
		}
		mu.Unlock()
		if last {
			c.Drop()
		} else {
			c.Send(`["OK","` + s.ID.String() + `",true,""]`)
		}
		return true
	}})
	r.log.add(t, record.Origin{}, bare(total)...)
	r.start()
	began := time.Now()
	r.settled()
	took := time.Since(began)
	mu.Lock()
	defer mu.Unlock()
	if len(taken) != total {
		t.Fatalf("%d of %d events arrived", len(taken), total)
	}
	st := r.sink.Status()
	t.Logf("%d events in %s over %d sessions, %d sends, window at the end %d", total, took, st.Session.Sessions, st.Session.Sent, st.Window)
	if most := uint64(total + 8*500); st.Session.Sent > most {
		t.Fatalf("%d sends, want at most a window for each of the closed sessions (%d)", st.Session.Sent, most)
	}
}

// answerless are ways of not answering an event that says so in its content.
func TestUnansweredEventIsParkedAndTheOthersGoOn(t *testing.T) {
	mute := func(e nostr.Event) bool { return strings.HasSuffix(e.Content, "3") }
	for name, answer := range map[string]relaytest.Answer{
		"no OK":              {None: true},
		"NOTICE instead":     {Raw: `["NOTICE","ERROR: bad msg: failed to parse event"]`},
		"OK with a wrong id": {Raw: `["OK","` + strings.Repeat("ab", 32) + `",true,""]`},
		"OK without an id":   {Raw: `["OK"]`},
	} {
		t.Run(name, func(t *testing.T) {
			var healed atomic.Bool
			r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
				if mute(e) && !healed.Load() {
					return answer
				}
				return relaytest.Accept()
			}})
			r.o.Settings.OK = 100 * time.Millisecond
			r.o.Retry = 500 * time.Millisecond
			lines := notes(40) // 3, 13, 23, 33
			r.log.add(t, record.Origin{}, lines...)
			r.start()
			r.settled()
			if st := r.sink.Status(); st.Counters.Parked != 4 || st.Counters.Delivered != 36 {
				t.Fatalf("delivered %d, parked %d; want 36 and 4", st.Counters.Delivered, st.Counters.Parked)
			}
			healed.Store(true)
			r.await("delivery of the parked events", func(st Status) bool { return st.Counters.Parked == 0 })
			r.has(lines)
			if c := r.sink.Status().Counters; c.Delivered+c.Duplicate != 40 {
				t.Fatalf("delivered %d, duplicate %d; want 40 together", c.Delivered, c.Duplicate)
			}
		})
	}
}

// TestTheLastEventUnanswered: nothing follows that could be answered, so an event that the relay has is sent to learn
// whether it answers at all; also on the session after.
func TestTheLastEventUnanswered(t *testing.T) {
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		return relaytest.Answer{Accepted: true, None: strings.HasPrefix(e.Content, "mute")}
	}, Forget: true})
	r.o.Settings.OK = 50 * time.Millisecond
	r.log.add(t, record.Origin{}, notes(5)...)
	r.start()
	r.settled()
	r.reopen(false)
	for i := range 3 {
		r.log.add(t, record.Origin{}, relaytest.Sign(relaytest.Key(1), 1, day, nil, fmt.Sprint("mute ", i)))
	}
	r.o.Retry = time.Hour
	r.start()
	r.settled()
	if st := r.sink.Status(); st.Counters.Parked != 3 || st.Session.Controls == 0 {
		t.Fatalf("parked %d after %d controls; want 3 after at least one", st.Counters.Parked, st.Session.Controls)
	}
}

// TestSilentRelayIsChargedToNoEvent: nothing at all is answered.
func TestSilentRelayIsChargedToNoEvent(t *testing.T) {
	r := newRig(t, relaytest.Script{Silent: true})
	r.o.Settings.OK = 30 * time.Millisecond
	lines := notes(20)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.await("a third session", func(st Status) bool { return st.Session.Sessions >= 3 })
	if st := r.sink.Status(); st.Counters.Parked != 0 || st.Cursor != 0 || st.Pending != 20 {
		t.Fatalf("parked %d, cursor %d, pending %d; want 0, 0, 20", st.Counters.Parked, st.Cursor, st.Pending)
	}
	r.relay.Update(func(s *relaytest.Script) { s.Silent = false })
	r.settled()
	r.has(lines)
}

// TestALargeEventOnANarrowLine: what takes its time to get there is waited for, and the session stays.
func TestALargeEventOnANarrowLine(t *testing.T) {
	const timeout = 50 * time.Millisecond
	large := relaytest.Sign(relaytest.Key(1), 1, 1_700_000_000, nil, strings.Repeat("x", 32<<10)) // 4 s at 8 KiB/s
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		if len(e.Content) > 1000 {
			time.Sleep(8 * timeout)
		}
		return relaytest.Accept()
	}})
	r.o.Settings.OK = timeout
	lines := append([]string{large}, notes(5)...)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	r.has(lines)
	if st := r.sink.Status(); st.Session.Sessions != 1 || st.Session.Sent != 6 || st.Counters.Delivered != 6 {
		t.Errorf("%d sessions, %d sent, %d delivered; want 1, 6, 6", st.Session.Sessions, st.Session.Sent, st.Counters.Delivered)
	}
}

// TestLateAndDoubleOKs: the first answer counts; one that comes after its event was parked still settles it.
func TestLateAndDoubleOKs(t *testing.T) {
	var late atomic.Pointer[relaytest.Conn]
	first := notes(1)[0]
	ok := func(id string) string { return `["OK","` + id + `",true,""]` }
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		s, found := event.ScanLine([]byte(m.Raw[len(`["EVENT",`) : len(m.Raw)-1]))
		if !found {
			return false
		}
		if s.ID.String() == relaytest.ID(first) {
			late.Store(c)
			return true
		}
		c.Send(ok(s.ID.String()))
		c.Send(`["OK","` + s.ID.String() + `",false,"blocked: second thoughts"]`)
		return true
	}})
	r.o.Settings.OK = 50 * time.Millisecond
	r.o.Retry = time.Hour
	r.log.add(t, record.Origin{}, notes(10)...)
	r.start()
	r.settled()
	if c := r.sink.Status().Counters; c.Delivered != 9 || c.Parked != 1 || c.RejectedTotal() != 0 {
		t.Fatalf("delivered %d, parked %d, rejected %d; want 9, 1, 0", c.Delivered, c.Parked, c.RejectedTotal())
	}
	late.Load().Send(ok(relaytest.ID(first)))
	late.Load().Send(ok(relaytest.ID(first)))
	r.await("the late OK", func(st Status) bool { return st.Session.Strays == 10 })
	if st := r.sink.Status(); st.Counters.Delivered != 10 || st.Counters.Parked != 0 || st.Session.Late != 1 {
		t.Fatalf("delivered %d, parked %d, late %d; want 10, 0, 1", st.Counters.Delivered, st.Counters.Parked, st.Session.Late)
	}
}

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

// TestAuthRequiredPausesAndKeepsTheQueue: nothing is charged, it is said once, probes are single events, and all goes
// on when the relay takes us.
func TestAuthRequiredPausesAndKeepsTheQueue(t *testing.T) {
	for _, text := range []string{"auth-required: members only", "restricted: not an active member", "blocked: your address is banned"} {
		t.Run(text, func(t *testing.T) {
			var open atomic.Bool
			r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer {
				if open.Load() {
					return relaytest.Accept()
				}
				return relaytest.Reject(text)
			}})
			r.o.Settings.Window = 30
			lines := notes(100)
			r.log.add(t, record.Origin{}, lines...)
			r.start()
			r.await("the pause", func(st Status) bool { return st.Paused != "" })
			before := len(r.relay.Got("EVENT"))
			r.await("three probes", func(st Status) bool { return st.Session.Sessions >= 4 })
			probes := len(r.relay.Got("EVENT")) - before
			if st := r.sink.Status(); st.Counters.Delivered+st.Counters.RejectedTotal() != 0 || st.Pending+st.Counters.Parked != 100 {
				t.Fatalf("while paused: %+v; want all 100 waiting", st.Counters)
			}
			if probes > 30+4 {
				t.Fatalf("%d events sent to a paused sink in three probes", probes)
			}
			if n := r.out.count("takes nothing from us"); n != 1 {
				t.Fatalf("the pause was logged %d times, want once", n)
			}
			open.Store(true)
			r.await("everything delivered", func(st Status) bool { return st.Counters.Delivered == 100 })
			r.has(lines)
			if st := r.sink.Status(); st.Paused != "" {
				t.Fatalf("still paused: %s", st.Paused)
			}
		})
	}
}

// TestRefusedAndClosed: a relay that says auth-required and closes is left alone as well.
func TestRefusedAndClosed(t *testing.T) {
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		s, ok := event.ScanLine([]byte(m.Raw[len(`["EVENT",`) : len(m.Raw)-1]))
		if ok {
			c.Send(`["OK","` + s.ID.String() + `",false,"auth-required: who are you"]`)
			c.Close(1000, "")
		}
		return ok
	}})
	r.o.Probe = time.Hour
	r.log.add(t, record.Origin{}, notes(1)...)
	r.start()
	r.await("the pause", func(st Status) bool { return st.Paused != "" })
	time.Sleep(300 * time.Millisecond) // many backoffs
	if st := r.sink.Status(); st.Session.Sessions != 1 || st.Pending != 1 {
		t.Fatalf("%d sessions, %d pending; want one session and the event kept", st.Session.Sessions, st.Pending)
	}
}

// TestRefusalsOverSessions: a relay that refuses everything is found to refuse us also when no connection lasts long enough to
// show it.
func TestRefusalsOverSessions(t *testing.T) {
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Reject("blocked: go away") }})
	lines := notes(refusalsBan)
	r.start()
	for i := 0; i < len(lines); i += 5 {
		r.log.add(t, record.Origin{}, lines[i:i+5]...)
		if i+5 < len(lines) {
			r.settled()
			r.relay.Drop()
		}
	}
	r.await("the pause", func(st Status) bool { return st.Paused != "" })
	if n := r.sink.Status().Counters.RejectedTotal(); n != 0 {
		t.Errorf("%d are rejected, want that all wait", n)
	}
}

// TestRefusalsOfAWhitelistAreVerdicts: a relay that takes some events and blocks many refuses the events, not us.
func TestRefusalsOfAWhitelistAreVerdicts(t *testing.T) {
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		if e.Content == "note 0" {
			return relaytest.Accept()
		}
		return relaytest.Reject("blocked: not on white-list")
	}})
	r.o.Settings.Window = 1
	r.log.add(t, record.Origin{}, notes(60)...)
	r.start()
	r.settled()
	if c := r.sink.Status().Counters; c.Delivered != 1 || c.Rejected["blocked"] != 59 {
		t.Fatalf("%+v; want 1 delivered, 59 blocked", c)
	}
}

// TestRestartSendsOnlyWhatWasUnanswered, in the middle of a window.
func TestRestartSendsOnlyWhatWasUnanswered(t *testing.T) {
	var answering atomic.Bool
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		var n int
		if _, err := fmt.Sscanf(m.Raw[strings.Index(m.Raw, `"note `):], `"note %d"`, &n); err != nil {
			return false
		}
		return n%3 == 0 && n < 300 && !answering.Load() // every third is not answered
	}})
	r.o.Settings.OK = time.Minute
	lines := notes(600)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.await("500 answers", func(st Status) bool { return st.Counters.Delivered == 500 })
	if st := r.sink.Status(); st.Cursor != 0 || st.Open != 100 {
		t.Fatalf("cursor %d, open %d; want 0 and 100: only the contiguous prefix is passed", st.Cursor, st.Open)
	}
	r.reopen(false)
	answering.Store(true)
	before := len(r.relay.Got("EVENT"))
	r.start()
	r.settled()
	r.has(lines)
	if n := len(r.relay.Got("EVENT")) - before; n != 100 {
		t.Fatalf("%d sends after the restart, want the 100 that were unanswered", n)
	}
}

// TestKill: the state is reopened as it was on disk at a moment in full flight. What had been sent by then is sent again
// at most as often as it was not committed: 1,000 answers, those that came during one commit, and a window.
func TestKill(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lines := bare(8000)
	r.log.add(t, record.Origin{}, lines...)
	sent := map[string]bool{} // before the last kill
	from := 0
	check := func() {
		again := 0
		for _, m := range r.relay.Got("EVENT")[from:] {
			if sent[m.Raw] {
				again++
			}
		}
		t.Logf("%d of %d sent again", again, len(sent))
		if most := commitMost + r.o.Settings.Window; again > most {
			t.Errorf("%d events were sent again after a kill, want at most %d", again, most)
		}
	}
	for range 3 {
		r.start()
		r.await("some progress", func(st Status) bool { return st.Session.Sent > 1500 || st.Pending == 0 })
		before := r.relay.Got("EVENT")
		r.reopen(true)
		check()
		from = len(r.relay.Got("EVENT"))
		clear(sent)
		for _, m := range before {
			sent[m.Raw] = true
		}
	}
	r.start()
	r.settled()
	check()
	r.has(lines)
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

// TestWhatIsNotSent: echo, filter, start, --no-deliver, the policy table, and ordinals that no line holds.
func TestWhatIsNotSent(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	key := relaytest.Key(1)
	sign := func(kind int, at int64, tags ...[]string) string { return relaytest.Sign(key, kind, at, tags, "x") }
	sent := sign(1, day)
	allowed := sign(4, day)
	r.log.add(t, record.Origin{Relay: "wss://elsewhere.example.com"}, sent, allowed)
	r.log.add(t, record.Origin{Relay: r.relay.URL}, sign(1, day+1))
	r.log.add(t, record.Origin{NoDeliver: true}, sign(1, day+2))
	r.log.add(t, record.Origin{}, sign(1, day-1), sign(7, day), sign(1059, day), sign(17375, day), sign(1, day+3, []string{"-"}),
		sign(1, day+4, []string{"expiration", "1700000000"}))
	r.log.blank()
	r.log.blank()
	allow, err := policy.NewAllow([]string{policy.DM})
	if err != nil {
		t.Fatal(err)
	}
	r.o.Allow = allow
	r.o.Start = Start{Since: day}
	r.o.Want = event.Selection{All: [][]event.Filter{{{Kinds: []int{1, 4, 17375}}}}}.Compile()
	r.start()
	r.settled()
	r.has([]string{sent, allowed})
	want := map[string]uint64{
		SkipEcho: 1, SkipNoDeliver: 1, SkipBeforeStart: 1, SkipFilter: 2, policy.Wallet: 1, policy.Protected: 1, policy.Expired: 1, SkipWithdrawn: 2,
	}
	if got := r.sink.Status().Counters.Skipped; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("skipped %v, want %v", got, want)
	}
}

func TestExpiring(t *testing.T) {
	expiring := relaytest.Sign(relaytest.Key(1), 1, day, [][]string{{"expiration", "99999999999"}}, "x")
	for name, c := range map[string]struct {
		info            string
		delivered, held uint64
		parked          uint64
	}{
		"unknown": {"", 0, 0, 1},
		"without": {`{"supported_nips":[1,11]}`, 0, 1, 0},
		"with":    {`{"supported_nips":[1,"40"]}`, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, relaytest.Script{Info: c.info})
			r.log.add(t, record.Origin{}, expiring)
			r.start()
			r.settled()
			got := r.sink.Status().Counters
			if got.Delivered != c.delivered || got.Skipped[policy.Expiring] != c.held || got.Parked != c.parked {
				t.Fatalf("%+v; want %d delivered, %d held, %d parked", got, c.delivered, c.held, c.parked)
			}
		})
	}
}

// TestStartNow: what was archived before the sink came is not sent, also not after a restart before anything was.
func TestStartNow(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lines := notes(30)
	r.log.add(t, record.Origin{}, lines[:20]...)
	r.o.Start = Start{Now: true}
	if _, err := New(r.o); err != nil {
		t.Fatal(err)
	}
	r.log.add(t, record.Origin{}, lines[20:]...)
	r.start()
	r.settled()
	r.has(lines[20:])
	if c := r.sink.Status().Counters; c.Before != 20 {
		t.Fatalf("%d before the start, want 20", c.Before)
	}
}

// TestFilterSwappedWhileRunning: nothing is sent that the filter of the moment does not take, and all that it does.
func TestFilterSwappedWhileRunning(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	ones := notes(20)
	var sevens []string
	for i := range 20 {
		sevens = append(sevens, relaytest.Sign(relaytest.Key(1), 7, day+int64(i), nil, "+"))
	}
	only := func(kind int) *event.Matcher {
		return event.Selection{All: [][]event.Filter{{{Kinds: []int{kind}}}}}.Compile()
	}
	r.o.Want = only(1)
	r.log.add(t, record.Origin{}, append(slices.Clone(ones[:10]), sevens[:10]...)...)
	r.start()
	r.settled()
	r.sink.SetRules(only(7), "sevens", policy.Allow{})
	r.log.add(t, record.Origin{}, append(slices.Clone(ones[10:]), sevens[10:]...)...)
	r.settled()
	r.has(append(slices.Clone(ones[:10]), sevens...))
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

// blocker is another role whose handler holds the session's reader.
type blocker struct {
	serving chan struct{} // closed when the handler stands
	hold    chan struct{}
	blocked chan struct{}
}

func (b *blocker) Serve(ctx context.Context, s *relay.Session) error {
	defer s.Handle(&relay.Handler{Notice: func(string) {
		b.blocked <- struct{}{}
		select {
		case <-b.hold:
		case <-ctx.Done():
		}
	}})()
	close(b.serving)
	<-ctx.Done()
	return ctx.Err()
}

// TestClocksStandStillWhileTheReaderWaits: OKs behind a frame that our own stages hold up are not overdue.
func TestClocksStandStillWhileTheReaderWaits(t *testing.T) {
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if strings.Contains(m.Raw, `"note 0"`) {
			c.Send(`["NOTICE","hold"]`)
		}
		return false
	}})
	b := &blocker{make(chan struct{}), make(chan struct{}), make(chan struct{}, 10)}
	r.extra = map[string]relay.Role{"source": b}
	r.o.Settings.OK = 400 * time.Millisecond
	r.start()
	<-b.serving // or the notice could come too early for it
	r.log.add(t, record.Origin{}, notes(10)...)
	<-b.blocked
	time.Sleep(1200 * time.Millisecond) // three OK timeouts
	close(b.hold)
	r.settled()
	if st := r.sink.Status(); st.Counters.Delivered != 10 || st.Session.Sent != 10 || st.Session.Sessions != 1 {
		t.Fatalf("delivered %d with %d sends over %d sessions, want 10, 10, 1", st.Counters.Delivered, st.Session.Sent, st.Session.Sessions)
	}
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

// TestSlowCommit: while a commit hangs, events are sent and answered on, until commitMost answers wait for it. Nothing counts as
// committed before it is.
func TestSlowCommit(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	disk := &hanging{DB: r.db, hangs: make(chan struct{}, 1)}
	r.o.State = disk
	r.start()
	release := disk.hang()
	defer release()
	r.log.add(t, record.Origin{}, bare(1)...)
	<-disk.hangs
	lines := bare(2*commitMost + 1)
	r.log.add(t, record.Origin{}, lines[1:]...)
	r.await("the stop at commitMost", func(st Status) bool { return st.InFlight == 0 && st.Counters.Delivered >= commitMost })
	if st := r.sink.Status(); st.Counters.Delivered > uint64(commitMost+r.o.Settings.Window) || st.Failing != "" {
		t.Fatalf("delivered %d uncommitted (%q), want at most %d and a window", st.Counters.Delivered, st.Failing, commitMost)
	}
	if at, _, _ := r.sink.ledger.Committed(); at.Ordinal != 0 {
		t.Fatalf("the cursor is at %d while nothing is committed", at.Ordinal)
	}
	release()
	r.settled()
	r.has(lines)
	if n := len(r.relay.Got("EVENT")); n != len(lines) {
		t.Fatalf("%d sends, want %d: a slow commit without a crash costs nothing", n, len(lines))
	}
}

// TestFullDisk: answers that cannot be committed are kept, sends wait at 1,000 of them, and all goes on when there is room.
func TestFullDisk(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	disk := &failing{DB: r.db}
	r.o.State = disk
	lines := bare(3000)
	r.start()
	disk.set(true)
	r.log.add(t, record.Origin{}, lines...)
	r.await("the stop at 1,000", func(st Status) bool { return st.InFlight == 0 && st.Counters.Delivered >= commitAfter })
	if st := r.sink.Status(); st.Counters.Delivered > commitAfter+500 || st.Failing == "" {
		t.Fatalf("delivered %d uncommitted (%q), want at most 1,000 and a window", st.Counters.Delivered, st.Failing)
	}
	disk.set(false)
	r.settled()
	r.has(lines)
	if n := len(r.relay.Got("EVENT")); n != 3000 {
		t.Fatalf("%d sends, want 3000: a failed commit without a crash costs nothing", n)
	}
	if n := r.out.count("answers are kept in memory"); n != 1 {
		t.Fatalf("the failure was logged %d times, want once", n)
	}
}
