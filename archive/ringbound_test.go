package archive

import (
	"testing"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

// TestRingIsBounded: whatever is written, the ring keeps to its bytes, and holds the newest that fit.
func TestRingIsBounded(t *testing.T) {
	const most = 50_000
	r := ring{most: most}
	newest := place.Place{}
	for n := range uint64(5000) {
		size := 100 + int(n*7919%3000)
		if n%1000 == 999 {
			size = 2 * most // larger than all of it
		}
		newest = place.Make(1, 200_000*n)
		r.add([]record.Record{{Event: event.Event{Line: make([]byte, size)}, Place: newest}})
		held, sum := r.recs[r.head:], int64(0)
		for i := range held {
			sum += tailCost(&held[i])
		}
		if sum != r.bytes || sum > most {
			t.Fatalf("after %d: %d bytes are held, it counts %d, want %d at most", n, sum, r.bytes, most)
		}
		for i := range r.recs[:r.head] {
			if r.recs[i].Event.Line != nil {
				t.Fatalf("after %d: what was let go is still referred to", n)
			}
		}
		if len(r.recs) > 2*len(held)+1 {
			t.Fatalf("after %d: %d slots for %d records", n, len(r.recs), len(held))
		}
		if _, ok := r.at(newest); ok != (size < most) {
			t.Fatalf("after %d: the newest is held: %t", n, ok)
		}
	}
}
