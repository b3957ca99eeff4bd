package sources

import (
	"context"
	"fmt"
	"time"

	"rebroadcastr/record"
	"rebroadcastr/relay"
)

// outcome is how a walk ended.
type outcome struct {
	complete Completeness
	reason   string
	asked    bool // to the end, by complete pages, whatever that proved
	limited  bool // --limit
}

// history asks for what is not proven, from the second top back to where the user wants it.
func (v *visit) history(top int64) error {
	start := v.s.o.Now()
	v.s.phase(Backfill)
	var list []atom
	for _, a := range v.plan.atoms {
		w := historyWindow(v.plan, a)
		proven := v.view[a.key]
		switch {
		case v.s.o.Again: // what an earlier session of this process has proven again is not asked a third time
			proven = v.s.mine[a.key]
		case v.s.o.Once:
			for _, m := range v.s.mine[a.key] {
				proven = proven.add(m)
			}
		}
		w.hi = min(w.hi, top)
		if a.missing = proven.missing(w); len(a.missing) > 0 {
			list = append(list, a)
		}
	}
	v.s.begins(v.plan, list, start.Unix())
	groups := v.parts(list, func(a atom) string { return string(a.missing.encode()) })
	var tasks []*task
	for _, g := range groups {
		missing, err := v.reconcileFirst(g, start)
		if err != nil {
			return err
		}
		for _, w := range missing {
			tasks = append(tasks, &task{group: g, window: w})
		}
	}
	v.s.plan(len(tasks))
	v.s.proven(v.plan.atoms, v.view)
	limited := false
	c := v.crew(record.Page, start, tasks)
	c.done = func(t *task, out outcome) {
		v.s.conclude(out)
		v.fellShort(t, out, "history incomplete")
		if limited = limited || out.limited; limited {
			c.waiting = nil
		}
	}
	return c.run()
}

// fellShort notes what a walk could not get, of its window what it has not proven.
func (v *visit) fellShort(t *task, out outcome, what string) {
	if !out.asked {
		w := t.window
		if left := v.view[t.group.atoms[0].key].missing(w); len(left) > 0 {
			w = window{left[len(left)-1].lo, left[0].hi} // the newest comes first
		}
		v.s.gap(t.group.filter, w, out.reason)
		v.log.Warn().Str("relay", v.s.o.URL).Str("reason", out.reason).Msg(what)
	}
}

// growAfter well-filled pages in one session a page that was halved is doubled again.
const growAfter = 8

// manners are what is known of this relay, begun anew when its NIP-11 document says something else.
func (v *visit) manners() *manners {
	size, limit := maxPage, v.sess.Info().Limits.MaxLimit
	if limit > 0 {
		size = min(size, limit)
	}
	if m := v.s.manners; m == nil || m.first != size || limit > 0 != m.said {
		v.s.manners = newManners(size, limit > 0)
		v.s.manners.counts = v.sess.Info().Supports(45)
		if m != nil {
			v.s.manners.learned(m)
		}
	}
	return v.s.manners
}

// most is how many atoms one request may have.
func (v *visit) most() int { return roomFor(v.sess.Info(), int(v.s.chunk.Load())) }

// parts joins atoms into groups that one walk each can ask for.
func (v *visit) parts(list []atom, mark func(atom) string) []group {
	return partsFor(v.sess.Info(), v.most(), list, mark)
}

// partsFor are the groups of most atoms, or fewer where a request of them would ask for more than a page.
func partsFor(info relay.Info, most int, list []atom, mark func(atom) string) []group {
	ids, others := list[:0:0], list[:0:0]
	for _, a := range list {
		if len(a.filter.IDs) > 0 {
			ids = append(ids, a)
		} else {
			others = append(others, a)
		}
	}
	mostIDs := min(most, maxIDs)
	if page := info.Limits.MaxLimit; page > 0 {
		mostIDs = min(mostIDs, page)
	}
	return append(gather(others, most, mark), gather(ids, mostIDs, mark)...)
}

// roomFor is how many of most atoms a request of this relay may have.
func roomFor(info relay.Info, most int) int {
	if room := info.Limits.MaxMessageLength; room > 0 {
		return max(1, min(most, (room-roomForRest)/roomForValue))
	}
	return most
}

// ask sends one request and waits for its end.
func (v *visit) ask(ctx context.Context, p *page, r request) (pageEnd, error) {
	f := r.filter
	f.Since, f.Until = r.since, r.until
	v.open.add(p)
	defer func() { v.open.remove(p, v.sess.Stalled()) }()
	if err := v.req(ctx, p.sub, r.limit, f); err != nil {
		return pageEnd{}, err
	}
	p.started(v.sess.Stalled())
	e, err := v.await(ctx, p)
	if left := v.close(v.ctx, p.sub); err == nil {
		err = left
	}
	return e, err
}

// refused decides about a page that did not come to its EOSE; again: it is asked for once more, after a wait.
func (v *visit) refused(t *task, e pageEnd) (out outcome, again bool, wait time.Duration, err error) {
	out = outcome{complete: No, reason: e.reason}
	var wanted time.Duration
	if e.closed {
		out.reason = "CLOSED " + e.reason
		j := relay.ClassifyClosed(e.reason)
		switch {
		case j.Verdict == relay.Paused:
			return out, false, 0, &relay.Pause{For: probe, Reason: e.reason}
		case j.Verdict == relay.Narrow:
			return out, false, 0, nil
		case j.Cause == relay.CauseTooManyREQ:
			v.s.fewer(t.fewest)
		case j.Verdict == relay.Slower:
			v.sess.Slower(j.Wait)
		}
		wanted = j.Wait
	}
	if t.tries+1 >= maxTries {
		out.reason = fmt.Sprintf("%d tries: %s", maxTries, out.reason)
		return out, false, 0, nil
	}
	v.s.note(out.reason)
	return out, true, v.s.wait(t.tries, wanted), nil
}

// prove takes windows into this visit's view, and says what is to be saved once what they stand for is on disk.
func (v *visit) prove(g group, ws windows, clip int64) (steps []saved) {
	for _, w := range ws {
		v.s.remember(g, w, clip)
		if v.s.o.Limit > 0 { // a first look, which says nothing to the run that comes after it
			continue
		}
		for _, a := range g.atoms {
			v.view[a.key] = v.view[a.key].add(w)
		}
		if w.hi = min(w.hi, clip); w.lo <= w.hi {
			steps = append(steps, saved{atoms: g.atoms, plan: v.plan.number, window: w})
		}
	}
	if len(ws) > 0 {
		v.s.proven(v.plan.atoms, v.view)
		v.s.progressed()
	}
	return steps
}

// withdraw takes back what this process has proven: the relay turns out to answer from several databases, which do not hold the same.
func (v *visit) withdraw() saved {
	v.s.withdrawn = true
	step := saved{void: make(map[atomKey]windows, len(v.plan.atoms))}
	for _, a := range v.plan.atoms {
		step.void[a.key] = v.s.mine[a.key]
		if v.s.oldClip > 0 {
			step.void[a.key] = step.void[a.key].add(window{v.s.oldClip, openEnd})
		}
		v.view[a.key] = v.view[a.key].without(step.void[a.key])
		delete(v.s.mine, a.key)
	}
	v.log.Warn().Str("relay", v.s.o.URL).Msg("an event that the relay had given did not come again, and then did: it may have several databases, and nothing it gives is proven")
	return step
}

// remember keeps what this process has proven, and notes it when that is more than before: the next session begins
// ahead of where this one began. What is younger than the process is not counted, every session of a daemon proves that anew:
// something may have come while nobody listened.
func (s *Source) remember(g group, w window, clip int64) {
	if s.oldClip == 0 {
		s.oldClip = clip
	}
	if !s.o.Once { // a command asks once for everything, whatever comes meanwhile
		w.hi = min(w.hi, s.oldClip)
	}
	if w.lo > w.hi {
		return
	}
	for _, a := range g.atoms {
		if len(s.mine[a.key].missing(w)) > 0 {
			s.further()
			s.mine[a.key] = s.mine[a.key].add(w)
		}
	}
}

// enough is the outcome of a walk that --limit has stopped.
func (s *Source) enough() outcome {
	return outcome{complete: Unknown, reason: fmt.Sprintf("stopped at --limit %d", s.o.Limit), asked: true, limited: true}
}

// most is the limit of the next page; limited says that --limit is why.
func (s *Source) most(at *walk, size int) (most int, limited bool) {
	if s.o.Limit <= 0 {
		return size, false
	}
	// The page repeats what the one before had of its last second.
	return min(size, s.limit+at.repeats), true
}

// spend takes fresh events off the limit and says whether it is used up.
func (s *Source) spend(fresh int) bool {
	s.limit -= fresh
	return s.limit <= 0
}
