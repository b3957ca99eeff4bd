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
		cap, most int // most: of the pages that are asked for then
		then      int // the relay's cap then, where it is another
		tells     bool
	}{
		{"as long as the cap", 100, 500, 0, false},
		{"as long as the cap, and not of every page", 100, 500, 0, true},
		{"longer than what is asked for now", 500, 62, 0, false},
		{"longer than what is asked for now, and not of every page", 500, 62, 0, true},
		{"longer than what the relay gives of events that are larger", 100, 500, 50, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			known := newManners(500, false)
			known.tells = test.tells
			m := model{events: all, cap: test.cap, says: "finish"}
			run(t, m, newWalk(event.Filter{Authors: []event.PubKey{{1}}}, window{0, openEnd}, known))
			m.cap = min(m.cap, test.most)
			if test.then > 0 {
				m.cap = test.then
			}
			w := newWalk(event.Filter{Authors: []event.PubKey{{2}}}, window{0, openEnd}, known)
			w.m.page = min(w.m.page, test.most)
			if out := run(t, m, w); len(out.got) != 600 {
				t.Errorf("%d events came, proven is %v; want 600", len(out.got), out.proven)
			}
		})
	}
}
