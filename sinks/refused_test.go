package sinks

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

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
