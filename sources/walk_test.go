package sources

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rebroadcastr/event"
)

// stored is an event of a model.
type stored struct {
	at     int64
	kind   int
	author byte
}

// model is a relay as walk sees it.
type model struct {
	events    []stored
	cap       int
	exclusive bool
	order     func([]stored, []int) // of a page, and of what is cut off; nil: newest first, ties as they are
	turned    bool                  // pages are turned around
	ignores   bool                  // until
	noSince   bool                  // since is ignored
	hint      bool                  // NIP-67
	says      string                // the same hint on every page
	quarter   bool                  // asked for more than cap, it gives a quarter of it
	members   bool                  // refuses what names no authors
	apart     bool                  // a full page for several authors has as many of each, and older ones, as eventstore's may
	first     []int                 // events that come first on every page
	caps      []int                 // of one page after the other, in turn: a relay that counts bytes; nil: cap
	asked     *int
	withheld  int  // kind that is taken out of pages; 0: none
	counts    bool // answers COUNT
}

func eventID(i int) (id event.ID) {
	binary.LittleEndian.PutUint64(id[:], uint64(i)+1)
	return id
}

func (m model) matches(e stored, r request) bool {
	in := (m.noSince || e.at >= r.since) && (r.until == 0 || m.ignores || e.at < r.until || e.at == r.until && !m.exclusive)
	asks := len(r.filter.Authors) == 0 || slices.ContainsFunc(r.filter.Authors, func(k event.PubKey) bool { return k[0] == e.author })
	asks = asks && (len(r.filter.IDs) == 0 || slices.Contains(r.filter.IDs, eventID(slices.Index(m.events, e))))
	return in && asks && (len(r.filter.Kinds) == 0 || slices.Contains(r.filter.Kinds, e.kind))
}

func (m model) most(limit int) int {
	most := m.cap
	if m.caps != nil {
		most = m.caps[*m.asked%len(m.caps)]
		*m.asked++
	}
	if m.quarter && limit > most {
		return max(1, most/4)
	}
	return min(limit, most)
}

func (m model) serve(r request) (page []int, more bool) {
	var hits []int
	for i, e := range m.events {
		if m.matches(e, r) {
			hits = append(hits, i)
		}
	}
	slices.SortStableFunc(hits, func(a, b int) int { return int(m.events[b].at - m.events[a].at) })
	if m.order != nil {
		m.order(m.events, hits)
	}
	if n := m.most(r.limit); len(hits) > n {
		if m.apart && len(r.filter.Authors) > 1 {
			share := map[byte]int{}
			var rest []int
			hits = slices.DeleteFunc(hits, func(i int) bool {
				share[m.events[i].author]++
				if share[m.events[i].author] <= max(1, n/len(r.filter.Authors)) {
					return false
				}
				rest = append(rest, i)
				return true
			})
			for len(hits) < n { // with the oldest: a short page would say that it is whole
				hits, rest = append(hits, rest[len(rest)-1]), rest[:len(rest)-1]
			}
			slices.SortStableFunc(hits, func(a, b int) int { return int(m.events[b].at - m.events[a].at) })
		}
		hits, more = hits[:min(n, len(hits))], true
	}
	if m.withheld != 0 {
		hits = slices.DeleteFunc(hits, func(i int) bool { return m.events[i].kind == m.withheld })
	}
	if m.turned {
		slices.Reverse(hits)
	}
	return append(slices.Clone(m.first), hits...), more
}

// walked is what came of a walk.
type walked struct {
	got     map[int]bool
	proven  windows
	verdict verdict
	pages   int
	wire    int // events
	counts  int
}

// run walks to the end.
func run(t interface{ Fatalf(string, ...any) }, m model, w *walk) walked {
	out := walked{got: map[int]bool{}}
	asked := map[string]bool{}
	again := 2 // what was asked to find out that until is exclusive, once for each relay
	if m.withheld != 0 {
		again += 3 // windows of which nothing came
	}
	if m.order != nil || m.ignores { // halves of a window may bring what the whole did
		again += 10
	}
	for !out.verdict.done {
		if out.pages++; out.pages > 100*len(m.events)+200 {
			t.Fatalf("no end after %d pages", out.pages)
		}
		r := w.next(500)
		if r.step == stepLeaf || r.step == stepProbe && m.members {
			out.verdict = w.failed()
			for _, p := range out.verdict.proven {
				out.proven = out.proven.add(p)
			}
			continue
		}
		key := fmt.Sprint(r.filter, r.since, r.until, r.limit)
		if asked[key] && r.step != stepAgain {
			again--
		}
		if asked[key] = true; again < 0 {
			t.Fatalf("page %d asks again for %s from %d to %d, at most %d", out.pages, r.filter, r.since, r.until, r.limit)
		}
		page, more := m.serve(r)
		out.wire += len(page)
		a := answer{ids: map[event.ID]struct{}{}, finish: m.hint && !more || m.says == "finish", more: m.says == "more"}
		prev := int64(openEnd)
		for _, i := range page {
			at := m.events[i].at
			if r.until != 0 && at > r.until { // the edge included
				a.above++
				continue
			}
			if at < r.since {
				a.addBelow(at, openEnd, &prev)
				continue
			}
			a.add(eventID(i), at, r.to, openEnd, &prev)
			if r.step != stepProbe && (!slices.Contains(m.first, i) || slices.Contains(page[len(m.first):], i)) {
				out.got[i] = true
			}
		}
		for in, ok := w.uncounted(&a); ok; in, ok = w.uncounted(&a) {
			n := 0
			q := request{filter: r.filter, since: in.lo}
			if in.hi != openEnd {
				q.until = max(in.hi+w.edge(), 1)
			}
			for _, e := range m.events {
				if m.matches(e, q) {
					n++
				}
			}
			out.counts++
			w.counted(&a, int64(n))
		}
		out.verdict = w.took(a)
		for _, p := range out.verdict.proven {
			out.proven = out.proven.add(p)
		}
	}
	return out
}

// at makes events of kind 1 of one author.
func at(times ...int64) (out []stored) {
	for _, at := range times {
		out = append(out, stored{at, 1, 1})
	}
	return out
}

// shuffle makes an order that is another at each request.
func shuffle(seed uint64, secondsOnly bool) func([]stored, []int) {
	random := rand.New(rand.NewPCG(seed, 2))
	return func(all []stored, hits []int) {
		random.Shuffle(len(hits), func(i, j int) { hits[i], hits[j] = hits[j], hits[i] })
		if secondsOnly {
			slices.SortStableFunc(hits, func(a, b int) int { return int(all[b].at - all[a].at) })
		}
	}
}

// What a walk proves has come, and what has not is a gap: any distribution over seconds, any cap, any order of pages. No
// request is made twice.
func TestWalkProvesOnlyWhatCame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := model{
			cap:       rapid.IntRange(1, 60).Draw(t, "cap"),
			exclusive: rapid.Bool().Draw(t, "exclusive"),
			ignores:   rapid.IntRange(0, 9).Draw(t, "ignores until") == 0,
			noSince:   rapid.IntRange(0, 5).Draw(t, "ignores since") == 0,
			hint:      rapid.IntRange(0, 2).Draw(t, "NIP-67") == 0,
			says:      rapid.SampledFrom([]string{"", "", "", "finish", "more"}).Draw(t, "always says"),
			quarter:   rapid.IntRange(0, 4).Draw(t, "quarter") == 0,
			members:   rapid.IntRange(0, 2).Draw(t, "members only") == 0,
			counts:    rapid.Bool().Draw(t, "counts"),
		}
		seed := rapid.Uint64().Draw(t, "seed")
		order := rapid.SampledFrom([]string{"newest first", "ties at random", "turned around", "oldest first", "any"}).Draw(t, "order")
		switch order {
		case "ties at random":
			m.order = shuffle(seed, true)
		case "turned around":
			m.turned = true
		case "oldest first":
			m.order = func(_ []stored, hits []int) { slices.Reverse(hits) }
		case "any":
			m.order = shuffle(seed, false)
		}
		if rapid.IntRange(0, 3).Draw(t, "counts bytes") == 0 && !m.quarter && (order == "newest first" || order == "ties at random") {
			m.cap = max(m.cap, 20)
			m.caps, m.asked = rapid.SliceOfNDistinct(rapid.IntRange((m.cap+1)/2, m.cap), 1, 7, rapid.ID).Draw(t, "caps"), new(int)
		}
		span := rapid.Int64Range(1, 60).Draw(t, "span")
		// rapid prefers short lists; here the long ones are of interest.
		random := rand.New(rand.NewPCG(seed, 1))
		for range random.IntN(250) {
			m.events = append(m.events, stored{1000 + random.Int64N(span+1), random.IntN(3), byte(1 + random.IntN(2))})
		}
		f := event.Filter{Authors: []event.PubKey{{1}, {2}}}
		if rapid.Bool().Draw(t, "kinds") {
			f.Kinds = []int{0, 1, 2}
		}
		sure := m.caps == nil && !m.quarter && rapid.Bool().Draw(t, "advertised")
		page := 500
		if sure {
			page = m.cap
		}
		want := window{lo: rapid.SampledFrom([]int64{0, 1010}).Draw(t, "since"), hi: rapid.SampledFrom([]int64{openEnd, 1030}).Draw(t, "until")}
		known := newManners(page, sure)
		if known.counts = m.counts; m.counts && m.caps == nil && !m.members && !m.ignores && !m.noSince && !m.hint && m.says == "" && rapid.Bool().Draw(t, "withholds") {
			m.withheld = 2
		}
		if m.caps != nil { // how long a page is says little then; such a relay has been seen before
			known.steps, known.largest, known.cut = orderedAfter, m.cap, m.cap
		}
		w := newWalk(f, want, known)
		out := run(t, m, w)

		second := map[int64]int{}
		for _, e := range m.events {
			if e.at >= want.lo && e.at <= want.hi {
				second[e.at]++
			}
		}
		fullest := 0
		for _, n := range second {
			fullest = max(fullest, n)
		}
		smallest := m.cap
		if m.caps != nil {
			smallest = slices.Min(m.caps)
		}
		if m.quarter {
			smallest = max(1, m.cap/4)
		}
		// A relay that gives one event at a time, and has those of one second only, cannot be told from one that has one.
		if len(second) == 1 && smallest == 1 && !sure {
			return
		}
		missing := 0
		for i, e := range m.events {
			if e.at < want.lo || e.at > want.hi || out.got[i] || e.kind == m.withheld && m.withheld != 0 {
				continue
			}
			missing++
			for _, p := range out.proven {
				if p.lo <= e.at && e.at <= p.hi {
					t.Fatalf("event %d of %d is inside the proven window %v and did not come", i, e.at, p)
				}
			}
			if !m.ignores && !m.noSince && !slices.ContainsFunc(w.gaps, func(g hole) bool { return g.at == e.at }) {
				t.Fatalf("event %d of %d did not come, and is in no gap: %v", i, e.at, w.gaps)
			}
		}
		v := out.verdict
		if v.complete == Yes && (missing > 0 || !slices.Equal(out.proven, windows{want})) {
			t.Fatalf("complete, but %d events did not come; proven is %v, want %v", missing, out.proven, want)
		}
		if !m.ignores && !m.noSince && len(w.gaps) == 0 && v.complete != Yes {
			t.Fatalf("no gap, but complete is %v: %s", v.complete, v.reason)
		}
		alike := !slices.ContainsFunc(m.events, func(e stored) bool { // nothing splits them
			return e.author != m.events[0].author || f.Kinds != nil && e.kind != m.events[0].kind
		})
		unsure := len(second) == 1 && (m.members || alike) // and nothing to compare with
		if !m.ignores && m.withheld == 0 && 2*fullest < smallest && v.complete != Yes && !unsure && m.says != "more" && !m.noSince {
			t.Fatalf("a relay whose pages hold twice what any second does is %v: %s", v.complete, v.reason)
		}
	})
}

func TestWalk(t *testing.T) {
	spread := func(n int, step int64) (out []stored) {
		for i := range n {
			out = append(out, stored{1_700_000_000 - int64(i)*step, 1, 1})
		}
		return out
	}
	const busy = 1_699_999_000
	dense := func(authors, kinds int) []stored {
		all := spread(300, 1)
		for i := range 450 {
			all = append(all, stored{busy, i % kinds, byte(1 + i/kinds%authors)})
		}
		return append(all, at(1_699_998_000, 1_699_997_000)...)
	}
	one := event.Filter{Authors: []event.PubKey{{1}}}
	eight := event.Filter{}
	for i := range 8 {
		eight.Authors = append(eight.Authors, event.PubKey{byte(i + 1)})
	}
	kinds := one
	kinds.Kinds = []int{0, 1, 2, 3, 4, 5, 6, 7}
	for _, test := range []struct {
		name     string
		m        model
		f        event.Filter
		complete Completeness
		reason   string
		missing  int // events that did not come
		pages    int // at most
		wire     int // events at most
		gaps     []int64
	}{
		{"nothing there", model{cap: 100}, one, Yes, "", 0, 1, 0, nil},
		{"one event", model{events: at(5), cap: 100}, one, Yes, "", 0, 5, 3, nil},
		{"1,500 with a cap of 100", model{events: spread(1500, 7), cap: 100}, one, Yes, "", 0, 19, 1520, nil},
		{"10,000 with a cap of 500", model{events: spread(10_000, 7), cap: 500}, one, Yes, "", 0, 23, 10_030, nil},
		{"two a second", model{events: append(spread(750, 1), spread(750, 1)...), cap: 100}, one, Yes, "", 0, 19, 1540, nil},
		{"until exclusive", model{events: spread(1500, 7), cap: 100, exclusive: true}, one, Yes, "", 0, 20, 1520 + 100, nil},
		{"NIP-67 is checked once", model{events: spread(150, 7), cap: 100, hint: true}, one, Yes, "", 0, 4, 152, nil},
		{"NIP-67 on every page, whatever there is", model{events: spread(1500, 7), cap: 100, says: "finish"}, one, Yes, "", 0, 19, 1520, nil},
		{"always more, says NIP-67", model{events: spread(150, 7), cap: 100, says: "more"}, one, Yes, "", 0, 5, 160, nil},
		{"450 in a second with a cap of 100", model{events: dense(1, 1), cap: 100}, event.Filter{Authors: one.Authors, Kinds: []int{0, 1}}, No,
			"more than 100 events in one second", 350, 16, 1100, []int64{busy}},
		{"450 in a second, of 8 kinds that are asked for", model{events: dense(1, 8), cap: 100}, kinds, Yes, "", 0, 40, 1700, nil},
		{"450 in a second, of 8 authors", model{events: dense(8, 1), cap: 100}, eight, Yes, "", 0, 40, 1700, nil},
		{"450 in a second, of 8 kinds that nobody named", model{events: dense(1, 8), cap: 100}, one, No,
			"more than 100 events in one second", 0, 30, 2000, []int64{busy}},
		{"three in the only second there is", model{events: append(at(5, 5, 5), stored{7, 1, 9}, stored{8, 1, 9}), cap: 100}, one, Yes, "", 0, 7, 16, nil},
		{"three in the only second there is, and nothing to compare", model{events: at(5, 5, 5), cap: 100}, one, Unknown, unsureSecond, 0, 20, 30, []int64{5}},
		{"ten in the only second, a cap of 3", model{events: at(5, 5, 5, 5, 5, 5, 5, 5, 5, 5), cap: 3}, one, Unknown, unsureSecond, 7, 20, 30, []int64{5}},
		{"a cap of 7 that nobody speaks of", model{events: spread(100, 7), cap: 7}, one, Yes, "", 0, 22, 137, nil},
		{"a cap of 1", model{events: spread(10, 7), cap: 1}, one, No, "more than 1 event in one second", 0, 170, 100, nil},
		{"a quarter when asked for more", model{events: spread(3000, 7), cap: 300, quarter: true}, one, Yes, "", 0, 16, 3100, nil},
		{"oldest first", model{events: spread(1500, 7), cap: 100, order: func(_ []stored, hits []int) { slices.Reverse(hits) }}, one, Yes, "", 0, 170, 9000, nil},
		{"newest pages, turned around", model{events: spread(1500, 7), cap: 100, turned: true}, one, Yes, "", 0, 170, 9000, nil},
		{"60 in any order", model{events: spread(60, 7), cap: 100, order: shuffle(1, false)}, one, Yes, "", 0, 3, 120, nil},
		{"until ignored", model{events: spread(1500, 7), cap: 100, ignores: true}, one, No, "the relay ignores until", 1400, 3, 300, nil},
		{"the oldest is of second 1", model{events: at(5, 4, 1, 1), cap: 4}, one, Yes, "", 0, 6, 20, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWalk(test.f, window{0, openEnd}, newManners(500, false))
			out := run(t, test.m, w)
			if v := out.verdict; v.complete != test.complete || v.reason != test.reason {
				t.Errorf("ended %v %q, want %v %q", v.complete, v.reason, test.complete, test.reason)
			}
			missing := 0
			for i, e := range test.m.events {
				if !out.got[i] && test.m.matches(e, request{filter: test.f}) {
					missing++
				}
			}
			if missing != test.missing {
				t.Errorf("%d events did not come, want %d", missing, test.missing)
			}
			if out.pages > test.pages || out.wire > test.wire {
				t.Errorf("%d pages and %d events, want at most %d and %d", out.pages, out.wire, test.pages, test.wire)
			}
			var gaps []int64
			for _, g := range w.gaps {
				gaps = append(gaps, g.at)
			}
			if test.gaps != nil && !slices.Equal(gaps, test.gaps) {
				t.Errorf("gaps %v, want %v", gaps, test.gaps)
			}
			t.Logf("%d pages, %d events for %d", out.pages, out.wire, len(test.m.events))
		})
	}
}

// A relay that is being filled while it is asked gains older events between two pages: that is no page cut short.
func TestOlderEventsThatComeBetweenPages(t *testing.T) {
	for _, test := range []struct {
		name     string
		pages    [][]int64
		complete Completeness
	}{
		{"two came between", [][]int64{
			{103, 102, 101, 100},
			{100},     // the echo, and nothing older yet
			{51, 50},  // two have come meanwhile
			{100, 51}, // they do stand behind that second
			{},        // and nothing older
		}, Yes},
		{"a second that is cut", [][]int64{
			{103, 102, 101, 100}, {100}, {51, 50},
			{100}, // had the relay not cut that page off, the older events would have been on it
			{},
			{50},
		}, No},
	} {
		t.Run(test.name, func(t *testing.T) {
			known := newManners(500, false)
			known.steps = orderedAfter
			w := newWalk(event.Filter{Kinds: []int{1}}, window{1, openEnd}, known)
			var v verdict
			for n, at := range test.pages {
				r := w.next(500)
				for r.step == stepLeaf || r.step == stepProbe {
					v = w.failed()
					r = w.next(500)
				}
				if v.done {
					t.Fatalf("the walk ended before page %d: %s %s", n+1, v.complete, v.reason)
				}
				a := answer{ids: make(map[event.ID]struct{})}
				prev := int64(openEnd)
				for _, second := range at {
					a.add(eventID(int(second)), second, r.to, openEnd, &prev)
				}
				v = w.took(a)
			}
			for !v.done && w.next(500).step == stepLeaf {
				v = w.failed()
			}
			if !v.done || v.complete != test.complete || test.complete == No && !slices.ContainsFunc(w.gaps, func(h hole) bool { return h.at == 100 }) {
				t.Errorf("the walk's end: %v, complete %s (%s), gaps %v; want the end and %v, with a gap at 100 if no", v.done, v.complete, v.reason, w.gaps, test.complete)
			}
		})
	}
}

// What is learned from another walk while this one looks whether anything older follows: by that the page before was full. It had one
// event of its oldest second, which is asked for before anything is made of it.
func TestAPageThatCountsAsFullAfterwards(t *testing.T) {
	known := newManners(500, false)
	known.page, known.another, known.known, known.steps, known.largest = 100, true, true, orderedAfter, 66
	w := newWalk(event.Filter{}, window{1_600_000_000, 1_700_000_000}, known)
	var v verdict
	for n, page := range [][]int64{{1_690_000_002, 1_690_000_001, 1_690_000_000}, {}, {1_690_000_000}} {
		r := w.next(500)
		if v.done || r.step == stepLeaf {
			t.Fatalf("page %d is not asked for: the walk ended %v, step %d", n+1, v.done, r.step)
		}
		a := answer{ids: make(map[event.ID]struct{})}
		prev := int64(openEnd)
		for _, at := range page {
			a.add(eventID(int(at)), at, r.to, openEnd, &prev)
		}
		if len(page) == 0 {
			known.cutAt(5, 500)
		}
		v = w.took(a)
	}
	if !v.done || v.complete != Yes || len(w.gaps) > 0 {
		t.Errorf("ended %v, complete %v (%s), gaps %v; want yes", v.done, v.complete, v.reason, w.gaps)
	}
}
