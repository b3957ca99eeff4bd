package dedup

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"

	"rebroadcastr/event"
)

// filter is a Bloom filter over the ids in Badger, in memory: it answers for nearly all unknown ids, which Badger has to look for
// in two skip lists and the filter of a table per level. Past its capacity a layer gets another one beside it, twice as large,
// up to maxFilter; from there on it says "perhaps" more often. has is safe from any goroutine, beside one add at a time.
type filter struct {
	layers atomic.Pointer[[]*filterLayer]
	mu     sync.Mutex // add's
}

// A filterLayer is made of blocks of one cache line. An id has one bit in each word of one block. At filterBits for each id a block
// says "perhaps" of one unknown id in 300.
type filterLayer struct {
	words []uint64
	ids   uint64 // add's; filter.mu
}

const (
	blockWords = 8
	filterBits = 12
	// minFilter ids are what the first layer holds: 192 KiB.
	minFilter = 128 << 10
	// maxFilter bytes, for all layers: 16 million ids. At 32 million one unknown id in 12 is looked for in Badger.
	maxFilter = 24 << 20
)

// newFilter makes an empty one for some ids.
func newFilter(ids uint64) *filter {
	f := new(filter)
	f.layers.Store(&[]*filterLayer{newLayer(ids, maxFilter)})
	return f
}

// newLayer makes room for ids, in at most limit bytes.
func newLayer(ids uint64, limit int) *filterLayer {
	n := min(max(ids, minFilter)*filterBits/8, uint64(limit)) / (8 * blockWords)
	return &filterLayer{words: make([]uint64, n*blockWords)}
}

func (l *filterLayer) bytes() int { return 8 * len(l.words) }

// full reports whether l has as many ids as it is made for.
func (l *filterLayer) full() bool { return l.ids*filterBits >= uint64(64*len(l.words)) }

// block is where the bits of id are, and which. An id is a hash, but people choose its first bytes (NIP-13), and the last ones choose the shard.
func (l *filterLayer) block(id *event.ID) (words []uint64, which uint64) {
	n, _ := bits.Mul64(binary.LittleEndian.Uint64(id[8:]), uint64(len(l.words)/blockWords))
	return l.words[n*blockWords:][:blockWords], binary.LittleEndian.Uint64(id[16:])
}

func (l *filterLayer) has(id *event.ID) bool {
	words, which := l.block(id)
	for i := range words {
		if atomic.LoadUint64(&words[i])>>(which&63)&1 == 0 {
			return false
		}
		which >>= 6
	}
	return true
}

func (l *filterLayer) add(id *event.ID) {
	words, which := l.block(id)
	for i := range words {
		if bit := uint64(1) << (which & 63); atomic.LoadUint64(&words[i])&bit == 0 {
			atomic.OrUint64(&words[i], bit)
		}
		which >>= 6
	}
	l.ids++
}

// has is false for an id that was never added.
func (f *filter) has(id *event.ID) bool {
	for _, l := range *f.layers.Load() {
		if l.has(id) {
			return true
		}
	}
	return false
}

// add adds the ids of a batch.
func (f *filter) add(batch []entry) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range batch {
		f.roomLocked().add(&batch[i].id)
	}
}

// roomLocked is the layer that takes the next id.
func (f *filter) roomLocked() *filterLayer {
	layers := *f.layers.Load()
	last := layers[len(layers)-1]
	if !last.full() {
		return last
	}
	left := maxFilter
	for _, l := range layers {
		left -= l.bytes()
	}
	if left < minFilter*filterBits/8 {
		return last
	}
	more := append(layers[:len(layers):len(layers)], newLayer(2*last.ids, left))
	f.layers.Store(&more)
	return more[len(more)-1]
}
