package sources

// firstEvent is about when the first Nostr events were published; hardly any are dated before.
const firstEvent = 1_604_700_000

// worthSplitting is how many times as far as the last page a walk must still have to go.
const worthSplitting = 8

// left is how many seconds a walk has still to go.
func (w *walk) left() int64 {
	if w.paged || w.until == openEnd {
		return 0
	}
	return max(0, w.until-max(w.lo, firstEvent))
}

// sharedAfter so many full pages a walk may be a long one. Most are not, and every part costs a request or two.
const sharedAfter = 4

// give splits off the older half of what is left of a walk; ok is false where that is not worth the requests.
func (w *walk) give() (older window, ok bool) {
	if w.pages < sharedAfter || w.paged || !w.m.known || !w.m.ordered() || w.span <= 0 || w.strays || w.whole || w.apart || w.until == openEnd {
		return window{}, false
	}
	from := max(w.lo, firstEvent)
	if left := w.until - from; left < worthSplitting*w.span {
		return window{}, false
	}
	older = window{w.lo, from + (w.until-from)/2}
	w.lo = older.hi + 1
	return older, true
}
