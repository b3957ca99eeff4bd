package sources

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rebroadcastr/event"
)

// model is a relay as walk sees it.
type model struct {
	at        []int64 // created_at of event i, any order
	cap       int
	exclusive bool
	ascending bool  // pages are turned around
	ignores   bool  // until
	hint      bool  // NIP-67
	first     []int // events that come first on every page
	caps      []int // of one page after the other, in turn: a relay that counts bytes; nil: cap
	asked     *int
}

func eventID(i int) (id event.ID) {
	binary.LittleEndian.PutUint64(id[:], uint64(i)+1)
	return id
}

func (m model) serve(since, until int64, limit int) (page []int, more bool) {
	var hits []int
	for i, at := range m.at {
		if at >= since && (until == 0 || m.ignores || at < until || at == until && !m.exclusive) {
			hits = append(hits, i)
		}
	}
	slices.SortStableFunc(hits, func(a, b int) int { return int(m.at[b] - m.at[a]) })
	most := m.cap
	if m.caps != nil {
		most = m.caps[*m.asked%len(m.caps)]
		*m.asked++
	}
	if n := min(limit, most); len(hits) > n {
		hits, more = hits[:n], true
	}
	if m.ascending {
		slices.Reverse(hits)
	}
	return append(slices.Clone(m.first), hits...), more
}

// run walks to the end and tells what came.
func run(t interface{ Fatalf(string, ...any) }, m model, w *walk) (got map[int]bool, proven windows, v verdict, pages int) {
	got = map[int]bool{}
	for !v.done {
		if pages++; pages > 10*len(m.at)+20 {
			t.Fatalf("no end after %d pages", pages)
		}
		since, until := w.request()
		page, more := m.serve(since, until, w.page)
		a := answer{ids: map[event.ID]struct{}{}, finish: m.hint && !more}
		prev := int64(openEnd)
		for _, i := range page {
			at := m.at[i]
			if until != 0 && at > until { // the edge included
				a.above++
				continue
			}
			if at < since {
				a.below++
				continue
			}
			a.add(eventID(i), at, w.until, openEnd, &prev)
			if !slices.Contains(m.first, i) || slices.Contains(page[len(m.first):], i) {
				got[i] = true
			}
		}
		v = w.took(a)
		for _, p := range v.proven {
			proven = proven.add(p)
		}
	}
	return got, proven, v, pages
}

// What a walk proves has come; and where no second is as full as a page, everything has.
func TestWalkProvesOnlyWhatCame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := model{
			cap:       rapid.IntRange(20, 40).Draw(t, "cap"),
			exclusive: rapid.Bool().Draw(t, "exclusive"),
			ascending: rapid.IntRange(0, 5).Draw(t, "ascending") == 0,
			ignores:   rapid.IntRange(0, 5).Draw(t, "ignores until") == 0,
			hint:      rapid.Bool().Draw(t, "NIP-67"),
		}
		if rapid.IntRange(0, 2).Draw(t, "counts bytes") == 0 {
			m.caps, m.asked = rapid.SliceOfN(rapid.IntRange(20, m.cap), 1, 7).Draw(t, "caps"), new(int)
		}
		strays := rapid.IntRange(0, 3).Draw(t, "strays") == 0
		span := rapid.Int64Range(1, 60).Draw(t, "span")
		// rapid prefers short lists; here the long ones are of interest.
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for range random.IntN(250) {
			m.at = append(m.at, 1000+random.Int64N(span+1))
		}
		if strays && len(m.at) > 0 {
			m.first = rapid.SliceOfN(rapid.IntRange(0, len(m.at)-1), 1, 5).Draw(t, "first")
		}
		sure := m.caps == nil && rapid.Bool().Draw(t, "advertised")
		page := 500
		if sure {
			page = m.cap
		}
		want := window{lo: rapid.SampledFrom([]int64{0, 1010}).Draw(t, "since"), hi: rapid.SampledFrom([]int64{openEnd, 1030}).Draw(t, "until")}
		got, proven, v, _ := run(t, m, newWalk(want, page, sure, nil))

		second := map[int64]int{}
		for _, at := range m.at {
			second[at]++
		}
		fullest := 0
		for _, n := range second {
			fullest = max(fullest, n)
		}
		smallest := m.cap
		if m.caps != nil {
			smallest = slices.Min(m.caps)
		}
		for i, at := range m.at {
			if at < want.lo || at > want.hi {
				continue
			}
			for _, p := range proven {
				if p.lo <= at && at <= p.hi && !got[i] {
					t.Fatalf("event %d of %d is inside the proven window %v and did not come", i, at, p)
				}
			}
			if v.complete == Yes && !got[i] {
				t.Fatalf("complete, but event %d of %d did not come", i, at)
			}
		}
		if v.complete == Yes && !slices.Equal(proven, windows{want}) {
			t.Fatalf("complete, but proven is %v, want %v", proven, want)
		}
		if strays && !m.exclusive && !m.ignores && !m.ascending && fullest < smallest && want.lo == 0 && want.hi == openEnd && len(got) < len(m.at) {
			t.Fatalf("%d events came of %d: what comes first on every page led the walk astray", len(got), len(m.at))
		}
		if !strays && !m.ignores && !m.ascending && fullest < suspect && v.complete != Yes {
			t.Fatalf("a well-behaved relay is %v: %s", v.complete, v.reason)
		}
		if !strays && !m.ascending && !m.ignores && fullest > m.cap && v.complete == Yes && !m.hint && want.lo == 0 && want.hi == openEnd {
			t.Fatalf("a second of %d over a cap of %d counts as complete", fullest, m.cap)
		}
	})
}

func TestWalk(t *testing.T) {
	spread := func(n int, step int64) (at []int64) {
		for i := range n {
			at = append(at, 1_700_000_000-int64(i)*step)
		}
		return at
	}
	dense := append(spread(300, 1), slices.Repeat([]int64{1_699_999_000}, 450)...)
	dense = append(dense, 1_699_998_000, 1_699_997_000)
	for _, test := range []struct {
		name     string
		m        model
		complete Completeness
		reason   string
		missing  int // events that did not come
		pages    int // at most
		gaps     []int64
	}{
		{"nothing there", model{cap: 100}, Yes, "", 0, 1, nil},
		{"1,500 with a cap of 100", model{at: spread(1500, 7), cap: 100}, Yes, "", 0, 19, nil},
		{"two a second", model{at: append(spread(750, 1), spread(750, 1)...), cap: 100}, Yes, "", 0, 19, nil},
		{"until exclusive", model{at: spread(1500, 7), cap: 100, exclusive: true}, Yes, "", 0, 20, nil},
		{"NIP-67 saves the last pages", model{at: spread(150, 7), cap: 100, hint: true}, Yes, "", 0, 2, nil},
		{"450 in a second with a cap of 100", model{at: dense, cap: 100}, No,
			"more events in one second than the relay gives at once", 350, 10, []int64{1_699_999_000}},
		{"ascending", model{at: spread(1500, 7), cap: 100, ascending: true}, Unknown, "the relay's pages are not newest first", 0, 35, nil},
		{"until ignored", model{at: spread(1500, 7), cap: 100, ignores: true}, No, "the relay ignores until", 1400, 3, nil},
		{"the oldest is of second 1", model{at: []int64{5, 4, 1, 1}, cap: 2}, Yes, "", 0, 6, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWalk(window{0, openEnd}, 500, false, nil)
			got, _, v, pages := run(t, test.m, w)
			if v.complete != test.complete || v.reason != test.reason {
				t.Errorf("ended %v %q, want %v %q", v.complete, v.reason, test.complete, test.reason)
			}
			if missing := len(test.m.at) - len(got); missing != test.missing {
				t.Errorf("%d events did not come, want %d", missing, test.missing)
			}
			if pages > test.pages {
				t.Errorf("%d pages, want at most %d", pages, test.pages)
			}
			if !slices.Equal(w.gaps, test.gaps) {
				t.Errorf("gaps %v, want %v", w.gaps, test.gaps)
			}
		})
	}
}

func TestAnEventThatIsTooBigIsNotProven(t *testing.T) {
	w := newWalk(window{0, openEnd}, 500, false, nil)
	w.took(answer{n: 1, oldest: 1000, newest: 1000, final: 1000, atOldest: 1, ids: map[event.ID]struct{}{{1}: {}}, tooBig: 1})
	v := w.took(answer{ids: map[event.ID]struct{}{}, finish: true})
	for !v.done {
		v = w.took(answer{ids: map[event.ID]struct{}{}, finish: true})
	}
	if v.complete != No || len(v.proven) != 0 {
		t.Errorf("complete %v, proven %v, want no and nothing", v.complete, v.proven)
	}
}

func TestWindows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 40
		var ws windows
		var in [most]bool
		for range rapid.IntRange(0, 8).Draw(t, "windows") {
			lo := rapid.Int64Range(0, most-1).Draw(t, "lo")
			hi := rapid.Int64Range(lo, most-1).Draw(t, "hi")
			ws = ws.add(window{lo, hi})
			for s := lo; s <= hi; s++ {
				in[s] = true
			}
		}
		ask := window{rapid.Int64Range(0, most-1).Draw(t, "from"), rapid.Int64Range(0, most-1).Draw(t, "to")}
		var missing [most]bool
		prev := int64(most)
		for _, w := range ws.missing(ask) {
			if w.hi >= prev {
				t.Fatalf("missing %v is not newest first", ws.missing(ask))
			}
			prev = w.lo
			for s := w.lo; s <= w.hi; s++ {
				missing[s] = true
			}
		}
		for s := range int64(most) {
			if want := !in[s] && ask.lo <= s && s <= ask.hi; missing[s] != want {
				t.Fatalf("%v of %v: second %d is missing: %v, want %v", ask, ws, s, missing[s], want)
			}
		}
		back, err := decodeWindows(ws.encode())
		if err != nil || !slices.Equal(back, ws) {
			t.Fatalf("%v came back as %v, %v", ws, back, err)
		}
	})
	for _, bad := range [][]byte{make([]byte, 15), windows{{5, 4}}.encode(), windows{{9, 10}, {3, 4}}.encode(), windows{{-1, 4}}.encode()} {
		if ws, err := decodeWindows(bad); err == nil {
			t.Errorf("%x was read as %v, want an error", bad, ws)
		}
	}
}

// A relay that is being filled while it is asked gains older events between two pages: that is no page cut short.
func TestOlderEventsThatComeBetweenPages(t *testing.T) {
	w := newWalk(window{1, openEnd}, 500, false, nil)
	page := func(at ...int64) (a answer) {
		a.ids = make(map[event.ID]struct{})
		_, until := w.request()
		prev := int64(openEnd)
		for _, second := range at {
			a.add(eventID(int(second)), second, until, openEnd, &prev)
		}
		return a
	}
	var v verdict
	for n, at := range [][]int64{
		{103, 102, 101, 100},
		{100},         // the echo, and nothing older yet
		{51, 50},      // two have come meanwhile
		{100, 51, 50}, // asked once more: they do stand behind that second
		{50},          // the echo again
		{},            // and nothing older
	} {
		if v.done {
			t.Fatalf("the walk ended before page %d: %s %s", n+1, v.complete, v.reason)
		}
		v = w.took(page(at...))
	}
	if !v.done || v.complete != Yes || len(w.gaps) != 0 {
		t.Errorf("the walk's end: %v, complete %s (%s), gaps %v; want the end, yes and none", v.done, v.complete, v.reason, w.gaps)
	}

	// A second that is cut gives the same again, and what lies before it only when asked for that: a gap.
	w = newWalk(window{1, openEnd}, 500, false, nil)
	for _, at := range [][]int64{{103, 102, 101, 100}, {100}, {51, 50}, {100}, {51, 50}, {50}, {}} {
		v = w.took(page(at...))
	}
	if !v.done || v.complete != No || len(w.gaps) != 1 || w.gaps[0] != 100 {
		t.Errorf("a second that is cut: %v, complete %s (%s), gaps %v; want the end, no, and a gap at 100", v.done, v.complete, v.reason, w.gaps)
	}
}
