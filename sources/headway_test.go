package sources_test

import (
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// shares runs one backfill and gives what it said of its progress whenever it asked for something.
func shares(t *testing.T, script relaytest.Script, o sources.Options) (said []sources.Status, end sources.Status) {
	t.Helper()
	var mu sync.Mutex
	var g *rig
	script.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if m.Label == "REQ" {
			said = append(said, g.source.Status())
		}
		return false
	}
	mu.Lock()
	g = start(t, relaytest.New(t, script), newIntake(t), openState(t), o)
	mu.Unlock()
	end = g.finished()
	return said, end
}

// What is said of progress never goes back and never says that all is proven before it is. Where nobody knows how far back there
// is anything, no share is told, until another source has come to the end.
func TestShare(t *testing.T) {
	const step, n = 6 * 3600, 1000
	since := int64(now - 86400 - n*step)
	everything := []event.Filter{{Authors: []event.PubKey{author(1), author(2)}}}
	script := relaytest.Script{Events: append(notes(1, n, step), notes(2, n/2, step)...), Cap: 50, Info: `{"limitation":{"max_subscriptions":1}}`}
	var none, some sources.Oldest
	for _, c := range []struct {
		name  string
		o     sources.Options
		known bool
	}{
		{"since", sources.Options{History: sources.History{Since: since}}, true},
		{"a filter's since", sources.Options{Filters: []event.Filter{{Authors: everything[0].Authors, Since: since}}}, true},
		{"all time", sources.Options{Oldest: &none}, false},
		{"all time, the first source", sources.Options{Oldest: &some}, false},
		{"all time, another has ended", sources.Options{Oldest: &some}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Once = true
			if c.o.Filters == nil {
				c.o.Filters = everything
			}
			said, end := shares(t, script, c.o)
			wantComplete(t, end, sources.Yes, "")
			if end.Share != 1 || len(said) < 20 || end.Oldest < since || end.Oldest > since+2*step {
				t.Fatalf("share %v after %d requests, the oldest event of %d, want 1 after more than 20 and the last of %d", end.Share, len(said), end.Oldest, since)
			}
			before, middle := 0.0, 0
			for i, st := range said {
				if st.Share < before || st.Share >= 1 {
					t.Errorf("request %d of %d: share %v after %v, want no less, and less than all", i, len(said), st.Share, before)
				}
				before = st.Share
				if st.Share > 0.2 && st.Share < 0.8 {
					middle++
				}
				if st.Share > 0 && st.Proven {
					// Uniform in time, so the share is what the date says, of one walk for both authors.
					if want := float64(now-st.ProvenBack) / (86400 + n*step); st.Share < want-0.05 || st.Share > want+0.5 {
						t.Errorf("request %d: share %v, proven back to %s, want about %v", i, st.Share, time.Unix(st.ProvenBack, 0).UTC(), want)
					}
				}
			}
			if known := middle > 0; known != c.known {
				t.Errorf("shares in the middle: %d, want some: %v", middle, c.known)
			}
		})
	}
}

// While a relay that finds us too fast is left alone, that is told, and not afterwards.
func TestWaitsAreTold(t *testing.T) {
	var limits atomic.Bool
	limits.Store(true)
	in := newIntake(t)
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 100, 3600), Cap: 50, Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label != "REQ" || !limits.Load() {
			return false
		}
		c.Send(`["CLOSED",` + subOf(m.Raw) + `,"rate-limited: try again in 1 second"]`)
		return true
	}})
	g := start(t, r, in, openState(t), sources.Options{Once: true})
	g.source.SetBackoff(relay.Backoff{Initial: time.Millisecond, Max: time.Second, Multiplier: 2}) // waits as long as the relay says
	in.until("that it waits, and why", func() bool {
		st := g.source.Status()
		return !st.Waits.IsZero() && strings.Contains(st.Note, "rate-limited")
	})
	limits.Store(false)
	st := g.finished()
	wantComplete(t, st, sources.Yes, "")
	if !st.Waits.IsZero() || st.Note != "" {
		t.Errorf("in the end it waits until %s, note %q; want neither", st.Waits, st.Note)
	}
}

// subOf is the subscription id that a REQ names, as JSON.
func subOf(raw string) string {
	var parts []json.RawMessage
	if json.Unmarshal([]byte(raw), &parts) != nil || len(parts) < 2 {
		return `""`
	}
	return string(parts[1])
}

// A share that was measured by a source with a shorter history is not told any more once an older event comes, and none instead of it.
func TestShareOfAShorterHistory(t *testing.T) {
	const step = 3600
	var oldest sources.Oldest
	one := relaytest.Script{Events: notes(1, 300, step), Cap: 50}
	_, end := shares(t, one, sources.Options{Once: true, Oldest: &oldest})
	wantComplete(t, end, sources.Yes, "")
	said, end := shares(t, relaytest.Script{Events: notes(1, 1000, step), Cap: 50, Info: `{"limitation":{"max_subscriptions":1}}`}, sources.Options{Once: true, Oldest: &oldest})
	wantComplete(t, end, sources.Yes, "")
	told, after := 0, 0
	for i, st := range said {
		older := st.Oldest != 0 && st.Oldest < now-86400-299*step
		switch {
		case older && st.Share != 0:
			t.Errorf("request %d: share %v although the oldest event is of %s, before all that was known", i, st.Share, time.Unix(st.Oldest, 0).UTC())
		case older:
			after++
		case st.Share > 0:
			told++
		}
	}
	if told == 0 || after == 0 || end.Share != 1 {
		t.Errorf("%d shares before and %d requests after the older event, in the end %v; want some, some and 1", told, after, end.Share)
	}
}
