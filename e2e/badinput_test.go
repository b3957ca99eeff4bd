package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// TestBadInput sends every kind of bad frame to a running daemon, a good event after each: the bad one is counted by relay
// and reason, the good one is archived, and the connection goes on.
func TestBadInput(t *testing.T) {
	alice, mallory := someone(t, "alice"), someone(t, "mallory")
	from := relaytest.New(t, relaytest.Script{})
	other := relaytest.New(t, relaytest.Script{})
	to := relaytest.New(t, relaytest.Script{})
	dir := filepath.Join(tempDir(t), "a")
	cfg := configFile(t, fmt.Sprintf("authors: [%s]\nsources: [%q, %q]\nsinks: [%q]\nrelay_settings: {default: {max_frame: 256KiB, backoff: {initial: 50ms, max: 200ms}}}\n",
		alice.npub(t), from.URL, other.URL, to.URL))
	d := run(t, dir, "-c", cfg)
	liveOn(t, from, other)

	now := time.Now().Unix()
	victim := alice.sign(t, now, 1, "a note that is wanted").String()
	second := alice.sign(t, now, 1, "another note").String()
	object := func(change map[string]any) string {
		m := map[string]any{}
		if err := json.Unmarshal([]byte(victim), &m); err != nil {
			t.Fatal(err)
		}
		for k, v := range change {
			if m[k] = v; v == nil {
				delete(m, k)
			}
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	wrapped := func(e string) string { return `["EVENT","SUB",` + e + `]` }
	type column int
	const (
		frame   column = iota // not understood as a message
		invalid               // an event that is refused
		unasked               // a genuine event that nobody asked for
	)
	cases := []struct {
		name   string
		frame  string
		in     column
		reason string // of an invalid event
	}{
		{"no JSON", `this is not JSON`, frame, ""},
		{"half a message", `["NOTICE","half`, frame, ""},
		{"no array", `{"kind":1}`, frame, ""},
		{"a number", `17`, frame, ""},
		{"an empty array", `[]`, frame, ""},
		{"an unknown type", `["SURPRISE","SUB",1]`, frame, ""},
		{"binary", "\x00\x01\x02", frame, ""},
		{"wrong id", wrapped(relaytest.BadID(victim)), invalid, "id"},
		{"wrong signature", wrapped(relaytest.BadSig(victim)), invalid, "signature"},
		{"forged content", wrapped(relaytest.Forged(victim)), invalid, "id"},
		{"created_at as a string", wrapped(object(map[string]any{"created_at": fmt.Sprint(now)})), invalid, "field"},
		{"created_at with a fraction", wrapped(strings.Replace(victim, `"created_at":`, `"created_at":1.`, 1)), invalid, "field"},
		{"kind as a string", wrapped(object(map[string]any{"kind": "1"})), invalid, "field"},
		{"kind out of range", wrapped(object(map[string]any{"kind": 65536})), invalid, "range"},
		{"negative kind", wrapped(object(map[string]any{"kind": -1})), invalid, ""},
		{"tags null", wrapped(strings.Replace(victim, `"tags":[]`, `"tags":null`, 1)), invalid, "field"},
		{"tags of numbers", wrapped(object(map[string]any{"tags": [][]any{{"e", 1}}})), invalid, "field"},
		{"no content", wrapped(object(map[string]any{"content": nil})), invalid, "field"},
		{"content a number", wrapped(object(map[string]any{"content": 7})), invalid, "field"},
		{"upper-case id", wrapped(relaytest.UpperID(victim)), invalid, "field"},
		{"short id", wrapped(object(map[string]any{"id": "abcd"})), invalid, "field"},
		{"empty id", wrapped(object(map[string]any{"id": ""})), invalid, "field"},
		{"no id", wrapped(object(map[string]any{"id": nil})), invalid, "field"},
		{"short signature", wrapped(object(map[string]any{"sig": "00"})), invalid, "field"},
		{"the id twice", wrapped(relaytest.TwoIDs(victim, second)), invalid, "duplicate key"},
		{"the content twice", wrapped(strings.Replace(victim, `"content":`, `"content":"x","content":`, 1)), invalid, "duplicate key"},
		{"a lone surrogate", wrapped(strings.Replace(victim, `a note`, `a \ud83d note`, 1)), invalid, "encoding"},
		{"invalid UTF-8", wrapped(strings.Replace(victim, `a note`, "a \xff note", 1)), invalid, "encoding"},
		{"an event of nobody", wrapped(`null`), invalid, "frame"},
		{"an author nobody asked for", wrapped(mallory.sign(t, now, 1, "buy").String()), unasked, ""},
		{"no event at all", `["EVENT","SUB"]`, invalid, "frame"},
	}
	good := set{}
	n := 0
	next := func() *nostr.Event {
		n++
		e := alice.sign(t, now+int64(n), 1, fmt.Sprintf("good %d", n))
		good[e.ID] = e
		return e
	}
	arrives := func(what string) status {
		t.Helper()
		e := next()
		from.Publish(e.String())
		var s status
		eventually(t, "the good event after "+what+" is archived", func() error {
			var err error
			if s, err = d.ask(); err != nil {
				return err
			}
			if n := s.source(t, from.URL).InFlight; n != 0 || s.Archive.Lines < uint64(len(good)) {
				return fmt.Errorf("%d of %d events, %d on their way", s.Archive.Lines, len(good), n)
			}
			return nil
		})
		return s
	}
	total := func(src report.Source, in column) int64 {
		switch in {
		case frame:
			return sum(src.BadFrames)
		case invalid:
			return src.Invalid
		}
		return src.Unasked
	}
	before := arrives("nothing").source(t, from.URL)
	for _, c := range cases {
		for _, conn := range from.Conns() {
			for _, sub := range conn.Subscriptions() {
				text := strings.Replace(c.frame, `"SUB"`, `"`+sub+`"`, 1)
				if c.name == "binary" {
					conn.SendBinary([]byte(text))
				} else {
					conn.Send(text)
				}
				break // one copy is enough
			}
		}
		after := arrives(c.name).source(t, from.URL)
		for _, in := range []column{frame, invalid, unasked} {
			want := int64(0)
			if in == c.in {
				want = 1
			}
			if got := total(after, in) - total(before, in); got != want {
				t.Errorf("%s: counted %d times as %s, want %d; bad frames %v, invalid %v, unasked %d", c.name, got,
					[]string{"bad frame", "invalid", "unasked"}[in], want, after.BadFrames, after.InvalidBy, after.Unasked)
			}
		}
		if got := after.InvalidBy[c.reason] - before.InvalidBy[c.reason]; c.reason != "" && got != 1 {
			t.Errorf("%s: counted %d times with the reason %q, want once; %v, before it %v", c.name, got, c.reason, after.InvalidBy, before.InvalidBy)
		}
		before = after
	}

	// What only looks odd is taken.
	odd := []string{
		wrapped(relaytest.EscapedID(next().String())),
		wrapped(relaytest.NestedID(next().String(), second)),
		wrapped(strings.Replace(next().String(), `{`, `{"fried":"00", `, 1)),
		` [ "EVENT" , "SUB" , ` + next().String() + ` , "more" ] `,
		" \n" + wrapped(next().String()) + "\n",
	}
	for _, f := range odd {
		conn := from.Conns()[0]
		conn.Send(strings.Replace(f, `"SUB"`, `"`+conn.Subscriptions()[0]+`"`, 1))
	}
	arrives("the odd ones")
	if got := from.Accepted(); got != 1 {
		t.Errorf("the source was connected to %d times, want once: no bad frame ends a connection", got)
	}

	// A frame that is too big is passed over, and the connection goes on.
	for _, conn := range from.Conns() {
		conn.Send(`["NOTICE","` + strings.Repeat("x", 300<<10) + `"]`)
	}
	s := arrives("a frame that is too big")
	if got := s.source(t, from.URL).BadFrames["too big"]; got != 1 {
		t.Errorf("too big frames: %d counted, want 1", got)
	}
	if got := from.Accepted(); got != 1 {
		t.Errorf("the source was connected to %d times, want once: no frame ends a connection", got)
	}
	if got := other.Accepted(); got != 1 {
		t.Errorf("the other source was connected to %d times, want once", got)
	}
	t.Logf("bad frames %v, invalid %v", s.source(t, from.URL).BadFrames, s.source(t, from.URL).InvalidBy)
	// The copy of the victim that is genuine gets in after all its forgeries, as do all the good ones.
	from.Publish(victim)
	var v nostr.Event
	if err := json.Unmarshal([]byte(victim), &v); err != nil {
		t.Fatal(err)
	}
	good[v.ID] = &v
	arrives("the genuine one")
	d.settled()
	d.stop()
	wantSet(t, "archive", archived(t, dir), good)
	wantSet(t, "sink", sentTo(t, to), good)
}

// liveOn waits until the daemon has a subscription on each scripted relay.
func liveOn(t testing.TB, relays ...*relaytest.Relay) {
	t.Helper()
	eventually(t, "the live subscriptions stand", func() error {
		for _, r := range relays {
			open := 0
			for _, c := range r.Conns() {
				for _, sub := range c.Subscriptions() {
					if strings.HasPrefix(sub, "live-") {
						open++
					}
				}
			}
			if open == 0 {
				return fmt.Errorf("%s has none", r.URL)
			}
		}
		return nil
	})
}
