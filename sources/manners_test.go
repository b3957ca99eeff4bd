package sources

import (
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

// A walk that gives its older half away, again and again, misses nothing, and costs hardly more.
func TestWalksThatShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		random := rand.New(rand.NewPCG(seed, 1))
		m := model{cap: rapid.IntRange(50, 200).Draw(t, "cap"), exclusive: rapid.Bool().Draw(t, "exclusive")}
		for range random.IntN(5000) {
			m.events = append(m.events, stored{firstEvent + int64(random.ExpFloat64()*1e7), 1, 1})
		}
		known := newManners(500, false)
		f := event.Filter{Authors: []event.PubKey{{1}}}
		got, wire, pages := map[int]bool{}, 0, 0
		var proven windows
		walks := []*walk{newWalk(f, window{0, openEnd}, known)}
		ended := 0
		for len(walks) > 0 {
			at := random.IntN(len(walks))
			w := walks[at]
			r := w.next(500)
			if len(walks) < 10 { // while that page is under way
				if older, ok := w.give(); ok {
					walks = append(walks, newWalk(f, older, known))
				}
			}
			if pages++; pages > 10_000 {
				t.Fatal("no end")
			}
			page, _ := m.serve(r)
			wire += len(page)
			a := answer{ids: map[event.ID]struct{}{}}
			prev := int64(openEnd)
			for _, i := range page {
				a.add(eventID(i), m.events[i].at, r.to, openEnd, &prev)
				got[i] = true
			}
			v := w.took(a)
			for _, p := range v.proven {
				proven = proven.add(p)
			}
			if !v.done {
				continue
			}
			if ended++; v.complete != Yes {
				t.Fatalf("a walk ended %v: %s", v.complete, v.reason)
			}
			walks = slices.Delete(walks, at, at+1)
		}
		if len(got) != len(m.events) || !slices.Equal(proven, windows{{0, openEnd}}) {
			t.Fatalf("%d of %d events came, proven is %v", len(got), len(m.events), proven)
		}
		if most := len(m.events)*105/100 + 6*m.cap; wire > most {
			t.Fatalf("%d events on the wire for %d with a cap of %d, %d pages, %d walks, want at most %d", wire, len(m.events), m.cap, pages, ended, most)
		}
	})
}

// What NIP-11 says is believed until something else comes: a page of what was promised is full, a shorter one is not.
func TestAnAdvertisedLimit(t *testing.T) {
	var all []stored
	for i := range 700 {
		all = append(all, stored{1_700_000_000 - int64(i), 1, 1})
	}
	for _, limit := range []int{100, 300} { // 300 is not true
		w := newWalk(event.Filter{Authors: []event.PubKey{{1}}}, window{0, openEnd}, newManners(limit, true))
		out := run(t, model{events: all, cap: 100}, w)
		if out.verdict.complete != Yes || len(out.got) != 700 || out.pages > 13 {
			t.Errorf("advertised %d: complete %v, %d events in %d pages, want yes, 700, at most 13", limit, out.verdict.complete, len(out.got), out.pages)
		}
	}
}

// NIP-67's hint saves requests once it has proved true, and costs nothing but them where it is false.
func TestHintsAreBelievedOnceTheyProvedTrue(t *testing.T) {
	var all []stored
	for i := range 400 {
		all = append(all, stored{1_700_000_000 - int64(i), 1, byte(1 + i%4)})
	}
	for i := range 99 { // an author whose events fill more than a page
		all = append(all, stored{1_699_000_000 - int64(i), 1, 1})
	}
	ask := func(m model, known *manners, author byte, since int64) walked {
		out := run(t, m, newWalk(event.Filter{Authors: []event.PubKey{{author}}}, window{since, openEnd}, known))
		if out.verdict.complete != Yes {
			t.Errorf("author %d: complete %v, %s", author, out.verdict.complete, out.verdict.reason)
		}
		return out
	}
	known := newManners(500, false)
	ask(model{events: all, cap: 150, hint: true}, known, 1, 0)
	ask(model{events: all, cap: 150, hint: true}, known, 3, 0)
	if out := ask(model{events: all, cap: 150, hint: true}, known, 2, 1_700_000_000-360); out.pages != 1 || len(out.got) != 90 {
		t.Errorf("the third author came in %d pages, %d events, want one page with all 90", out.pages, len(out.got))
	}
	known = newManners(500, false)
	ask(model{events: all, cap: 60, says: "finish"}, known, 1, 1_700_000_000-80) // true by chance
	if out := ask(model{events: all, cap: 60, says: "finish"}, known, 2, 0); len(out.got) != 100 {
		t.Errorf("%d events came of a relay that calls every page its last, want 100", len(out.got))
	}
	if !known.lies {
		t.Error("a relay that called every page its last is still believed")
	}
}

// groupWalk asks for several authors, in parts where a page was full, and says how many requests that took.
func groupWalk(t interface{ Fatalf(string, ...any) }, m model, known *manners, f event.Filter, in window) (got map[int]bool, pages, wire int) {
	got = map[int]bool{}
	type ask struct {
		authors, rest []event.PubKey
		size          int
	}
	waiting := []ask{{authors: f.Authors}}
	divide := func(authors []event.PubKey, n int) {
		for i := range n {
			waiting = append(waiting, ask{authors: authors[i*len(authors)/n : (i+1)*len(authors)/n]})
		}
	}
	for len(waiting) > 0 {
		a := waiting[0]
		authors := a.authors
		waiting = waiting[1:]
		f.Authors = authors
		w := newWalk(f, in, known)
		w.apart = len(authors) > 1
		out := run(t, m, w)
		pages, wire = pages+out.pages, wire+out.wire
		for i := range out.got {
			got[i] = true
		}
		if w.split > 0 {
			if len(out.proven) > 0 {
				t.Fatalf("%d authors: %v is proven by a page that was full", len(authors), out.proven)
			}
			divide(a.rest, len(a.rest))
			if n := len(authors); known.sampled(n) {
				some := (n + inSample - 1) / inSample
				waiting = append(waiting, ask{authors[:some], authors[some:], w.split})
			} else {
				divide(authors, n)
			}
			continue
		}
		if len(a.rest) > 0 {
			divide(a.rest, shares(len(a.rest), len(authors), w.count, a.size))
		}
		for i, e := range m.events {
			asked := slices.ContainsFunc(authors, func(k event.PubKey) bool { return k[0] == e.author })
			if asked && !got[i] && slices.ContainsFunc(out.proven, func(p window) bool { return p.lo <= e.at && e.at <= p.hi }) {
				t.Fatalf("event %d of %d is inside the proven window and did not come", i, e.at)
			}
		}
		if out.verdict.complete == Yes && !slices.Equal(out.proven, windows{in}) {
			t.Fatalf("complete, and proven is %v", out.proven)
		}
	}
	return got, pages, wire
}

// Whatever authors have, and whatever the relay gives at once: what is proven of a group has come, and many who have little cost
// hardly more requests than pages.
func TestGroupsOfAuthors(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		random := rand.New(rand.NewPCG(seed, 1))
		m := model{
			cap: rapid.IntRange(3, 90).Draw(t, "cap"), exclusive: rapid.Bool().Draw(t, "exclusive"), apart: rapid.Bool().Draw(t, "apart"),
			quarter: rapid.IntRange(0, 3).Draw(t, "quarter") == 0, members: rapid.IntRange(0, 3).Draw(t, "members only") == 0,
		}
		f := event.Filter{}
		for i := range rapid.IntRange(2, 120).Draw(t, "authors") {
			f.Authors = append(f.Authors, event.PubKey{byte(i)})
			busy := 0
			switch random.IntN(10) {
			case 0:
				busy = random.IntN(100)
			case 1, 2, 3:
				busy = random.IntN(3)
			}
			for range busy {
				m.events = append(m.events, stored{1_700_000_000 + random.Int64N(1e7), 1, byte(i)})
			}
		}
		if rapid.Bool().Draw(t, "others") {
			for range random.IntN(300) {
				m.events = append(m.events, stored{1_700_000_000 + random.Int64N(1e7), 1, 255})
			}
		}
		groupWalk(t, m, newManners(500, false), f, window{0, openEnd})
	})
}

// TestManyQuietAuthors: of a relay of which nothing is known, a group is not asked for author by author.
func TestManyQuietAuthors(t *testing.T) {
	var quiet []stored
	f := event.Filter{}
	for i := range 250 {
		f.Authors = append(f.Authors, event.PubKey{byte(i)})
		quiet = append(quiet, stored{1_700_000_000 + int64(i)*1000, 1, byte(i)})
	}
	one := slices.Clone(quiet)
	for i := range 400 {
		one = append(one, stored{1_690_000_000 + int64(i)*1000, 1, 7})
	}
	busy := slices.Clone(quiet)
	for i := range 250 * 100 {
		busy = append(busy, stored{1_690_000_000 + int64(i), 1, byte(i % 250)})
	}
	others := slices.Clone(quiet)
	for i := range 1000 {
		others = append(others, stored{1_690_000_000 + int64(i)*1000, 1, 255})
	}
	for _, test := range []struct {
		name        string
		events      []stored
		members     bool
		pages, wire int // at most
	}{
		{"and others", others, false, 2, 750},
		{"nobody else", quiet, false, 12, 760},
		{"nobody else, and it does not say how much it gives", quiet, true, 12, 500},
		{"one is not", one, false, 40, 1200},
		{"none of them is", busy, false, 510, 25_250 + 2*500 + 10},
	} {
		known := newManners(500, false)
		m := model{events: test.events, cap: 500, apart: true, members: test.members}
		got, pages, wire := groupWalk(t, m, known, f, window{0, openEnd})
		want := 0
		for _, e := range test.events {
			if e.author < 250 {
				want++
			}
		}
		if len(got) != want || pages > test.pages || wire > test.wire {
			t.Errorf("%s: %d of %d events in %d requests, %d on the wire; want all in at most %d, %d", test.name, len(got), want, pages, wire, test.pages, test.wire)
		}
		t.Logf("%s: %d requests, %d on the wire for %d", test.name, pages, wire, want)
	}
}

// A full page for several authors need not be the newest events: then each is asked for alone.
func TestAuthorsApart(t *testing.T) {
	var all []stored
	for i := range 90 {
		all = append(all, stored{1_700_000_000 - int64(i), 1, byte(1 + i/80)}) // 80 of one, 10 of another
	}
	f := event.Filter{Authors: []event.PubKey{{1}, {2}}}
	m := model{events: all, cap: 40, apart: true}
	w := newWalk(f, window{0, openEnd}, newManners(500, false))
	w.apart = true
	out := run(t, m, w)
	if w.split == 0 || len(out.proven) > 0 {
		t.Errorf("split after a page of %d, proven %v, want two walks and nothing proven yet", w.split, out.proven)
	}
	known := newManners(500, false)
	for _, author := range f.Authors {
		run(t, m, newWalk(event.Filter{Authors: []event.PubKey{author}}, window{0, openEnd}, known))
	}
	w = newWalk(f, window{1_700_000_000 - 85, openEnd}, known)
	w.apart = true
	if run(t, m, w); w.split == 0 {
		t.Error("a full page for two authors was taken as whole")
	}
	w = newWalk(f, window{1_700_000_000 - 10, openEnd}, known)
	w.apart = true
	if out := run(t, m, w); w.split > 0 || out.verdict.complete != Yes || out.pages != 1 {
		t.Errorf("a short page for two authors: split after a page of %d, complete %v, %d pages, want one page that says it all", w.split, out.verdict.complete, out.pages)
	}
}

func TestAnEventThatIsTooBigIsNotProven(t *testing.T) {
	var all []stored
	for i := range 1000 {
		all = append(all, stored{1000 + int64(i), 1, 1})
	}
	m := model{events: all, cap: 100}
	known := newManners(500, false)
	w := newWalk(event.Filter{}, window{0, openEnd}, known)
	var proven windows
	var v verdict
	for pages := 0; !v.done; pages++ {
		if pages > 40 {
			t.Fatal("no end")
		}
		r := w.next(500)
		page, _ := m.serve(r)
		a := answer{ids: map[event.ID]struct{}{}}
		prev := int64(openEnd)
		for _, i := range page {
			if at := m.events[i].at; at == 1500 {
				a.tooBig++
			} else {
				a.add(eventID(i), at, r.to, openEnd, &prev)
			}
		}
		v = w.took(a)
		for _, p := range v.proven {
			proven = proven.add(p)
		}
	}
	missing := proven.missing(window{0, openEnd})
	if v.complete != No || len(missing) != 1 || missing[0].lo > 1500 || missing[0].hi < 1500 || missing[0].hi-missing[0].lo > 101 {
		t.Errorf("complete %v (%s), not proven: %v, want no, and the page around 1500", v.complete, v.reason, missing)
	}
}

// A probe of one walk tells the others that were to make the same.
func TestAProbeTellsAllWalks(t *testing.T) {
	for _, more := range []bool{true, false} {
		m := model{events: at(5, 5, 5), cap: 3}
		if more {
			m.events, m.cap = append(m.events, stored{7, 1, 9}, stored{8, 1, 9}), 100
		}
		known := newManners(500, false)
		answered := func(w *walk) {
			r := w.next(500)
			a := answer{ids: map[event.ID]struct{}{}}
			prev := int64(openEnd)
			page, _ := m.serve(r)
			for _, i := range page {
				a.add(eventID(i), m.events[i].at, r.to, openEnd, &prev)
			}
			w.took(a)
		}
		walks := []*walk{newWalk(event.Filter{Authors: []event.PubKey{{1}}}, window{0, openEnd}, known), newWalk(event.Filter{Authors: []event.PubKey{{1}}}, window{0, openEnd}, known)}
		for _, w := range walks {
			for pages := 0; w.step() != stepProbe; pages++ {
				if pages > 10 {
					t.Fatal("no probe")
				}
				answered(w)
			}
			if _, ok := w.spared(); ok {
				t.Fatal("nothing was probed, and a walk says that it need not")
			}
		}
		answered(walks[0])
		if _, ok := walks[1].spared(); !ok || walks[1].step() == stepProbe || walks[1].step() != walks[0].step() {
			t.Errorf("more %t: after the first walk's probe the second goes on: %t, with step %d; want that of the first, %d", more, ok, walks[1].step(), walks[0].step())
		}
	}
}

// TestWhatWasCountedOutlivesTheDocument: a relay that was seen to withhold, and whose NIP-11 document says something else or cannot be had,
// is still asked to count, and is not taken for one that shows all.
func TestWhatWasCountedOutlivesTheDocument(t *testing.T) {
	v := &visit{s: New(Options{}), sess: limited{info: relay.Info{Known: true, NIPs: []int{1, 45}, Limits: relay.Limits{MaxLimit: 50}}}}
	m := v.manners()
	if !m.counts {
		t.Fatal("a relay whose document names NIP-45 is not asked to count")
	}
	m.told, m.heeds = true, true
	m.withholds()
	for _, info := range []relay.Info{{}, {Known: true, NIPs: []int{1}, Limits: relay.Limits{MaxLimit: 100}}} {
		v.sess = limited{info: info}
		if m := v.manners(); !m.counts || !m.told || !m.heeds || !m.hides || m.thin != (info.Limits.MaxLimit > 0) {
			t.Errorf("%+v: %+v; want it to be one that counts and withholds", info, m)
		}
	}
	never := &visit{s: New(Options{}), sess: v.sess}
	never.manners().untold = maxUntold
	never.sess = limited{}
	if m := never.manners(); m.counts || m.told || m.hides {
		t.Errorf("%+v; want a relay that has never counted not to be asked to", m)
	}
}
