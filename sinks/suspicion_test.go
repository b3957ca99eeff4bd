package sinks

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
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
