package sources_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// changeRows: answers that depend on when, or by which way, they come.
func changeRows() (rows []row) {
	add := func(r row) { rows = append(rows, r) }
	long := notes(1, 900, 3600) // several windows at once

	add(row{name: "events are published meanwhile", script: relaytest.Script{Cap: 50}, complete: sources.Yes, wire: 500, set: func(r *relaytest.Relay) {
		n := 0
		meanwhile(r, func() {
			n++
			r.Publish(note(2, n, now-86400-int64(n)), note(1, 5000+n, now-int64(n)), note(1, 6000+n, now-40_000-int64(n)), note(1, 7000+n, now-88_000-int64(n)))
		})
	}})
	add(row{name: "events are deleted meanwhile", script: relaytest.Script{Cap: 50}, complete: sources.Yes, wire: 400, set: func(r *relaytest.Relay) {
		gone := 0
		r.Update(func(s *relaytest.Script) {
			s.Paging.Hits = func(q relaytest.Query, hits []nostr.Event) []nostr.Event { // those that were given a page ago, and newer ones
				return slices.DeleteFunc(hits, func(e nostr.Event) bool { return int64(e.CreatedAt) > now-86400-int64(gone) })
			}
			s.Answer = func(_ relaytest.Query, frames []string) []string { gone += 300; return frames }
		})
	}})
	add(row{name: "two replicas of which each lacks a third", script: relaytest.Script{Cap: 50, Paging: relaytest.Paging{
		Hits: func(q relaytest.Query, hits []nostr.Event) []nostr.Event {
			return slices.DeleteFunc(hits, func(e nostr.Event) bool { return int(e.ID[0])%3 == q.N%2 })
		}}}, complete: sources.Unknown, text: "does not repeat", missing: -1, requests: 40, again: 1})
	add(row{name: "answers in the order they were not asked in", events: long, script: relaytest.Script{Cap: 50}, complete: sources.Yes, wire: 1000, set: stacked(false)})
	add(row{name: "answers one into the other", events: long, script: relaytest.Script{Cap: 50}, complete: sources.Yes, wire: 1000, set: stacked(true)})
	add(row{name: "a new request ends the one before without a word", events: long, script: relaytest.Script{Cap: 50}, o: sources.Options{Idle: brief},
		complete: sources.Yes, wire: 1600, again: 60, requests: 140, set: jealous})
	return rows
}

// meanwhile does something before each answer.
func meanwhile(r *relaytest.Relay, do func()) {
	var mu sync.Mutex
	r.Update(func(s *relaytest.Script) {
		s.Handle = func(_ *relaytest.Conn, m relaytest.Message) bool {
			if m.Label == "REQ" {
				mu.Lock()
				defer mu.Unlock()
				do()
			}
			return false
		}
	})
}

// stacked answers the last of the requests that are under way first; mixed: frame by frame.
func stacked(mixed bool) func(*relaytest.Relay) {
	return func(r *relaytest.Relay) {
		var mu sync.Mutex
		var held []func() []string
		var conn *relaytest.Conn
		flush := func() {
			mu.Lock()
			defer mu.Unlock()
			var lists [][]string
			for i := len(held) - 1; i >= 0; i-- {
				lists = append(lists, held[i]())
			}
			held = nil
			for len(lists) > 0 {
				for i := range lists {
					take := len(lists[i])
					if mixed {
						take = min(take, 3)
					}
					for _, f := range lists[i][:take] {
						conn.Send(f)
					}
					lists[i] = lists[i][take:]
				}
				lists = slices.DeleteFunc(lists, func(l []string) bool { return len(l) == 0 })
			}
		}
		r.Update(func(s *relaytest.Script) {
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				if _, _, ok := filterOf(m); !ok {
					return false
				}
				mu.Lock()
				defer mu.Unlock()
				conn, held = c, append(held, func() []string { return r.Frames(m) })
				time.AfterFunc(5*time.Millisecond, flush)
				return true
			}
		})
	}
}

// jealous forgets a request when the next one comes.
func jealous(r *relaytest.Relay) {
	var mu sync.Mutex
	last := ""
	r.Update(func(s *relaytest.Script) {
		s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
			sub, _, ok := filterOf(m)
			if !ok {
				return false
			}
			mu.Lock()
			last = sub
			mu.Unlock()
			time.AfterFunc(3*time.Millisecond, func() {
				mu.Lock()
				defer mu.Unlock()
				if last == sub {
					c.Serve(m)
				}
			})
			return true
		}
	})
}

// closes names the subscription of a CLOSE.
func closes(m relaytest.Message) (sub string) {
	var parts []json.RawMessage
	if json.Unmarshal([]byte(m.Raw), &parts) == nil && len(parts) > 1 {
		_ = json.Unmarshal(parts[1], &sub)
	}
	return sub
}

func fill(frame, sub string) string {
	if strings.Contains(frame, "%") {
		return fmt.Sprintf(frame, sub)
	}
	return frame
}
