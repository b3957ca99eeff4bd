package sources

import (
	"maps"
	"time"

	"rebroadcastr/record"
)

// catch is how far catch-ups have come since one was complete. What is younger than the overlap is never proven; a session
// whose connection ends in the middle of that goes on where the one before was, or a relay that closes every few thousand
// events would only ever give its newest. The catch-up is complete when one session has asked for everything: what came
// while nobody listened may be anywhere.
type catch struct {
	asked  map[atomKey]windows // by any session
	lapped bool                // asked covers everything, and no session alone did
}

// catchUp asks for what may have come while nobody listened: from the last completed catch-up, less the overlap.
func (v *visit) catchUp() error {
	start := v.s.o.Now()
	v.caught = false
	v.dueAt = time.Now().Add(v.s.o.CatchUpEvery)
	defer func() {
		if !time.Now().Before(v.dueAt) { // it took that long: history has its turn before the next one
			v.dueAt = time.Now().Add(v.s.o.CatchUpEvery)
		}
	}()
	from := min(v.saver.caughtUp(), start.Unix())
	if from == 0 {
		if v.plan.history.None { // a new source that is not asked back
			v.caught = true
			return v.saver.add(v.ctx, saved{caughtUp: start.Unix()})
		}
		from = start.Unix()
	}
	from = max(0, from-int64(v.s.o.Overlap/time.Second))
	v.s.phase(CatchUp)

	var list []atom
	for _, a := range v.plan.atoms {
		if a.filter.Until == 0 || a.filter.Until >= max(from, a.filter.Since) {
			list = append(list, a)
		}
	}
	c := &v.s.catch
	v.goesOn = len(c.asked) > 0
	v.walked = make(map[atomKey]windows, len(list))
	whole, err := v.catchUpOn(list, from, c.asked, start)
	if err != nil {
		return err
	}
	if !covers(v.walked, list, from) { // the newest again, after what earlier sessions did not come to
		c.asked, c.lapped = maps.Clone(v.walked), true
		again, err := v.catchUpOn(list, from, v.walked, start)
		if err != nil {
			return err
		}
		whole = whole && again
	}
	if v.replanned() { // what the door refused of the last page has been missed again
		return errReplanned
	}
	*c = catch{}
	v.caught = true
	if !whole {
		return nil
	}
	return v.saver.add(v.ctx, saved{caughtUp: start.Unix()})
}

// catchUpOn asks for what is not in has, down to from. whole: it was asked to the end.
func (v *visit) catchUpOn(list []atom, from int64, has map[atomKey]windows, start time.Time) (whole bool, err error) {
	var missing []atom
	for _, a := range list {
		if a.missing = has[a.key].missing(catchWindow(a, from)); len(a.missing) > 0 {
			missing = append(missing, a)
		}
	}
	var tasks []*task
	for _, g := range v.parts(missing, func(a atom) string { return string(a.missing.encode()) }) {
		for _, w := range g.atoms[0].missing {
			tasks = append(tasks, &task{group: g, window: w})
		}
	}
	whole = true
	c := v.crew(record.CatchUp, start, tasks)
	c.done = func(t *task, out outcome) {
		t.each(windows{t.window}, true, v.reached) // also where it could not be proven
		whole = whole && out.asked
		v.fellShort(t, out, "catch-up incomplete: asked again in an hour or at the next session")
	}
	if err := c.run(); err != nil {
		return false, err
	}
	return whole, nil
}

// catchWindow is what a catch-up from a time on asks for of one atom.
func catchWindow(a atom, from int64) window {
	w := window{max(from, a.filter.Since), openEnd}
	if a.filter.Until != 0 {
		w.hi = a.filter.Until
	}
	return w
}

// covers says whether has holds all that a catch-up asks for.
func covers(has map[atomKey]windows, list []atom, from int64) bool {
	for _, a := range list {
		if len(has[a.key].missing(catchWindow(a, from))) > 0 {
			return false
		}
	}
	return true
}

// reached notes what the catch-up has asked for. What goes further than an earlier session's is something to go on from; what
// each session asks for anew is not.
func (v *visit) reached(g group, ws windows) {
	c := &v.s.catch
	if c.asked == nil {
		c.asked = make(map[atomKey]windows)
	}
	for _, w := range ws {
		for _, a := range g.atoms {
			if v.goesOn && !c.lapped && len(c.asked[a.key].missing(w)) > 0 {
				v.s.further()
			}
			v.walked[a.key] = v.walked[a.key].add(w)
			c.asked[a.key] = c.asked[a.key].add(w)
		}
	}
}
