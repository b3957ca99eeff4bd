package sinks

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

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

// TestUnansweredEventIsParkedAndTheOthersGoOn, in each way in which a relay leaves an event unanswered.
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
