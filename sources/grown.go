package sources

import "rebroadcastr/event"

// grown is a page that brought what an earlier page of a wider window did not hold. Either that one was cut off, or the relay has
// gained it since, as a sink does. The earlier page, asked for again, tells; this one waits for that.
type grown struct {
	answer  answer
	asked   request
	tainted bool
	before  request
	size    int // of the earlier page
	gained  []event.ID
	doubted int // walk.doubted before the page that waits
}

// doubt puts a page aside that would show that the page before, of size events, was cut off, where that is unlikely. ids are what that
// one held.
func (w *walk) doubt(a *answer, ids map[event.ID]struct{}, before request, size, doubted int) bool {
	if size == 0 || w.settled || w.limited || w.whole || w.apart || a.finish || a.many || !w.m.unlikely(size, before.limit) {
		return false
	}
	var gained []event.ID
	for id := range a.ids {
		if _, had := ids[id]; !had {
			gained = append(gained, id)
		}
	}
	if len(gained) == 0 {
		return false
	}
	w.grown = &grown{answer: *a, asked: w.asked, tainted: w.tainted, before: before, size: size, gained: gained, doubted: doubted}
	return true
}

// tookAgain goes on with the page that waited for this one.
func (w *walk) tookAgain(a answer) {
	g := w.grown
	w.grown, w.asked, w.tainted = nil, g.asked, g.tainted
	whole := a.size() > g.size
	for _, id := range g.gained {
		_, came := a.ids[id]
		whole = whole && came
	}
	if !whole {
		w.m.cutAt(g.size, g.before.limit)
	}
	w.settled = true
	w.digest(g.answer, g.doubted)
	w.settled = false
}
