package sources_test

import (
	"fmt"
	"slices"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// secondRows: a second that holds more than one page. With NIP-77: TestSecondThatCannotBePaged.
func secondRows() (rows []row) {
	add := func(r row) { rows = append(rows, r) }
	one := []event.PubKey{author(1)}
	kinds := func(list ...int) sources.Options {
		return sources.Options{Filters: []event.Filter{{Authors: one, Kinds: list}}}
	}
	around := func(all []string) []string { return slices.Concat(spread(60), all, []string{note(1, 1, busy-100)}) }
	second := fmt.Sprint(busy, " ")

	add(row{name: "split by kind", events: around(manyKinds(busy, 40)), o: kinds(1, 6, 7, 8), script: relaytest.Script{Cap: 20}, complete: sources.Yes, wire: 260})
	add(row{name: "split by kind, the oldest second of all", events: slices.Concat(spread(60), manyKinds(busy, 40)), o: kinds(1, 6, 7, 8),
		script: relaytest.Script{Cap: 20}, complete: sources.Yes, wire: 260})
	add(row{name: "split by kind, nothing but that second", events: manyKinds(busy, 40), o: kinds(1, 6, 7, 8), script: relaytest.Script{Cap: 20},
		complete: sources.Yes, wire: 130, requests: 12})
	var authors []string
	for i := range 40 {
		authors = append(authors, note(1+i%4, i, busy))
	}
	four := sources.Options{Filters: []event.Filter{{Authors: []event.PubKey{author(1), author(2), author(3), author(4)}, Kinds: []int{1}}}}
	add(row{name: "split by author", events: around(authors), o: four, script: relaytest.Script{Cap: 20}, complete: sources.Yes, wire: 260})
	var tagged []string
	for i := range 40 {
		tagged = append(tagged, relaytest.Sign(relaytest.Key(1), 1, busy, [][]string{{"t", fmt.Sprint("t", i%4)}}, fmt.Sprint("tagged ", i)))
	}
	for i := range 60 {
		tagged = append(tagged, relaytest.Sign(relaytest.Key(1), 1, now-86400-int64(i), [][]string{{"t", fmt.Sprint("t", i%4)}}, ""))
	}
	tags := sources.Options{Filters: []event.Filter{{Kinds: []int{1}, Tags: map[string][]string{"t": {"t0", "t1", "t2", "t3"}}}}}
	add(row{name: "split by tag", events: tagged, o: tags, script: relaytest.Script{Cap: 20}, complete: sources.Yes, wire: 320, liar: "atoms are by tag"})
	add(row{name: "of kinds that nobody named: what is common comes, the rest may lack", events: around(manyKinds(busy, 40)),
		script: relaytest.Script{Cap: 20}, complete: sources.No, text: "in one second", gaps: []string{second + "authors"}, wire: 320})
	add(row{name: "of one kind: a gap", events: around(secondOf(busy, 40)), o: kinds(1), script: relaytest.Script{Cap: 20}, complete: sources.No,
		text: "in one second", missing: 20, gaps: []string{second + `"kinds":[1]`}, wire: 260})
	add(row{name: "two in a row", events: around(slices.Concat(secondOf(busy, 40), secondOf(busy-1, 40))), o: kinds(1), script: relaytest.Script{Cap: 20},
		complete: sources.No, text: "in one second", missing: 40, gaps: []string{second + `"kinds":[1]`, fmt.Sprint(busy-1, ` "kinds":[1]`)}, wire: 320})
	add(row{name: "as many as the cap, no more", events: around(secondOf(busy, 20)), o: kinds(1), script: relaytest.Script{Cap: 20}, complete: sources.No,
		text: "in one second", gaps: []string{second + `"kinds":[1]`}, wire: 260})
	add(row{name: "one less than the cap", events: around(secondOf(busy, 19)), o: kinds(1), script: relaytest.Script{Cap: 20}, complete: sources.Yes, wire: 260})
	add(row{name: "shuffled", events: around(manyKinds(busy, 40)), o: kinds(1, 6, 7, 8), script: relaytest.Script{Cap: 20,
		Paging: relaytest.Paging{Hits: anyOf(2)}}, complete: sources.Yes, wire: 900})
	add(row{name: "until exclusive", events: around(manyKinds(busy, 40)), o: kinds(1, 6, 7, 8), script: relaytest.Script{Cap: 20,
		Paging: relaytest.Paging{UntilExclusive: true}}, complete: sources.Yes, wire: 420})
	return rows
}

func secondOf(at int64, n int) (all []string) {
	for i := range n {
		all = append(all, kinded(i, 1, at))
	}
	return all
}
