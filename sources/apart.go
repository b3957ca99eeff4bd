package sources

// A page of several authors of an eventstore relay that was full proves nothing: they are asked for again, in parts. How many there are
// to be is found out by a sample of them, so that many authors who have little cost a few requests, and few who have much hardly more
// events than they have.

const (
	inSample    = 64 // one author in so many: rather too few than a page that is full again
	leastParts  = 8  // one author who has much is found in two steps among 500
	leastAuthor = 8  // fewer are asked for one by one
	// A page that was full comes again. That may be so many events, or one in so many of all that came; beyond it, authors are asked
	// for one by one.
	freeTwice = 2000
	maxTwice  = 40
)

// remainder is what waits for a sample.
type remainder struct {
	task *task
	size int // of the page that was full
}

// sampled says that authors of whom a page was full may be asked for in parts.
func (m *manners) sampled(authors int) bool {
	return authors >= leastAuthor && m.twice <= max(freeTwice, m.came/maxTwice)
}

// shares is in how many parts to ask for authors, where some others have had count events and a page of size was full: so that a part
// has a third of a page.
func shares(authors, others, count, size int) int {
	if n := max(leastParts, 3*count*authors/(others*max(size, 1))); n <= authors/2 {
		return n
	}
	return authors
}

// unsure is a page for several authors of which only a probe can tell whether it is whole.
type unsure struct {
	n       int // events; 0: there is none
	asked   int // most that it asked for
	tainted bool
}

// inParts has a page of size for several authors asked for again in parts: it was full, or may have been.
func (w *walk) inParts(size int) {
	w.split, w.paged = size, true
	w.m.twice += size
}

// probed goes on now that a relay was probed, for this walk or another.
func (w *walk) probed() {
	u := w.unsure
	if u.n == 0 {
		w.lookOn()
		return
	}
	if w.unsure = (unsure{}); w.m.full(u.n, u.asked) {
		w.inParts(u.n)
		return
	}
	w.tainted = u.tainted
	w.end()
}

// spared says what another walk's probe has shown of what this one was to probe for; false: nothing.
func (w *walk) spared() (v verdict, ok bool) {
	if w.step() != stepProbe {
		return v, false
	}
	w.proved, w.fresh = nil, 0
	switch s := w.second; {
	case w.unsure.n > 0:
		ok = w.m.tried(w.m.page) || !w.m.unlearned(w.unsure.n, w.unsure.asked)
	default:
		ok = w.m.tried(s.n+1) || w.m.cut > 0
	}
	if !ok {
		return v, false
	}
	w.probed()
	return w.verdict(), true
}

// apart goes on with parts of a task whose page was full.
func (c *crew) apart(t *task) {
	n := len(t.group.atoms)
	if !t.walk.m.sampled(n) {
		c.divide(t, n)
		c.release(t, false)
		return
	}
	c.release(t, false)
	some := (n + inSample - 1) / inSample
	sample, others := c.some(t, 0, some), c.some(t, some, n)
	sample.rest = &remainder{task: others, size: t.walk.split}
	c.v.s.moreWalks(1)
	c.waiting = append(c.waiting, sample)
}

// over ends a task.
func (c *crew) over(t *task, out outcome) {
	c.done(t, out)
	c.release(t, t.walk != nil && out.complete == Yes)
}

// release lets go what waits for t; known: what t brought says how much there is.
func (c *crew) release(t *task, known bool) {
	r := t.rest
	if r == nil {
		return
	}
	t.rest = nil
	n := len(r.task.group.atoms)
	if known {
		n = shares(n, len(t.group.atoms), t.walk.count, r.size)
	}
	c.divide(r.task, n)
}

// divide asks for a task in n parts.
func (c *crew) divide(t *task, n int) {
	c.v.s.moreWalks(n - 1)
	atoms := len(t.group.atoms)
	for i := range n {
		c.waiting = append(c.waiting, c.some(t, i*atoms/n, (i+1)*atoms/n))
	}
}

// some is a task for some atoms of another's.
func (c *crew) some(t *task, from, to int) *task {
	atoms := t.group.atoms[from:to:to]
	f := join(atoms)
	f.Kinds = t.group.filter.Kinds // of the part that t is
	return &task{group: group{atoms: atoms, filter: f}, window: t.window, joint: t.joint, part: t.part}
}
