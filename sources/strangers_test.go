package sources

import (
	"testing"

	"rebroadcastr/event"
)

// A relay that answers each page with one event of somebody else, dated as late as it may be, does not have every second asked for.
func TestStrangersWithoutEnd(t *testing.T) {
	w := newWalk(event.Filter{Authors: []event.PubKey{{1}}}, window{0, openEnd}, newManners(500, false))
	var v verdict
	for pages := 0; !v.done; pages++ {
		if pages > 2*maxBarrenPages {
			t.Fatalf("%d pages, and no end", pages)
		}
		r := w.next(500)
		at := int64(1_700_000_000)
		if r.until != 0 {
			at = r.until
		}
		v = w.took(answer{ids: make(map[event.ID]struct{}), strangers: 1, strange: at})
	}
	if v.complete == Yes || len(v.proven) > 0 {
		t.Errorf("complete %v, proven %v, want neither", v.complete, v.proven)
	}
}
