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
