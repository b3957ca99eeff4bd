package sources

import (
	"testing"

	"rebroadcastr/event"
)

// An event that is published between two pages shows nothing of the one before.
func TestANewEventBetweenPages(t *testing.T) {
	known := newManners(500, false)
	w := newWalk(event.Filter{Kinds: []int{1}}, window{0, openEnd}, known)
	const recent = 1_700_000_000
	for n, page := range [][]int64{{recent - 50, recent - 70, recent - 90}, {recent - 90}, {recent + 9, recent - 50, recent - 70}} {
		r := w.next(500)
		a := answer{ids: make(map[event.ID]struct{})}
		prev := int64(openEnd)
		for _, at := range page {
			a.add(eventID(int(at)), at, r.to, recent, &prev)
		}
		w.took(a)
		if known.cut != 0 {
			t.Fatalf("page %d shows that one before was cut off at %d events", n+1, known.cut)
		}
	}
}

// A full page of events dated just behind the window, where the relay's until was not known yet, says nothing of the window's last
// second: it is asked for before anything is made of it.
func TestTheSecondBehindTheWindow(t *testing.T) {
	var all []stored
	for range 60 {
		all = append(all, stored{1031, 1, 1})
	}
	all = append(all, at(1030, 1030, 1029, 1020)...)
	for _, ordered := range []int{0, orderedAfter} {
		known := newManners(50, true)
		known.steps = ordered
		w := newWalk(event.Filter{Authors: []event.PubKey{{1}}}, window{0, 1030}, known)
		if out := run(t, model{events: all, cap: 50}, w); out.verdict.complete != Yes || len(w.gaps) > 0 {
			t.Errorf("complete %v (%s), gaps %v, want yes", out.verdict.complete, out.verdict.reason, w.gaps)
		}
	}
}
