package dedup

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"rebroadcastr/event"
)

// stripes of the LRU: enough that the readers of a few relays, one for each core at a time, seldom meet in one.
const stripes = 16

// touchEvery so many looks the id, if it is there, is moved to the front: that takes some 380 ns of cache misses, the look alone
// 190 (perf, 50,000 ids), and an id that is heard often is moved often enough.
const touchEvery = 16

// recent are the ids that were known last. They are in stripes because readers of several relays look at once.
type recent struct{ stripes [stripes]stripe }

type stripe struct {
	mu    sync.Mutex
	looks uint
	lru   *simplelru.LRU[event.ID, struct{}]
	_     [64]byte // each its own cache lines
}

func (r *recent) init(size int) error {
	for i := range r.stripes {
		lru, err := simplelru.NewLRU[event.ID, struct{}]((size+stripes-1)/stripes, nil)
		if err != nil {
			return fmt.Errorf("make the LRU of %d ids: %w", size, err)
		}
		r.stripes[i].lru = lru
	}
	return nil
}

// of finds an id's stripe. It takes the id's last bytes: its first are zeros under NIP-13.
func (r *recent) of(id event.ID) *stripe {
	return &r.stripes[binary.LittleEndian.Uint64(id[24:])%stripes]
}

func (r *recent) has(id event.ID) bool {
	s := r.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looks++; s.looks%touchEvery == 0 {
		_, ok := s.lru.Get(id)
		return ok
	}
	return s.lru.Contains(id)
}

func (r *recent) add(id event.ID) {
	s := r.of(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Add(id, struct{}{})
}

// size is how many ids there are.
func (r *recent) size() (n int) {
	for i := range r.stripes {
		s := &r.stripes[i]
		s.mu.Lock()
		n += s.lru.Len()
		s.mu.Unlock()
	}
	return n
}
