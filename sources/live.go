package sources

import (
	"fmt"
	"slices"
	"time"

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
	groups   []group // one, unless the relay allows fewer subscriptions than there are
	open     bool
	answered bool      // EOSE, since it was asked
	hole     bool      // it was closed: what came since must be caught up
	tries    int       // CLOSED in a row
	due      time.Time // ask again; zero: not waiting
	since    time.Time // asked
}

// live keeps the live subscriptions of a visit.
type live struct {
	v     *visit
	plan  uint64          // number of the plan that subs are of
	subs  []*subscription // as wanted
	old   []*subscription // of the plan before: open until subs stand, so that nothing falls between
	by    time.Time       // when subs count as standing whatever the relay does; zero: they do
	next  int             // number of the next new subscription
	limit bool            // the relay has closed one of subs while old ones stood: they may be too many together

	complained time.Time // a NOTICE while an answer was due; zero: none
}

// keepLive asks for everything without since, first of all, and again whenever the relay closes it or the plan changes.
func (v *visit) keepLive() error {
	l := &live{v: v}
	l.replan()
	for {
		wait, err := l.look()
		if err != nil {
			return err
		}
		changed := v.s.changed
		if len(l.old) > 0 {
			changed = nil // one change at a time: never more than twice the subscriptions
		}
		t := time.NewTimer(max(wait, 0))
		select {
		case sig := <-v.signals:
			err = l.heard(sig)
		case <-changed:
			l.replan()
		case <-v.yields:
		case <-t.C:
		case <-v.ctx.Done():
			t.Stop()
			return nil
		}
		t.Stop()
		if err != nil {
			return err
		}
	}
}

// replan makes subs what the plan asks for now. What both plans ask for alike stays as it is.
func (l *live) replan() {
	p := l.v.s.asked.Load()
	had := make(map[string]*subscription, len(l.subs))
	for _, s := range l.subs {
		had[asks(s.groups)] = s
	}
	var subs []*subscription
	for _, groups := range l.v.bundles(l.v.liveGroups(p)) {
		key := asks(groups)
		s := had[key]
		if s == nil {
			s = &subscription{sub: fmt.Sprintf("%s%d", livePrefix, l.next), groups: groups}
			l.next++
		}
		delete(had, key)
		subs = append(subs, s)
	}
	hole := false
	for _, s := range l.subs {
		if had[asks(s.groups)] != s {
			continue
		}
		if hole = hole || s.hole; s.open {
			l.old = append(l.old, s)
		}
	}
	for _, s := range subs {
		s.hole = s.hole || hole && !s.open // what the one before has missed
	}
	l.subs, l.plan, l.by = subs, p.number, time.Now().Add(liveWait)
	l.v.tellRun()
}

// tellRun makes run look at stands and at the plan.
func (v *visit) tellRun() {
	select {
	case v.liveNews <- struct{}{}:
	default:
	}
}

// look does what is due, one request at most, and returns how long there is nothing to do. A request waits for the link's pace;
// what the relay says meanwhile is heard before the next one, else its reader would wait for the pace of them all.
func (l *live) look() (time.Duration, error) {
	v, next := l.v, time.Hour
	if v.alone.Load() {
		return next, l.yield()
	}
	if err := l.settle(); err != nil {
		return 0, err
	}
	for _, s := range l.subs {
		if !s.open && !s.due.After(time.Now()) {
			first := s.since.IsZero()
			err := v.subscribe(s)
			if first && !l.by.IsZero() {
				l.by = time.Now().Add(liveWait) // not before the last of them is out
			}
			return 0, err
		}
		if s.open && !s.answered {
			again := s.since.Add(unheard * v.s.o.Idle << min(s.tries, 10))
			if !again.After(time.Now()) {
				s.tries++
				s.hole = true
				return 0, v.subscribe(s)
			}
			next = min(next, time.Until(again))
		}
		if !s.open {
			next = min(next, time.Until(s.due))
		}
	}
	if !l.by.IsZero() {
		next = min(next, time.Until(l.by))
	}
	if !l.complained.IsZero() {
		complaint := l.complained.Add(v.s.o.Idle / 10)
		if !complaint.After(time.Now()) { // a NOTICE and no EOSE: limit 0 may be what it dislikes, or their number
			l.complained = time.Time{}
			if v.s.liveLimit.Load() == 0 {
				return 0, v.limitOne(l.subs)
			}
			l.limit = len(l.old) > 0
			return 0, nil
		}
		next = min(next, time.Until(complaint))
	}
	return next, nil
}

// yield closes everything while pages are asked for: the relay has no room for both. What is published meanwhile is what the next
// catch-up asks for.
func (l *live) yield() error {
	for _, s := range slices.Concat(l.subs, l.old) {
		if !s.open {
			continue
		}
		if err := l.v.close(l.v.ctx, s.sub); err != nil {
			return err
		}
		s.open, s.due = false, time.Time{}
	}
	l.old = nil
	return nil
}

// onlyPages has the live subscriptions closed, or opened again.
func (v *visit) onlyPages(is bool) {
	if v.alone.Swap(is) == is {
		return
	}
	select {
	case v.yields <- struct{}{}:
	default:
	}
}

// settle closes the old subscriptions once the new ones stand, and says so. Where the relay does not have both, the old
// ones are closed, the new ones are asked for again, and what falls between is caught up.
func (l *live) settle() error {
	answered, late := !l.waiting(), !time.Now().Before(l.by)
	if l.by.IsZero() || !answered && !late && !l.limit {
		return nil
	}
	old := l.old
	l.old, l.limit = nil, false
	for _, s := range old {
		if err := l.v.close(l.v.ctx, s.sub); err != nil {
			return err
		}
	}
	if !answered && len(old) > 0 {
		for _, s := range l.subs {
			if !s.answered {
				s.hole = true
				if s.open {
					s.open, s.due = false, time.Time{}
				}
			}
		}
		l.by = time.Now().Add(liveWait)
		return nil
	}
	l.by = time.Time{}
	l.v.stands.Store(l.plan)
	l.v.tellRun()
	return nil
}

// waiting says whether the relay owes an answer to one of subs.
func (l *live) waiting() bool {
	return slices.ContainsFunc(l.subs, func(s *subscription) bool { return !s.answered })
}

// liveGroups are what the live requests of a plan ask for: everything, whenever it is dated. A since would hide what
// arrives late and is dated back.
func (v *visit) liveGroups(p *plan) []group {
	var list []atom
	seen := make(map[atomKey]bool)
	now := v.s.o.Now().Unix()
	for _, a := range p.atoms {
		if a.filter.Until != 0 && a.filter.Until < now || seen[a.key] {
			continue // nothing new can match
		}
		seen[a.key] = true
		a.filter.Since, a.filter.Until = 0, 0
		list = append(list, a)
	}
	var groups []group
	for _, g := range gather(list, v.most(), func(atom) string { return "" }) {
		for _, f := range v.s.byKinds(g.filter) {
			groups = append(groups, group{g.atoms, f})
		}
	}
	return groups
}

func (v *visit) subscribe(s *subscription) error {
	s.open, s.answered, s.since, s.due = true, false, time.Now(), time.Time{}
	return v.req(v.ctx, s.sub, int(v.s.liveLimit.Load()), filters(s.groups)...)
}

// limitOne has them asked again with limit 1 where nothing has answered limit 0.
func (v *visit) limitOne(subs []*subscription) error {
	for _, s := range subs {
		if s.open && !s.answered {
			v.s.liveLimit.Store(1)
			if err := v.close(v.ctx, s.sub); err != nil {
				return err
			}
			s.open, s.due = false, time.Time{}
		}
	}
	return nil
}

// heard deals with what the relay says of a live subscription. Its error ends the visit.
func (l *live) heard(sig signal) error {
	v := l.v
	if sig.notice {
		switch {
		case len(l.old) > 0 && l.waiting() && relay.TooManyREQ(sig.reason):
			l.limit = true
		case l.waiting() && (v.s.liveLimit.Load() == 0 || len(l.old) > 0):
			l.complained = time.Now()
		}
		return nil
	}
	named := func(s *subscription) bool { return s.sub == sig.sub && s.open }
	if slices.ContainsFunc(l.old, named) && sig.closed {
		l.old = slices.DeleteFunc(l.old, named)
		for _, s := range l.subs {
			s.hole = s.hole || !s.answered
		}
		return nil
	}
	i := slices.IndexFunc(l.subs, named)
	if i < 0 {
		return nil
	}
	s := l.subs[i]
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
	case !s.answered && len(l.old) > 0 && (j.Cause == relay.CauseTooManyREQ || j.Verdict != relay.Slower):
		l.limit = true
		return nil
	case !s.answered && j.Verdict == relay.Narrow && len(s.groups) > 1:
		v.s.oneFilter.Store(true)
		return smaller()
	case !s.answered && j.Verdict == relay.Narrow && v.s.narrow(s.groups[0], sig.reason):
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
