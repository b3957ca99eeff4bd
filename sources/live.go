package sources

import (
	"fmt"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

const (
	// liveWait is how long catch-up waits for the live subscriptions' EOSE; some relays never send it.
	liveWait = 10 * time.Second
	// unheard is after how many times Options.Idle a live request without EOSE is sent again, doubled each time: a relay
	// may have swallowed it, with a NOTICE about too many of them or without.
	unheard = 2
	// steady is how long a live subscription must have stood for its next CLOSED to start a new backoff.
	steady = time.Minute
)

// subscription is one live request.
type subscription struct {
	sub      string
	filter   event.Filter
	atoms    int
	open     bool
	answered bool      // EOSE, since it was asked
	hole     bool      // it was closed: what came since must be caught up
	tries    int       // CLOSED in a row
	due      time.Time // ask again; zero: not waiting
	since    time.Time // asked
}

// keepLive asks for everything without since, first of all, and again whenever the relay closes it.
func (v *visit) keepLive() error {
	subs := v.subscriptions()
	ready := false
	announce := func() {
		if !ready {
			ready = true
			close(v.liveReady)
		}
	}
	patience := time.NewTimer(liveWait)
	defer patience.Stop()
	var complained time.Time
	for {
		next := time.Hour
		waiting := false
		for _, s := range subs {
			if !s.open && !s.due.After(time.Now()) {
				if err := v.subscribe(s); err != nil {
					return err
				}
			}
			if s.open && !s.answered {
				again := s.since.Add(unheard * v.s.o.Idle << min(s.tries, 10))
				if !again.After(time.Now()) {
					s.tries++
					s.hole = true
					if err := v.subscribe(s); err != nil {
						return err
					}
					again = s.since.Add(unheard * v.s.o.Idle << min(s.tries, 10))
				}
				next = min(next, time.Until(again))
			}
			if !s.open {
				next = min(next, time.Until(s.due))
			}
			waiting = waiting || !s.answered
		}
		if !waiting {
			announce()
		}
		if !complained.IsZero() {
			next = min(next, time.Until(complained.Add(v.s.o.Idle/10)))
		}
		t := time.NewTimer(max(next, 0))
		select {
		case sig := <-v.signals:
			if sig.notice {
				if waiting && v.s.liveLimit.Load() == 0 {
					complained = time.Now()
				}
				break
			}
			if err := v.heardOf(subs, sig); err != nil {
				t.Stop()
				return err
			}
		case <-patience.C:
			announce()
		case <-t.C:
			if !complained.IsZero() && time.Since(complained) >= v.s.o.Idle/10 {
				// A NOTICE and no EOSE: limit 0 may be what it dislikes.
				complained = time.Time{}
				if err := v.limitOne(subs); err != nil {
					return err
				}
			}
		case <-v.ctx.Done():
			t.Stop()
			return nil
		}
		t.Stop()
	}
}

// subscriptions are the live requests: what is asked for, whenever it is dated. A since would hide what arrives late and
// is dated back.
func (v *visit) subscriptions() []*subscription {
	var list []atom
	seen := make(map[atomKey]bool)
	now := v.s.o.Now().Unix()
	for _, a := range v.s.atoms {
		if a.filter.Until != 0 && a.filter.Until < now || seen[a.key] {
			continue // nothing new can match
		}
		seen[a.key] = true
		a.filter.Since, a.filter.Until = 0, 0
		list = append(list, a)
	}
	var out []*subscription
	for i, g := range gather(list, v.most(), func(atom) string { return "" }) {
		out = append(out, &subscription{sub: fmt.Sprintf("%s%d", livePrefix, i), filter: g.filter, atoms: len(g.atoms)})
	}
	return out
}

func (v *visit) subscribe(s *subscription) error {
	s.open, s.answered, s.since, s.due = true, false, time.Now(), time.Time{}
	return v.req(v.ctx, s.sub, s.filter, int(v.s.liveLimit.Load()))
}

// limitOne asks again with limit 1 where nothing has answered limit 0.
func (v *visit) limitOne(subs []*subscription) error {
	for _, s := range subs {
		if s.open && !s.answered {
			v.s.liveLimit.Store(1)
			if err := v.close(v.ctx, s.sub); err != nil {
				return err
			}
			if err := v.subscribe(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// heardOf deals with an EOSE or a CLOSED. Its error ends the visit.
func (v *visit) heardOf(subs []*subscription, sig signal) error {
	var s *subscription
	for _, one := range subs {
		if one.sub == sig.sub {
			s = one
		}
	}
	if s == nil || !s.open {
		return nil
	}
	if !sig.closed {
		s.answered = true
		v.sess.Progress()
		if s.hole {
			s.hole = false
			select {
			case v.catchUpNow <- struct{}{}:
			default:
			}
		}
		return nil
	}
	j := relay.ClassifyClosed(sig.reason)
	v.log.Debug().Str("relay", v.s.o.URL).Str("sub", s.sub).Str("reason", sig.reason).Msg("live subscription closed by the relay")
	s.open = false
	switch {
	case j.Verdict == relay.Paused:
		return &relay.Pause{For: probe, Reason: sig.reason}
	case !s.answered && v.s.liveLimit.Load() == 0 && j.Verdict != relay.Slower:
		v.s.liveLimit.Store(1)
		return nil // asked again at once
	case !s.answered && j.Verdict == relay.Narrow && v.s.narrower(s.atoms):
		return smaller()
	}
	s.hole = true
	if time.Since(s.since) > steady {
		s.tries = 0
	}
	s.due = time.Now().Add(v.s.wait(s.tries, j.Wait))
	s.tries++
	v.s.note(fmt.Sprintf("live subscription closed: %s", sig.reason))
	return nil
}
