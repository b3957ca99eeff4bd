package sources_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// wraps are n gift wraps for somebody, one a second, the newest dated at.
func wraps(n int, at int64) (out []string) {
	for i := range n {
		out = append(out, relaytest.Sign(relaytest.Key(1), 1059, at-int64(i), [][]string{{"p", relaytest.Pub(relaytest.Key(2))}}, fmt.Sprint("wrap ", i)))
	}
	return out
}

// run1 are n notes, one a second, the newest dated at.
func run1(n int, at int64) (out []string) {
	for i := range n {
		out = append(out, note(1, i, at-int64(i)))
	}
	return out
}

// strfry fills a page of 500 and then takes out of it what is shown after a login only: pages are short, or empty, although
// there is more behind them. What is shown must come all the same, or the source must not count as complete.
func TestWithheld(t *testing.T) {
	strfry := `{"supported_nips":[1,45,77],"limitation":{"max_limit":50}}`
	old := int64(now - 86400*30)
	mixed := func(n int) (all []string) { // every third is withheld
		for i, ev := range run1(n, old) {
			if i%3 == 2 {
				ev = wraps(1, old-int64(i))[0]
			}
			all = append(all, ev)
		}
		return all
	}
	join := func(lists ...[]string) (all []string) {
		for _, list := range lists {
			all = append(all, list...)
		}
		return all
	}
	second := func(n int, kind int) (all []string) {
		for i := range n {
			all = append(all, relaytest.Sign(relaytest.Key(1), kind, old-5000, nil, fmt.Sprint(kind, " in that second ", i)))
		}
		return all
	}
	for _, test := range []struct {
		name     string
		events   []string
		kinds    []int
		script   relaytest.Script
		complete sources.Completeness
		text     string
		missing  int // notes that did not come
		requests int // at most, of pages
		counts   int
	}{
		{"nothing is", run1(120, old), nil, relaytest.Script{}, sources.Yes, "", 0, 6, 2},
		{"every third", mixed(300), nil, relaytest.Script{}, sources.Yes, "", 0, 35, 30},
		{"all", wraps(30, old), nil, relaytest.Script{}, sources.Yes, "", 0, 1, 2},
		{"more than a page in a row", join(run1(70, old), wraps(160, old-1000), run1(70, old-9000)), nil, relaytest.Script{}, sources.Yes, "", 0, 50, 50},
		{"more than a page, and nothing before it", join(run1(70, old), wraps(160, old-1000)), nil, relaytest.Script{}, sources.Yes, "", 0, 60, 60},
		{"more than a page, the newest", join(wraps(160, old), run1(70, old-90000)), nil, relaytest.Script{}, sources.Yes, "", 0, 60, 60},
		{"on a page with the oldest", join(run1(45, old), second(4, 1), second(20, 1059)), nil, relaytest.Script{}, sources.Yes, "", 0, 12, 8},
		{"in a second with more than fits on a page", join(run1(70, old), second(30, 1), second(60, 1059), second(10, 1), run1(9, old-9000)), nil,
			relaytest.Script{Negentropy: true}, sources.Yes, "", 0, 30, 12},
		{"in such a second, and it cannot be reconciled", join(run1(70, old), second(60, 1059), second(10, 1), run1(9, old-9000)), nil, relaytest.Script{}, sources.No,
			"in one second", 10, 50, 50},
		{"more than a page, of kinds that are named", join(run1(70, old), wraps(160, old-1000), run1(70, old-9000)), []int{1, 7, 1059}, relaytest.Script{}, sources.Yes, "", 0, 12, 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			script := test.script
			script.Events, script.Cap, script.Info, script.Count, script.Paging.Withheld = test.events, 50, strfry, true, []int{1059}
			r := relaytest.New(t, script)
			in := newIntake(t)
			st := start(t, r, in, openState(t), sources.Options{Filters: []event.Filter{{Authors: []event.PubKey{author(1)}, Kinds: test.kinds}}, Once: true, Seen: archived{in, test.events}}).finished()
			pages, counts := requests(t, r, "page-"), r.Got("COUNT")
			t.Logf("%d requests, %d COUNTs", len(pages), len(counts))
			wantComplete(t, st, test.complete, test.text)
			missing := 0
			for _, ev := range test.events {
				if !in.has(ev) && strings.Contains(ev, `"kind":1,`) {
					missing++
				}
			}
			if missing != test.missing {
				t.Errorf("%d events that are shown did not come, want %d", missing, test.missing)
			}
			if len(pages) > test.requests || len(counts) > test.counts {
				t.Errorf("%d requests and %d COUNTs, want at most %d and %d", len(pages), len(counts), test.requests, test.counts)
			}
		})
	}
}

// A count that is not of the window that was asked for says nothing.
func TestACountOfEverything(t *testing.T) {
	events := run1(120, now-86400*30)
	var r *relaytest.Relay
	r = relaytest.New(t, relaytest.Script{Events: events, Cap: 50, Info: `{"supported_nips":[45],"limitation":{"max_limit":50}}`,
		Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
			if m.Label == "COUNT" {
				c.Send(fmt.Sprintf(`["COUNT","count-%d",{"count":1000000}]`, len(r.Got("COUNT"))))
			}
			return m.Label == "COUNT"
		}})
	in := newIntake(t)
	st := start(t, r, in, openState(t), sources.Options{Filters: []event.Filter{{Authors: []event.PubKey{author(1)}}}, Once: true}).finished()
	wantComplete(t, st, sources.Yes, "")
	if n := len(r.Got("COUNT")); n > 2 {
		t.Errorf("%d COUNTs, want the one that tells, and no more", n)
	}
}

// withholding is a relay whose gift wraps, more than a page in a row of them, stand between what it shows.
func withholding(handle func(c *relaytest.Conn, m relaytest.Message) bool) (relaytest.Script, []string) {
	old := int64(now - 86400*30)
	events := append(append(run1(70, old), wraps(160, old-1000)...), run1(70, old-9000)...)
	s := relaytest.Script{Events: events, Cap: 50, Info: `{"supported_nips":[1,45,77],"limitation":{"max_limit":50}}`, Count: true, Handle: handle}
	s.Paging.Withheld = []int{1059}
	return s, events
}

// wantShown fails where a note did not come.
func wantShown(t *testing.T, in *intake, events []string, st sources.Status) {
	t.Helper()
	missing := 0
	for _, ev := range events {
		if !in.has(ev) && strings.Contains(ev, `"kind":1,`) {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d events that are shown did not come; complete: %v %q", missing, st.Complete, st.Text)
	}
}

// maxUntold is sources': so many failures in a row, and a relay that has never answered is not asked to count any more.
const maxUntold = 3

func ofOne(in *intake, events []string) sources.Options {
	return sources.Options{Filters: []event.Filter{{Authors: []event.PubKey{author(1)}}}, Once: true, Seen: archived{in, events}}
}

// TestNoticeBesideCount: a NOTICE that comes while a slow COUNT is under way, about a message of another role on the same connection, does
// not make a relay one that does not count.
func TestNoticeBesideCount(t *testing.T) {
	for _, test := range []struct {
		notice string
		counts int64         // such COUNTs
		takes  time.Duration // each: more than a tenth of what it may
	}{
		{"error: could not save", 1, 1300 * time.Millisecond},
		{"invalid: bad event", 1, 1300 * time.Millisecond},
		{"invalid: bad event, and every answer is late", maxUntold, 3500 * time.Millisecond},
	} {
		t.Run(test.notice, func(t *testing.T) {
			var counts atomic.Int64
			script, events := withholding(func(c *relaytest.Conn, m relaytest.Message) bool {
				if m.Label == "COUNT" && counts.Add(1) <= test.counts {
					c.Send(`["NOTICE","` + test.notice + `"]`)
					time.Sleep(test.takes)
				}
				return false
			})
			r, in := relaytest.New(t, script), newIntake(t)
			st := start(t, r, in, openState(t), ofOne(in, events)).finished()
			wantComplete(t, st, sources.Yes, "")
			wantShown(t, in, events, st)
		})
	}
}

// TestOurEndsBesideCount: a source that is paused and resumed while COUNTs are under way has not been refused them.
func TestOurEndsBesideCount(t *testing.T) {
	const ends = maxUntold + 1
	asked := make(chan struct{}, ends)
	var counts atomic.Int64
	script, events := withholding(func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "COUNT" && counts.Add(1) <= ends {
			asked <- struct{}{}
			return true // it is thinking
		}
		return false
	})
	r, in := relaytest.New(t, script), newIntake(t)
	g := start(t, r, in, openState(t), ofOne(in, events))
	for i := range ends {
		select {
		case <-asked:
		case <-time.After(20 * time.Second):
			t.Fatalf("the relay is not asked to count any more after it was left %d times", i)
		}
		g.link.Pause(time.Now())
		g.link.Resume()
	}
	st := g.finished()
	wantComplete(t, st, sources.Yes, "")
	wantShown(t, in, events, st)
}

// TestACounterThatFails: who has answered a COUNT is not taken for one that does not when answers fail, however many in a row.
func TestACounterThatFails(t *testing.T) {
	for _, test := range []struct {
		name  string
		fails int64 // COUNTs, from the fifth on
		says  string
		want  sources.Completeness
	}{
		{"NOTICE, a few times", 4, `["NOTICE","error: could not parse that now"]`, sources.Yes},
		{"CLOSED, a few times", 4, `["CLOSED","%s","error: database is busy"]`, sources.Yes},
		{"CLOSED, from then on", 1 << 30, `["CLOSED","%s","error: database is busy"]`, sources.No},
		{"CLOSED for good, from then on", 1 << 30, `["CLOSED","%s","unsupported: no COUNT today"]`, sources.No},
		{"cut, a few times", 4, "", sources.Yes},
	} {
		t.Run(test.name, func(t *testing.T) {
			var counts atomic.Int64
			script, events := withholding(func(c *relaytest.Conn, m relaytest.Message) bool {
				n := int64(0)
				if m.Label == "COUNT" {
					n = counts.Add(1)
				}
				if n < 5 || n >= 5+test.fails {
					return false
				}
				if test.says == "" {
					c.Drop()
				} else {
					c.Send(strings.ReplaceAll(test.says, "%s", fmt.Sprint("count-", n)))
				}
				return true
			})
			r, in := relaytest.New(t, script), newIntake(t)
			st := start(t, r, in, openState(t), ofOne(in, events)).finished()
			t.Logf("%d COUNTs, complete %v %q", counts.Load(), st.Complete, st.Text)
			if st.Complete != test.want {
				t.Errorf("complete: %v %q, want %v", st.Complete, st.Text, test.want)
			}
			if st.Complete == sources.Yes {
				wantShown(t, in, events, st)
			}
		})
	}
}

// TestNoCount: a relay whose document names NIP-45 and that never answers a COUNT is paged to the end, with few requests more.
func TestNoCount(t *testing.T) {
	for _, says := range []string{`["NOTICE","ERROR: bad msg: unknown cmd"]`, `["CLOSED","%s","unsupported: COUNT"]`, `["CLOSED","%s","what?"]`, "cut", "garbage"} {
		t.Run(says, func(t *testing.T) {
			events := run1(300, now-86400*30)
			var counts atomic.Int64
			r := relaytest.New(t, relaytest.Script{Events: events, Cap: 50, Info: `{"supported_nips":[1,45],"limitation":{"max_limit":50}}`,
				Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
					if m.Label != "COUNT" {
						return false
					}
					n := counts.Add(1)
					switch says {
					case "cut":
						c.Drop()
					case "garbage":
						c.Write([]byte{0xff, 0x05, 'a', 'b', 'c', 'd', 'e'})
					default:
						c.Send(strings.ReplaceAll(says, "%s", fmt.Sprint("count-", n)))
					}
					return true
				}})
			in := newIntake(t)
			o := ofOne(in, nil)
			o.Seen = nil
			st := start(t, r, in, openState(t), o).finished()
			wantComplete(t, st, sources.Yes, "")
			if in.count() != len(events) {
				t.Errorf("%d events came, want %d", in.count(), len(events))
			}
			if pages := requests(t, r, "page-"); len(pages) > 40 || counts.Load() > 3 {
				t.Errorf("%d requests and %d COUNTs, want at most 40 and 3", len(pages), counts.Load())
			}
		})
	}
}

// TestCountsNotNow: a relay that has no room or no time for the first COUNTs is not taken for one that does not count.
func TestCountsNotNow(t *testing.T) {
	for _, says := range []string{
		`["NOTICE","ERROR: too many concurrent REQs"]`, `["NOTICE","rate limited"]`, `["CLOSED","%s","rate-limited: slow down"]`,
		`["CLOSED","%s","error: too many concurrent REQs"]`,
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			var counts atomic.Int64
			script, _ := withholding(func(c *relaytest.Conn, m relaytest.Message) bool {
				if m.Label != "COUNT" {
					return false
				}
				n := counts.Add(1)
				if n > maxUntold+1 {
					return false
				}
				c.Send(strings.ReplaceAll(says, "%s", fmt.Sprint("count-", n)))
				return true
			})
			events := append(wraps(60, now-100), run1(20, now-160)...) // the first page is empty: nothing was counted before
			script.Events = events
			r, in := relaytest.New(t, script), newIntake(t)
			o := ofOne(in, nil)
			o.Seen, o.History.Since, o.Backoff = nil, now-300, relay.Backoff{Initial: time.Millisecond, Max: 10 * time.Millisecond, Multiplier: 2}
			st := start(t, r, in, openState(t), o).finished()
			wantComplete(t, st, sources.Yes, "")
			wantShown(t, in, events, st)
		})
	}
}
