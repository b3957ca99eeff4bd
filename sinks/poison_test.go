package sinks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// killer is a relay that drops the connection at events whose content says so.
func killer(t *testing.T, extra relaytest.Script) relaytest.Script {
	t.Helper()
	extra.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "EVENT" && strings.Contains(m.Raw, "kill") {
			c.Drop()
			return true
		}
		return false
	}
	return extra
}

func kill(n int) string {
	return relaytest.Sign(relaytest.Key(1), 1, day, nil, fmt.Sprint("kill ", n))
}

// rejected returns the committed rows.
func (r *rig) rejected() (rows []Rejected) {
	r.t.Helper()
	flush, end := context.WithTimeout(context.Background(), 5*time.Second)
	defer end()
	if err := r.sink.Flush(flush); err != nil {
		r.t.Fatal(err)
	}
	if err := r.sink.Rejected(func(row Rejected) bool { rows = append(rows, row); return true }); err != nil {
		r.t.Fatal(err)
	}
	return rows
}

// subscriber stands for a source: it asks on each session, and says CLOSE.
type subscriber struct{ served atomic.Int64 }

func (u *subscriber) Serve(ctx context.Context, s *relay.Session) error {
	u.served.Add(1)
	if err := s.Send(ctx, []byte(`["REQ","live-0",{"limit":0}]`)); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// TestPoison: events that end the connection are found, with the link's source aside, and all else is delivered.
func TestPoison(t *testing.T) {
	r := newRig(t, killer(t, relaytest.Script{}))
	u := &subscriber{}
	r.extra = map[string]relay.Role{"source": u}
	lines := notes(60)
	first, second := kill(1), kill(2)
	r.log.add(t, record.Origin{}, lines[:30]...)
	r.log.add(t, record.Origin{}, first)
	r.log.add(t, record.Origin{}, lines[30:50]...)
	r.log.add(t, record.Origin{}, second)
	r.log.add(t, record.Origin{}, lines[50:]...)
	r.start()
	r.settled()
	r.has(lines)
	rows := r.rejected()
	if len(rows) != 2 || rows[0].ID.String() != relaytest.ID(first) || rows[1].ID.String() != relaytest.ID(second) {
		t.Fatalf("rejected %+v, want the two that kill", rows)
	}
	for _, row := range rows {
		if row.Prefix != "poison" || !strings.Contains(row.Text, "3 connections") || !strings.Contains(row.Text, "dropped") || row.Time.IsZero() {
			t.Errorf("row %+v: want prefix poison and a text that says how often and how the connection ended", row)
		}
	}
	// The trials: connections with nothing but 4, 5 or 6 times a control, and the suspect.
	got := map[int][]string{}
	for _, m := range r.relay.Got("") {
		got[m.Conn] = append(got[m.Conn], m.Raw)
	}
	var trials []int
	for _, frames := range got {
		if len(frames) > 1 && frames[0] == frames[1] {
			trials = append(trials, len(frames))
			if slices.ContainsFunc(frames, func(f string) bool { return strings.HasPrefix(f, `["REQ"`) }) {
				t.Errorf("the source was served during a trial: %.80q", frames)
			}
		}
	}
	slices.Sort(trials)
	if want := []int{5, 5, 6, 6, 7, 7}; !slices.Equal(trials, want) {
		t.Errorf("messages on the connections of trials: %v, want %v", trials, want)
	}
	r.await("a session with the source", func(Status) bool {
		c := r.relay.Conns()
		return len(c) == 1 && len(c[0].Subscriptions()) == 1
	})
	st := r.sink.Status()
	t.Logf("%d sessions, %d sends, %d controls, the source was served %d times", st.Session.Sessions, st.Session.Sent, st.Session.Controls, u.served.Load())
	r.log.add(t, record.Origin{}, relaytest.Sign(relaytest.Key(1), 1, day, nil, "after it"))
	r.settled()
}

// TestPoisonFirst: a new sink has no event to ask with; the first one that kills lets others go before.
func TestPoisonFirst(t *testing.T) {
	for _, window := range []int{1, 500} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			r := newRig(t, killer(t, relaytest.Script{}))
			r.o.Settings.Window = window
			r.log.add(t, record.Origin{}, kill(1), kill(2))
			r.start()
			r.await("that both are aside", func(st Status) bool {
				r.sink.mu.Lock()
				defer r.sink.mu.Unlock()
				return len(r.sink.poison.aside) == 2
			})
			if st := r.sink.Status(); st.Cursor != 0 || st.Pending != 2 || st.Counters.RejectedTotal() != 0 {
				t.Fatalf("with nothing to ask with: cursor %d, pending %d, rejected %d; want 0, 2, 0", st.Cursor, st.Pending, st.Counters.RejectedTotal())
			}
			lines := notes(20)
			r.log.add(t, record.Origin{}, lines...)
			r.settled()
			r.has(lines)
			if rows := r.rejected(); len(rows) != 2 {
				t.Fatalf("rejected %+v, want both that kill", rows)
			}
		})
	}
}

// parkedPoison is a sink in which an event is parked that ends each connection from here on, and the other events, which are delivered.
func parkedPoison(t *testing.T, retry time.Duration) (r *rig, lines []string) {
	t.Helper()
	var armed atomic.Bool
	r = newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label != "EVENT" || !strings.Contains(m.Raw, "kill") {
			return false
		}
		if armed.Load() {
			c.Drop()
		} else {
			c.Send(`["OK","` + relaytest.ID(kill(1)) + `",false,"error: try again"]`)
		}
		return true
	}})
	r.o.Retry = retry
	lines = notes(20)
	r.log.add(t, record.Origin{}, kill(1))
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	armed.Store(true)
	return r, lines
}

// TestParkedPoison: an event that waited for its own sake can be poison as well.
func TestParkedPoison(t *testing.T) {
	r, lines := parkedPoison(t, 200*time.Millisecond)
	r.await("the conviction", func(st Status) bool { return st.Counters.Rejected["poison"] == 1 })
	if st := r.sink.Status(); st.Counters.Parked != 0 || st.Counters.ParkedErrors != 0 {
		t.Fatalf("parked %d, of these for errors %d; want none", st.Counters.Parked, st.Counters.ParkedErrors)
	}
	r.has(lines)
}

// TestSlowPoison: the relay answers others until it dies of the event, so the window stays open.
func TestSlowPoison(t *testing.T) {
	var mu sync.Mutex
	dying := map[int]int{} // messages since the event, by connection
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(m.Raw, "kill") {
			dying[c.N] = 1
			time.AfterFunc(20*time.Millisecond, c.Drop)
			return true
		}
		return false
	}})
	r.o.Settings.Window = 4
	r.log.add(t, record.Origin{}, kill(1))
	lines := bare(3000)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	r.has(lines)
	if rows := r.rejected(); len(rows) != 1 || rows[0].Prefix != "poison" {
		t.Fatalf("rejected %+v, want the one that kills", rows)
	}
}

// TestClosesConvictNobody: a relay that closes at random, and one that closes at each third event, lose and convict nothing.
func TestClosesConvictNobody(t *testing.T) {
	for name, closes := range map[string]func() func(n int) bool{
		"at random": func() func(int) bool {
			random := rand.New(rand.NewPCG(3, 4))
			return func(int) bool { return random.IntN(5) == 0 }
		},
		"each third": func() func(int) bool { return func(n int) bool { return n%3 == 0 } },
	} {
		t.Run(name, func(t *testing.T) {
			now := closes()
			var mu sync.Mutex
			messages := map[int]int{}
			r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
				mu.Lock()
				defer mu.Unlock()
				messages[c.N]++
				if m.Label == "EVENT" && now(messages[c.N]) {
					c.Drop()
					return true
				}
				return false
			}})
			r.o.Settings.Window = 8
			lines := notes(150)
			r.log.add(t, record.Origin{}, lines...)
			r.start()
			r.settled()
			r.has(lines)
			if st := r.sink.Status(); st.Counters.RejectedTotal()+st.Counters.Parked > 0 {
				t.Fatalf("rejected %v, parked %d; want nobody charged", st.Counters.Rejected, st.Counters.Parked)
			}
		})
	}
}

// TestPoisonAfterRestart: a suspicion is not kept; it is found again.
func TestPoisonAfterRestart(t *testing.T) {
	r := newRig(t, killer(t, relaytest.Script{}))
	r.o.Trial = time.Hour
	lines := notes(10)
	r.log.add(t, record.Origin{}, lines...)
	r.log.add(t, record.Origin{}, kill(1))
	r.start()
	r.await("the first death on trial", func(Status) bool {
		r.sink.mu.Lock()
		defer r.sink.mu.Unlock()
		return len(r.sink.poison.deaths) == 1
	})
	r.reopen(false)
	if st := r.sink.Status(); st.Counters.RejectedTotal() != 0 || st.Pending != 1 {
		t.Fatalf("rejected %d, pending %d; want 0, 1", st.Counters.RejectedTotal(), st.Pending)
	}
	r.o.Trial = 10 * time.Millisecond
	r.start()
	r.settled()
	r.has(lines)
	if rows := r.rejected(); len(rows) != 1 || rows[0].Prefix != "poison" {
		t.Fatalf("rejected %+v, want the one that kills", rows)
	}
}

// TestSuspectWithoutACloseIsNoPoison: on its trial it is not answered and the connection lives.
func TestSuspectWithoutACloseIsNoPoison(t *testing.T) {
	var kills atomic.Bool
	kills.Store(true)
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if !strings.Contains(m.Raw, "kill") {
			return false
		}
		if kills.Load() {
			c.Drop()
		}
		return true
	}})
	r.o.Settings.OK = 60 * time.Millisecond
	r.o.Retry = time.Hour
	lines := notes(10)
	r.log.add(t, record.Origin{}, lines...)
	r.log.add(t, record.Origin{}, kill(1))
	r.start()
	r.await("a trial", func(Status) bool { r.sink.mu.Lock(); defer r.sink.mu.Unlock(); return r.sink.poison.on })
	kills.Store(false)
	r.settled()
	if st := r.sink.Status(); st.Counters.RejectedTotal() != 0 || st.Counters.Parked != 1 {
		t.Fatalf("rejected %v, parked %d; want it parked for want of an answer", st.Counters.Rejected, st.Counters.Parked)
	}
}

// TestMuteFirst: a new sink's first event is not answered, and nothing else is in flight that could be.
func TestMuteFirst(t *testing.T) {
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		return relaytest.Answer{Accepted: true, None: e.Content == "note 0"}
	}, Forget: true})
	r.o.Settings.OK, r.o.Settings.Window, r.o.Retry = 30*time.Millisecond, 1, time.Hour
	r.log.add(t, record.Origin{}, notes(20)...)
	r.start()
	r.settled()
	if st := r.sink.Status(); st.Counters.Delivered != 19 || st.Counters.Parked != 1 {
		t.Fatalf("delivered %d, parked %d; want 19 and the mute one", st.Counters.Delivered, st.Counters.Parked)
	}
}
