package sources

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relay"
)

// maxPages of one relay under way at once, unless its settings say more.
const maxPages = 10

// task is one window of a group, and the walk through it.
type task struct {
	group  group
	window window
	walk   *walk      // nil: not begun
	late   int64      // visit.late when it began
	tries  int        // of this page
	rest   *remainder // what waits for this one; nil: nothing
	ready  time.Time
	// unsaved: what the last page has proven is not on disk yet. The next one waits for that, so that the end of this process
	// costs one page; the other windows go on meanwhile.
	unsaved atomic.Bool

	joint *joint // of which it is a part; nil: none
	part  int

	request request
	fewest  int64 // Source.fewest when that was sent
	limited bool  // by --limit
}

// crew walks through several windows of one relay at once. Everything but the waiting for an answer is done by run's
// goroutine.
type crew struct {
	v       *visit
	how     record.How
	start   time.Time // of the asking: what is younger than that less the overlap is never proven, because events arrive late
	done    func(t *task, out outcome)
	waiting []*task // to be asked, the first one next
	flying  []*task
	landed  chan landing
	saved   chan struct{} // 1: something unsaved was saved
	running sync.WaitGroup
}

// landing is a page that is over.
type landing struct {
	task *task
	page *page
	end  pageEnd
	err  error
}

func (v *visit) crew(how record.How, start time.Time, tasks []*task) *crew {
	return &crew{v: v, how: how, start: start, waiting: tasks, landed: make(chan landing, relay.MaxSubscriptions), saved: make(chan struct{}, 1)}
}

// run asks until nothing is left. An error ends the visit; what the relay did wrong is told to done.
func (c *crew) run() error {
	ctx, cancel := context.WithCancel(c.v.ctx)
	defer c.running.Wait()
	defer cancel()
	due := false
	defer c.v.onlyPages(false)
	for {
		c.v.onlyPages(c.v.s.noRoom.Load() && !c.v.s.o.Once)
		replanned := c.v.replanned()
		due = due || c.how == record.Page && c.v.due() // which tells only once
		if (replanned || due) && len(c.flying) == 0 {
			if replanned {
				return errReplanned
			}
			if err := c.v.catchUp(); err != nil {
				return err
			}
			c.v.s.phase(Backfill)
			due = false
			continue
		}
		wait := time.Hour
		if !replanned && !due {
			var err error
			if wait, err = c.launch(ctx); err != nil {
				return err
			}
			c.rests(wait)
		}
		if len(c.flying)+len(c.waiting) == 0 {
			return nil
		}
		t := time.NewTimer(wait)
		select {
		case l := <-c.landed:
			t.Stop()
			c.flying = slices.DeleteFunc(c.flying, func(t *task) bool { return t == l.task })
			if l.err != nil {
				return l.err
			}
			if err := c.land(l); err != nil {
				return err
			}
		case <-t.C:
		case <-c.saved:
			t.Stop()
		case <-c.v.ctx.Done():
			t.Stop()
			return context.Cause(c.v.ctx)
		}
	}
}

// launch asks as much as the relay takes at once, and says how long nothing more can be.
func (c *crew) launch(ctx context.Context) (wait time.Duration, err error) {
	slots := c.v.slots()
	for len(c.flying) < slots {
		wait = time.Hour
		var next *task
		for i, t := range c.waiting {
			if t.unsaved.Load() || t.walk != nil && t.walk.step() == stepProbe && c.probing() {
				continue
			}
			if left := time.Until(t.ready); left > 0 {
				wait = min(wait, left)
				continue
			}
			next = t
			c.waiting = slices.Delete(c.waiting, i, i+1)
			break
		}
		if next == nil {
			if next = c.share(); next == nil {
				return wait, nil
			}
		}
		if next.walk == nil {
			if parts := c.fit(next); len(parts) > 1 {
				c.waiting = append(parts, c.waiting...)
				c.release(next, false)
				continue
			}
			c.begin(next)
		}
		if end, ok := next.walk.spared(); ok {
			if err := c.digest(next, end); err != nil {
				return 0, err
			}
			continue
		}
		if !c.fly(ctx, next) {
			c.over(next, c.v.s.enough())
		}
	}
	return time.Hour, nil
}

// probing says that a probe is under way. One tells all walks.
func (c *crew) probing() bool {
	return slices.ContainsFunc(c.flying, func(t *task) bool { return t.request.step == stepProbe })
}

// rests notes how long nothing is asked: all that is left is to be asked again later.
func (c *crew) rests(wait time.Duration) {
	var until time.Time
	if len(c.flying) == 0 && wait < time.Hour {
		until = time.Now().Add(wait)
	}
	c.v.s.waits(until)
}

// share takes half of what is left of the walk that has most of it; nil: none is worth that.
func (c *crew) share() *task {
	if c.v.s.o.Limit > 0 {
		return nil
	}
	for _, t := range slices.SortedFunc(slices.Values(c.flying), func(a, b *task) int { return cmp.Compare(b.walk.left(), a.walk.left()) }) {
		if older, ok := t.walk.give(); ok {
			t.window.lo = older.hi + 1
			c.v.s.moreWalks(1)
			return &task{group: t.group, window: older, joint: t.joint, part: t.part}
		}
	}
	return nil
}

func (c *crew) begin(t *task) {
	f := t.group.filter
	f.Kinds = c.v.s.shown(f.Kinds)
	w := newWalk(f, t.window, c.v.manners())
	w.whole, w.limited = len(f.IDs) > 0, c.v.s.o.Limit > 0
	if len(f.Authors) > 0 {
		w.authors = make(map[event.PubKey]struct{}, len(f.Authors))
		for _, key := range f.Authors {
			w.authors[key] = struct{}{}
		}
		w.apart = len(f.Authors) > 1 && eventstore(c.v.sess.Info())
	}
	w.today = c.v.s.o.Now().Add(c.v.s.o.Overlap).Unix()
	t.walk, t.late = w, c.v.late.Load()
}

// fly asks for a task's next page; false: --limit is spent, and a page of none would look like the end.
func (c *crew) fly(ctx context.Context, t *task) bool {
	v := c.v
	most := 0
	most, t.limited = v.s.most(t.walk, v.size())
	if t.limited && v.s.limit <= 0 { // in an earlier session
		return false
	}
	t.request = t.walk.next(most)
	v.s.pages++
	recent := v.s.o.Now().Add(-v.s.o.Overlap).Unix()
	p := newPage(v.s.pages, c.how, t.walk, t.request, recent, v.sess.Stalled())
	p.fewest = v.s.fewest.Load()
	t.fewest = p.fewest
	c.flying = append(c.flying, t)
	r := t.request // the walk's own may change
	c.running.Go(func() {
		l := landing{task: t, page: p}
		l.err = relay.Guard("ask "+v.s.o.URL, func() (err error) {
			l.end, err = v.ask(ctx, p, r)
			return err
		})
		c.landed <- l // never waits: it has room for every page
	})
	return true
}

// size is the most events of one page.
func (v *visit) size() int {
	most := v.manners().page
	return max(min(most, leastPage), most>>v.s.halved)
}

// land digests a page that is over.
func (c *crew) land(l landing) error {
	v, t := c.v, l.task
	w := t.walk
	a, outside := l.page.result()
	probed := t.request.step == stepProbe
	if !probed {
		v.s.paged(a, outside)
	}
	w.late = w.late || v.late.Load()-t.late > maxLate
	var end verdict
	switch {
	case !l.end.eose && (probed || t.request.step == stepPart && tooWide(l.end) || t.request.step == stepAgain && t.tries > 0):
		end = w.failed() // it goes on without
	case tooWide(l.end) && v.s.narrow(t.group, l.end.reason):
		t.walk, t.tries = nil, 0
		c.waiting = append(c.waiting, t)
		return nil
	case !l.end.eose && !(w.whole && len(w.lacks(&a)) == 0):
		return c.retry(t, l.end)
	case w.whole && t.limited && t.request.limit < len(t.request.filter.IDs):
		v.s.spend(len(a.ids))
		c.over(t, v.s.enough())
		return nil
	default:
		v.sess.Progress()
		v.sess.Answered()
		if t.tries > 0 {
			v.s.note("")
		}
		if 2*a.n >= t.request.limit && !probed {
			if v.whole++; v.whole%growAfter == 0 && v.s.halved > 0 {
				v.s.halved--
			}
		}
		again, notNow, err := c.count(t, &a)
		switch {
		case err != nil:
			return err
		case again:
			c.waiting = append([]*task{t}, c.waiting...)
			return nil
		case notNow != "":
			return c.retry(t, pageEnd{reason: notNow})
		}
		end = w.took(a)
	}
	return c.digest(t, end)
}

// retry asks for a task's page once more, after a wait, unless the relay will not give it, or it was asked for too often.
func (c *crew) retry(t *task, e pageEnd) error {
	out, again, wait, err := c.v.refused(t, e)
	if err != nil {
		return err
	}
	if !again {
		c.over(t, out)
		return nil
	}
	t.tries++
	t.ready = time.Now().Add(wait)
	c.waiting = append(c.waiting, t)
	return nil
}

// digest goes on with a task after what its walk has said.
func (c *crew) digest(t *task, end verdict) error {
	v, w := c.v, t.walk
	t.tries = 0
	for w.step() == stepLeaf {
		leaf := w.next(v.size())
		whole, err := v.reconcileSecond(t.group, leaf.filter, leaf.since)
		if err != nil {
			return err
		}
		var more verdict
		if whole {
			more = w.took(answer{})
		} else {
			more = w.failed()
		}
		more.proven = append(more.proven, end.proven...)
		end = more
	}
	var steps []saved
	if w.m.fickle && !v.s.withdrawn {
		steps = append(steps, v.withdraw())
	}
	t.each(end.proven, false, func(g group, ws windows) {
		steps = append(steps, v.prove(g, ws, c.start.Add(-v.s.o.Overlap).Unix())...)
		if c.how == record.CatchUp {
			v.reached(g, ws)
		}
	})
	if fresh := w.newGaps(); len(fresh) > 0 {
		steps = append(steps, saved{atoms: t.group.atoms, plan: v.plan.number, gaps: fresh})
	}
	for i, step := range steps {
		if i == len(steps)-1 {
			t.unsaved.Store(true)
			step.told = func() {
				t.unsaved.Store(false)
				select {
				case c.saved <- struct{}{}:
				default:
				}
			}
		}
		if err := v.saver.add(v.ctx, step); err != nil {
			return err
		}
	}
	switch {
	case end.done && w.split > 0:
		c.apart(t)
	case end.done:
		c.over(t, outcome{complete: end.complete, reason: end.reason, asked: end.complete != No || len(w.gaps) > 0 && !w.ignores && !w.unread})
	case t.limited && v.s.spend(w.fresh):
		c.over(t, v.s.enough())
	default:
		c.waiting = append([]*task{t}, c.waiting...) // what is begun first
	}
	return nil
}
