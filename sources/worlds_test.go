package sources_test

import (
	"flag"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/nbd-wtf/go-nostr"
	"pgregory.net/rapid"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
)

// world is a relay that behaves in one way, whichever that is, and is cut off at any of its answers.
type world struct {
	authors   int
	at        []int64 // of the events
	cap       int
	order     string
	exclusive bool
	noSince   bool
	hint      string
	kinds     bool  // are named
	says      bool  // NIP-11 says the cap
	cuts      []int // answers, from 1, behind which so many frames the connection ends
	stop      int   // the process ends after so many events, and another one goes on; 0: it does not
}

func drawWorld(t *rapid.T) (w world) {
	w.authors = rapid.IntRange(1, 3).Draw(t, "authors")
	w.cap = rapid.SampledFrom([]int{1, 2, 3, 5, 10, 19, 20, 33, 50, 99}).Draw(t, "cap")
	w.order = rapid.SampledFrom([]string{"newest first", "newest first", "ties", "turned", "oldest first", "shuffled"}).Draw(t, "order")
	w.exclusive = rapid.IntRange(0, 3).Draw(t, "exclusive") == 0
	w.noSince = rapid.IntRange(0, 5).Draw(t, "since ignored") == 0
	w.hint = rapid.SampledFrom([]string{"", "", "true", `["finish"]`, `["more"]`, `["more","finish"]`}).Draw(t, "hint")
	w.kinds, w.says = rapid.Bool().Draw(t, "kinds"), rapid.Bool().Draw(t, "says")
	// Long stretches, so that windows are shared out, or short ones, so that seconds are full.
	step := rapid.SampledFrom([]int64{0, 1, 7, 3600, 86400}).Draw(t, "step")
	n := rapid.SampledFrom([]int{0, 1, 2, 5, 40, 150, 400}).Draw(t, "events")
	if w.cap < 10 {
		n = min(n, 40)
	}
	at := int64(now - 86400)
	for len(w.at) < n {
		for range rapid.SampledFrom([]int{1, 1, 1, 1, 2, 7}).Draw(t, "in a second") {
			w.at = append(w.at, at)
		}
		at -= step + rapid.Int64Range(0, 3).Draw(t, "and")
	}
	for range rapid.IntRange(0, 4).Draw(t, "cuts") {
		w.cuts = append(w.cuts, 3*rapid.IntRange(1, 10).Draw(t, "answer")) // a link gives up after three in a row
	}
	if n > 0 && rapid.Bool().Draw(t, "restart") {
		w.stop = rapid.IntRange(1, n).Draw(t, "after")
	}
	if w.stop > 0 || n > 0 && w.at[0] == w.at[len(w.at)-1] {
		// A relay that gives one event at a time cannot be told from one that has one, where one second is all that is asked for.
		w.cap = max(w.cap, 2)
	}
	return w
}

func (w world) row(name string) row {
	r := row{name: name, loose: true, stop: w.stop, wire: 1 << 20, requests: 1 << 20}
	f := event.Filter{}
	for a := range w.authors {
		f.Authors = append(f.Authors, author(a+1))
	}
	if w.kinds {
		f.Kinds = []int{1, 6, 7, 8}
	}
	r.o.Filters = []event.Filter{f}
	r.events = []string{}
	for i, at := range w.at {
		r.events = append(r.events, note(1+i%w.authors, i, at))
	}
	s := &r.script
	s.Cap, s.Paging.UntilExclusive, s.Paging.NoSince = w.cap, w.exclusive, w.noSince
	if w.says {
		s.Info = limits(fmt.Sprint(`"max_limit":`, w.cap))
	}
	switch w.order {
	case "ties":
		s.Paging.Hits = relaytest.TiesShuffled(1)
	case "turned":
		s.Paging.Order = func(_ relaytest.Query, p []nostr.Event) { slices.Reverse(p) }
	case "oldest first":
		s.Paging.Hits = relaytest.OldestFirst
	case "shuffled":
		s.Paging.Hits = anyOf(1)
	}
	if w.hint != "" {
		s.Paging.Hint = func(_ relaytest.Query, more bool) string {
			switch {
			case w.hint != "true":
				return w.hint
			case more:
				return ""
			}
			return `["finish"]`
		}
	}
	var cut atomic.Int64
	s.Answer = func(q relaytest.Query, frames []string) []string {
		if slices.Contains(w.cuts, q.N) {
			cut.Add(1)
			at := (q.N * 7) % (len(frames) + 1)
			return append(frames[:at:at], relaytest.Cut)
		}
		return frames
	}
	// What was under way at a cut or the end of a process is asked for again, and so is what is not older than the overlap.
	r.again = 2 + 12*(len(w.cuts)+1)
	if w.cap < 10 || w.noSince { // most seconds are looked at alone, in the end, and again by the next process
		r.again += 10 * len(w.at)
	}
	if w.cap < 10 && w.noSince { // up to fifty pages of what was not asked for, in each session
		r.again = 1 << 20
	}
	return r
}

// Whatever a relay does of what drawWorld knows, over connections that end in the middle and over the end of the process: what is
// proven has come, what has not is told, and comes once the relay is well. -rapid.checks makes it more worlds.
func TestAnyWorld(t *testing.T) {
	checks, err := strconv.Atoi(flag.Lookup("rapid.checks").Value.String())
	if err != nil {
		t.Fatal(err)
	}
	worlds := rapid.Custom(drawWorld)
	var rows []row
	for seed := range checks / 2 {
		w := worlds.Example(seed)
		rows = append(rows, w.row(fmt.Sprintf("%d: %+v", seed, w.brief())))
	}
	sideBySide(t, rows)
}

// brief is a world without its long lists.
func (w world) brief() world {
	if len(w.at) > 3 {
		w.at = []int64{w.at[0], w.at[len(w.at)-1], int64(len(w.at))}
	}
	return w
}
