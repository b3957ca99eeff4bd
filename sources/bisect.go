package sources

import "rebroadcastr/event"

// node is a window that is asked for whatever the order of what comes.
type node struct {
	window
	ids  map[event.ID]struct{} // that came when a wider window was asked for; nil: none was
	size int                   // of that page
	from request               // what asked for that page
	echo bool                  // an event dated hi must come, unless until is exclusive
}

func (w *walk) tookBisect(a answer) {
	n := w.stack[len(w.stack)-1]
	w.stack = w.stack[:len(w.stack)-1]
	size, most := a.size(), w.asked.limit
	if n.echo && w.asked.until == w.asked.to {
		if !w.m.known {
			w.m.known = true
			if a.atUntil == 0 {
				w.m.edge = 1
			}
		}
		if n.echo = false; w.m.edge == 1 {
			w.stack = append(w.stack, n)
			return
		}
	}
	w.fresh = a.freshTo(n.ids)
	if a.n > 0 {
		w.barren = 0
	}
	if n.ids != nil && !w.settled && a.lacked(n.ids) {
		w.m.cutAt(n.size, n.from.limit)
	}
	switch {
	case size == 0 && a.total > 0 && w.full(&a):
		w.part(n.window, &a)
	case a.finish || size == 0:
		w.prove(n.lo, n.hi)
	case a.n == 0 && a.above > 0:
		w.ignores = true
	case a.n == 0 && a.unread > 0:
		w.unread = true
	case !w.full(&a):
		w.prove(n.lo, n.hi)
	case n.lo == n.hi:
		w.look(&second{at: n.lo, n: max(size, a.total), asked: most, only: a.only(), more: a.more, small: w.asked.small, mixed: a.newest > n.lo, tainted: w.tainted})
	case a.n == 0:
		w.strays = true // full of what nobody asked for
	default:
		w.halve(n, a)
	}
}

// halve goes on with the parts of a window whose page was full, or in no order that says what is missing.
func (w *walk) halve(n node, a answer) {
	part := func(lo, hi int64) {
		if lo <= hi {
			w.stack = append(w.stack, node{window: window{lo, hi}, ids: a.ids, size: a.size(), from: w.asked})
		}
	}
	newest := min(a.newest, n.hi)
	oldest := min(a.oldest, newest)
	switch {
	case !w.m.known: // first of all, find out
		part(oldest+1, n.hi)
		part(n.lo, oldest)
		w.stack[len(w.stack)-1].echo = true
	case oldest < newest && w.m.ordered():
		w.prove(oldest+1, n.hi)
		part(n.lo, oldest)
	case oldest < newest:
		middle := oldest + (newest-oldest)/2
		part(n.lo, middle)
		part(middle+1, n.hi)
	case n.lo < oldest && n.hi > oldest: // all in one second
		part(oldest, n.hi)
		part(n.lo, oldest-1)
	default: // and it is at the window's end: to ask for it alone would bring the same
		part(n.lo, oldest-1)
		part(oldest+1, n.hi)
		w.look(&second{at: oldest, n: max(a.size(), a.total), asked: w.asked.limit, only: a.only(), more: a.more, small: w.asked.small, mixed: a.newest > oldest, tainted: w.tainted})
	}
}
