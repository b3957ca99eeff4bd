package sources

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

// Some relays choose a page first and then take out of it what they show after a login only: strfry does so with kinds 4 and
// 1059, unless its operator has set it otherwise. Such a page is short, or empty, although there is more behind it. Nothing
// in it tells; a COUNT (NIP-45) of the same window does, for that counts what is withheld too.

const (
	// countPatience is how long a relay may think about a COUNT; twice as long after each of the first slowerCounts in a row that nothing
	// came of. One that is silent to more of them is not slow: maxTries of them take some three minutes.
	countPatience = 10 * time.Second
	slowerCounts  = 3
	// maxUntold COUNTs in a row to which nothing came, or what may be about something else, or the connection's end, then a relay that
	// has never answered one is taken for one that does not. One of them may be a busy disk, or a NOTICE about another role's message;
	// three in a row, each after a wait, hardly are. Each costs a page that is asked for again.
	maxUntold = 3
)

// maxBarrenPages without an event are enough, where the relay says each time that it has more than it gives at once. 100,000 events
// that are withheld in a row take some 400.
const maxBarrenPages = 2000

// leastReach in seconds is the shortest stretch that is left for the end.
const leastReach = 3600

// lastDate parts the dates that events may have from those that none has, where today is not known: the year 2106.
const lastDate = 1 << 32

// uncounted is the window that is to be counted before a is digested, if there is one: where a proves something by being short.
func (w *walk) uncounted(a *answer) (in window, ok bool) {
	short := a.n == 0 || a.size() < w.asked.limit && !a.more && !a.finish
	if !w.m.counts || w.whole || a.counted || !short || a.size() != a.n {
		return in, false
	}
	in = window{w.asked.since, w.asked.to}
	switch w.asked.step {
	case stepPage:
		s := w.aside
		switch inOrder := w.m.ordered() || w.m.steps+a.steps >= orderedAfter || a.steps >= orderedAfter/2; {
		case a.n == 0 && s != nil && !s.more: // the page before, and what is below it
			return window{w.lo, s.newest}, true
		case a.n > 0 && inOrder && !w.apart: // goes on below it
			return in, false
		}
	case stepBisect, stepPart:
	default:
		return in, false
	}
	if in.hi == openEnd && a.n > 0 && w.m.ordered() && !a.disordered { // what is published meanwhile was not on the page
		in.hi = a.newest
	}
	// One that looks full proves nothing by itself. But what a relay that withholds gives of a second may be one event of many.
	return in, w.asked.step != stepPart || !w.m.full(a.n, w.asked.limit) || a.n == 0 || w.m.hides
}

// counted takes the relay's count of the window that uncounted has named.
func (w *walk) counted(a *answer, total int64) {
	n := int(min(total, math.MaxInt32))
	if s := w.aside; w.asked.step == stepPage && a.n == 0 && s != nil && !s.more {
		if n > s.given {
			w.m.withholds()
			s.more, s.mixed = true, true // it is asked for alone
			return
		}
		n = 0
	}
	a.counted, a.total = true, n
	if n > a.n {
		w.m.withholds()
	}
}

// withholds notes that pages are shorter than what they were chosen from, although the relay says that it gives more: their size says
// nothing of where it cuts them.
func (m *manners) withholds() {
	m.hides = true
	if m.said && !m.thin {
		m.thin, m.sure, m.page = true, true, m.first
		m.cut, m.cuts, m.uneven = 0, 0, false
	}
}

// pass goes on below a stretch of which nothing came, although the relay has total events from there on down, more than it gives
// at once. The stretch is as long as what the last page reached over, several times, and longer each time.
func (w *walk) pass(total int) {
	if s := w.aside; s != nil {
		w.aside = nil
		w.waiting = append(w.waiting, s)
	}
	w.passedOver(total)
	below := int64(lastDate)
	if w.until <= lastDate {
		below = w.until - max(worthSplitting*w.span, leastReach)<<min(w.passed, 30)
		w.passed++
	}
	if w.until == openEnd && w.today > 0 {
		below = w.today
	}
	below = max(below, w.lo-1)
	w.stretch, w.above = window{below + 1, w.until}, total
	w.top, w.until, w.echo = below, below, false
	if w.until < max(w.lo, 1-w.edge()) {
		w.paged = true
		w.passedOver(0)
	}
}

// passedOver decides about the last stretch: it is halved in the end, unless the page of which nothing came held all of it, for the
// relay has only total events below it. total is -1 where that is not known.
func (w *walk) passedOver(total int) {
	switch s := w.stretch; {
	case w.above == 0:
	case total >= 0 && !w.m.full(w.above-total, w.asked.limit):
		w.prove(s.lo, s.hi)
	default:
		w.stack = append(w.stack, node{window: s})
	}
	w.above = 0
}

// part halves a window of which nothing came, although the relay has more of it than it gives at once.
func (w *walk) part(n window, a *answer) {
	if w.barren++; w.barren > maxBarrenPages {
		w.secret, w.stack = true, nil
		return
	}
	if n.lo == n.hi {
		w.look(&second{at: n.lo, n: a.total, asked: w.asked.limit, more: true, small: w.asked.small, tainted: w.tainted})
		return
	}
	middle := n.lo + (n.hi-n.lo)/2
	if n.lo < lastDate && n.hi > lastDate {
		middle = lastDate
	}
	w.stack = append(w.stack, node{window: window{n.lo, middle}}, node{window: window{middle + 1, n.hi}})
}

// tally is how a COUNT ended.
type tally uint8

const (
	told   tally = iota
	untold       // and what was counted tells nothing, or nothing is counted: that is so until an answer comes after all
	unsaid       // nothing came of it now: it is asked again
	locked       // some of the kinds asked for are shown after a login only
)

// count asks the relay how many events it has of f in a window. reason is why it does not say.
func (v *visit) count(f event.Filter, w *walk, in window) (total int64, how tally, reason string, err error) {
	f.Since, f.Until = in.lo, 0
	if in.hi != openEnd {
		f.Until = max(in.hi+w.edge(), 1)
	}
	v.s.counts++
	fewest := v.s.fewest.Load()
	begun := time.Now()
	n, err := v.sess.Count(v.ctx, fmt.Sprintf("%s%d", countPrefix, v.s.counts), f, w.m.patience(), v.open.busy(v.sess.Stalled))
	w.m.told = w.m.told || v.s.told.Load()
	var no *relay.NoCount
	switch {
	case errors.As(err, &no):
		reason = no.Text()
		v.log.Debug().Str("relay", v.s.o.URL).Str("reason", reason).Msg("what the relay has is not counted")
		switch j := relay.ClassifyClosed(no.Reason); {
		case relay.TooManyREQ(no.Reason): // this and the next tell nothing of whether it counts
			v.s.fewer(fewest)
			return 0, unsaid, reason, nil
		case relay.NotNow(no.Reason):
			if no.Closed {
				v.sess.Slower(j.Wait)
			}
			return 0, unsaid, reason, nil
		case !no.Closed:
			return 0, w.m.missed(), reason, nil
		case j.Verdict == relay.Paused && len(f.Kinds) > 0:
			w.m.told, w.m.untold = true, 0
			return 0, locked, reason, nil
		case j.Verdict == relay.Paused, j.Verdict == relay.Narrow: // it says so of this subscription
			return 0, w.m.refused(), reason, nil
		}
		return 0, w.m.missed(), reason, nil
	case err != nil:
		if relay.Theirs(v.sess.Err()) {
			w.m.missed()
		}
		return 0, unsaid, "", err
	case n.Approximate:
		return 0, w.m.refused(), "the relay counts approximately", nil
	}
	w.m.told, w.m.untold, w.m.slow = true, 0, time.Since(begun)
	return n.Events, told, "", nil
}

// patience is how long the relay may think about the next COUNT: twice what it took for the last, at least.
func (m *manners) patience() time.Duration {
	const most = countPatience << slowerCounts
	d := min(max(countPatience, 2*m.slow), most)
	if m.untold <= slowerCounts {
		d = min(d<<m.untold, most)
	}
	return d
}

// told takes note of a COUNT's answer, which may come too late.
func (v *visit) told(_ string, n relay.Count) {
	if !n.Approximate {
		v.s.told.Store(true)
	}
}

// missed notes a COUNT that nothing came of.
func (m *manners) missed() tally {
	if m.untold++; m.told || m.untold < maxUntold {
		return unsaid
	}
	m.counts = false
	return untold
}

// refused notes a COUNT that the relay says it does not answer. Of one that withholds events, a window that is not counted is not
// proven.
func (m *manners) refused() tally {
	if m.hides {
		return unsaid
	}
	m.counts, m.untold = m.told, 0
	return untold
}

// count has counted what decides what t's page proves. again: the page is to be asked for once more, without kinds that nobody
// is shown. notNow is why it proves nothing yet, if it does not.
func (c *crew) count(t *task, a *answer) (again bool, notNow string, err error) {
	v, w, thin := c.v, t.walk, t.walk.m.thin
	if !w.m.told && v.s.told.Load() {
		w.m.told, w.m.counts = true, true
	}
	for {
		in, ok := w.uncounted(a)
		if !ok {
			break
		}
		total, how, reason, err := v.count(t.request.filter, w, in)
		if err == nil && how == told && total > 0 && !w.m.heeds { // is it the window's count?
			var of1970 int64
			of1970, how, reason, err = v.count(t.request.filter, w, window{1, 1})
			if err == nil && how == told {
				w.m.heeds = of1970 == 0
				w.m.counts = w.m.heeds
			}
		}
		if err != nil {
			return false, "", err
		}
		if how == locked && (w.asked.step == stepPage || w.asked.step == stepBisect) {
			again, how, reason, err = v.unlocked(w)
			if err != nil || how != unsaid {
				return again, "", err
			}
		}
		if how == unsaid {
			return false, "no count: " + reason, nil
		}
		if how != told || !w.m.counts {
			break
		}
		w.counted(a, total)
	}
	if w.m.thin && !thin {
		v.log.Info().Str("relay", v.s.o.URL).Msg("the relay has more events than it shows: some kinds, perhaps, to those only who log in")
	}
	return false, "", nil
}

// unlocked takes the kinds that are shown after a login only out of what a walk asks for, unless that is all of them: they fill its
// pages, and are taken out of them.
func (v *visit) unlocked(w *walk) (changed bool, how tally, reason string, err error) {
	var secret []int
	for _, kind := range w.filter.Kinds {
		if _, known := v.s.secret[kind]; !known {
			_, how, reason, err = v.count(event.Filter{Kinds: []int{kind}}, w, window{1, 1})
			if err != nil || how == untold || how == unsaid {
				return false, how, reason, err
			}
			if v.s.secret == nil {
				v.s.secret = make(map[int]bool)
			}
			if v.s.secret[kind] = how == locked; how == locked {
				secret = append(secret, kind)
			}
		}
	}
	if len(secret) > 0 {
		v.log.Info().Str("relay", v.s.o.URL).Ints("kinds", secret).Msg("the relay shows these kinds to those only who log in")
	}
	shown := v.s.shown(w.filter.Kinds)
	changed = len(shown) < len(w.filter.Kinds)
	w.filter.Kinds = shown
	return changed, told, "", nil
}

// shown are the kinds that the relay shows without a login, as far as is known; all of them if none is.
func (s *Source) shown(kinds []int) []int {
	out := slices.DeleteFunc(slices.Clone(kinds), func(kind int) bool { return s.secret[kind] })
	if len(out) == 0 {
		return kinds
	}
	return out
}
