//go:build !race

package event_test

import (
	"strings"
	"testing"

	"rebroadcastr/event"
)

// TestAllocations holds the paths that every event takes to what they may allocate. (The race detector empties
// pools at random.)
func TestAllocations(t *testing.T) {
	frame := benchFrame(t)
	scan, ok := event.ScanFrame(frame)
	if !ok {
		t.Fatal("ScanFrame says the frame is unusual")
	}
	var e event.Event
	if err := event.ParseScanned(frame, scan, &e); err != nil {
		t.Fatal(err)
	}
	m := benchSelection(&e).Compile()
	for _, tt := range []struct {
		name string
		most float64
		do   func()
	}{
		{"ScanFrame", 0, func() { event.ScanFrame(frame) }},
		{"ScanLine", 0, func() { event.ScanLine(e.Line) }},
		{"ScanCreatedAt", 0, func() { event.ScanCreatedAt(e.Line) }},
		{"ParseScanned into a used Event", 0, func() { event.ParseScanned(frame, scan, &e) }},
		{"ParseScanned into a new Event", 1, func() {
			e.Line = nil
			event.ParseScanned(frame, scan, &e)
		}},
		{"Hash", 0, func() { e.Hash() }},
		{"Match", 0, func() { m.Match(&e) }},
		{"Tag", 0, func() { e.Tag("missing") }},
		{"Tags", 0, func() {
			for tag := range e.Tags() {
				_ = tag
			}
		}},
		{"Expiration", 0, func() { event.Expiration(&e) }},
	} {
		if got := testing.AllocsPerRun(100, tt.do); got > tt.most {
			t.Errorf("%s allocates %.1f times, want at most %.0f", tt.name, got, tt.most)
		}
	}
	if strings.HasPrefix(event.VerifierName(), event.FastVerifier) {
		if got := testing.AllocsPerRun(100, func() {
			if err := e.Verify(); err != nil {
				t.Fatal(err)
			}
		}); got > 0 {
			t.Errorf("Verify allocates %.1f times, want 0", got)
		}
	}
}
