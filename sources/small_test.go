package sources

import (
	"fmt"
	"slices"
	"testing"

	"rebroadcastr/event"
)

// TestSmallWorldsWithheld: every world of up to four events in four seconds, at a relay that counts, gives one to four at once, and
// takes any of them out of its pages: nothing is proven that did not come.
func TestSmallWorldsWithheld(t *testing.T) {
	const shown, hidden = 1, 2
	worlds := 0
	for n := 1; n <= 4; n++ {
		for code := range 1 << (3 * n) { // three bits an event: its second, and whether it is withheld
			m := model{withheld: hidden, counts: true}
			for i := range n {
				bits := code >> (3 * i)
				m.events = append(m.events, stored{1000 + int64(bits&3), shown + bits>>2&1, 1})
			}
			if !slices.IsSortedFunc(m.events, func(a, b stored) int { return int(b.at - a.at) }) { // what is in another order is the same world
				continue
			}
			for m.cap = 1; m.cap <= 4; m.cap++ {
				for _, m.exclusive = range []bool{false, true} {
					known := newManners(500, false)
					known.counts = true
					what := fmt.Sprintf("cap %d, exclusive %v, %v", m.cap, m.exclusive, m.events)
					out := run(named{t, what}, m, newWalk(event.Filter{Authors: []event.PubKey{{1}, {2}}}, window{0, openEnd}, known))
					for i, e := range m.events {
						for _, p := range out.proven {
							if p.lo <= e.at && e.at <= p.hi && e.kind == shown && !out.got[i] {
								t.Fatalf("%s: event %d is inside the proven window %v and did not come", what, i, p)
							}
						}
					}
					worlds++
				}
			}
		}
	}
	t.Logf("%d worlds", worlds)
}

// named says with a failure what it was.
type named struct {
	*testing.T
	what string
}

func (n named) Fatalf(format string, args ...any) {
	n.T.Helper()
	n.T.Fatalf("%s: %s", n.what, fmt.Sprintf(format, args...))
}
