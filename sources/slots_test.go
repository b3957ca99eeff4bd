package sources

import (
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relay"
)

// limited is a session of a relay that says what it takes.
type limited struct {
	session
	settings relay.Settings
	info     relay.Info
}

func (l limited) Settings() relay.Settings { return l.settings }
func (l limited) Info() relay.Info         { return l.info }

// TestSlots: pages, the live subscriptions and what may be reconciled beside them are never more than the relay takes at once.
func TestSlots(t *testing.T) {
	for _, c := range []struct {
		name                     string
		said, set, learned, live int
		nip77, seen              bool
		want                     int
	}{
		{name: "nothing said", nip77: true, seen: true, want: maxPages},
		{name: "nothing said, live", live: 2, nip77: true, seen: true, want: maxPages - 2},
		{name: "said", said: 6, live: 1, want: 5},
		{name: "said, and it reconciles", said: 6, live: 1, nip77: true, seen: true, want: 4},
		{name: "said, and nothing is archived", said: 6, live: 1, nip77: true, want: 5},
		{name: "said more than is of use", said: 50, nip77: true, seen: true, want: maxPages},
		{name: "set", set: 8, nip77: true, seen: true, want: 7},
		{name: "complained", learned: 5, nip77: true, seen: true, want: 4},
		{name: "one at a time", said: 1, live: 1, nip77: true, seen: true, want: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := limited{settings: relay.DefaultSettings(), info: relay.Info{Known: true, NIPs: []int{1}}}
			l.settings.Subscriptions, l.info.Limits.MaxSubscriptions = c.set, c.said
			if c.nip77 {
				l.info.NIPs = append(l.info.NIPs, 77)
			}
			o := Options{}
			if c.seen {
				o.Seen = struct{ Seen }{}
			}
			v := &visit{s: New(o), sess: l, asked: map[string]struct{}{}}
			v.s.fewest.Store(int64(c.learned))
			for i := range c.live {
				v.asked[livePrefix+string(rune('0'+i))] = struct{}{}
			}
			if got := v.slots(); got != c.want {
				t.Errorf("%d pages at once, want %d", got, c.want)
			}
		})
	}
}

func (l limited) Stalled() time.Duration { return 0 }

// TestFewerPages: a NOTICE about too many requests makes fewer of the pages while one is unanswered, and one about too many
// reconciliations does not.
func TestFewerPages(t *testing.T) {
	for text, want := range map[string]int64{
		"ERROR: too many concurrent REQs":         maxPages / 2,
		"ERROR: too many concurrent NEG requests": 0,
		"error: could not save":                   0,
	} {
		v := &visit{s: New(Options{Once: true}), sess: limited{}}
		w := newWalk(event.Filter{}, window{0, openEnd}, newManners(500, false))
		v.open.add(newPage(1, record.Page, w, w.next(500), openEnd, 0))
		if v.notice(text); v.s.fewest.Load() != want {
			t.Errorf("%s: %d pages at once, want %d", text, v.s.fewest.Load(), want)
		}
	}
}

// TestRefusedTogether: what was sent before a bound was learned, and is refused after, makes it no lower for another page, and no higher for
// wider filters.
func TestRefusedTogether(t *testing.T) {
	v := &visit{s: New(Options{Once: true}), sess: limited{}}
	ten := func() {
		w := newWalk(event.Filter{}, window{0, openEnd}, newManners(500, false))
		for n := range maxPages {
			p := newPage(n, record.Page, w, w.next(500), openEnd, 0)
			p.fewest = v.s.fewest.Load()
			v.open.add(p)
		}
		for range maxPages {
			v.notice("ERROR: too many concurrent REQs")
		}
		for _, p := range v.open.all() {
			v.open.remove(p, 0)
		}
	}
	for _, want := range []int64{5, 2, 1, 1} {
		if ten(); v.s.fewest.Load() != want {
			t.Fatalf("%d pages at once, want %d", v.s.fewest.Load(), want)
		}
	}
	if !v.s.noRoom.Load() {
		t.Error("one page is too many, and it still counts as having room beside the live subscriptions")
	}
	closed := pageEnd{closed: true, reason: "rate-limited: too many concurrent REQs"}
	v = &visit{s: New(Options{Once: true, Backoff: relay.DefaultSettings().Backoff}), sess: limited{}}
	for range maxPages {
		if _, again, _, err := v.refused(&task{}, closed); !again || err != nil {
			t.Fatalf("not asked again: %v", err)
		}
	}
	if v.s.fewest.Load() != 5 || v.s.noRoom.Load() {
		t.Errorf("%d pages at once, want 5", v.s.fewest.Load())
	}

	group := func(atoms, kinds int) group {
		return group{atoms: make([]atom, atoms), filter: event.Filter{Kinds: make([]int, kinds)}}
	}
	for _, c := range []struct{ atoms, kinds, chunk, most int }{
		{10, 9, 5, 0}, {2, 9, 1, 0}, {5, 9, 1, 0}, {1, 9, 1, 5}, {1, 4, 1, 2}, {1, 5, 1, 2},
	} {
		v.s.narrow(group(c.atoms, c.kinds), "blocked: too many things")
		if got, kinds := v.s.chunk.Load(), v.s.kinds.Load(); got != int64(c.chunk) || kinds != int64(c.most) {
			t.Errorf("%d authors and %d kinds are refused: asked for %d and %d at once, want %d and %d", c.atoms, c.kinds, got, kinds, c.chunk, c.most)
		}
	}
}

// TestPatience: a slow relay gets the time for a COUNT that it needs, a silent one does not get more and more.
func TestPatience(t *testing.T) {
	m := newManners(500, false)
	for i, want := range []time.Duration{10, 20, 40, 80, 10, 10} {
		if got := m.patience(); got != want*time.Second {
			t.Errorf("after %d COUNTs that nothing came of: %s, want %d s", i, got, want)
		}
		m.missed()
	}
	m.untold, m.slow = 0, 35*time.Second
	if got := m.patience(); got != 70*time.Second {
		t.Errorf("where the last took 35 s: %s, want 70 s", got)
	}
	m.slow = time.Hour
	if m.missed(); m.patience() != 80*time.Second {
		t.Errorf("where one took an hour: %s, want 80 s at most", m.patience())
	}
}
