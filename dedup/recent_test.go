package dedup

import (
	"encoding/binary"
	"testing"

	"rebroadcastr/event"
)

// What is heard again and again stays while others pass through, what is not goes, and there are never more than was asked for.
func TestRecent(t *testing.T) {
	id := func(n int) (id event.ID) {
		binary.LittleEndian.PutUint64(id[16:], uint64(n))
		binary.LittleEndian.PutUint64(id[24:], uint64(n)*0x9e3779b97f4a7c15)
		return id
	}
	const most, often = 1600, 100
	var r recent
	if err := r.init(most); err != nil {
		t.Fatal(err)
	}
	for n := range often {
		r.add(id(n))
	}
	for n := often; n < 10*most; n++ {
		if r.has(id(n)) {
			t.Fatalf("id %d is known before it came", n)
		}
		r.add(id(n))
		if !r.has(id(n)) {
			t.Fatalf("id %d is not known", n)
		}
		for range 4 {
			r.has(id(n % often))
		}
	}
	stayed, gone := 0, 0
	for n := range often {
		if r.has(id(n)) {
			stayed++
		}
	}
	for n := often; n < 8*most; n++ {
		if !r.has(id(n)) {
			gone++
		}
	}
	if stayed < often*9/10 || gone != 8*most-often {
		t.Errorf("%d of %d that are heard often are known, %d of %d old ones are not; want nearly all, and all", stayed, often, gone, 8*most-often)
	}
	if n := r.size(); n > most {
		t.Errorf("%d ids, want at most %d", n, most)
	}
}
