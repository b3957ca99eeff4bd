package sources_test

import (
	"fmt"
	"math"
	"slices"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// pageRows: the cap, and which events a page has in which order.
func pageRows() (rows []row) {
	add := func(r row) { rows = append(rows, r) }

	for _, limit := range []int{2, 3, 7, 19, 20, 21, 100, 299, 300, 301, 499, 500} {
		// Every page repeats one event, and nothing less than two more can tell that a second is whole.
		n := min(300, 40*limit) // a page is a moment
		again := 0
		if limit < 20 { // no relay gives so few: the first page is asked for again, which shows that it does not grow
			again = 1
		}
		add(row{name: fmt.Sprint("a silent cap of ", limit), events: spread(n), script: relaytest.Script{Cap: limit},
			complete: sources.Yes, requests: n*11/10/(limit-1) + 20, wire: n*limit/(limit-1) + 25 + limit, again: again})
	}
	add(row{name: "a silent cap of 1: no second can be shown to hold no more", events: spread(3), script: relaytest.Script{Cap: 1},
		complete: sources.No, text: "in one second",
		gaps: []string{fmt.Sprint(now-86400, " authors"), fmt.Sprint(now-86407, " authors"), fmt.Sprint(now-86414, " authors")}, wire: 60, again: 1})
	add(row{name: "a silent cap of 50, seven in a second", script: relaytest.Script{Cap: 50}, complete: sources.Yes, requests: 12, wire: 440})
	add(row{name: "strfry: what is beyond 50 is clamped, and NIP-11 says so", script: relaytest.Script{Cap: 50, Info: limits(`"max_limit":50`)},
		complete: sources.Yes, requests: 10, wire: 410})
	add(row{name: "eventstore: a quarter when asked for more than 200", events: spread(300), complete: sources.Yes, requests: 9, wire: 410, again: 1,
		script: relaytest.Script{Paging: relaytest.Paging{Most: most(func(q relaytest.Query, _ []nostr.Event) int {
			if q.Filter.Limit > 200 {
				return 50
			}
			return q.Filter.Limit
		})}}})
	inBytes := relaytest.Paging{Most: most(func(_ relaytest.Query, hits []nostr.Event) int {
		bytes := 0
		for i, e := range hits {
			if bytes += len(e.Content); bytes > 10_000 {
				return i
			}
		}
		return len(hits)
	})}
	// Some pages are of less than 20. Of several at once, what is given away to others depends on whose page comes first, and costs pages.
	add(row{name: "a cap in bytes", events: sized(), complete: sources.Yes, requests: 45, wire: 370, again: 3,
		script: relaytest.Script{Info: limits(`"max_subscriptions":1`), Paging: inBytes}})
	add(row{name: "a cap in bytes, several at once", events: sized(), complete: sources.Yes, requests: 45, again: 4, script: relaytest.Script{Paging: inBytes}})
	add(row{name: "a cap that shrinks with the time of day", events: spread(300), complete: sources.Yes, requests: 30,
		script: relaytest.Script{Paging: relaytest.Paging{Most: most(func(q relaytest.Query, _ []nostr.Event) int { return max(20, 80-20*(q.N/2)) })}}})
	add(row{name: "a cap that grows with the time of day", events: spread(300), complete: sources.Yes, requests: 25,
		script: relaytest.Script{Paging: relaytest.Paging{Most: most(func(q relaytest.Query, _ []nostr.Event) int { return min(20*(q.N/2+1), 80) })}}})
	add(row{name: "limit is ignored: everything comes", script: relaytest.Script{Info: limits(`"max_limit":50`), Paging: relaytest.Paging{NoLimit: true}},
		complete: sources.Yes, requests: 6, wire: 330})

	add(row{name: "until is exclusive", script: relaytest.Script{Cap: 50, Paging: relaytest.Paging{UntilExclusive: true}}, complete: sources.Yes, requests: 14, wire: 450})
	add(row{name: "until is ignored", script: relaytest.Script{Cap: 50, UntilIgnored: true}, complete: sources.No, text: "ignores until", missing: 250,
		gaps: []string{fmt.Sprint(now-86400-539, " authors")}, requests: 20, wire: 600})
	add(row{name: "until is ignored, and all fits", events: spread(40), script: relaytest.Script{Cap: 50, UntilIgnored: true},
		complete: sources.No, text: "ignores until", requests: 4, wire: 160})
	add(row{name: "since is ignored", o: sources.Options{History: sources.History{Since: now - 86400 - 1000}}, complete: sources.Yes,
		requests: 8, script: relaytest.Script{Cap: 50, Paging: relaytest.Paging{NoSince: true}}})
	add(row{name: "since is ignored, and a second is full", events: slices.Concat(spread(60), manyKinds(busy, 40), notes(1, 80, 12*86400)),
		o:      sources.Options{Filters: []event.Filter{{Authors: []event.PubKey{author(1)}, Kinds: []int{1, 6, 7, 8}}}},
		script: relaytest.Script{Cap: 25, Paging: relaytest.Paging{NoSince: true}}, complete: sources.Yes, wire: 900})

	add(row{name: "ties in any order", script: relaytest.Script{Cap: 50, Paging: relaytest.Paging{Hits: relaytest.TiesShuffled(1)}}, complete: sources.Yes, requests: 14, wire: 440})
	add(row{name: "the newest, turned around", script: relaytest.Script{Cap: 50, Paging: relaytest.Paging{
		Order: func(_ relaytest.Query, p []nostr.Event) { slices.Reverse(p) }}}, complete: sources.Yes, wire: 1500})
	add(row{name: "the newest, shuffled", script: relaytest.Script{Cap: 50, Paging: relaytest.Paging{Order: relaytest.Shuffled(1)}}, complete: sources.Yes, wire: 1500})
	add(row{name: "oldest first", script: relaytest.Script{Cap: 50, Paging: relaytest.Paging{Hits: relaytest.OldestFirst}}, complete: sources.Yes, wire: 1500})
	add(row{name: "any of them, in any order", script: relaytest.Script{Cap: 50, Paging: relaytest.Paging{Hits: anyOf(3)}}, complete: sources.Yes, wire: 1500})

	add(row{name: "dated at 0, 1, in the future, and at the last second there is", complete: sources.Yes, requests: 12, wire: 120,
		events: append(spread(40), note(1, 0, 0), note(1, 1, 0), note(1, 2, 1), note(1, 3, 2), note(1, 4, now+86400), note(1, 5, now+10*365*86400),
			note(1, 6, math.MaxUint32+7), note(1, 7, 1<<53-1), note(1, 8, 1<<53-1)),
		script: relaytest.Script{Cap: 20}})
	add(row{name: "dated at 0 and nothing else", complete: sources.Yes, events: []string{note(1, 0, 0)}, requests: 5, wire: 6})

	twice := func(_ relaytest.Query, frames []string) (out []string) {
		for _, f := range frames[:len(frames)-1] {
			out = append(out, f, f)
		}
		return append(out, frames[len(frames)-1])
	}
	add(row{name: "every event twice on its page", script: relaytest.Script{Cap: 50, Answer: twice}, complete: sources.Yes, requests: 12, wire: 880})
	strangers := notes(2, 60, 7)
	add(row{name: "a stranger's events on every page", script: relaytest.Script{Cap: 50, First: strangers[:10]}, complete: sources.Unknown,
		text: "sends what was not asked for", requests: 14, wire: 600})
	add(row{name: "authors are ignored", events: slices.Concat(spread(60), strangers), complete: sources.Yes,
		script: relaytest.Script{Cap: 50, Paging: relaytest.Paging{NoAuthors: true}}, requests: 14, wire: 300})
	add(row{name: "a few forged copies first, on every page", script: relaytest.Script{Cap: 50, First: forged(3)}, complete: sources.Unknown,
		text: "sends what was not asked for", requests: 20, wire: 600})
	add(row{name: "forged events fill the pages", script: relaytest.Script{Cap: 50, First: forged(60)}, complete: sources.No,
		text: "ignores until", requests: 60, wire: 5000})
	return rows
}

// sized are 300 events of 10 to 1,000 bytes.
func sized() (all []string) {
	for i := range 300 {
		all = append(all, relaytest.Sign(relaytest.Key(1), 1, now-86400-int64(i)*7, nil, fmt.Sprintf("%0*d", 10+(i*37)%990, i)))
	}
	return all
}

// manyKinds are n events of one second, of kinds 6, 7 and 8.
func manyKinds(at int64, n int) (all []string) {
	for i := range n {
		all = append(all, kinded(i, 6+i%3, at))
	}
	return all
}

// anyOf gives some of what there is.
func anyOf(seed uint64) func(relaytest.Query, []nostr.Event) []nostr.Event {
	shuffle := relaytest.Shuffled(seed)
	return func(q relaytest.Query, hits []nostr.Event) []nostr.Event {
		shuffle(q, hits)
		return hits
	}
}

func forged(n int) (all []string) {
	for i, ev := range usual()[:n] {
		switch i % 3 {
		case 0:
			ev = relaytest.Forged(ev)
		case 1:
			ev = relaytest.BadSig(ev)
		default:
			ev = relaytest.BadID(ev)
		}
		all = append(all, ev)
	}
	return all
}
