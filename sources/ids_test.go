package sources

import (
	"testing"

	"rebroadcastr/event"
)

// However many of the ids asked for fit on a page, all that the relay has come.
func TestIDsThatDoNotFitOnAPage(t *testing.T) {
	var all []stored
	f := event.Filter{}
	for i := range 120 {
		if f.IDs = append(f.IDs, eventID(i)); i < 90 { // the relay lacks 30
			all = append(all, stored{1_700_000_000 - int64(i), 1, 1})
		}
	}
	for _, cap := range []int{1, 7, 30, 89, 90, 100} {
		w := newWalk(f, window{0, openEnd}, newManners(500, false))
		w.whole = true
		if out := run(t, model{events: all, cap: cap}, w); len(out.got) != 90 || out.verdict.complete != Yes || out.pages > 90/cap+2 || out.wire != 90 {
			t.Errorf("cap %d: %d came, complete %v, %d pages, %d events; want 90, yes, at most %d, 90", cap, len(out.got), out.verdict.complete, out.pages, out.wire, 90/cap+2)
		}
	}
	if len(f.IDs) != 120 || f.IDs[0] != eventID(0) {
		t.Error("the walk changed the group's filter")
	}
}
