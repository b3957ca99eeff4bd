package sources_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
	"rebroadcastr/state"
)

// counter answers COUNT by what it has.
type counter struct {
	events []string
	about  bool
	before func(c *relaytest.Conn, sub string, n int) bool // true: it has answered the n-th COUNT

	mu sync.Mutex
	n  int
}

func (k *counter) handle(c *relaytest.Conn, m relaytest.Message) bool {
	if m.Label != "COUNT" {
		return false
	}
	var parts []json.RawMessage
	var sub string
	var f nostr.Filter
	if json.Unmarshal([]byte(m.Raw), &parts) != nil || len(parts) != 3 || json.Unmarshal(parts[1], &sub) != nil || json.Unmarshal(parts[2], &f) != nil {
		return false
	}
	k.mu.Lock()
	k.n++
	n := k.n
	k.mu.Unlock()
	if k.before != nil && k.before(c, sub, n) {
		return true
	}
	total := 0
	for _, ev := range k.events {
		var e nostr.Event
		if json.Unmarshal([]byte(ev), &e) == nil && f.Matches(&e) {
			total++
		}
	}
	c.Send(fmt.Sprintf(`["COUNT",%q,{"count":%d,"approximate":%t}]`, sub, total, k.about))
	return true
}

// survey runs one to its end, and fails the test if it has asked for an event, or changed the state.
func survey(t *testing.T, r *relaytest.Relay, db *state.DB, ids sources.Lister, o sources.Options) sources.Outlook {
	t.Helper()
	o.URL, o.Once = r.URL, true
	o.Now = func() time.Time { return time.Unix(now, 0) }
	if o.Idle == 0 {
		o.Idle = 10 * time.Second
	}
	before := picture(t, db)
	asked := len(r.Got("REQ"))
	y, err := sources.NewSurvey(o, db, ids)
	if err != nil {
		t.Fatal(err)
	}
	settings := relay.DefaultSettings()
	settings.Backoff = relay.Backoff{Initial: time.Millisecond, Max: 20 * time.Millisecond, Multiplier: 2}
	settings.Pace = 10_000
	link := relay.NewLink(relay.LinkOptions{URL: r.URL, Settings: settings, Log: zerolog.Nop(), MaxTries: 3})
	link.Add("source", y)
	if err := link.Run(t.Context()); err != nil {
		t.Errorf("the link ended: %v", err)
	}
	if got := r.Got("REQ"); len(got) != asked {
		t.Errorf("it has asked for events: %v", got[asked:])
	}
	if after := picture(t, db); after != before {
		t.Error("it has changed the state")
	}
	out := y.Outlook()
	if !out.Done {
		t.Errorf("not done: %+v", out)
	}
	return out
}

// picture is all that the state holds.
func picture(t *testing.T, db *state.DB) string {
	t.Helper()
	if db == nil {
		return ""
	}
	var b strings.Builder
	if err := db.CopyTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestSurveyCounts: every way in which a relay counts, or does not.
func TestSurveyCounts(t *testing.T) {
	all := notes(1, 1200, 60)
	closed := func(text string) func(c *relaytest.Conn, sub string, n int) bool {
		return func(c *relaytest.Conn, sub string, _ int) bool {
			c.Send(`["CLOSED","` + sub + `","` + text + `"]`)
			return true
		}
	}
	for name, c := range map[string]struct {
		before   func(c *relaytest.Conn, sub string, n int) bool
		none     bool // it knows no COUNT
		about    bool
		info     string
		idle     time.Duration
		known    bool
		requests int64
		no       string
	}{
		"counted":              {known: true, requests: 3},
		"about":                {known: true, requests: 3, about: true},
		"smaller pages":        {known: true, requests: 12, info: `{"limitation":{"max_limit":100}}`},
		"CLOSED":               {before: closed("unsupported: no NIP-45"), requests: 1, no: "CLOSED unsupported: no NIP-45"},
		"CLOSED, login wanted": {before: closed("auth-required: login"), requests: 1, no: "CLOSED auth-required: login"},
		"NOTICE": {before: func(c *relaytest.Conn, _ string, _ int) bool { c.Send(`["NOTICE","unknown cmd"]`); return true },
			requests: 1, no: "NOTICE unknown cmd"},
		"the scripted relay's own": {none: true, requests: 1, no: "NOTICE ERROR: bad msg: unknown cmd"},
		"silence":                  {before: func(*relaytest.Conn, string, int) bool { return true }, idle: 50 * time.Millisecond, requests: 1, no: "silent for 50ms"},
		"no number": {before: func(c *relaytest.Conn, sub string, _ int) bool {
			c.Send(`["COUNT","` + sub + `",{"count":[]}]`)
			return true
		},
			idle: 50 * time.Millisecond, requests: 1, no: "silent for 50ms"},
		"it hangs up": {before: func(c *relaytest.Conn, _ string, _ int) bool { c.Drop(); return true }, requests: 1, no: "the connection ended when the relay was asked to count"},
		"too fast, once": {before: func(c *relaytest.Conn, sub string, n int) bool {
			return n == 1 && closed("rate-limited: slow down")(c, sub, n)
		}, known: true, requests: 3},
		"too fast, always": {before: closed("rate-limited: slow down"), requests: 1, no: "CLOSED rate-limited: slow down"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &counter{events: all, about: c.about, before: c.before}
			script := relaytest.Script{Events: all, Info: c.info, Handle: k.handle}
			if c.none {
				script.Handle = nil
			}
			r := relaytest.New(t, script)
			out := survey(t, r, nil, nil, sources.Options{Filters: []event.Filter{{Authors: []event.PubKey{author(1)}}}, Idle: c.idle})
			if len(out.Parts) != 1 || out.NoCount != c.no {
				t.Fatalf("%+v, want one part and no count because of %q", out, c.no)
			}
			p := out.Parts[0]
			want := int64(0)
			if c.known {
				want = int64(len(all))
			}
			if p.Events != want || p.Known != c.known || p.Requests != c.requests || p.About != c.about {
				t.Errorf("%+v, want %d events, known %t, %d requests", p, want, c.known, c.requests)
			}
		})
	}
}

// TestSurveyAfterABackfill: what is proven is not asked for; one more author among many is one question more.
func TestSurveyAfterABackfill(t *testing.T) {
	var all []string
	var authors []event.PubKey
	for i := 1; i <= 40; i++ {
		authors = append(authors, author(i))
		all = append(all, note(i, 0, now-30*86400-int64(i)))
	}
	k := &counter{events: all}
	r := relaytest.New(t, relaytest.Script{Events: all, Handle: k.handle})
	db := openState(t)
	start(t, r, newIntake(t), db, sources.Options{Once: true, Filters: []event.Filter{{Authors: authors[:39]}}}).finished()
	o := sources.Options{Filters: []event.Filter{{Authors: authors}}}
	out := survey(t, r, db, nil, o)
	const clip, open = now - 20*60, 1<<63 - 1
	words := []string{sources.Words(event.Filter{Authors: authors[39:]}), "39 authors"}
	if len(out.Parts) != 2 || k.n != 2 {
		t.Fatalf("%d questions, %+v; want 2 for two parts", k.n, out)
	}
	for _, p := range out.Parts {
		window, events := sources.Window{From: clip + 1, To: open}, int64(0)
		if p.Words == words[0] {
			window, events = sources.Window{From: 0, To: open}, 1
		}
		if !slices.Contains(words, p.Words) || !slices.Equal(p.Windows, []sources.Window{window}) || p.Events != events || p.Requests != 1 {
			t.Errorf("%+v, want %v with %d events", p, window, events)
		}
	}
	o.Again = true
	if out := survey(t, r, db, nil, o); len(out.Parts) != 1 || out.Parts[0].Events != 40 || out.Parts[0].Atoms != 40 {
		t.Errorf("again: %+v, want all 40 in one", out)
	}
	o.Again, o.Narrow = false, []string{"except x"} // what was let in, and will not be: nothing to ask for again
	if out := survey(t, r, db, nil, o); len(out.Parts) != 2 {
		t.Errorf("narrower: %+v, want the same two parts", out)
	}
	start(t, r, newIntake(t), db, sources.Options{Once: true, Filters: []event.Filter{{Authors: authors}}, Narrow: o.Narrow}).finished()
	o.Narrow = nil
	if out := survey(t, r, db, nil, o); len(out.Parts) != 1 || out.Parts[0].Events != 40 {
		t.Errorf("wider: %+v, want everything once more", out)
	}
}

// TestSurveyOfManyAuthors: authors of whom the same is missing are one part, and as many requests as they need.
func TestSurveyOfManyAuthors(t *testing.T) {
	var authors []event.PubKey
	for i := range 1500 {
		authors = append(authors, event.PubKey{byte(i), byte(i >> 8), 1})
	}
	k := &counter{}
	r := relaytest.New(t, relaytest.Script{Handle: k.handle, Info: `{"limitation":{"max_message_length":20000}}`})
	out := survey(t, r, nil, nil, sources.Options{Filters: []event.Filter{{Authors: authors}}})
	if len(out.Parts) != 1 || out.Parts[0].Atoms != 1500 || out.Parts[0].Requests != 6 || !out.Parts[0].Known || out.Parts[0].Words != "1,500 authors" {
		t.Errorf("%+v, want one part of 1,500 authors in 6 requests (283 fit into one message)", out)
	}
	// Each with another stretch, as after a run that was cut off: not all are counted.
	var filters []event.Filter
	for i, a := range authors[:400] {
		filters = append(filters, event.Filter{Authors: []event.PubKey{a}, Since: int64(i + 1)})
	}
	k.n = 0
	out = survey(t, r, nil, nil, sources.Options{Filters: filters})
	if len(out.Parts) != 400 || k.n != 300 || out.NoCount != "only the first 300 requests were counted" || !out.Parts[299].Known || out.Parts[300].Known {
		t.Errorf("%d parts, %d questions, %q", len(out.Parts), k.n, out.NoCount)
	}
}

// TestSurveyCompares: where ids can be compared, what the archive lacks is known exactly, and counted where that is not done.
func TestSurveyCompares(t *testing.T) {
	all := notes(1, 2000, 700)
	had, lacked := without(all, 13)
	for name, c := range map[string]struct {
		had     []string
		neg     *reconciler
		limit   int
		lacking int
		events  int
		no      string
	}{
		"compared":            {had, &reconciler{events: all}, 0, len(lacked), len(lacked), ""},
		"small sessions":      {had, &reconciler{events: all, cap: 300}, 0, len(lacked), len(lacked), ""},
		"nothing archived":    {nil, &reconciler{events: all}, 0, 0, len(all), ""},
		"with --limit":        {had, &reconciler{events: all}, 50, 0, len(all), "not with --limit"},
		"everything archived": {all, &reconciler{events: all}, 0, 0, 0, ""},
		"refused": {had, &reconciler{before: func(c *relaytest.Conn, sub, _ string) bool {
			c.Send(`["NEG-ERR","` + sub + `","blocked: no"]`)
			return true
		}}, 0, 0, len(all), "blocked: no"},
		"hung up on": {had, &reconciler{before: func(c *relaytest.Conn, _, _ string) bool { c.Drop(); return true }}, 0, 0, len(all),
			"the connection ended when the relay was asked to reconcile"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := &counter{events: all}
			r := relaytest.New(t, relaytest.Script{Handle: func(conn *relaytest.Conn, m relaytest.Message) bool {
				return c.neg.handle(conn, m) || k.handle(conn, m)
			}})
			in := newIntake(t)
			in.holds(c.had)
			out := survey(t, r, openState(t), archived{in, all}, sources.Options{Filters: []event.Filter{{Authors: []event.PubKey{author(1)}}}, Limit: c.limit})
			if len(out.Parts) != 1 || out.NoCompare != c.no {
				t.Fatalf("%+v, want one part and no comparison because of %q", out, c.no)
			}
			if p := out.Parts[0]; p.Events != int64(c.events) || p.Lacking != int64(c.lacking) || !p.Known {
				t.Errorf("%+v, want %d events to come, %d of them lacking", p, c.events, c.lacking)
			}
		})
	}
}
