package sources_test

import (
	"fmt"
	"slices"
	"sync"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// limitRows: what a relay takes of a request.
func limitRows() (rows []row) {
	add := func(r row) { rows = append(rows, r) }
	ten := sources.Options{Filters: []event.Filter{{Kinds: []int{1, 6, 7, 8, 9}}}}
	var all []string
	for i := range 10 {
		ten.Filters[0].Authors = append(ten.Filters[0].Authors, author(1+i))
		all = append(all, notes(1+i, 12, 7)...)
	}
	refuse := func(text string, wide func(f nostr.Filter) bool) func(string, []nostr.Filter) string {
		return func(_ string, fs []nostr.Filter) string {
			if len(fs) > 1 || wide(fs[0]) {
				return text
			}
			return ""
		}
	}
	for _, most := range []int{1, 3, 7} {
		for _, text := range []string{"blocked: too many things to filter for", "unsupported: too many authors", "invalid: too many authors", "ERROR: bad req: filter validation failed"} {
			add(row{name: fmt.Sprintf("%d authors at most: %s", most, text), events: all, o: ten, complete: sources.Yes, wire: 300,
				script: relaytest.Script{Cap: 50, Closed: refuse(text, func(f nostr.Filter) bool { return len(f.Authors) > most })}})
		}
	}
	add(row{name: "1 author and 3 kinds at most", events: all, o: ten, complete: sources.Yes, wire: 400, requests: 90,
		script: relaytest.Script{Cap: 50, Closed: refuse("blocked: too many things", func(f nostr.Filter) bool { return len(f.Authors) > 1 || len(f.Kinds) > 3 })}})
	add(row{name: "1 kind at most", events: slices.Concat(spread(60), manyKinds(busy, 20)), complete: sources.Yes, wire: 400, requests: 90,
		o:      sources.Options{Filters: []event.Filter{{Authors: []event.PubKey{author(1)}, Kinds: []int{1, 6, 7, 8}}}},
		script: relaytest.Script{Cap: 50, Closed: refuse("invalid: too many kinds", func(f nostr.Filter) bool { return len(f.Kinds) > 1 })}})
	add(row{name: "no more than 2 values of a tag", events: tagged(40), complete: sources.Yes, liar: "atoms are by tag",
		o:      sources.Options{Filters: []event.Filter{{Kinds: []int{1}, Tags: map[string][]string{"t": {"t0", "t1", "t2", "t3"}}}}},
		script: relaytest.Script{Cap: 50, Closed: refuse("blocked: too many things", func(f nostr.Filter) bool { return len(f.Tags["t"]) > 2 })}})

	for _, most := range []int{300, 500, 1000, 2000} {
		add(row{name: fmt.Sprintf("max_message_length %d", most), events: all, o: ten, complete: sources.Yes, wire: 300, set: tight(most),
			script: relaytest.Script{Cap: 50, Info: limits(fmt.Sprintf(`"max_message_length":%d`, most))}})
	}
	add(row{name: "max_message_length 1000, and nothing says so: the connection ends", events: all, o: ten, complete: sources.Yes, wire: 400, again: 20, set: tight(1000),
		script: relaytest.Script{Cap: 50}})
	for _, most := range []int{1, 2, 4} {
		for name, refusal := range map[string]string{"NOTICE": `["NOTICE","ERROR: too many concurrent REQs"]`, "CLOSED": `["CLOSED",%q,"ERROR: too many concurrent REQs"]`} {
			add(row{name: fmt.Sprintf("%d subscriptions at most, says a %s", most, name), events: notes(1, 900, 3600), complete: sources.Yes, again: 30, wire: 1400,
				o: sources.Options{Idle: 4 * brief}, script: relaytest.Script{Cap: 50}, set: crowded(most, refusal)})
		}
		add(row{name: fmt.Sprintf("%d subscriptions at most, says NIP-11", most), events: notes(1, 900, 3600), complete: sources.Yes, wire: 1000,
			script: relaytest.Script{Cap: 50, Info: limits(fmt.Sprintf(`"max_subscriptions":%d`, most))}, set: crowded(most, `["NOTICE","never said"]`)})
	}
	return rows
}

func tagged(n int) (all []string) {
	for i := range n {
		all = append(all, relaytest.Sign(relaytest.Key(1), 1, now-86400-int64(i), [][]string{{"t", fmt.Sprint("t", i%4)}}, ""))
	}
	return all
}

// tight ends the connection at a message that is too long, as strfry does.
func tight(most int) func(*relaytest.Relay) {
	return func(r *relaytest.Relay) {
		r.Update(func(s *relaytest.Script) {
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				if len(m.Raw) <= most {
					return false
				}
				c.Drop()
				return true
			}
		})
	}
}

// crowded refuses a request while most are under way, in the words of refusal.
func crowded(most int, refusal string) func(*relaytest.Relay) {
	return func(r *relaytest.Relay) {
		var mu sync.Mutex
		open := map[string]bool{}
		r.Update(func(s *relaytest.Script) {
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				mu.Lock()
				defer mu.Unlock()
				if m.Label == "CLOSE" {
					delete(open, closes(m))
					return false
				}
				sub, _, ok := filterOf(m)
				if !ok {
					return false
				}
				if len(open) >= most && !open[sub] {
					c.Send(fill(refusal, sub))
					return true
				}
				open[sub] = true
				return false
			}
		})
	}
}
