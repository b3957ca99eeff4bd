package sources_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// asks is one backfill's requests.
type asks struct {
	t   *testing.T
	r   *relaytest.Relay
	in  *intake
	run func(filters ...event.Filter) []nostr.Filter
}

func newAsks(t *testing.T, events []string) asks {
	a := asks{t: t, r: relaytest.New(t, relaytest.Script{Events: events, Cap: 100}), in: newIntake(t)}
	db := openState(t)
	a.run = func(filters ...event.Filter) []nostr.Filter {
		before := len(requests(t, a.r, "page-"))
		wantComplete(t, start(t, a.r, a.in, db, sources.Options{Once: true, Filters: filters}).finished(), sources.Yes, "")
		return requests(t, a.r, "page-")[before:]
	}
	return a
}

// recent is a request for what no run proves: the last twenty minutes, and the future.
func recent(f nostr.Filter) bool { return f.Since != nil && int64(*f.Since) == now-1200+1 }

// What a run asks for is what its atoms lack: a newcomer among 1,500 authors costs the newcomer's requests, one that leaves and comes
// back costs none.
func TestOneMoreAmongManyAuthors(t *testing.T) {
	var everybody []event.PubKey
	var all []string
	for i := range 1500 {
		key := event.PubKey{1: byte(i), 2: byte(i >> 8), 3: 1}
		if i%75 == 0 { // one of the twenty that have published
			key = author(1 + i/75)
			all = append(all, notes(1+i/75, 30+i/75, 7)...)
		}
		everybody = append(everybody, key)
	}
	a := newAsks(t, all)
	a.run(event.Filter{Authors: everybody[1:]})
	if n, want := a.in.count(), len(all)-30; n != want {
		t.Fatalf("%d events came of 1,499 authors, want %d", n, want)
	}
	for _, step := range []struct {
		name string
		who  []event.PubKey
		new  int // requests for anything but what is recent
		came int
	}{
		{"one more", everybody, 5, len(all)},
		{"the same", everybody, 0, len(all)},
		{"a hundred less", everybody[100:], 0, len(all)},
		{"all again", everybody, 0, len(all)},
		{"in another order", reordered(everybody), 0, len(all)},
	} {
		var old int
		got := a.run(event.Filter{Authors: step.who})
		for _, f := range got {
			if recent(f) {
				continue
			}
			if old++; len(f.Authors) != 1 || f.Authors[0] != author(1).String() {
				t.Errorf("%s: %d authors are asked for from the beginning, want the newcomer alone", step.name, len(f.Authors))
			}
		}
		if recents := len(got) - old; old > step.new || recents > 4 {
			t.Errorf("%s: %d requests for the past and %d for what is recent, want at most %d and 4", step.name, old, recents, step.new)
		}
		if a.in.count() != step.came {
			t.Errorf("%s: %d events are in, want %d", step.name, a.in.count(), step.came)
		}
	}
}

// A since of an author's own is a window of that author's own, and so is a mention.
func TestWindowsOfAnAtomAreItsOwn(t *testing.T) {
	old := int64(now - 86400 - 20*7)
	mention := func(n, i int) string {
		return relaytest.Sign(relaytest.Key(9), 1, now-90_000-int64(i), [][]string{{"p", author(n).String()}}, fmt.Sprint("hello ", i))
	}
	all := slices.Concat(notes(1, 60, 7), notes(2, 60, 7))
	for i := range 20 {
		all = append(all, mention(1, i), mention(2, 100+i))
	}
	a := newAsks(t, all)
	one, two := []event.PubKey{author(1)}, []event.PubKey{author(2)}
	at := func(n int) []string { return []string{author(n).String()} }
	p := func(who ...int) event.Filter {
		f := event.Filter{Tags: map[string][]string{}}
		for _, n := range who {
			f.Tags["p"] = append(f.Tags["p"], author(n).String())
		}
		return f
	}
	for _, step := range []struct {
		name    string
		filters []event.Filter
		new     func(f nostr.Filter) bool // what may be asked for besides what is recent
		came    int
	}{
		{"one since, one whole", []event.Filter{{Authors: one, Since: old + 1}, {Authors: two}}, func(nostr.Filter) bool { return true }, 20 + 60},
		{"the since goes back", []event.Filter{{Authors: one, Since: old - 139}, {Authors: two}}, func(f nostr.Filter) bool {
			return slices.Equal(f.Authors, at(1)) && f.Until != nil && int64(*f.Until) <= old+1
		}, 40 + 60},
		{"no since any more", []event.Filter{{Authors: slices.Concat(one, two)}}, func(f nostr.Filter) bool {
			return slices.Equal(f.Authors, at(1)) && f.Until != nil && int64(*f.Until) <= old-139
		}, 120},
		{"mentions of one", []event.Filter{{Authors: slices.Concat(one, two)}, p(1)}, func(f nostr.Filter) bool {
			return slices.Equal(f.Tags["p"], at(1)) && len(f.Authors) == 0
		}, 140},
		{"mentions of another", []event.Filter{{Authors: slices.Concat(one, two)}, p(1, 2)}, func(f nostr.Filter) bool {
			return slices.Equal(f.Tags["p"], at(2)) && len(f.Authors) == 0
		}, 160},
		{"of a kind: another question", []event.Filter{{Authors: one, Kinds: []int{1}}}, func(f nostr.Filter) bool {
			return slices.Equal(f.Authors, at(1)) && slices.Equal(f.Kinds, []int{1})
		}, 160},
	} {
		for _, f := range a.run(step.filters...) {
			if !recent(f) && !step.new(f) {
				t.Errorf("%s: it asked for %s, which is proven", step.name, f)
			}
		}
		if a.in.count() != step.came {
			t.Errorf("%s: %d events are in, want %d", step.name, a.in.count(), step.came)
		}
	}
}

// A process that ends between a page and its barrier has proven nothing by it.
func TestTheEndBeforeTheBarrier(t *testing.T) {
	all := notes(1, 300, 7)
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("the archive fails ", fails), func(t *testing.T) {
			r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100})
			in, db := newIntake(t), openState(t)
			in.hold = true
			g := start(t, r, in, db, sources.Options{Once: true})
			in.until("a page", func() bool { return len(in.held()) > 0 })
			if fails {
				in.held()[0] <- errors.New("disk full")
			}
			g.stop()
			if n := savedWindows(t, db, r.URL); n != 0 {
				t.Errorf("%d windows are saved of a page that is nowhere", n)
			}
			next := newIntake(t)
			wantComplete(t, start(t, r, next, db, sources.Options{Once: true}).finished(), sources.Yes, "")
			if next.count() != len(all) {
				t.Errorf("the next process got %d events, want all %d", next.count(), len(all))
			}
		})
	}
}

func (k *intake) held() []chan error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.kept)
}

// What a well-behaved relay sends is hardly more than what it has, in one window or in several.
func TestOnTheWire(t *testing.T) {
	const many, limit = 10_000, 500
	for _, test := range []struct {
		name    string
		step    int64
		authors int
		info    string
	}{
		{"one after the other", 1, 1, ""},
		{"several windows", 3600, 1, ""},
		{"several windows, and NIP-11", 3600, 1, limits(`"max_limit":500,"max_subscriptions":20`)},
		{"several authors in one request", 600, 7, ""},
		{"several authors of khatru", 600, 7, `{"software":"https://github.com/fiatjaf/khatru"}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var all []string
			f := event.Filter{}
			for a := range test.authors {
				f.Authors = append(f.Authors, author(a+1))
			}
			for i := range many {
				all = append(all, note(1+i%test.authors, 0, now-86400-int64(i)*test.step))
			}
			r := relaytest.New(t, relaytest.Script{Events: all, Cap: limit, Info: test.info})
			in := newIntake(t)
			g := start(t, r, in, openState(t), sources.Options{Once: true, Filters: []event.Filter{f}})
			wantComplete(t, g.finished(), sources.Yes, "")
			wire, pages := g.door.Tally.Received.Load(), len(requests(t, r, "page-"))
			most := int64(many * 105 / 100)
			if test.authors > 1 {
				most += limit // a page for all of them, which at khatru proves nothing when it is full
			}
			if in.count() != many || wire > most || pages > many/limit*2+40 {
				t.Errorf("%d events came, want %d; %d on the wire in %d requests, want at most %d", in.count(), many, wire, pages, most)
			}
			t.Logf("%d events on the wire in %d requests", wire, pages)
		})
	}
}

// reordered is the same authors in another order.
func reordered(keys []event.PubKey) []event.PubKey {
	sorted := slices.Clone(keys)
	slices.SortFunc(sorted, func(x, y event.PubKey) int {
		return int(int64(binary.BigEndian.Uint32(x[:])) - int64(binary.BigEndian.Uint32(y[:])))
	})
	return sorted
}
