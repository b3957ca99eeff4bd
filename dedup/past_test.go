package dedup_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"rebroadcastr/dedup"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

// Relays, normalised.
const (
	here  = "wss://here.example.com"
	there = "wss://there.example.com"
)

func author(n int) (key event.PubKey) {
	key[0], key[31] = byte(n), byte(n)
	return key
}

// say makes an event; nobody here asks for its signature.
func say(t rapid.TB, id event.ID, by event.PubKey, kind int, created int64, tags ...[]string) event.Event {
	t.Helper()
	if tags == nil {
		tags = [][]string{}
	}
	text, err := json.Marshal(tags)
	if err != nil {
		t.Fatal(err)
	}
	raw := fmt.Sprintf(`{"id":"%s","pubkey":"%s","created_at":%d,"kind":%d,"tags":%s,"content":"","sig":"%0128d"}`, id, by, created, kind, text, 3)
	var e event.Event
	if err := event.Parse([]byte(raw), &e); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return e
}

// log numbers events as the lines of segment seg from nth on.
func log(seg uint32, nth int, events ...event.Event) []record.Record {
	var rs []record.Record
	for i, e := range events {
		n := uint64(nth + i)
		rs = append(rs, record.Record{Place: place.Make(seg, n*lineBytes), End: place.Make(seg, (n+1)*lineBytes), Ordinal: n, Event: e})
	}
	return rs
}

// places are where the answers of an index point to; zero: not found.
type answer struct{ deletedHere, deletedThere, newer, place place.Place }

func ask(t rapid.TB, x *dedup.Index, e *event.Event) (a answer) {
	t.Helper()
	at := func(p place.Place, found bool, err error) place.Place {
		if err != nil || found == p.IsZero() {
			t.Fatalf("of kind %d, %s: %v, %t, %v", e.Kind, e.ID, p, found, err)
		}
		return p
	}
	a.deletedHere = at(x.Deleted(e, here))
	a.deletedThere = at(x.Deleted(e, there))
	a.newer = at(x.Newer(e))
	a.place = at(x.Place(e.ID))
	return a
}

// TestWhatCounts has one case for each rule of NIP-01, 09, 59 and 62: what is said in the log, and of which event it holds.
func TestWhatCounts(t *testing.T) {
	me, other := author(1), author(2)
	note := say(t, id(1), me, 1, 100)
	profile := say(t, id(2), me, 0, 100)
	article := say(t, id(3), me, 30023, 100, []string{"d", "a:\n"})
	nameless := say(t, id(4), me, 30023, 100)
	wrap := say(t, id(5), other, 1059, 100, []string{"e", "p"}, []string{"p", me.String()})
	request := say(t, id(6), me, 5, 100)
	vanish := say(t, id(7), me, 62, 100)
	for _, tt := range []struct {
		name    string
		said    event.Event
		of      event.Event
		deleted string // from: "", "here" or "all"
		newer   bool
	}{
		{name: "e", said: say(t, id(90), me, 5, 50, []string{"e", note.ID.String()}), of: note, deleted: "all"},
		{name: "second e", said: say(t, id(90), me, 5, 50, []string{"k", "1"}, []string{"e"}, []string{"e", note.ID.String()}), of: note, deleted: "all"},
		{name: "e by another", said: say(t, id(90), other, 5, 50, []string{"e", note.ID.String()}), of: note},
		{name: "e in capitals", said: say(t, id(90), me, 5, 50, []string{"e", fmt.Sprintf("%X", note.ID[:])}), of: note},
		{name: "e in another kind", said: say(t, id(90), me, 6, 50, []string{"e", note.ID.String()}), of: note},
		{name: "p is no e", said: say(t, id(90), me, 5, 50, []string{"p", note.ID.String()}), of: note},
		{name: "e of a request to delete", said: say(t, id(90), me, 5, 200, []string{"e", request.ID.String()}), of: request},
		{name: "e of a request to vanish", said: say(t, id(90), me, 5, 200, []string{"e", vanish.ID.String()}), of: vanish},
		{name: "e of a profile", said: say(t, id(90), me, 5, 50, []string{"e", profile.ID.String()}), of: profile, deleted: "all"},
		{name: "a, same second", said: say(t, id(90), me, 5, 100, []string{"a", "30023:" + me.String() + ":a:\n"}), of: article, deleted: "all"},
		{name: "a, earlier", said: say(t, id(90), me, 5, 99, []string{"a", "30023:" + me.String() + ":a:\n"}), of: article},
		{name: "a, another d", said: say(t, id(90), me, 5, 100, []string{"a", "30023:" + me.String() + ":a:"}), of: article},
		{name: "a by another", said: say(t, id(90), other, 5, 100, []string{"a", "30023:" + me.String() + ":a:\n"}), of: article},
		{name: "a, no d", said: say(t, id(90), me, 5, 100, []string{"a", "30023:" + me.String() + ":"}), of: nameless, deleted: "all"},
		{name: "a of a profile", said: say(t, id(90), me, 5, 100, []string{"a", "0:" + me.String() + ":"}), of: profile, deleted: "all"},
		{name: "gift wrap by whom it is for", said: say(t, id(90), me, 5, 50, []string{"e", wrap.ID.String()}), of: wrap, deleted: "all"},
		{name: "gift wrap by a third", said: say(t, id(90), author(3), 5, 50, []string{"e", wrap.ID.String()}), of: wrap},
		{name: "vanish from here", said: say(t, id(90), me, 62, 100, []string{"relay", "WSS://Here.example.com/"}), of: note, deleted: "here"},
		{name: "vanish from all", said: say(t, id(90), me, 62, 100, []string{"relay", "ALL_RELAYS"}), of: note, deleted: "all"},
		{name: "vanish from another", said: say(t, id(90), me, 62, 100, []string{"relay", "wss://third.example.com"}), of: note},
		{name: "vanish, the second relay", said: say(t, id(90), me, 62, 100, []string{"relay", "x y"}, []string{"relay", here}), of: note, deleted: "here"},
		{name: "vanish earlier", said: say(t, id(90), me, 62, 99, []string{"relay", "ALL_RELAYS"}), of: note},
		{name: "vanish of another", said: say(t, id(90), other, 62, 100, []string{"relay", "ALL_RELAYS"}), of: note},
		{name: "vanish and a request to delete", said: say(t, id(90), me, 62, 100, []string{"relay", "ALL_RELAYS"}), of: request},
		{name: "vanish and a request to vanish", said: say(t, id(90), me, 62, 100, []string{"relay", "ALL_RELAYS"}), of: vanish},
		{name: "vanish of whom a gift wrap is for", said: say(t, id(90), me, 62, 100, []string{"relay", here}), of: wrap, deleted: "here"},
		{name: "newer", said: say(t, id(90), me, 0, 101), of: profile, newer: true},
		{name: "older", said: say(t, id(90), me, 0, 99), of: profile},
		{name: "same second, lower id", said: say(t, event.ID{0}, me, 0, 100), of: profile, newer: true},
		{name: "same second, higher id", said: say(t, event.ID{255, 255}, me, 0, 100), of: profile},
		{name: "newer of another author", said: say(t, id(90), other, 0, 101), of: profile},
		{name: "newer of another kind", said: say(t, id(90), me, 3, 101), of: profile},
		{name: "newer, same d", said: say(t, id(90), me, 30023, 101, []string{"d", "a:\n"}, []string{"d", "b"}), of: article, newer: true},
		{name: "newer, another d", said: say(t, id(90), me, 30023, 101, []string{"d", "b"}), of: article},
		{name: "newer, no d", said: say(t, id(90), me, 30023, 101, []string{"d", ""}), of: nameless, newer: true},
		{name: "a note is not replaced", said: say(t, id(90), me, 1, 101), of: note},
		{name: "itself", said: profile, of: profile},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			x := open(t, dedup.Options{Dir: dir})
			if got := ask(t, x, &tt.of); got != (answer{}) {
				t.Fatalf("of an empty log: %+v", got)
			}
			rs := log(1, 0, tt.said)
			var want answer
			if tt.deleted != "" {
				want.deletedHere = rs[0].End
			}
			if tt.deleted == "all" {
				want.deletedThere = rs[0].End
			}
			if tt.newer {
				want.newer = rs[0].End
			}
			if tt.said.ID == tt.of.ID {
				want.place = rs[0].End
			}
			rs = log(1, 1, tt.said) // the first line is another's: the zero place would read as none
			x.Written(rs)
			if got := ask(t, x, &tt.of); got != want {
				t.Errorf("in the overlay: %+v, want %+v", got, want)
			}
			stop := running(t, x)
			x.Synced(rs[0].End)
			stop()
			if s := x.Status(); s.Facts != 0 || s.Overlay != 0 {
				t.Errorf("the overlay holds %d facts and %d ids after all is written", s.Facts, s.Overlay)
			}
			if got := ask(t, x, &tt.of); got != want {
				t.Errorf("in Badger: %+v, want %+v", got, want)
			}
			closeIndex(t, x)
			x = open(t, dedup.Options{Dir: dir})
			defer closeIndex(t, x)
			if got := ask(t, x, &tt.of); got != want {
				t.Errorf("after a restart: %+v, want %+v", got, want)
			}
			x.Trust(func(place.Place) bool { return false })
			if got := ask(t, x, &tt.of); got != (answer{}) {
				t.Errorf("with a log that lost the line: %+v, want nothing", got)
			}
		})
	}
}

// model is what the index says, by the rules and without keys, overlay or Badger.
type model []record.Record

func (m model) ask(e *event.Event) (a answer) {
	newest := e
	for i := range m {
		r := &m[i]
		if r.Event.ID == e.ID {
			a.place = r.Place
		}
		ours, ok := r.Event.Address()
		if theirs, _ := e.Address(); ok && ours.String() == theirs.String() && r.Event.Supersedes(newest) {
			a.newer, newest = r.Place, &r.Event
		}
	}
	return a
}

// deleted reports whether a line asks for e to be gone from relay.
func (m model) deleted(e *event.Event, relay string) bool {
	address, _ := e.Address()
	return e.Kind != 5 && e.Kind != 62 && slices.ContainsFunc(m, func(r record.Record) bool {
		if r.Event.PubKey != e.PubKey {
			return false
		}
		for tag := range r.Event.Tags() {
			name, value := string(tag[0]), string(tag[1])
			switch {
			case r.Event.Kind == 5 && name == "e" && value == e.ID.String(),
				r.Event.Kind == 5 && name == "a" && value == address.String() && e.CreatedAt <= r.Event.CreatedAt,
				r.Event.Kind == 62 && (value == relay || value == "ALL_RELAYS") && e.CreatedAt <= r.Event.CreatedAt:
				return true
			}
		}
		return false
	})
}

// TestFactsAgreeWithTheLog: whatever stands in the log, was withdrawn and written again, or is in Badger already, the index
// says what the log says; after a restart too, and so does one that is made anew.
func TestFactsAgreeWithTheLog(t *testing.T) {
	temp := t.TempDir()
	tempDir := func(t *rapid.T) string {
		dir, err := os.MkdirTemp(temp, "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	rapid.Check(t, func(t *rapid.T) {
		dir := tempDir(t)
		o := dedup.Options{Dir: dir, Shards: 2, LRU: 4}
		x := open(t, o)
		stop := running(t, x)
		var all model
		number, line, synced := uint32(1), 1, 0
		count := uint64(0)
		made := func() event.Event {
			count++
			by := author(rapid.IntRange(1, 2).Draw(t, "author"))
			created := int64(rapid.IntRange(1, 6).Draw(t, "created_at"))
			target := id(uint64(rapid.IntRange(1, int(count)).Draw(t, "target")))
			whose := author(rapid.IntRange(1, 2).Draw(t, "whose"))
			a := fmt.Sprintf("30023:%s:%d", whose, rapid.IntRange(0, 1).Draw(t, "d"))
			switch kind := rapid.SampledFrom([]int{0, 1, 5, 5, 62, 30023, 30023}).Draw(t, "kind"); kind {
			case 5:
				tags := [][]string{{"e", target.String()}, {"a", a}, {"a", "0:" + whose.String() + ":"}}
				from := rapid.IntRange(0, 2).Draw(t, "from")
				return say(t, id(count), by, kind, created, tags[from:rapid.IntRange(from, 3).Draw(t, "to")]...)
			case 62:
				return say(t, id(count), by, kind, created, []string{"relay", rapid.SampledFrom([]string{here, there, "ALL_RELAYS"}).Draw(t, "relay")})
			case 30023:
				return say(t, id(count), by, kind, created, []string{"d", a[len(a)-1:]})
			default:
				return say(t, id(count), by, kind, created)
			}
		}
		agree := func(when string) {
			for i := range all {
				e := &all[i].Event
				got, want := ask(t, x, e), all.ask(e)
				if got.newer != want.newer || got.place != want.place || !got.deletedHere.IsZero() != all.deleted(e, here) || !got.deletedThere.IsZero() != all.deleted(e, there) {
					t.Fatalf("%s, of line %d (%s): %+v, want %+v and deleted %t, %t", when, i, e.Line, got, want, all.deleted(e, here), all.deleted(e, there))
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"written": func(*rapid.T) {
				var group []event.Event
				for range rapid.IntRange(1, 5).Draw(t, "group") {
					group = append(group, made())
				}
				rs := log(number, line, group...)
				line += len(rs)
				x.Written(rs)
				all = append(all, rs...)
			},
			"synced": func(t *rapid.T) {
				if synced == len(all) {
					t.Skip()
				}
				synced = rapid.IntRange(synced+1, len(all)).Draw(t, "synced")
				end := all[synced-1].End
				x.Synced(end)
			},
			"moved": func(t *rapid.T) {
				if synced == len(all) {
					t.Skip()
				}
				number, line = number+1, 1
				tail := all[synced:]
				for i := range tail {
					tail[i].Place, tail[i].End = place.Make(number, uint64(line)*lineBytes), place.Make(number, uint64(line+1)*lineBytes)
					line++
				}
				x.Moved(tail)
			},
			"crashed": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "seldom") > 0 {
					t.Skip() // Badger takes its time to open
				}
				stop()
				closeIndex(t, x)
				all = all[:synced] // the rest is not in the log, nor in Badger
				x = open(t, o)
				from := slices.IndexFunc(all, func(r record.Record) bool { return !r.Place.Before(x.Checkpoint()) })
				if from >= 0 {
					t.Fatalf("line %d of %d is not in Badger, though it was synced", from, len(all))
				}
				if err := x.Replay(all[rapid.IntRange(0, len(all)).Draw(t, "from"):]); err != nil { // once more does no harm
					t.Fatal(err)
				}
				stop = running(t, x)
				number, line = number+1, 1
			},
			"": func(*rapid.T) { agree("while it runs") },
		})
		if len(all) > 0 {
			x.Synced(all[len(all)-1].End)
		}
		stop()
		agree("when all is written")
		before := make([]answer, len(all))
		for i := range all {
			before[i] = ask(t, x, &all[i].Event)
		}
		closeIndex(t, x)
		x = open(t, dedup.Options{Dir: tempDir(t)})
		defer closeIndex(t, x)
		if err := x.Replay(all); err != nil {
			t.Fatal(err)
		}
		for i := range all {
			if got := ask(t, x, &all[i].Event); got != before[i] {
				t.Fatalf("made anew, of line %d: %+v, was %+v", i, got, before[i])
			}
		}
	})
}

// TestForeignAddress: what others ask for counts no more when the author has asked for something, too.
func TestForeignAddress(t *testing.T) {
	me, other := author(1), author(2)
	profile := say(t, id(1), me, 0, 100)
	x := open(t, dedup.Options{Dir: t.TempDir()})
	defer closeIndex(t, x)
	x.Written(log(1, 1, profile, say(t, id(2), me, 5, 200, []string{"e", id(77).String()}),
		say(t, id(3), other, 5, 200, []string{"a", "0:" + me.String() + ":"}, []string{"e", profile.ID.String()})))
	if got := ask(t, x, &profile); !got.deletedHere.IsZero() {
		t.Errorf("deleted by %v, want by nobody", got.deletedHere)
	}
}

// TestNewerThanTheLog: what the log has lost does not stand in the way of what it gets then.
func TestNewerThanTheLog(t *testing.T) {
	me, dir := author(1), t.TempDir()
	a := []string{"a", "0:" + me.String() + ":"}
	profile := say(t, id(1), me, 0, 100)
	x := open(t, dedup.Options{Dir: dir})
	lost := log(1, 1, say(t, id(2), me, 0, 400), say(t, id(3), me, 5, 400, a), say(t, id(4), me, 62, 400, []string{"relay", there}))
	if err := x.Replay(lost); err != nil {
		t.Fatal(err)
	}
	closeIndex(t, x)
	x = open(t, dedup.Options{Dir: dir})
	defer closeIndex(t, x)
	x.Trust(func(place.Place) bool { return false })
	rs := log(2, 1, profile, say(t, id(5), me, 0, 200), say(t, id(6), me, 5, 200, a), say(t, id(7), me, 62, 200, []string{"relay", there}))
	x.Written(rs)
	want := answer{deletedHere: rs[2].Place, deletedThere: rs[2].Place, newer: rs[1].Place, place: rs[0].Place}
	if got := ask(t, x, &profile); got != want {
		t.Errorf("in the overlay: %+v, want %+v", got, want)
	}
	stop := running(t, x)
	x.Synced(rs[len(rs)-1].End)
	stop()
	if got := ask(t, x, &profile); got != want {
		t.Errorf("in Badger: %+v, want %+v", got, want)
	}
	late := say(t, id(8), me, 0, 300)
	if got := ask(t, x, &late); got != (answer{}) {
		t.Errorf("of what is later: %+v, want nothing", got)
	}
}

// TestALongRequest: a request with more targets than a transaction takes is written in several. The checkpoint passes it with the
// last of them.
func TestALongRequest(t *testing.T) {
	const targets = 12_000
	me := author(1)
	var tags [][]string
	for n := range uint64(targets) {
		tags = append(tags, []string{"e", id(n).String()})
	}
	rs := log(1, 1, say(t, id(900_000), me, 1, 100), say(t, id(900_001), me, 5, 100, tags...), say(t, id(900_002), me, 1, 100))
	deleted := func(x *dedup.Index) (n int) {
		for i := range uint64(targets) {
			if _, found, err := x.Deleted(&event.Event{ID: id(i), PubKey: me, Kind: 1}, here); err != nil {
				t.Fatal(err)
			} else if found {
				n++
			}
		}
		return n
	}
	dir := t.TempDir()
	var asked atomic.Int32
	x := open(t, dedup.Options{Dir: dir, Writable: func() bool { return asked.Add(1) == 1 }}) // for one batch
	x.Written(rs)
	if s := x.Status(); s.Facts != targets+1 {
		t.Errorf("the overlay holds %d facts, want %d", s.Facts, targets+1)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := x.Room(ctx, dedup.MaxOverlay-targets); !errors.Is(err, context.Canceled) {
		t.Errorf("Room for more than is left beside the facts: %v, want %v", err, context.Canceled)
	}
	x.Synced(rs[2].End)
	stop := running(t, x)
	eventually(t, "a batch is written", func() bool { return x.Status().Facts < targets })
	if n := deleted(x); n != targets {
		t.Errorf("%d of %d targets are deleted while the request is half written", n, targets)
	}
	stop()
	if got := x.Checkpoint(); rs[1].Place.Before(got) {
		t.Errorf("the checkpoint is %v, though the request at %v is half written", got, rs[1].Place)
	}
	closeIndex(t, x)

	x = open(t, dedup.Options{Dir: dir})
	defer closeIndex(t, x)
	if n := deleted(x); n == 0 || n == targets {
		t.Errorf("%d of %d targets are deleted after a crash in the middle, want some", n, targets)
	}
	if err := x.Replay(rs[1:]); err != nil {
		t.Fatal(err)
	}
	if n := deleted(x); n != targets || x.Checkpoint() != rs[2].End {
		t.Errorf("%d of %d targets are deleted after the replay, checkpoint %v; want all, %v", n, targets, x.Checkpoint(), rs[2].End)
	}
}

// TestHeardAtOnce: a request counts from the moment that Written returns, whoever asks about its author meanwhile. All authors
// here share one slot of the table that remembers who has asked for anything.
func TestHeardAtOnce(t *testing.T) {
	x := open(t, dedup.Options{Dir: t.TempDir()})
	defer closeIndex(t, x)
	const authors = 3000
	by := func(n int) (key event.PubKey) {
		binary.BigEndian.PutUint64(key[24:], uint64(n))
		return key
	}
	target := func(n int) event.Event { return event.Event{ID: id(uint64(n)), PubKey: by(n), Kind: 1} }
	stranger := target(authors)
	if _, found, err := x.Deleted(&stranger, here); err != nil || found {
		t.Fatalf("of nobody's request: deleted %t, %v", found, err)
	}
	var now atomic.Int64
	var askers sync.WaitGroup
	for range 2 {
		askers.Go(func() {
			for n := now.Load(); n < authors; n = now.Load() {
				e := target(int(n))
				if _, _, err := x.Deleted(&e, here); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range authors {
		now.Store(int64(n))
		kind, tag := 5, []string{"e", id(uint64(n)).String()}
		if n%2 == 1 {
			kind, tag = 62, []string{"relay", here}
		}
		x.Written(log(1, n+1, say(t, id(uint64(authors+n)), by(n), kind, 100, tag)))
		e := target(n)
		if _, found, err := x.Deleted(&e, here); err != nil || !found {
			t.Fatalf("author %d asked for it, and it is not deleted (%v)", n, err)
		}
	}
	now.Store(authors)
	askers.Wait()
	for n := range authors {
		stranger := target(authors + n)
		if _, found, err := x.Deleted(&stranger, here); err != nil || found {
			t.Fatalf("author %d asked for nothing: deleted %t, %v", authors+n, found, err)
		}
		e := target(n)
		if _, found, err := x.Deleted(&e, here); err != nil || !found {
			t.Fatalf("author %d asked for it before, and it is not deleted (%v)", n, err)
		}
	}
}
