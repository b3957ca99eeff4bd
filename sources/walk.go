package sources

import (
	"math"
	"slices"

	"rebroadcastr/event"
)

// openEnd stands for a window without an upper end: its first page has no until, because events dated in the
// future exist.
const openEnd = math.MaxInt64

// maxLate old events after a page's EOSE are somebody publishing old events just then; more are a relay whose EOSE
// comes too early.
const maxLate = 3

// walk asks for one window. It does no I/O: next says what to ask, took digests a complete page. A page that was not
// complete changes nothing. It pages newest first as long as the relay does; where that does not hold, it halves windows
// (bisect.go). A second that a page may have been cut off in is looked at on its own (second.go).
type walk struct {
	m       *manners
	filter  event.Filter
	lo      int64
	authors map[event.PubKey]struct{} // asked for; nil: any
	whole   bool                      // ids are asked for: what is left in filter has not come
	apart   bool                      // a full page for several authors says nothing of what is older or newer
	asked   request                   // the last

	until     int64
	echo      bool // the next page must repeat an event of the page before, dated until
	last      map[event.ID]struct{}
	lastSize  int     // of the page before, if it was cut off should anything new come; 0: none
	lastAsked request // what it was
	grown     *grown  // what waits for the page before to be asked for again; nil: nothing
	limited   bool    // by --limit: no page is asked for again, which might bring more than that
	settled   bool    // whether the page before was cut off
	fresh     int     // events of the last page that the one before did not have
	repeats   int     // how many events the next page is expected to have in common with those before
	lacking   bool    // the page was asked for again, because it lacked some of them
	doubted   int     // the largest page that the relay called its last and that was not believed
	paged     bool
	pages     int       // full ones
	span      int64     // seconds that the last page reached back
	top       int64     // (until, top] has been asked
	aside     *second   // just above until, and to be decided on by what the next page brings
	second    *second   // looked at now
	stretch   window    // above until, and nothing of it came
	above     int       // events that the relay has in it and below; 0: there is no stretch
	today     int64     // hardly any events are dated later; 0: not known
	passed    int       // stretches in a row of which nothing came
	barren    int       // pages since an event came: of what others wrote, or of windows that the relay has more of than it gives at once
	stack     []node    // windows to halve, the next one last
	waiting   []*second // looked at in the end, when more is known of the relay

	proved  windows // by the page that took digests
	tooBig  bool    // on some page
	tainted bool    // the page that took digests: a message was left out while it was open
	late    bool    // set from outside: old events come after EOSE, so none of the relay's EOSEs says anything
	strays  bool    // events after the window came
	astray  int     // pages that were mostly that
	ignores bool    // pages of nothing but such events came
	unread  bool    // pages of nothing but unreadable events came
	secret  bool    // there may be more behind what the relay does not show
	split   int     // the page that was full: to be asked for again in parts, by author; 0: none was
	count   int     // events of the window that came
	unsure  unsure  // a page for several authors that is as full as any was
	gaps    []hole
	told    int // of gaps: those that newGaps has given
}

// maxAstray pages that were mostly dated outside of their window are enough of a walk that proves nothing any more.
const maxAstray = 50

// step is what the next request is for.
type step uint8

const (
	stepPage   step = iota
	stepCheck       // was the page cut off in that second?
	stepProbe       // how many events does the relay give at once? The answer is no part of what is asked for
	stepPart        // of a second
	stepLeaf        // what cannot be split: to be reconciled, no REQ
	stepBisect      // a window, in any order
	stepAgain       // the page before: has it grown?
	stepDone
)

// request is what to ask for next.
type request struct {
	step         step
	filter       event.Filter // without since and until
	since, until int64        // both inclusive; until 0: none
	to           int64        // until without the edge
	limit        int
	small        bool // limit is less than is usual
}

// verdict of a page.
type verdict struct {
	proven   windows // by this page
	done     bool    // nothing is left to ask
	complete Completeness
	reason   string
}

// newWalk walks w at the relay whose manners are m.
func newWalk(f event.Filter, w window, m *manners) *walk {
	f.Since, f.Until = 0, 0
	return &walk{filter: f, lo: w.lo, until: w.hi, top: w.hi, m: m}
}

func (w *walk) step() step {
	switch {
	case w.astray >= maxAstray:
		return stepDone
	case w.grown != nil:
		return stepAgain
	case w.unsure.n > 0:
		return stepProbe
	case w.second != nil:
		return w.second.step
	case !w.paged:
		return stepPage
	case len(w.stack) > 0:
		return stepBisect
	}
	return stepDone
}

// edge is what is added to an until so that its second is asked for. While that is not known, the page that must
// repeat an event tells; elsewhere it is one second too many rather than one too few.
func (w *walk) edge() int64 {
	switch {
	case w.m.known:
		return w.m.edge
	case w.echo && w.step() == stepPage, w.step() == stepBisect && w.stack[len(w.stack)-1].echo:
		return 0
	}
	return 1
}

// next is what to ask for, at most most events of it.
func (w *walk) next(most int) request {
	r := request{step: w.step(), filter: w.filter, limit: min(w.m.page, most), small: most < w.m.page}
	var in window
	switch r.step {
	case stepAgain:
		w.asked = w.grown.before
		w.asked.step = stepAgain
		return w.asked
	case stepPage:
		in = window{w.lo, w.until}
	case stepBisect:
		in = w.stack[len(w.stack)-1].window
	case stepCheck:
		in = window{w.second.since, w.second.at}
	case stepProbe:
		r.filter, in, r.limit = event.Filter{}, window{0, openEnd}, w.m.page
		if w.unsure.n == 0 {
			r.limit = w.second.n + 1
		}
	case stepPart, stepLeaf:
		p := w.second.parts[len(w.second.parts)-1]
		r.filter, in = p.filter, window{w.second.at, w.second.at}
		if p.whole {
			r.limit = w.m.page
		}
		if w.second.sure > 0 {
			r.limit = w.second.sure
		}
	}
	r.since, r.to = in.lo, in.hi
	if in.hi != openEnd {
		r.until = max(in.hi+w.edge(), 1) // 0 would mean none
	}
	w.asked = r
	return r
}

// took digests the answer to what next said last.
func (w *walk) took(a answer) verdict {
	w.proved, w.fresh = nil, 0
	w.tainted = a.tooBig > 0
	if w.asked.step != stepProbe && w.asked.step != stepAgain {
		w.count += a.n
		w.tooBig = w.tooBig || w.tainted
		w.strays = w.strays || a.stray || a.above > 0
	}
	if w.strays && a.above > a.n || a.below > max(a.n, minPassed) && a.disordered {
		w.astray++
	}
	w.strays = w.strays || w.astray >= maxAstray
	if w.asked.step != stepLeaf {
		w.m.saw(&a, w.asked.limit)
	}
	w.heed(&a)
	if a.n > 0 && a.above == 0 && w.asked.until != 0 && a.newest == w.asked.until {
		w.m.edge, w.m.known = 0, true // no relay whose until is exclusive gives that
	}
	doubted := w.doubted
	if a.claims {
		w.doubted = max(w.doubted, a.size())
	}
	switch w.asked.step {
	case stepAgain:
		doubted = w.grown.doubted // not what the page that waits says itself
		w.tookAgain(a)
	case stepPage, stepBisect:
		w.digest(a, doubted)
	case stepProbe:
		w.tookProbe(a)
	default:
		w.tookSecond(a)
	}
	if doubted > 0 && w.fresh > 0 && (w.asked.step == stepPage || w.asked.step == stepBisect) {
		w.m.lies, w.doubted = true, 0
	}
	return w.verdict()
}

// digest takes a page of a window.
func (w *walk) digest(a answer, doubted int) {
	ids, before, size := w.last, w.lastAsked, w.lastSize
	if w.asked.step == stepBisect {
		n := w.stack[len(w.stack)-1]
		if ids, before, size = n.ids, n.from, n.size; !a.lacked(ids) {
			size = 0
		}
	}
	switch {
	case w.doubt(&a, ids, before, size, doubted):
	case w.asked.step == stepBisect:
		w.tookBisect(a)
	default:
		w.tookPage(a)
	}
}

// full says whether something may be missing from a page.
func (w *walk) full(a *answer) bool {
	switch {
	case a.more:
		return true
	case a.passed() && w.m.ordered():
		return false
	}
	return w.m.full(max(a.size(), a.total), w.asked.limit)
}

func (w *walk) verdict() verdict {
	for w.step() == stepDone && len(w.waiting) > 0 && w.astray < maxAstray {
		s := w.waiting[len(w.waiting)-1]
		w.waiting = w.waiting[:len(w.waiting)-1]
		if s.more && !w.m.always || w.m.full(s.n, s.asked) { // as far as is known now
			w.look(s)
		} else {
			w.proveSecond(s)
		}
	}
	v := verdict{proven: w.proved, complete: Yes}
	if w.step() != stepDone {
		return v
	}
	v.done = true
	dense := slices.IndexFunc(w.gaps, func(h hole) bool { return !h.unsure })
	switch {
	case w.ignores:
		v.complete, v.reason = No, "the relay ignores until"
	case w.unread:
		v.complete, v.reason = No, "a page of nothing but unreadable events"
	case dense >= 0:
		v.complete, v.reason = No, w.gaps[dense].reason()
	case w.tooBig:
		v.complete, v.reason = No, "an event above max_frame was left out"
	case len(w.gaps) > 0:
		v.complete, v.reason = Unknown, unsureSecond
	case w.secret:
		v.complete, v.reason = Unknown, "the relay has more than it shows"
	case w.late:
		v.complete, v.reason = Unknown, "events come after the relay's EOSE"
	case w.m.fickle:
		v.complete, v.reason = Unknown, "the relay does not repeat what it has given"
	case w.strays:
		v.complete, v.reason = Unknown, "the relay sends what was not asked for"
	default:
		w.m.finished = max(w.m.finished, w.doubted)
	}
	return v
}

// prove takes a window as proven, unless nothing that this relay says can be relied on.
func (w *walk) prove(lo, hi int64) {
	// A page that may be full of what is newer than asked for does not say that everything was on it.
	if !w.strays && !w.late && !w.tainted && !w.m.fickle && lo <= hi {
		w.proved = w.proved.add(window{lo, hi})
	}
}

// end is reached when everything down to lo has been asked.
func (w *walk) end() {
	w.paged = true
	w.prove(w.lo, w.top)
	if s := w.aside; s != nil {
		w.aside = nil
		if s.more && !w.m.always || w.m.full(s.n, s.asked) {
			w.look(s)
		} else {
			w.proveSecond(s)
		}
	}
}

// proveSecond takes a second as whole.
func (w *walk) proveSecond(s *second) {
	if !s.tainted {
		w.prove(s.at, s.at)
	}
}

// lacks are the ids asked for that did not come with a page. Some relays give what ids ask for whatever its date.
func (w *walk) lacks(a *answer) (left []event.ID) {
	for _, id := range w.filter.IDs {
		_, came := a.ids[id]
		if _, outside := a.outside[id]; !came && !outside {
			left = append(left, id)
		}
	}
	return left
}

// tookIDs asks on for what has not come, as long as a page that may have been cut off brings some of it.
func (w *walk) tookIDs(a answer) {
	left := w.lacks(&a)
	w.fresh = len(w.filter.IDs) - len(left)
	if w.lastSize > 0 && w.fresh > 0 {
		w.m.cutAt(w.lastSize, w.lastAsked.limit)
	}
	if len(left) == 0 || !w.full(&a) {
		w.end()
		return
	}
	if w.fresh == 0 {
		w.strays = w.strays || a.size() > 0 // full of what nobody asked for
		w.end()
		return
	}
	w.filter.IDs, w.lastSize, w.lastAsked = left, a.size(), w.asked
}

func (w *walk) tookPage(a answer) {
	if w.whole && (a.n > 0 || a.unread == 0) {
		w.tookIDs(a)
		return
	}
	switch {
	case a.n > 0 || a.finish:
	case a.above > 0:
		w.ignores, w.paged, w.aside = true, true, nil
		return
	case a.strangers > 0: // a relay that does not look at authors: what was asked for may be behind them
		w.strays = true
		if w.barren++; w.barren >= maxBarrenPages {
			w.astray = maxAstray
			return
		}
		if w.until, w.echo = min(a.strange, w.until)-1, false; w.until < w.lo {
			w.end()
		}
		return
	case a.unread > 0:
		w.unread, w.paged = true, true
		return
	case a.below > 0 && w.full(&a): // what was asked for may be behind that
		w.strays = true
	}
	if w.echo && w.asked.until == w.asked.to { // before what finish says: that may be of an exclusive until
		// A relay whose until is inclusive repeats all that it has given of that second.
		if !w.m.known {
			w.m.known = true
			if a.atUntil == 0 || a.atUntil < w.repeats {
				w.m.edge = 1
			}
		}
		if w.m.edge == 1 { // what is left of that second has not been asked for
			return
		}
	}
	if w.echo {
		lacks := a.atUntil < w.repeats && (a.n == 0 || a.oldest < w.asked.to)
		if lacks && !w.lacking && !w.m.fickle { // deleted meanwhile, or this answer comes from another database than the one before
			w.lacking = true
			return
		}
		w.m.fickle = w.m.fickle || w.lacking && !lacks
		w.lacking = false
	}
	w.fresh = a.freshTo(w.last)
	if a.n == 0 && a.total > 0 && w.full(&a) {
		w.pass(a.total)
		return
	}
	if a.n == 0 && a.counted {
		w.passedOver(a.total)
	}
	w.passedOver(-1)
	if a.n == 0 || a.finish {
		w.end()
		return
	}
	w.passed, w.barren = 0, 0
	size, most := a.size(), w.asked.limit
	if w.apart {
		switch {
		case !w.full(&a):
			w.end()
		case !a.more && a.total <= size && w.m.unlearned(size, most) && !w.m.tried(most):
			w.unsure = unsure{n: size, asked: most, tainted: w.tainted}
		default:
			w.inParts(size)
		}
		return
	}
	if w.lastSize > 0 && w.fresh > 0 && !w.settled {
		w.m.cutAt(w.lastSize, w.lastAsked.limit)
	}
	w.last, w.repeats, w.lastSize, w.lastAsked = a.ids, 0, 0, w.asked
	if a.disordered || !w.m.ordered() {
		w.paged = true
		if s := w.aside; s != nil {
			w.aside = nil
			w.stack = append(w.stack, node{window: window{s.at, s.at}})
		}
		if !w.full(&a) {
			w.end()
			return
		}
		w.halve(node{window: window{w.lo, w.until}}, a)
		return
	}
	w.decide(a)
	if a.oldest < w.lo || a.passed() { // the rest was given away meanwhile, or there is no more
		w.end()
		return
	}
	w.span = w.top - min(a.oldest, w.top)
	if w.top == openEnd {
		w.span = a.newest - a.oldest
	}
	oldest := min(a.oldest, w.until) // the edge's second is not below until
	w.prove(oldest+1, w.top)
	w.top = min(w.top, oldest) // proven down to oldest, which the next page's window begins with
	if w.m.known && (a.oldest == a.newest || a.oldest >= w.until || !w.m.thin && !w.full(&a)) {
		// Either everything was on that page, or it was cut off in its oldest second: what lies before that tells.
		w.aside = &second{at: oldest, n: size, given: a.n, newest: a.newest, asked: most, only: a.only(), more: a.more, small: w.asked.small, mixed: a.newest > oldest, tainted: w.tainted}
		w.top, w.until, w.echo = oldest-1, oldest-1, false
		if w.until < max(w.lo, 1-w.edge()) {
			w.end()
		}
		return
	}
	w.pages++
	w.repeats, w.lastSize = a.atOldest, size
	w.until, w.echo = oldest, true
}

// decide settles what was put aside, now that older events have come.
func (w *walk) decide(a answer) {
	s := w.aside
	w.aside = nil
	switch {
	case s == nil:
	case a.newest >= s.at && a.oldest < s.at: // newest first: nothing of that second is behind the older ones
		w.proveSecond(s)
	default:
		s.step, s.since = stepCheck, a.newest
		w.second = s
	}
}
