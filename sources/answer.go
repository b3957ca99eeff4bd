package sources

import "rebroadcastr/event"

// maxRepeated bounds the ids that are remembered of a page: 1 MiB or so.
const maxRepeated = 20_000

// answer is a complete page: its EOSE came.
type answer struct {
	n              int   // in-window events, with repetitions
	oldest, newest int64 // of them
	atOldest       int   // of them
	ids            map[event.ID]struct{}
	young          map[event.ID]struct{} // of ids, what may have been published since the page before was asked for
	many           bool                  // more than ids holds
	atUntil        int                   // of them, dated exactly until
	outside        map[event.ID]struct{} // dated outside of the window
	above, below   int                   // dated after the window, before it
	strangers      int                   // in the window, but of authors that were not asked for: counted nowhere else
	strange        int64                 // created_at of the oldest of them
	stray          bool                  // one of theirs is dated after the window
	tooBig         int                   // messages above max_frame, left out
	unread         int                   // no id or created_at could be found
	disordered     bool                  // not newest first
	steps          int                   // from one event to an older one
	finish, more   bool                  // NIP-67: what the relay says of what it has besides
	claims         bool                  // it says finish, and that is still to be seen
	counted        bool                  // the relay was asked how much there is in the window
	total          int                   // what it said
}

// size is all that the relay may have counted.
func (a *answer) size() int { return a.n + a.above + a.below + a.strangers + a.unread + a.tooBig }

// minPassed events dated before the window, behind those in it, show that the relay ignores since and came to the window's end.
// One or two may be there on every page, such as a pinned event.
const minPassed = 4

// passed says that everything of the window came, for what follows is dated before it.
func (a *answer) passed() bool { return a.below >= minPassed && !a.disordered }

// turn notes the order in which events come. What is dated recent or later may be new and come at any time: it is not out of turn.
func (a *answer) turn(at, recent int64, prev *int64) {
	if at >= recent && a.n+a.below > 0 {
		return
	}
	a.disordered = a.disordered || at > *prev
	if a.n+a.below > 0 && at < *prev {
		a.steps++
	}
	*prev = min(at, recent)
}

// beside notes one that is dated outside of the window.
func (a *answer) beside(id event.ID) {
	if a.outside == nil {
		a.outside = make(map[event.ID]struct{})
	}
	if len(a.outside) < maxRepeated {
		a.outside[id] = struct{}{}
	}
}

// addBelow counts one that is dated before the window.
func (a *answer) addBelow(at, recent int64, prev *int64) {
	a.turn(at, recent, prev)
	a.below++
}

// add counts one event of the page that was asked for up to until (without the edge); prev is the created_at of the one
// before it; recent as in turn.
func (a *answer) add(id event.ID, at, until, recent int64, prev *int64) {
	a.turn(at, recent, prev)
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
		if at >= recent {
			if a.young == nil {
				a.young = make(map[event.ID]struct{})
			}
			a.young[id] = struct{}{}
		}
	} else {
		a.many = true
	}
}

// only is an event of the page.
func (a *answer) only() (id event.ID) {
	for id = range a.ids {
		break
	}
	return id
}

// freshTo is how many of a's events last does not hold.
func (a *answer) freshTo(last map[event.ID]struct{}) (n int) {
	for id := range a.ids {
		if _, ok := last[id]; !ok {
			n++
		}
	}
	if a.many { // more of them than can have been on the page before
		n++
	}
	return n
}

// lacked says that an event of a must have been missing from a page that held last, for it is not as young as that page.
func (a *answer) lacked(last map[event.ID]struct{}) bool {
	for id := range a.ids {
		_, had := last[id]
		if _, young := a.young[id]; !had && !young {
			return true
		}
	}
	return a.many
}
