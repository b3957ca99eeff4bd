package sources

import (
	"testing"

	"rebroadcastr/event"
)

// A relay that says "finish" of every page is not believed because it was true of one that happened to be as long as its cap, nor
// because it was true of one that was longer than what is asked for now.
func TestAHintThatIsTrueByChance(t *testing.T) {
	var all []stored
	for i := range 700 {
		all = append(all, stored{1_700_000_000 - int64(i), 1, byte(1 + min(1, i/100))}) // 100 of one, 600 of another
	}
	for _, test := range []struct {
		name      string
		cap, most int
		tells     bool
	}{
		{"as long as the cap", 100, 500, false},
		{"as long as the cap, and not of every page", 100, 500, true},
		{"longer than what is asked for now", 500, 62, false},
		{"longer than what is asked for now, and not of every page", 500, 62, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			known := newManners(500, false)
			known.tells = test.tells
			m := model{events: all, cap: test.cap, says: "finish"}
			run(t, m, newWalk(event.Filter{Authors: []event.PubKey{{1}}}, window{0, openEnd}, known))
			m.cap = min(m.cap, test.most)
			w := newWalk(event.Filter{Authors: []event.PubKey{{2}}}, window{0, openEnd}, known)
			w.m.page = min(w.m.page, test.most)
			if out := run(t, m, w); len(out.got) != 600 {
				t.Errorf("%d events came, proven is %v; want 600", len(out.got), out.proven)
			}
		})
	}
}
