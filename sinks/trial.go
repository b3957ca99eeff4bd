package sinks

import (
	"errors"
	"time"

	"rebroadcastr/relay"
)

// errNoControl: the ledger knows of no event that the relay has and that could be sent again.
var errNoControl = errors.New("no event to ask with")

// acquitted ends a trial on a connection that lives: the other roles may join.
func acquitted() error { return &relay.Pause{Reason: "an event was tried alone"} }

// tryStep is step on a trial: controls until enough are answered, then the suspect, and nothing more.
func (a *attempt) tryStep() (time.Duration, error) {
	s := a.s
	s.mu.Lock()
	now := s.now()
	paced := s.pace.wait(now)
	switch f := a.order.first; {
	case a.pause != nil:
		defer s.mu.Unlock()
		return 0, a.pause
	case !s.poison.on:
		s.mu.Unlock()
		return 0, acquitted()
	case f != nil:
		defer s.mu.Unlock()
		if left := a.leftLocked(f, f.bytes, now); left > 0 {
			return min(left+time.Millisecond, longest), nil
		}
		if f.control {
			return 0, a.silence()
		}
		// No answer and no close: parked like any other that is not answered, if the relay answers others.
		s.poison.acquit()
		return 0, acquitted()
	case s.draining, s.ledger.Crowded():
		s.mu.Unlock()
		return longest, nil // an answer or a commit wakes us
	case paced > 0:
		s.mu.Unlock()
		return paced, nil
	}
	controls, suspect := s.poison.controls(), s.poison.suspect
	s.mu.Unlock()

	if a.controls < controls {
		err := a.sendControl(suspect.Ordinal)
		if errors.Is(err, errNoControl) {
			s.mu.Lock()
			s.poison.unclear(now)
			s.mu.Unlock()
			return 0, acquitted()
		}
		return 0, err
	}
	if a.hand == nil {
		waiting, err := a.takeSuspect(suspect)
		if err != nil {
			return 0, err
		}
		if waiting {
			err = a.load(suspect)
		}
		if err != nil {
			return 0, err
		}
	}
	if a.hand == nil { // settled meanwhile, or just now without a send
		s.mu.Lock()
		s.poison.acquit()
		s.mu.Unlock()
		return 0, acquitted()
	}
	return 0, a.send()
}

// takeSuspect reports whether the event still waits as it did when it was suspected.
func (a *attempt) takeSuspect(it item) (waiting bool, err error) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock() // an operator's retry may give its row another time
	if waiting, err = a.s.ledger.Waiting(it); !waiting || err != nil {
		return false, err
	}
	if it.parked {
		a.taken[it.key] = struct{}{}
	}
	return true, nil
}

// trialLocked begins a trial if one is due on this connection; else it says how the role must come back for it.
func (a *attempt) trialLocked(now time.Time) *relay.Pause {
	s := a.s
	if !s.poison.on || s.paused != "" {
		return nil
	}
	if wait := s.poison.next.Sub(now); wait > 0 || !a.sess.Alone() {
		return s.trialIn(max(wait, 0))
	}
	a.trial = true
	return nil
}

func (s *Sink) trialIn(d time.Duration) *relay.Pause {
	return &relay.Pause{For: d, Reason: "an event may be what ends the connections: it is tried alone", Alone: true}
}

// setAsideLocked takes those out of items that let others go first.
func (a *attempt) setAsideLocked(items []item) (rest []item) {
	for _, it := range items {
		if a.s.poison.isAside(it.Ordinal) {
			a.aside = append(a.aside, it)
		} else {
			rest = append(rest, it)
		}
	}
	return rest
}

// comeBackLocked puts those back in line whose time aside is over; next is when there are more, zero: never.
func (a *attempt) comeBackLocked(now time.Time) (next time.Time) {
	ordinals, next := a.s.poison.back(now)
	for _, o := range ordinals {
		var rest []item
		for _, it := range a.aside {
			if it.Ordinal == o {
				a.againLocked(it)
			} else {
				rest = append(rest, it)
			}
		}
		a.aside = rest
	}
	if len(ordinals) > 0 {
		a.s.ledger.LookAgain() // parked ones
	}
	return next
}

// judgeLocked says what follows from the end of the session for the event that may have caused it; not nil: how the sink
// should come back.
func (s *Sink) judgeLocked(e ending, end *relay.End) *relay.Pause {
	now := s.now()
	_, e.known = s.ledger.Control()
	switch s.poison.ended(now, e) {
	case convicted:
		f := e.oldest
		text := s.poison.verdict(end.Error())
		s.ledger.Reject(f.item, Rejected{ID: f.id, Prefix: prefixPoison, Text: text, Time: now})
		s.poison.acquit()
		s.log.Warn().Stringer("id", f.id).Str("because", text).Msg("an event ends the sink's connections: it is not sent there any more")
	case toBeTried:
		if len(s.poison.deaths) == 0 {
			s.log.Info().Stringer("id", e.oldest.id).Msg("an event may be what ends the sink's connections: it is tried alone")
		}
		return s.trialIn(s.poison.next.Sub(now))
	}
	return nil
}
