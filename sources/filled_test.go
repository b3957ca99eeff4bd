package sources

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"rebroadcastr/event"
)

// A relay that gains old events while it is asked, as one does that is a sink too, has no gaps: what a page lacked that came later
// is not what it was cut off before.
func TestARelayThatIsFilledMeanwhile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		m := model{cap: 500, exclusive: random.IntN(4) == 0}
		for i := range random.IntN(40) {
			m.events = append(m.events, stored{1_700_001_000 + int64(i), 1, 1})
		}
		left, most := 1+random.IntN(60), 1+random.IntN(10)
		newestFirst, at := random.IntN(2) == 0, int64(1_700_000_100)
		w := newWalk(event.Filter{}, window{0, openEnd}, newManners(500, random.IntN(2) == 0))
		var v verdict
		proven := windows{}
		for pages := 0; !v.done; pages++ {
			if pages > 1000 {
				t.Fatal("no end")
			}
			r := w.next(500)
			if r.step == stepLeaf {
				v = w.failed()
				continue
			}
			for range min(left, random.IntN(most)) {
				if at--; !newestFirst {
					at = 1_700_000_000 + random.Int64N(100)
				}
				m.events = append(m.events, stored{at, 1, 1})
				left--
			}
			page, _ := m.serve(r)
			a := answer{ids: map[event.ID]struct{}{}}
			prev := int64(openEnd)
			for _, i := range page {
				a.add(eventID(i), m.events[i].at, r.to, openEnd, &prev)
			}
			v = w.took(a)
			for _, p := range v.proven {
				proven = proven.add(p)
			}
		}
		if v.complete != Yes || len(proven) != 1 || proven[0] != (window{0, openEnd}) {
			t.Fatalf("complete %v (%s), proven %v, gaps %v; want yes and everything", v.complete, v.reason, proven, w.gaps)
		}
	})
}

// NIP-67: "finish" was true of the page that has grown since, or comes with the page that shows it. A relay is no liar for that.
func TestFinishOfAPageThatGrows(t *testing.T) {
	for name, grows := range map[string]bool{"filled meanwhile": true, "a first page that is cut off": false} {
		t.Run(name, func(t *testing.T) {
			var all []stored
			for i := range int64(40) {
				all = append(all, stored{1_700_000_000 - 7*i, 1, 1})
			}
			m, known := model{events: all}, newManners(500, false)
			if grows {
				m.events = all[:12]
			}
			w := newWalk(event.Filter{Authors: []event.PubKey{{1}}}, window{0, openEnd}, known)
			var v verdict
			for pages, again := 0, false; !v.done; pages++ {
				r := w.next(500)
				again = again || r.step == stepAgain
				if pages == 30 {
					t.Fatal("no end")
				}
				if m.cap = 400; !grows && r.until == 0 {
					m.cap = 12
				}
				if pages == 1 {
					m.events = all
				}
				page, more := m.serve(r)
				a := answer{ids: map[event.ID]struct{}{}, finish: !more && (!grows || pages > 0)}
				prev := int64(openEnd)
				for _, i := range page {
					a.add(eventID(i), m.events[i].at, r.to, openEnd, &prev)
				}
				if v = w.took(a); v.done && !again {
					t.Error("no page was asked for again")
				}
			}
			if v.complete != Yes || known.lies {
				t.Errorf("complete %v (%s), taken for a liar: %v; want yes, and not", v.complete, v.reason, known.lies)
			}
		})
	}
}
