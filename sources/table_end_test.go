package sources_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// endRows: what comes after the events of a page, or instead of them.
func endRows() (rows []row) {
	add := func(r row) {
		if r.script.Cap == 0 {
			r.script.Cap = 50
		}
		rows = append(rows, r)
	}
	brisk := sources.Options{Idle: brief}

	// EOSE.
	before := func(k int) func(relaytest.Query, []string) []string { // after k events
		return func(_ relaytest.Query, frames []string) []string {
			at, end := min(k, len(frames)-1), frames[len(frames)-1]
			return slices.Concat(frames[:at:at], []string{end}, frames[at:len(frames)-1])
		}
	}
	add(row{name: "EOSE before the events of every page", script: relaytest.Script{Answer: before(0)}, complete: sources.Yes, wire: 440})
	add(row{name: "EOSE in the middle of every page", script: relaytest.Script{Answer: before(20)}, complete: sources.Unknown,
		text: "after the relay's EOSE", wire: 1400})
	add(row{name: "EOSE in the middle of one page", script: relaytest.Script{Answer: answer(only(3), before(20))}, complete: sources.Unknown,
		text: "after the relay's EOSE", wire: 550})
	add(row{name: "EOSE before the events of one page, not the first", script: relaytest.Script{Answer: answer(only(4), before(0))}, complete: sources.Yes, wire: 440})
	add(row{name: "EOSE twice", script: relaytest.Script{Answer: func(_ relaytest.Query, frames []string) []string {
		return append(frames, frames[len(frames)-1])
	}}, complete: sources.Yes, wire: 440})
	add(row{name: "EOSE for another subscription before every answer", script: relaytest.Script{Answer: func(q relaytest.Query, frames []string) []string {
		return append([]string{`["EOSE","page-9999"]`, fmt.Sprintf(`["EOSE","page-%d"]`, q.N+1), `["EOSE","live-0"]`, `["EOSE",""]`}, frames...)
	}}, complete: sources.Yes, wire: 440})
	add(row{name: "EOSE of the page before, again", script: relaytest.Script{Answer: func(q relaytest.Query, frames []string) []string {
		return append([]string{fmt.Sprintf(`["EOSE","page-%d"]`, q.N-1)}, frames...)
	}}, complete: sources.Yes, wire: 440})
	add(row{name: "EOSE with more elements", script: relaytest.Script{Answer: func(q relaytest.Query, frames []string) []string {
		frames[len(frames)-1] = `["EOSE","` + q.Sub + `",{"cursor":7},null,["finish"]]`
		return frames
	}}, complete: sources.Yes, wire: 440})
	asked := make(map[string]bool)
	var mu sync.Mutex
	add(row{name: "CLOSED to what was answered before", events: spread(40), script: relaytest.Script{Cap: 7, Closed: func(_ string, fs []nostr.Filter) string {
		mu.Lock()
		defer mu.Unlock()
		key := fs[0].String()
		if asked[key] {
			return "error: you have just asked that"
		}
		asked[key] = true
		return ""
	}}, complete: sources.Yes, again: 2})
	add(row{name: "EOSE never", script: relaytest.Script{NoEOSE: true}, o: brisk, complete: sources.No, text: "8 tries: silent for", missing: 250, again: 7, wire: 440})
	add(row{name: "EOSE never, of the third page", script: relaytest.Script{Answer: answer(from(3), func(_ relaytest.Query, frames []string) []string {
		return frames[:len(frames)-1]
	})}, o: brisk, complete: sources.No, text: "8 tries: silent for", missing: 201, again: 7, wire: 550})
	add(row{name: "EOSE late", script: relaytest.Script{Handle: late(50 * time.Millisecond)}, o: sources.Options{Idle: 20 * brief}, complete: sources.Yes, wire: 440})
	add(row{name: "no EOSE twice, then as it should be", script: relaytest.Script{Answer: answer(first(2), func(_ relaytest.Query, frames []string) []string {
		return frames[:len(frames)-1]
	})}, o: brisk, complete: sources.Yes, again: 2, wire: 550})

	// CLOSED.
	for _, text := range []string{"error: shutting down", "rate-limited: slow down", "rate-limit: slow down", "shutting down", "", "ERROR: too many concurrent REQs",
		"error: too many subscriptions", "later: what nobody knows", "duplicate: page", "ERROR: bad thing"} {
		add(row{name: "CLOSED twice, then as it should be: " + text, script: relaytest.Script{Answer: instead(first(2), fmt.Sprintf(`["CLOSED",%%,%q]`, text))},
			complete: sources.Yes, again: 2, wire: 440})
		add(row{name: "CLOSED always: " + text, script: relaytest.Script{Answer: instead(every, fmt.Sprintf(`["CLOSED",%%,%q]`, text))},
			complete: sources.No, text: "8 tries: CLOSED", missing: 300, again: 7})
	}
	for _, text := range []string{"unsupported: no such filters", "invalid: no such filters", "blocked: too many things to filter for", "ERROR: bad req: unrecognised filter item",
		"pow: 28 bits", "mute: nobody asked"} {
		add(row{name: "CLOSED for good: " + text, script: relaytest.Script{Answer: instead(every, fmt.Sprintf(`["CLOSED",%%,%q]`, text))},
			complete: sources.No, text: "CLOSED " + text, missing: 300, requests: 1})
	}
	for _, text := range []string{"auth-required: members only", "ERROR: auth-required: members only", "restricted: not on the list", "payment-required: 21 sats"} {
		add(row{name: "CLOSED to others: " + text, script: relaytest.Script{Answer: instead(every, fmt.Sprintf(`["CLOSED",%%,%q]`, text))},
			complete: sources.No, text: text, missing: 300, requests: 1})
		add(row{name: "CLOSED to others after two pages: " + text, script: relaytest.Script{Answer: instead(from(3), fmt.Sprintf(`["CLOSED",%%,%q]`, text))},
			complete: sources.No, text: text, missing: 300 - 50 - 49, requests: 3})
	}
	add(row{name: "CLOSED after half of every page, at first", script: relaytest.Script{Answer: answer(first(3), func(q relaytest.Query, frames []string) []string {
		return append(frames[:len(frames)/2:len(frames)/2], `["CLOSED","`+q.Sub+`","error: out of memory"]`)
	})}, complete: sources.Yes, again: 3, wire: 520})
	add(row{name: "CLOSED after half of every page", script: relaytest.Script{Answer: func(q relaytest.Query, frames []string) []string {
		return append(frames[:len(frames)/2:len(frames)/2], `["CLOSED","`+q.Sub+`","error: out of memory"]`)
	}}, complete: sources.No, text: "8 tries: CLOSED error: out of memory", missing: 275, again: 7})
	add(row{name: "CLOSED after EOSE", script: relaytest.Script{ClosedAfter: "error: this subscription is over"}, complete: sources.Yes, wire: 440})
	add(row{name: "CLOSED instead of EOSE, all events there", script: relaytest.Script{Answer: func(q relaytest.Query, frames []string) []string {
		frames[len(frames)-1] = `["CLOSED","` + q.Sub + `","done"]`
		return frames
	}}, complete: sources.No, text: "8 tries: CLOSED done", missing: 250, again: 7, wire: 440})
	add(row{name: "CLOSED without a text", script: relaytest.Script{Answer: instead(first(2), `["CLOSED",%]`)}, complete: sources.Yes, again: 2, wire: 440})
	add(row{name: "CLOSED for another subscription", script: relaytest.Script{Answer: func(q relaytest.Query, frames []string) []string {
		return append([]string{`["CLOSED","page-9999","error: x"]`, fmt.Sprintf(`["CLOSED","page-%d","error: x"]`, q.N-1)}, frames...)
	}}, complete: sources.Yes, wire: 440})

	// NOTICE.
	for _, text := range []string{"too many concurrent REQs", "ERROR: too many concurrent REQs", "ERROR: bad req: filters", "failed to parse envelope", "you are going too fast", ""} {
		add(row{name: "a NOTICE instead, twice, then as it should be: " + text, script: relaytest.Script{Answer: instead(first(2), fmt.Sprintf(`["NOTICE",%q]`, text))},
			o: brisk, complete: sources.Yes, again: 2, wire: 440})
		add(row{name: "a NOTICE instead, always: " + text, script: relaytest.Script{Answer: instead(every, fmt.Sprintf(`["NOTICE",%q]`, text))},
			o: brisk, complete: sources.No, text: "8 tries: ", missing: 300, again: 7})
	}
	add(row{name: "a NOTICE before every answer, and one behind", script: relaytest.Script{Answer: func(_ relaytest.Query, frames []string) []string {
		return append(append([]string{`["NOTICE","welcome, guest"]`}, frames...), `["NOTICE","read our terms"]`)
	}}, o: brisk, complete: sources.Yes, wire: 440})

	// Nothing.
	add(row{name: "silence", script: relaytest.Script{Silent: true}, o: brisk, complete: sources.No, text: "8 tries: silent for", missing: 300, again: 7})
	add(row{name: "silence in the middle of a page", script: relaytest.Script{StallAfter: 120}, o: brisk, complete: sources.No, text: "8 tries: silent for",
		missing: 201, again: 7, wire: 200})

	// The end of the connection.
	for _, k := range []int{0, 1, 25, 49, 50, 51} { // 50: behind the events, 51: behind EOSE
		cut := func(which func(int) bool) func(relaytest.Query, []string) []string {
			return answer(which, func(_ relaytest.Query, frames []string) []string {
				at := min(k, len(frames))
				return append(frames[:at:at], relaytest.Cut)
			})
		}
		add(row{name: fmt.Sprintf("cut behind %d frames of the first page", k), script: relaytest.Script{Answer: cut(only(1))}, complete: sources.Yes, again: 2, wire: 600})
		add(row{name: fmt.Sprintf("cut behind %d frames of the second page", k), script: relaytest.Script{Answer: cut(only(2))}, complete: sources.Yes, again: 3, wire: 520})
		add(row{name: fmt.Sprintf("cut behind %d frames of every third page", k), script: relaytest.Script{Answer: cut(func(n int) bool { return n%3 == 0 })},
			complete: sources.Yes, again: 30, requests: 120, wire: 900})
	}
	add(row{name: "cut before a request", complete: sources.Yes, again: 3, wire: 520, set: func(r *relaytest.Relay) {
		var n atomic.Int64
		r.Update(func(s *relaytest.Script) {
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				if m.Label == "CLOSE" && n.Add(1)%3 == 0 {
					c.Drop()
				}
				return false
			}
		})
	}})

	add(row{name: "a login is wanted", script: relaytest.Script{AuthRequired: true}, complete: sources.No, text: "auth-required", missing: 300, requests: 1})

	// Other frames between.
	add(row{name: "garbage between", script: relaytest.Script{Between: []string{"]", `["EVENT"]`, `[]`, `["X",1]`, `{`, `["EOSE"]`}},
		complete: sources.Yes, wire: 900})
	add(row{name: "events for another subscription on every page", script: relaytest.Script{Answer: func(_ relaytest.Query, frames []string) []string {
		for i := range 10 {
			frames = append(frames, `["EVENT","page-9999",`+note(1, i, now-86400-int64(i-i%7)*11)+`]`)
		}
		return frames
	}}, complete: sources.Unknown, text: "after the relay's EOSE", wire: 800})
	return rows
}

// late answers after a while.
func late(d time.Duration) func(c *relaytest.Conn, m relaytest.Message) bool {
	return func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label != "REQ" || !strings.Contains(m.Raw, "page-") {
			return false
		}
		time.AfterFunc(d, func() { c.Serve(m) })
		return true
	}
}

// filters of a REQ message.
func filterOf(m relaytest.Message) (sub string, f nostr.Filter, ok bool) {
	var req nostr.ReqEnvelope
	if m.Label != "REQ" || req.FromJSON(m.Raw) != nil || len(req.Filters) == 0 {
		return "", f, false
	}
	return req.SubscriptionID, req.Filters[0], true
}
