package event_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
)

// corpus is the EVENT messages of testdata/relay-messages.jsonl, as a relay sent them.
func corpus(t testing.TB) [][]byte {
	t.Helper()
	f, err := os.Open("../testdata/relay-messages.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var frames [][]byte
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if bytes.HasPrefix(s.Bytes(), []byte(`["EVENT"`)) {
			frames = append(frames, bytes.Clone(s.Bytes()))
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if len(frames) != 532 {
		t.Fatalf("the corpus has %d events, want 532", len(frames))
	}
	return frames
}

func parse(t testing.TB, raw string) event.Event {
	t.Helper()
	var e event.Event
	if err := event.Parse([]byte(raw), &e); err != nil {
		t.Fatalf("Parse refuses %.300q: %v", raw, err)
	}
	return e
}

// TestRealEvents takes every event of the corpus through the fast way and the slow way.
func TestRealEvents(t *testing.T) {
	for n, frame := range corpus(t) {
		scan, ok := event.ScanFrame(frame)
		if !ok {
			t.Fatalf("event %d: ScanFrame says it is unusual: %.200s", n, frame)
		}
		sub, raw, err := event.ParseFrame(frame)
		if err != nil {
			t.Fatalf("event %d: ParseFrame: %v", n, err)
		}
		if sub != string(scan.Sub) || &raw[0] != &frame[scan.Event] {
			t.Errorf("event %d: ScanFrame finds sub %q and the event at %d, ParseFrame sub %q and another place",
				n, scan.Sub, scan.Event, sub)
		}
		e := parse(t, string(raw))
		if e.ID != scan.ID {
			t.Errorf("event %d: ScanFrame finds id %s, Parse %s", n, scan.ID, e.ID)
		}
		if err := e.Verify(); err != nil {
			t.Errorf("event %d is genuine, Verify says %v", n, err)
		}
		var fast event.Event
		if err := event.ParseScanned(frame, scan, &fast); err != nil || !bytes.Equal(fast.Line, e.Line) {
			t.Errorf("event %d: ParseScanned gives %v and\n%s, Parse\n%s", n, err, fast.Line, e.Line)
		}
		again := parse(t, string(e.Line))
		if !bytes.Equal(again.Line, e.Line) {
			t.Errorf("event %d: Parse(Line) gives another line:\n%s\n%s", n, again.Line, e.Line)
		}
		if s, ok := event.ScanLine(e.Line); !ok || s.ID != e.ID || s.Sub != nil {
			t.Errorf("event %d: ScanLine(Line) = %v, %t, want id %s", n, s, ok, e.ID)
		}
		if at, ok := event.ScanCreatedAt(raw); !ok || at != e.CreatedAt {
			t.Errorf("event %d: ScanCreatedAt = %d, %t, want %d", n, at, ok, e.CreatedAt)
		}
		var theirs nostr.Event
		if err := json.Unmarshal(e.Line, &theirs); err != nil {
			t.Fatalf("event %d: go-nostr cannot read Line: %v", n, err)
		}
		if theirs.GetID() != e.Hash().String() {
			t.Errorf("event %d: Hash is %s, go-nostr says %s", n, e.Hash(), theirs.GetID())
		}
		sameFields(t, e, theirs)
		frame[scan.Event] = 'x' // an event keeps nothing of its frame
		if !bytes.Equal(again.Line, e.Line) {
			t.Fatalf("event %d: Line changes with the frame", n)
		}
	}
}

// sameFields compares all that an Event says of itself with another decoder's reading.
func sameFields(t testing.TB, e event.Event, want nostr.Event) {
	t.Helper()
	if e.ID.String() != want.ID || e.PubKey.String() != want.PubKey || e.CreatedAt != int64(want.CreatedAt) ||
		e.Kind != want.Kind || e.Content() != want.Content {
		t.Errorf("fields differ:\n%s\n%+v", e.Line, want)
	}
	var tags nostr.Tags
	for tag := range e.Tags() {
		one := nostr.Tag{}
		for _, s := range tag {
			one = append(one, event.Unescape(s))
		}
		tags = append(tags, one)
	}
	if len(tags) != len(want.Tags) {
		t.Fatalf("%d tags, want %d: %s", len(tags), len(want.Tags), e.Line)
	}
	for i := range tags {
		if len(tags[i]) != len(want.Tags[i]) {
			t.Fatalf("tag %d has %d strings, want %d: %s", i, len(tags[i]), len(want.Tags[i]), e.Line)
		}
		for j := range tags[i] {
			if tags[i][j] != want.Tags[i][j] {
				t.Errorf("tag %d string %d is %q, want %q", i, j, tags[i][j], want.Tags[i][j])
			}
		}
	}
}
