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
	"pgregory.net/rapid"

	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// suspicionSim is a sink and a relay, reduced to what a suspicion is told: each message may end the connection.
type suspicionSim struct {
	p         suspicion
	w         window
	now       time.Time
	open      []uint64
	control   bool // something was taken
	kills     func(ordinal uint64) bool
	closes    func() bool // at this message, whatever it is
	delivered []uint64
	poisoned  []uint64
	trials    map[uint64][]trialDeath // deaths in a row of the present suspicion
}

type trialDeath struct {
	at       time.Time
	controls int
}

func (s *suspicionSim) take(o uint64) {
	s.open = slices.DeleteFunc(s.open, func(x uint64) bool { return x == o })
	s.delivered = append(s.delivered, o)
	s.control = true
}

// session runs one connection; the error is a broken property.
func (s *suspicionSim) session() error {
	s.now = s.now.Add(time.Second)
	if s.p.on {
		return s.trial()
	}
	s.p.back(s.now)
	var queue []uint64
	for _, o := range s.open {
		if !s.p.isAside(o) {
			queue = append(queue, o)
		}
	}
	if len(queue) == 0 {
		s.now = s.now.Add(s.p.every)
		return nil
	}
	var flight []uint64
	for len(queue) > 0 || len(flight) > 0 {
		for len(queue) > 0 && len(flight) < s.w.now {
			flight, queue = append(flight, queue[0]), queue[1:]
		}
		if o := flight[0]; s.kills(o) || s.closes() {
			s.p.ended(s.now, ending{
				broken: true, window: s.w.now, unanswered: len(flight), oldest: flightOf(o), intime: true, known: s.control,
			})
			s.w.died()
			clear(s.trials)
			return nil
		}
		s.take(flight[0])
		s.w.heard()
		flight = flight[1:]
	}
	return nil
}

func flightOf(o uint64) flight { return flight{item: item{mark: mark{Ordinal: o}}} }

func (s *suspicionSim) trial() error {
	if wait := s.p.next.Sub(s.now); wait > 0 {
		s.now = s.now.Add(wait)
	}
	o := s.p.suspect.Ordinal
	e := ending{trial: true, window: 1, known: s.control, intime: true}
	for e.controls < s.p.controls() {
		if s.closes() {
			e.broken, e.control = true, true
			if s.p.ended(s.now, e) != noSuspect || s.p.on {
				return fmt.Errorf("%d is suspected still after a control died", o)
			}
			return nil
		}
		e.controls++
	}
	if !s.kills(o) && !s.closes() {
		s.take(o)
		s.p.answered()
		if s.p.ended(s.now, e) != noSuspect {
			return fmt.Errorf("%d was answered and is suspected", o)
		}
		return nil
	}
	e.broken, e.unanswered, e.oldest = true, 1, flightOf(o)
	s.trials[o] = append(s.trials[o], trialDeath{s.now, e.controls})
	if s.p.ended(s.now, e) != convicted {
		return nil
	}
	s.p.acquit()
	s.open = slices.DeleteFunc(s.open, func(x uint64) bool { return x == o })
	s.poisoned = append(s.poisoned, o)
	deaths := s.trials[o]
	if len(deaths) != poisonDeaths {
		return fmt.Errorf("%d was convicted after %d deaths on trial in a row, want %d", o, len(deaths), poisonDeaths)
	}
	for i, d := range deaths {
		if d.controls == 0 || i > 0 && (d.at.Sub(deaths[i-1].at) < s.p.every || d.controls <= deaths[i-1].controls) {
			return fmt.Errorf("%d was convicted by %v: each trial has a control, more than the one before, and is %s later", o, deaths, s.p.every)
		}
	}
	return nil
}

// TestConviction: whatever ends connections, nobody is convicted unless controls were answered and the event died right
// after, on three trials in a row; an event that always does it is convicted, and all the others are delivered.
func TestConviction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.IntRange(1, 40).Draw(t, "events")
		poison := rapid.SliceOfDistinct(rapid.Uint64Range(0, 39), rapid.ID).Draw(t, "poison")
		pattern := rapid.SliceOf(rapid.IntRange(0, 3)).Draw(t, "closes") // once a message: 0 closes; after its end none does
		every := rapid.IntRange(0, 7).Draw(t, "every")                   // also closes at each so many-th message of all; less than 4: never
		var messages int
		s := suspicionSim{
			p: suspicion{every: 10 * time.Second}, w: newWindow(rapid.IntRange(1, 20).Draw(t, "window")), now: time.Unix(day, 0),
			kills: func(o uint64) bool { return slices.Contains(poison, o) }, trials: map[uint64][]trialDeath{},
		}
		s.closes = func() bool {
			messages++
			if every >= 4 && messages%every == 0 {
				return true
			}
			if len(pattern) == 0 {
				return false
			}
			closes := pattern[0] == 0
			pattern = pattern[1:]
			return closes
		}
		for o := range uint64(events) {
			s.open = append(s.open, o)
		}
		for sessions := 0; len(s.open) > 0; sessions++ {
			// Two cases stay open, and hold up nobody: there is no other event to ask with; and no three trials in a row are
			// without a close at a control.
			waits := !slices.ContainsFunc(s.open, func(o uint64) bool { return !s.kills(o) })
			if waits && (!s.control || every >= 4) && sessions > 1000 {
				return
			}
			if sessions > 20_000 {
				t.Fatalf("%v are open after %d sessions", s.open, sessions)
			}
			if err := s.session(); err != nil {
				t.Fatal(err)
			}
		}
		for _, o := range s.delivered {
			if s.kills(o) {
				t.Fatalf("%d kills and was delivered", o)
			}
		}
		for o := range uint64(events) {
			if s.kills(o) && !slices.Contains(s.poisoned, o) {
				t.Fatalf("%d always kills and is not convicted", o)
			}
		}
	})
}

// TestRegularClosesConvictNobody: a relay that closes at each n-th message of a connection, or of all connections, or that
// loses three in ten at random.
func TestRegularClosesConvictNobody(t *testing.T) {
	for n := 1; n <= 12; n++ {
		for _, of := range []string{"connection", "all"} {
			s := suspicionSim{
				p: suspicion{every: 10 * time.Second}, w: newWindow(20), now: time.Unix(day, 0),
				kills: func(uint64) bool { return false }, trials: map[uint64][]trialDeath{},
			}
			messages := 0
			s.closes = func() bool { messages++; return messages%n == 0 }
			for o := range uint64(100) {
				s.open = append(s.open, o)
			}
			for range 5000 {
				if of == "connection" {
					messages = 0
				}
				if err := s.session(); err != nil {
					t.Fatal(err)
				}
			}
			if len(s.poisoned) > 0 || n > 1 && len(s.open) > 0 {
				t.Errorf("a close at each %d. message of %s: %v convicted, %d not delivered; want none, none", n, of, s.poisoned, len(s.open))
			}
		}
	}
	for _, lost := range []int{2, 10, 20, 30, 50} { // messages in a hundred
		random := rand.New(rand.NewPCG(1, 2))
		convicted, total := 0, 0
		for range 200 {
			s := suspicionSim{
				p: suspicion{every: 10 * time.Second}, w: newWindow(8), now: time.Unix(day, 0),
				kills: func(uint64) bool { return false }, trials: map[uint64][]trialDeath{}, closes: func() bool { return random.IntN(100) < lost },
			}
			for o := range uint64(100) {
				s.open = append(s.open, o)
			}
			for range 5000 {
				if err := s.session(); err != nil {
					t.Fatal(err)
				}
			}
			convicted, total = convicted+len(s.poisoned), total+100
		}
		if t.Logf("%d of %d convicted where %d %% of all messages end the connection", convicted, total, lost); convicted*10_000 > total {
			t.Errorf("%d of %d convicted by chance, want less than one in ten thousand", convicted, total)
		}
	}
}

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

// rejectedRows are the committed ones.
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

// TestParkedPoison: an event that waited for its own sake can be poison as well.
func TestParkedPoison(t *testing.T) {
	var armed atomic.Bool
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
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
	r.o.Retry = 200 * time.Millisecond
	lines := notes(20)
	r.log.add(t, record.Origin{}, kill(1))
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	armed.Store(true)
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
