package event_test

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
)

// seeds are some real events and every way of spelling that the tests know to matter.
func seeds(f *testing.F, wrap func(line string) string) {
	frames := corpus(f)
	for i := 0; i < len(frames); i += 50 {
		_, raw, err := event.ParseFrame(frames[i])
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(wrap(string(raw))))
	}
	s := signed(f, nostr.Event{Kind: 1, Content: "a\n\x7f\x01", Tags: nostr.Tags{{"t", "\\"}, {}}})
	for _, line := range []string{
		s.line(), s.line(`"x":[{"a":-1.5e3},null,"\u00e9"]`), s.line(`"id":1`), s.line(`"\u0069d":1`), s.without("id").line(),
		s.with("content", `"\ud83d\ude00\ud83d"`).line(), s.with("content", "\"\xed\xa0\xbd\"").line(), s.with("created_at", "1e9").line(),
		s.with("tags", "[[null]]").line(), s.with("kind", "65536").line(), "{\"\\u0069d\":1," + s.line()[1:], `{"id":""}`,
	} {
		f.Add([]byte(wrap(line)))
	}
}

func FuzzParse(f *testing.F) {
	seeds(f, func(line string) string { return line })
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		scan, simple := event.ScanLine(raw)
		at, plainTime := event.ScanCreatedAt(raw)
		var e, scanned event.Event
		err := event.Parse(raw, &e)
		if !bytes.Equal(raw, before) {
			t.Fatalf("%q was changed", before)
		}
		if err != nil && event.ReasonOf(err) == "" {
			t.Fatalf("error without a reason: %v", err)
		}
		if simple {
			if again := event.ParseScanned(raw, scan, &scanned); (again == nil) != (err == nil) {
				t.Fatalf("Parse says %v, ParseScanned %v", err, again)
			}
		}
		if err != nil {
			return
		}
		if simple && (scan.ID != e.ID || !bytes.Equal(scanned.Line, e.Line)) {
			t.Fatalf("the scan finds id %s, Parse %s", scan.ID, e.ID)
		}
		if plainTime && at != e.CreatedAt {
			t.Fatalf("ScanCreatedAt finds %d, Parse %d", at, e.CreatedAt)
		}
		if !json.Valid(raw) || !utf8.Valid(raw) {
			t.Fatalf("accepted, but not JSON in UTF-8: %q", raw)
		}
		same(t, &e)
	})
}

// same holds an accepted event's line to what it promises.
func same(t *testing.T, e *event.Event) {
	t.Helper()
	var again event.Event
	if err := event.Parse(e.Line, &again); err != nil || !bytes.Equal(again.Line, e.Line) {
		t.Fatalf("Parse(Line) gives %v and\n%s, want\n%s", err, again.Line, e.Line)
	}
	if s, ok := event.ScanLine(e.Line); !ok || s.ID != e.ID {
		t.Fatalf("ScanLine(Line) = %s, %t; want %s", s.ID, ok, e.ID)
	}
	var theirs nostr.Event
	d := struct {
		ID, PubKey, Content, Sig string
		CreatedAt                int64 `json:"created_at"`
		Kind                     int
		Tags                     nostr.Tags
	}{}
	if err := json.Unmarshal(e.Line, &d); err != nil {
		t.Fatalf("encoding/json cannot read Line: %v\n%s", err, e.Line)
	}
	theirs.ID, theirs.PubKey, theirs.Content, theirs.Sig = d.ID, d.PubKey, d.Content, d.Sig
	theirs.CreatedAt, theirs.Kind, theirs.Tags = nostr.Timestamp(d.CreatedAt), d.Kind, d.Tags
	sameFields(t, *e, theirs)
	if theirs.GetID() != e.Hash().String() {
		t.Fatalf("Hash is %s, go-nostr says %s for\n%s", e.Hash(), theirs.GetID(), e.Line)
	}
}

func FuzzScanFrame(f *testing.F) {
	seeds(f, func(line string) string { return `["EVENT","live-0",` + line + `]` })
	f.Fuzz(func(t *testing.T, frame []byte) {
		scan, simple := event.ScanFrame(frame)
		if !simple {
			return
		}
		var slow, fast event.Event
		sub, raw, err := event.ParseFrame(frame)
		if err == nil {
			err = event.Parse(raw, &slow)
		}
		if again := event.ParseScanned(frame, scan, &fast); (again == nil) != (err == nil) {
			t.Fatalf("the slow way says %v, the fast one %v", err, again)
		}
		if err != nil {
			return
		}
		if scan.ID != slow.ID || string(scan.Sub) != sub || &frame[scan.Event] != &raw[0] || !bytes.Equal(fast.Line, slow.Line) {
			t.Fatalf("the scan finds id %s of %q at %d, the slow way %s of %q", scan.ID, scan.Sub, scan.Event, slow.ID, sub)
		}
	})
}

func FuzzParseFrame(f *testing.F) {
	seeds(f, func(line string) string { return ` ["EVENT","pag\u0065-1",` + line + `,{"more":[1]}] ` })
	f.Fuzz(func(t *testing.T, frame []byte) {
		sub, raw, err := event.ParseFrame(frame)
		if err != nil {
			if event.ReasonOf(err) == "" {
				t.Fatalf("error without a reason: %v", err)
			}
			return
		}
		var parts []json.RawMessage
		if err := json.Unmarshal(frame, &parts); err != nil || len(parts) < 3 {
			t.Fatalf("accepted, but encoding/json says %v and %d elements", err, len(parts))
		}
		var label, theirSub string
		if json.Unmarshal(parts[0], &label) != nil || json.Unmarshal(parts[1], &theirSub) != nil || label != "EVENT" ||
			theirSub != sub || !bytes.Equal(parts[2], raw) {
			t.Fatalf("ParseFrame finds sub %q and event %s; encoding/json %s", sub, raw, parts)
		}
		var e event.Event
		if event.Parse(raw, &e) == nil {
			same(t, &e)
		}
	})
}
