package sources_test

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// TestListsCutWithoutAWord: a relay that reconciles the newest ids of a window only, and does not say so (khatru lists 20 times its
// page, its older stores one page), is compared by windows that it lists whole.
func TestListsCutWithoutAWord(t *testing.T) {
	for _, most := range []int{100, 150, 400, 1000} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			t.Parallel()
			all := notes(1, 3000, 700)
			had, lacked := without(all, 13)
			n := &reconciler{events: all, lists: func(_ nostr.Filter, newest []*nostr.Event) []*nostr.Event { return newest[:min(len(newest), most)] }}
			r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, Handle: n.handle})
			in, db := newIntake(t), openState(t)
			in.holds(had)
			g := start(t, r, in, db, sources.Options{Once: true, Seen: archived{in, all}})
			wantComplete(t, g.finished(), sources.Yes, "")
			if in.count() != len(all) {
				t.Errorf("%d of %d events are archived", in.count(), len(all))
			}
			if got := int(g.door.Tally.Received.Load()); got > 2*len(lacked) {
				t.Errorf("%d events came, %d were missing", got, len(lacked))
			}
			if got := n.count("NEG-OPEN"); got > 12+8*len(all)/most {
				t.Errorf("%d reconciliations for %d ids of which %d are listed at once", got, len(all), most)
			}
		})
	}
}

// TestCutAndOlder: what the archive lacks of a cut list may be older than all that it has.
func TestCutAndOlder(t *testing.T) {
	all := notes(1, 3000, 700) // newest first
	had := all[:1200]
	n := &reconciler{events: all, lists: func(_ nostr.Filter, newest []*nostr.Event) []*nostr.Event { return newest[:min(len(newest), 1500)] }}
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, Handle: n.handle})
	in, db := newIntake(t), openState(t)
	in.holds(had)
	wantComplete(t, start(t, r, in, db, sources.Options{Once: true, Seen: archived{in, all}}).finished(), sources.Yes, "")
	if in.count() != len(all) {
		t.Errorf("%d of %d events are archived", in.count(), len(all))
	}
}

// TestEdgesOfWindows: no second falls between two windows, or below the first, however the relay reads since and until.
func TestEdgesOfWindows(t *testing.T) {
	all := append(notes(1, 900, 1), note(1, 9001, 1), note(1, 9002, 0))
	var had []string
	for i, ev := range all {
		if i%2 == 0 && i < 900 {
			had = append(had, ev)
		}
	}
	for name, outside := range map[string]func(f nostr.Filter, e *nostr.Event) bool{
		"inclusive":       func(nostr.Filter, *nostr.Event) bool { return false },
		"until exclusive": func(f nostr.Filter, e *nostr.Event) bool { return f.Until != nil && e.CreatedAt == *f.Until },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &reconciler{events: all, cap: 70, lists: func(f nostr.Filter, newest []*nostr.Event) []*nostr.Event {
				return slices.DeleteFunc(newest, func(e *nostr.Event) bool { return outside(f, e) })
			}}
			r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, Handle: n.handle, Paging: relaytest.Paging{UntilExclusive: name != "inclusive"}})
			in, db := newIntake(t), openState(t)
			in.holds(had)
			wantComplete(t, start(t, r, in, db, sources.Options{Once: true, Seen: archived{in, all}}).finished(), sources.Yes, "")
			if in.count() != len(all) {
				t.Errorf("%d of %d events are archived", in.count(), len(all))
			}
			if p := requests(t, r, "page-"); len(p) > 0 {
				t.Errorf("%d pages", len(p))
			}
		})
	}
}

// TestTooManyWhateverIsAsked: a relay that calls even a second too much does not reconcile; it is not asked second by second.
func TestTooManyWhateverIsAsked(t *testing.T) {
	all := notes(1, 300, 700)
	had, _ := without(all, 13)
	n := &reconciler{events: all, before: func(c *relaytest.Conn, sub, _ string) bool {
		c.Send(`["NEG-ERR","` + sub + `","blocked: too many query results",0]`)
		return true
	}}
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, Handle: n.handle})
	in, db := newIntake(t), openState(t)
	in.holds(had)
	wantComplete(t, start(t, r, in, db, sources.Options{Once: true, Seen: archived{in, all}, Idle: 2 * time.Second}).finished(), sources.Yes, "")
	if in.count() != len(all) || n.count("NEG-OPEN") > 40 {
		t.Errorf("%d of %d events are archived, %d reconciliations", in.count(), len(all), n.count("NEG-OPEN"))
	}
}

// newestFirst sorts as relays do.
func newestFirst(list []*nostr.Event) {
	slices.SortFunc(list, func(a, b *nostr.Event) int {
		return cmp.Or(cmp.Compare(b.CreatedAt, a.CreatedAt), strings.Compare(a.ID, b.ID))
	})
}
