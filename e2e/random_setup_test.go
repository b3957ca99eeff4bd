package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/nbd-wtf/go-nostr"
)

// choice is what somebody wants: any of only (none: everything) and nothing of except.
type choice struct{ only, except nostr.Filters }

func (c choice) takes(e *nostr.Event) bool {
	return (len(c.only) == 0 || c.only.Match(e)) && !c.except.Match(e)
}

// setup is one config of a round.
type setup struct {
	want    choice
	sources map[*station]choice
	sinks   map[*station]sinkSetup
	sync    string
	segment string
	lru     int
	window  int
	// reconcile: sources are compared with the archive every hour of the round's clock.
	reconcile bool
}

type sinkSetup struct {
	choice
	send  []string
	since int64 // start: a date
	now   bool  // start: now
	again bool  // it is compared, too
}

// reads says whether the setup takes an event from a source.
func (c *setup) reads(s *station, e *nostr.Event) bool {
	own, named := c.sources[s]
	return named && archivable(e) && c.want.takes(e) && own.takes(e)
}

// newSetup chooses what is wanted, and the roles' own filters.
func newSetup(rng *rand.Rand, authors []*author, stations []*station) *setup {
	c := &setup{
		sources: map[*station]choice{}, sinks: map[*station]sinkSetup{},
		sync: []string{"always", "5ms", "100ms", "1s", "10s"}[rng.IntN(5)], segment: []string{"64KiB", "1MiB", "256MiB"}[rng.IntN(3)],
		lru: []int{1, 20, 100_000}[rng.IntN(3)], window: []int{1, 3, 50, 500}[rng.IntN(4)],
		reconcile: rng.IntN(3) == 0,
	}
	var some []string
	for _, a := range authors[:max(1, len(authors)-1-rng.IntN(2))] { // the last one or two are strangers
		some = append(some, a.pubkey)
	}
	switch rng.IntN(6) {
	case 0:
		c.want.only = nil // all: true
	case 1:
		c.want.only = nostr.Filters{{Authors: some, Kinds: []int{0, 1, 3, 5, 7, 30023, 1059}}}
	case 2: // mentions
		c.want.only = nostr.Filters{{Authors: some}, {Tags: nostr.TagMap{"p": some}}}
	case 3:
		c.want.only = nostr.Filters{{Authors: some[:1]}, {Tags: nostr.TagMap{"t": {"nostr", "x"}}}}
	default:
		c.want.only = nostr.Filters{{Authors: some}}
	}
	if rng.IntN(5) == 0 {
		c.want.except = nostr.Filters{{Kinds: []int{7, 1984}}}
	}
	for _, s := range stations {
		if s.source {
			var own choice
			switch rng.IntN(8) {
			case 0:
				own.only = nostr.Filters{{Kinds: []int{0, 1, 3, 5, 30023}}}
			case 1:
				own.except = nostr.Filters{{Authors: some[:1]}}
			}
			c.sources[s] = own
		}
		if s.sink {
			c.sinks[s] = newSink(rng, some)
		}
	}
	return c
}

func newSink(rng *rand.Rand, some []string) (k sinkSetup) {
	switch rng.IntN(6) {
	case 0:
		k.only = nostr.Filters{{Kinds: []int{0, 1, 5, 30023}}}
	case 1:
		k.except = nostr.Filters{{Authors: some[:1]}}
	case 2:
		k.only = nostr.Filters{{Authors: some[:1]}, {Tags: nostr.TagMap{"t": {"nostr"}}}}
	}
	if rng.IntN(6) == 0 {
		k.since = time.Now().Add(-400 * 24 * time.Hour).Truncate(24 * time.Hour).Unix()
	} else {
		k.now = rng.IntN(6) == 0
	}
	k.again = rng.IntN(2) == 0
	for _, name := range sendable() {
		if rng.IntN(5) == 0 {
			k.send = append(k.send, name)
		}
	}
	return k
}

// sendable are the rows that a config may name.
func sendable() []string {
	out := []string{deletedRow, supersededRow}
	for _, row := range rows {
		out = append(out, row.name)
	}
	return out
}

// changed is the setup after somebody edited the file: relays left out, filters narrower.
func (c *setup) changed(rng *rand.Rand, whole *setup) (*setup, string) {
	n := *c
	n.sources, n.sinks = maps.Clone(c.sources), maps.Clone(c.sinks)
	switch rng.IntN(11) {
	case 6:
		for s, k := range n.sinks {
			k.only, k.except = nil, nil
			n.sinks[s] = k
		}
		return &n, "every sink takes everything"
	case 7:
		for s, k := range n.sinks {
			k.send = nil
			for _, name := range sendable() {
				if rng.IntN(2) == 0 {
					k.send = append(k.send, name)
				}
			}
			n.sinks[s] = k
		}
		return &n, "other rows are sent"
	case 9:
		n.want.except = nil
		return &n, "nothing is excepted"
	case 10:
		for s := range n.sources {
			n.sources[s] = choice{}
		}
		return &n, "every source takes everything"
	case 8:
		n.want.only = nil
		return &n, "all: true"
	case 0:
		k := []int{7, 6, 3, 1063}[rng.IntN(4)]
		n.want.except = append(slices.Clone(n.want.except), nostr.Filter{Kinds: []int{k}})
		return &n, fmt.Sprintf("except kind %d", k)
	case 1:
		for s, k := range n.sinks {
			k.except = append(slices.Clone(k.except), nostr.Filter{Kinds: []int{6, 30023}})
			n.sinks[s] = k
		}
		return &n, "every sink except kinds 6 and 30023"
	case 2:
		for _, s := range ordered(n.sinks) {
			if len(n.sinks) > 1 && rng.IntN(2) == 0 {
				delete(n.sinks, s)
				return &n, "without sink " + s.name
			}
		}
	case 3:
		for _, s := range ordered(n.sources) {
			if len(n.sources) > 1 && rng.IntN(2) == 0 {
				delete(n.sources, s)
				return &n, "without source " + s.name
			}
		}
	default:
		return n.whole(whole), "with every relay"
	}
	return &n, "as it was"
}

// whole has the relays that were left out again, with what is excepted by now.
func (c *setup) whole(first *setup) *setup {
	n := *c
	n.sources, n.sinks = maps.Clone(c.sources), maps.Clone(c.sinks)
	for s, own := range first.sources {
		if _, named := n.sources[s]; !named {
			n.sources[s] = own
		}
	}
	for s, own := range first.sinks {
		if _, named := n.sinks[s]; !named {
			n.sinks[s] = own
		}
	}
	return &n
}

func ordered[V any](m map[*station]V) []*station {
	return slices.SortedFunc(maps.Keys(m), func(a, b *station) int { return strings.Compare(a.name, b.name) })
}

// yaml is the config file.
func (c *setup) yaml(dir string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("archive: {dir: %q, sync: %s, segment: %s, min_free: 1MiB}", dir, c.sync, c.segment)
	line(`listen: {addr: ""}`)
	line("log: {level: debug, format: json}")
	line("dedup: {lru: %d}", c.lru)
	line("shutdown_grace: 2s")
	line("profile: false")
	if c.reconcile {
		line("reconcile: {every: 1h, depth: 20d, full: 3d}")
	}
	line("relay_settings: {default: {pace: 1000/s, window: %d, backoff: {initial: 20ms, max: 300ms}, timeouts: {connect: 2s, ok: 1s}, ping: {every: 2s, timeout: 2s}}}", c.window)
	if len(c.want.only) == 0 {
		line("all: true")
	} else {
		line("filters: %s", filtersYAML(c.want.only))
	}
	if len(c.want.except) > 0 {
		line("except: %s", filtersYAML(c.want.except))
	}
	line("sources:")
	for _, s := range ordered(c.sources) {
		line("  - {url: %q, name: %q%s}", s.url, s.name, c.sources[s].yaml())
	}
	if len(c.sinks) > 0 {
		line("sinks:")
	}
	for _, s := range ordered(c.sinks) {
		k := c.sinks[s]
		start := "all"
		if k.since > 0 {
			start = time.Unix(k.since, 0).UTC().Format(time.DateOnly)
		} else if k.now {
			start = "now"
		}
		again := ""
		if k.again {
			again = ", reconcile: 1h"
		}
		line("  - {url: %q, name: %q, start: %s, send: [%s]%s%s}", s.url, s.name, start, strings.Join(k.send, ", "), k.yaml(), again)
	}
	return b.String()
}

func (c choice) yaml() string {
	out := ""
	if len(c.only) > 0 {
		out += ", only: " + filtersYAML(c.only)
	}
	if len(c.except) > 0 {
		out += ", except: " + filtersYAML(c.except)
	}
	return out
}

// filtersYAML writes filters as JSON, which YAML is a superset of.
func filtersYAML(fs nostr.Filters) string {
	list := []map[string]any{}
	for _, f := range fs {
		m := map[string]any{}
		if len(f.Authors) > 0 {
			m["authors"] = f.Authors
		}
		if len(f.Kinds) > 0 {
			m["kinds"] = f.Kinds
		}
		if len(f.Tags) > 0 {
			m["tags"] = f.Tags
		}
		list = append(list, m)
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	return string(text)
}
