package sources_test

import (
	"fmt"

	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// wordRows: what a relay says of itself, true or not.
func wordRows() (rows []row) {
	add := func(r row) { rows = append(rows, r) }

	for said, requests := range map[string]int{
		`"max_limit":50`:                      12,
		`"max_limit":200`:                     14, // too high
		`"max_limit":20`:                      36, // too low: it gives more when asked
		`"max_limit":0`:                       14,
		`"max_limit":-7`:                      14,
		`"max_limit":"50"`:                    14, // a string
		`"max_limit":1e99`:                    14,
		`"max_limit":9007199254740993`:        14,
		`"default_limit":10`:                  14,
		`"max_limit":1`:                       700,
		`"max_subscriptions":1`:               14,
		`"max_subscriptions":0`:               14,
		`"max_message_length":1`:              14,
		`"max_subid_length":16`:               14,
		`"max_limit":50,"auth_required":true`: 12, // and lets everybody in
	} {
		r := row{name: "NIP-11 says " + said, script: relaytest.Script{Cap: 50, Info: limits(said)}, complete: sources.Yes, requests: requests, wire: 600}
		if said == `"max_limit":1` { // no second holds what one page does not
			r.events, r.complete, r.text, r.wire = spread(3), sources.No, "in one second", 60
			r.gaps = []string{fmt.Sprint(now-86400, " authors"), fmt.Sprint(now-86407, " authors"), fmt.Sprint(now-86414, " authors")}
		}
		add(r)
	}
	for name, info := range map[string]string{"no JSON": "<html>", "an array": "[]", "limits are a list": `{"limitation":[50]}`, "cut off": `{"limitation":{"max_limit":5`} {
		add(row{name: "NIP-11 is " + name, script: relaytest.Script{Cap: 50, Info: info}, complete: sources.Yes, requests: 14, wire: 480})
	}
	for name, said := range map[string][2]string{
		"comes":  {"", limits(`"max_limit":50`)},
		"goes":   {limits(`"max_limit":50`), ""},
		"rises":  {limits(`"max_limit":20`), limits(`"max_limit":200`)},
		"falls":  {limits(`"max_limit":200`), limits(`"max_limit":20`)},
		"shrank": {limits(`"max_limit":50`), limits(`"max_limit":50`)}, // it does not say so
	} {
		add(row{name: "NIP-11's max_limit " + name + " between sessions", script: relaytest.Script{Cap: 50, Info: said[0], CloseAfter: 130},
			complete: sources.Yes, again: 20, requests: 80, wire: 900, set: func(r *relaytest.Relay) {
				r.Update(func(s *relaytest.Script) {
					s.Answer = func(q relaytest.Query, frames []string) []string {
						if q.N == 2 {
							r.Update(func(s *relaytest.Script) {
								if s.Info = said[1]; name == "shrank" {
									s.Cap = 30
								}
							})
						}
						return frames
					}
				})
			}})
	}

	truth := func(_ relaytest.Query, more bool) string {
		if more {
			return `["more"]`
		}
		return `["finish"]`
	}
	finish := func(_ relaytest.Query, more bool) string {
		if more {
			return ""
		}
		return `["finish"]`
	}
	always := func(hint string) func(relaytest.Query, bool) string {
		return func(relaytest.Query, bool) string { return hint }
	}
	for name, hint := range map[string]func(relaytest.Query, bool) string{
		"finish where it is so":     finish,
		"finish and more, as it is": truth,
		"the drafts' way": func(_ relaytest.Query, more bool) string {
			return map[bool]string{false: `"finish"`, true: `"more"`}[more]
		},
		"finish on every page":          always(`["finish"]`),
		"more on every page":            always(`["more"]`),
		"both on every page":            always(`["finish","more"]`),
		"nothing":                       always(`[]`),
		"what later NIPs may":           always(`["later"],{"and":"more"},7`),
		"finish on every other page":    func(q relaytest.Query, _ bool) string { return []string{"", `["finish"]`}[q.N%2] },
		"the opposite of what is so":    func(_ relaytest.Query, more bool) string { return truth(relaytest.Query{}, !more) },
		"finish on all but empty pages": always(`["finish"]`),
	} {
		for _, size := range []int{40, 1000} {
			add(row{name: fmt.Sprintf("NIP-67 says %s, a cap of %d", name, size), script: relaytest.Script{Cap: size, Paging: relaytest.Paging{Hint: hint}},
				complete: sources.Yes, requests: 20, wire: 500})
		}
	}
	return rows
}
