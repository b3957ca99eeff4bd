package sources

import (
	"fmt"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relay"
)

// outcome is how a walk ended.
type outcome struct {
	complete Completeness
	reason   string
	gaps     []int64
	asked    bool // to the end, by complete pages, whatever that proved
	limited  bool // --limit
}

// history asks for what is not proven, from the second top back to where the user wants it.
func (v *visit) history(top int64) error {
	start := v.s.o.Now()
	v.s.phase(Backfill)
	since := v.plan.history.Since
	var list []atom
	for _, a := range v.plan.atoms {
		w := window{max(since, a.filter.Since), openEnd}
		if a.filter.Until != 0 {
			w.hi = a.filter.Until
		}
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
	groups := v.parts(list, func(a atom) string { return string(a.missing.encode()) })
	walks := 0
	for _, g := range groups {
		walks += len(g.atoms[0].missing)
	}
	v.s.plan(walks)
	v.s.proven(v.plan.atoms, v.view)
	for _, g := range groups {
		for _, w := range g.atoms[0].missing {
			out, err := v.walk(g, w, record.Page, start)
			if err != nil {
				return err
			}
			v.s.conclude(out)
			for _, gap := range out.gaps {
				v.s.gap(g.filter, window{gap, gap}, out.reason)
			}
			if out.limited {
				return nil
			}
			if !out.asked {
				v.s.gap(g.filter, w, out.reason)
				v.log.Warn().Str("relay", v.s.o.URL).Str("reason", out.reason).Msg("history incomplete")
			}
		}
	}
	return nil
}

// growAfter well-filled pages in one session a page that was halved is doubled again.
const growAfter = 8

// walk pages through one window. An error ends the visit; what the relay did wrong is in the outcome. start is when the
// asking began: younger than that less the overlap is never proven, because events arrive late.
func (v *visit) walk(g group, w window, how record.How, start time.Time) (outcome, error) {
	clip := start.Add(-v.s.o.Overlap).Unix()
	limits := v.sess.Info().Limits
	size, sure := maxPage, limits.MaxLimit > 0
	if sure {
		size = min(size, limits.MaxLimit)
	}
	most := size
	size = max(min(most, suspect), most>>v.s.halved)
	begin := func() *walk {
		at := newWalk(w, size, sure, v.s.edge)
		at.whole = len(g.filter.IDs) > 0
		if len(g.filter.Authors) > 0 {
			at.authors = make(map[event.PubKey]struct{}, len(g.filter.Authors))
			for _, key := range g.filter.Authors {
				at.authors[key] = struct{}{}
			}
		}
		return at
	}
	at := begin()
	late := v.late.Load()
	for tries := 0; ; {
		if v.replanned() {
			return outcome{}, errReplanned
		}
		if how == record.Page && v.due() {
			if err := v.catchUp(); err != nil {
				return outcome{}, err
			}
			v.s.phase(Backfill)
		}
		asked, limited := v.s.most(at, size)
		if limited && v.s.limit <= 0 { // spent in an earlier session; a page of none would look like the end
			return v.s.enough(), nil
		}
		p, e, err := v.ask(g, at, how, asked)
		if err != nil {
			return outcome{}, err
		}
		a, outside := p.result()
		v.s.paged(a, outside)
		at.late = at.late || v.late.Load()-late > maxLate
		if !e.eose && !(at.whole && len(a.ids) >= len(g.atoms)) {
			out, again, err := v.refused(g, e, tries)
			if err != nil || !again {
				return out, err
			}
			tries++
			continue
		}
		tries = 0
		v.sess.Progress()
		if at.whole && limited && asked < len(g.atoms) {
			v.s.spend(len(a.ids))
			return v.s.enough(), nil
		}
		if 2*a.n >= size {
			if v.whole++; v.whole%growAfter == 0 && v.s.halved > 0 {
				v.s.halved--
			}
		}
		verdict := at.took(a)
		if at.known {
			v.s.edge = at
		}
		if len(at.gaps) > 0 && at.page < most { // a second that only our own small pages could not hold
			v.s.halved, size = 0, most
			at = begin()
			continue
		}
		if err := v.prove(g, verdict.proven, clip); err != nil {
			return outcome{}, err
		}
		if how == record.CatchUp {
			v.reached(g, verdict.proven)
		}
		size = max(min(most, suspect), most>>v.s.halved)
		at.page = size
		if verdict.done {
			return outcome{complete: verdict.complete, reason: verdict.reason, gaps: at.gaps, asked: verdict.complete != No || len(at.gaps) > 0}, nil
		}
		if limited && v.s.spend(at.fresh) {
			return v.s.enough(), nil
		}
	}
}

// most is how many atoms one request may have.
func (v *visit) most() int {
	most := int(v.s.chunk.Load())
	if room := v.sess.Info().Limits.MaxMessageLength; room > 0 {
		most = max(1, min(most, (room-roomForRest)/roomForValue))
	}
	return most
}

// parts joins atoms into groups that one walk each can ask for.
func (v *visit) parts(list []atom, mark func(atom) string) []group {
	most := v.most()
	ids, others := list[:0:0], list[:0:0]
	for _, a := range list {
		if len(a.filter.IDs) > 0 {
			ids = append(ids, a)
		} else {
			others = append(others, a)
		}
	}
	mostIDs := min(most, maxIDs)
	if page := v.sess.Info().Limits.MaxLimit; page > 0 {
		mostIDs = min(mostIDs, page)
	}
	return append(gather(others, most, mark), gather(ids, mostIDs, mark)...)
}

// ask sends one request and waits for its end.
func (v *visit) ask(g group, at *walk, how record.How, most int) (*page, pageEnd, error) {
	v.s.pages++
	recent := v.s.o.Now().Add(-v.s.o.Overlap).Unix()
	p := newPage(fmt.Sprintf("%s%d", pagePrefix, v.s.pages), how, at, recent, v.sess.Stalled())
	f := g.filter
	f.Since, f.Until = p.since, p.asked
	p.authors = at.authors
	v.page.Store(p)
	if err := v.req(v.ctx, p.sub, f, most); err != nil {
		return nil, pageEnd{}, err
	}
	p.started(v.sess.Stalled())
	e, err := v.await(v.ctx, p)
	if err != nil {
		return nil, pageEnd{}, err
	}
	return p, e, v.close(v.ctx, p.sub)
}

// refused decides about a page that did not come to its EOSE.
func (v *visit) refused(g group, e pageEnd, tries int) (out outcome, again bool, err error) {
	out = outcome{complete: No, reason: e.reason}
	var wanted time.Duration
	if e.closed {
		out.reason = "CLOSED " + e.reason
		j := relay.ClassifyClosed(e.reason)
		switch {
		case j.Verdict == relay.Paused:
			return out, false, &relay.Pause{For: probe, Reason: e.reason}
		case j.Verdict == relay.Narrow && v.s.narrower(len(g.atoms)):
			return out, false, smaller()
		case j.Verdict == relay.Narrow:
			return out, false, nil
		}
		wanted = j.Wait
	}
	if tries+1 >= maxTries {
		out.reason = fmt.Sprintf("%d tries: %s", maxTries, out.reason)
		return out, false, nil
	}
	v.s.note(out.reason)
	return out, true, sleep(v.ctx, v.s.wait(tries, wanted))
}

// prove takes windows into this visit's view, and to the state once what they stand for is on disk.
func (v *visit) prove(g group, ws windows, clip int64) error {
	for _, w := range ws {
		for _, a := range g.atoms {
			v.view[a.key] = v.view[a.key].add(w)
		}
		v.s.remember(g, w, clip)
		if w.hi = min(w.hi, clip); w.lo <= w.hi {
			if err := v.saver.add(v.ctx, saved{atoms: g.atoms, plan: v.plan.number, window: w}); err != nil {
				return err
			}
		}
	}
	if len(ws) > 0 {
		v.s.proven(v.plan.atoms, v.view)
	}
	return nil
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
