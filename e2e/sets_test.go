package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/relaytest"
)

// set is a set of events by id.
type set map[string]*nostr.Event

func setOf(events []*nostr.Event) set {
	s := make(set, len(events))
	for _, e := range events {
		s[e.ID] = e
	}
	return s
}

// where keeps those that f takes.
func (s set) where(f func(*nostr.Event) bool) set {
	out := set{}
	for id, e := range s {
		if f(e) {
			out[id] = e
		}
	}
	return out
}

// with joins sets.
func (s set) with(others ...set) set {
	out := maps.Clone(s)
	for _, o := range others {
		maps.Copy(out, o)
	}
	return out
}

// wantSet compares two sets and names what is missing and what is too many.
func wantSet(t testing.TB, what string, got, want set) {
	t.Helper()
	missing := describe(want, got)
	extra := describe(got, want)
	if len(missing)+len(extra) > 0 {
		t.Errorf("%s: %d events, want %d; %d missing:%s\n%d too many:%s", what, len(got), len(want),
			len(missing), firsts(missing), len(extra), firsts(extra))
	}
}

// wantSent compares what a sink was sent with what it takes of the archive: all of it, but what was deleted or superseded there
// only maybe.
func wantSent(t testing.TB, what string, got, archived set, takes func(*nostr.Event) bool) {
	t.Helper()
	most := archived.where(takes)
	away := departed(archived, most)
	wantSet(t, what, got, most.where(func(e *nostr.Event) bool { return !away[e.ID] || got[e.ID] != nil }))
}

// describe lists what is in a and not in b.
func describe(a, b set) []string {
	var out []string
	for id, e := range a {
		if _, ok := b[id]; !ok {
			out = append(out, fmt.Sprintf("%s kind %d of %d %.60q", id, e.Kind, e.CreatedAt, e.Content))
		}
	}
	slices.Sort(out)
	return out
}

func firsts(lines []string) string {
	var b strings.Builder
	for i, l := range lines {
		if i == 10 {
			b.WriteString("\n    …")
			break
		}
		b.WriteString("\n    " + l)
	}
	return b.String()
}

// archived reads an archive folder as any program would: segments by number, a line an event. Every line must be the
// canonical form of a genuine event, and none may stand twice.
func archived(t testing.TB, dir string) set {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "events_*_*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(segmentNumber(a), segmentNumber(b)) })
	var text []byte
	for _, f := range files {
		segment, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if len(segment) > 0 && segment[len(segment)-1] != '\n' {
			t.Errorf("%s ends within a line", f)
		}
		text = append(text, segment...)
	}
	return jsonl(t, "archive "+dir, text)
}

func segmentNumber(file string) string {
	base := filepath.Base(file)
	return base[strings.LastIndexByte(base, '_')+1:]
}

// jsonl reads lines of events and holds them to the archive's form.
func jsonl(t testing.TB, what string, text []byte) set {
	t.Helper()
	out := set{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		line := lines.Bytes()
		if len(bytes.TrimSpace(line)) == 0 {
			continue // mended by recovery
		}
		e := new(nostr.Event)
		if err := json.Unmarshal(line, e); err != nil {
			t.Errorf("%s, line %d: %v", what, n, err)
			continue
		}
		if ok, err := e.CheckSignature(); !e.CheckID() || !ok || err != nil {
			t.Errorf("%s, line %d: event %s is not genuine", what, n, e.ID)
		}
		if want := canonical(e); string(line) != want {
			t.Errorf("%s, line %d is not canonical:\n%s\nwant\n%s", what, n, line, want)
		}
		if _, ok := out[e.ID]; ok {
			t.Errorf("%s, line %d: event %s a second time", what, n, e.ID)
		}
		out[e.ID] = e
	}
	if err := lines.Err(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return out
}

// canonical is the archive's line of an event, made from go-nostr's serialization for the id.
func canonical(e *nostr.Event) string {
	head := fmt.Sprintf(`[0,%q,%d,%d,`, e.PubKey, e.CreatedAt, e.Kind)
	rest := strings.TrimSuffix(strings.TrimPrefix(string(e.Serialize()), head), "]")
	var tags json.RawMessage
	d := json.NewDecoder(strings.NewReader(rest))
	if err := d.Decode(&tags); err != nil {
		return err.Error()
	}
	content := strings.TrimPrefix(rest[d.InputOffset():], ",")
	return fmt.Sprintf(`{"id":%q,"pubkey":%q,"created_at":%d,"kind":%d,"tags":%s,"content":%s,"sig":%q}`,
		e.ID, e.PubKey, e.CreatedAt, e.Kind, tags, content, e.Sig)
}

// stored is what a relay holds.
func stored(t testing.TB, r *localrelay.Relay) set {
	t.Helper()
	events, err := r.All()
	if err != nil {
		t.Fatal(err)
	}
	return setOf(events)
}

// received is what a relay was sent; an event that came twice is an error.
func received(t testing.TB, r *localrelay.Relay) set {
	t.Helper()
	out := set{}
	for _, e := range r.Received() {
		if _, ok := out[e.ID]; ok {
			t.Errorf("%s was sent event %s twice", r.URL(), e.ID)
		}
		out[e.ID] = e
	}
	return out
}

// sentTo is what a scripted relay was sent; an event that came twice is an error.
func sentTo(t testing.TB, r *relaytest.Relay) set {
	t.Helper()
	out := set{}
	for _, m := range r.Got("EVENT") {
		var parts []json.RawMessage
		e := new(nostr.Event)
		if err := json.Unmarshal([]byte(m.Raw), &parts); err != nil || len(parts) != 2 {
			t.Errorf("%s was sent a message that is no EVENT of two elements: %s", r.URL, m.Raw)
			continue
		}
		if err := json.Unmarshal(parts[1], e); err != nil {
			t.Errorf("%s was sent no event: %v: %s", r.URL, err, m.Raw)
			continue
		}
		if want := canonical(e); string(parts[1]) != want {
			t.Errorf("%s was sent a form that is not canonical:\n%s\nwant\n%s", r.URL, parts[1], want)
		}
		if _, ok := out[e.ID]; ok {
			t.Errorf("%s was sent event %s twice", r.URL, e.ID)
		}
		out[e.ID] = e
	}
	return out
}
