package sources

import (
	"math"

	"rebroadcastr/event"
)

const (
	// openEnd stands for a window without an upper end: its first page has no until, because events dated in the
	// future exist.
	openEnd = math.MaxInt64
	// suspect is the size from which a page of one second that brought nothing new is taken for a second that holds
	// more events than the relay gives at once.
	suspect = 20
	// maxRepeated bounds the ids that are remembered of a page, and while until stands still: 1 MiB or so.
	maxRepeated = 20_000
	// maxLate old events after a page's EOSE are somebody publishing old events just then; more are a relay whose EOSE
	// comes too early.
	maxLate = 3
)

// answer is a complete page: its EOSE came.
type answer struct {
	n              int   // in-window events, with repetitions
	oldest, newest int64 // of them
	atOldest       int   // of them
	final          int64 // created_at of the one that came last
	ids            map[event.ID]struct{}
	many           bool  // more than ids holds
	atUntil        int   // of them, dated exactly until
	above, below   int   // dated after the window, before it
	strangers      int   // in the window, but of authors that were not asked for: counted nowhere else
	strange        int64 // created_at of the oldest of them
	stray          bool  // one of theirs is dated after the window
	tooBig         int   // messages above max_frame, left out
	unread         int   // no id or created_at could be found
	disordered     bool  // not newest first
	finish         bool  // NIP-67: there is no more
}

// walk pages through one window, newest first. It does no I/O:
// request says what to ask, took digests a complete page. A page that was not complete changes nothing.
type walk struct {
	lo      int64
	page    int                       // most events of a page
	authors map[event.PubKey]struct{} // asked for; nil: any
	sure    bool                      // the relay says that it gives as many as page
	whole   bool                      // ids are asked for: all that match fit on one page
	until   int64
	edge    int64 // 1: the relay's until is exclusive
	known   bool  // edge is known
	echo    bool  // the next page must repeat an event of the page before, dated until
	last    map[event.ID]struct{}
	fresh   int // events of the last page that the one before did not have
	// repeats is how many events the next page is expected to have in common with those before.
	repeats int

	largest    int   // page so far
	doubt      int64 // a second that filled a page without being as full as others were; 0: none
	doubted    int64 // the last such second that was asked for once more
	top        int64 // (until, top] has been asked
	disordered bool
	strays     bool // events after the window came
	tooBig     bool
	late       bool    // set from outside: old events come after EOSE, so none of the relay's EOSEs says anything
	gaps       []int64 // seconds that cannot be got whole
}

// verdict of a page.
type verdict struct {
	proven   windows // by all pages so far, back to the last gap
	done     bool    // nothing is left to ask
	complete Completeness
	reason   string
}

// newWalk walks w in pages of at most page. before is an earlier walk at the same relay, or nil.
func newWalk(w window, page int, sure bool, before *walk) *walk {
	n := &walk{lo: w.lo, until: w.hi, top: w.hi, page: page, sure: sure}
	switch {
	case before != nil && before.known:
		n.edge, n.known = before.edge, true
	case w.hi != openEnd:
		n.edge = 1 // one second too many rather than one too few
	}
	return n
}

// request is the since and until of the next page, both inclusive; 0: none.
func (w *walk) request() (since, until int64) {
	if w.until == openEnd {
		return w.lo, 0
	}
	return w.lo, w.until + w.edge
}

func (w *walk) took(a answer) verdict {
	w.fresh = 0
	w.tooBig = w.tooBig || a.tooBig > 0
	if w.whole && (a.n > 0 || a.unread == 0) {
		w.fresh = len(a.ids)
		return w.finish()
	}
	if w.doubt != 0 && (a.n == 0 || a.oldest < w.doubt) {
		second := w.doubt
		w.doubt = 0
		switch {
		case a.n == 0:
		case w.doubted != second: // unless they came only now, as they do while the relay is filled: asked once more
			w.doubted, w.until, w.echo = second, second, false
			return verdict{}
		default: // had the relay not cut that page off, the older events would have been on it
			w.gap(second)
		}
	}
	w.strays = w.strays || a.stray || a.above > 0
	if a.above > 0 && a.n == 0 {
		return verdict{done: true, complete: No, reason: "the relay ignores until"}
	}
	w.disordered = w.disordered || a.disordered
	if a.n == 0 && a.strangers > 0 && !a.finish { // a relay that does not look at authors: what was asked for may be behind them
		w.strays = true
		w.until, w.echo = min(a.strange, w.until)-1, false
		if w.until+w.edge < max(w.lo, 1) {
			return w.finish()
		}
		return verdict{}
	}
	if a.n == 0 && a.unread > 0 && !a.finish {
		return verdict{done: true, complete: No, reason: "a page of nothing but unreadable events"}
	}
	if w.echo && !w.known { // before what finish says: that may be of an exclusive until
		w.known = true
		// A relay whose until is inclusive repeats all that it has given of that second.
		if a.atUntil == 0 || a.atUntil < w.repeats { // until is exclusive here: what is left of that second has not been asked for
			w.edge = 1
			return verdict{}
		}
	}
	if a.n == 0 || a.finish {
		w.fresh = a.n
		return w.finish()
	}
	for id := range a.ids {
		if _, ok := w.last[id]; !ok {
			w.fresh++
		}
	}
	if a.many { // more of them than can have been on the page before
		w.fresh++
	}
	w.largest = max(w.largest, a.n+a.strangers)
	to := a.oldest
	if a.disordered {
		// Events out of turn, such as copies that a relay sends first, must not make the walk jump over what lies
		// between. Where this leads nowhere, the page's oldest is next.
		to = a.final
	}
	to = min(to, w.until) // the edge's second is not below until
	w.repeats = a.atOldest
	if to == w.until && len(w.last) < maxRepeated {
		// Remembered over all pages that end in this second: a relay may serve it in any order.
		for id := range w.last {
			a.ids[id] = struct{}{}
		}
		w.repeats = len(a.ids)
	} else if to == w.until {
		w.fresh = 0
	}
	w.last = a.ids
	if !w.known {
		w.edge = 0 // the next page's echo tells
	}
	if w.fresh > 0 {
		w.until, w.echo = to, true
		return verdict{proven: w.proven(max(to, a.oldest) + 1)} // the page may have been cut in the edge's second
	}
	if a.oldest < w.until && a.disordered {
		w.until, w.echo = a.oldest, true
		return verdict{}
	}
	// Nothing new: what is left lies before this second, or is hidden in it.
	v := verdict{proven: w.proven(a.oldest + 1)}
	switch {
	case a.oldest != a.newest:
	case w.full(a.n + a.strangers):
		w.gap(a.oldest)
	default:
		w.doubt = a.oldest
	}
	w.until, w.echo = min(a.oldest, w.until)-1, false
	if w.until+w.edge < max(w.lo, 1) { // until 0 would mean none
		end := w.finish()
		end.proven = append(end.proven, v.proven...)
		return end
	}
	return v
}

// full says whether a page of n may have been cut off.
func (w *walk) full(n int) bool {
	if w.sure {
		return n >= w.page
	}
	return 2*n >= w.largest && n >= suspect // half: some relays count bytes, and a page is not as long as the next
}

// gap notes a second that cannot be got whole. What is older is proven apart from what is newer.
func (w *walk) gap(at int64) {
	w.gaps = append(w.gaps, at)
	w.top = at - 1
}

func (w *walk) proven(lo int64) windows {
	// A page in any order, or one that may be full of what is newer than asked for, does not say that everything was on it.
	if w.disordered || w.strays || w.late || w.tooBig || lo > w.top {
		return nil
	}
	return windows{{lo, w.top}}
}

func (w *walk) finish() verdict {
	v := verdict{proven: w.proven(w.lo), done: true, complete: Yes}
	switch {
	case len(w.gaps) > 0:
		v.complete, v.reason = No, "more events in one second than the relay gives at once"
	case w.tooBig:
		v.complete, v.reason = No, "an event above max_frame was left out"
	case w.late:
		v.complete, v.reason = Unknown, "events come after the relay's EOSE"
	case w.disordered:
		v.complete, v.reason = Unknown, "the relay's pages are not newest first"
	case w.strays:
		v.complete, v.reason = Unknown, "the relay sends what was not asked for"
	}
	return v
}

// add counts one event of the page that was asked for up to until (without the edge); prev is the created_at of the one
// before it. What is dated recent or later may be new and come at any time: it is not out of turn.
func (a *answer) add(id event.ID, at, until, recent int64, prev *int64) {
	if at < recent || a.n == 0 {
		a.disordered = a.disordered || at > *prev
		*prev, a.final = min(at, recent), at
	}
	switch {
	case a.n == 0 || at < a.oldest:
		a.oldest, a.atOldest = at, 1
	case at == a.oldest:
		a.atOldest++
	}
	if a.n == 0 || at > a.newest {
		a.newest = at
	}
	a.n++
	if at == until {
		a.atUntil++
	}
	if _, ok := a.ids[id]; ok || len(a.ids) < maxRepeated {
		a.ids[id] = struct{}{}
	} else {
		a.many = true
	}
}
