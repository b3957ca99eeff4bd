package reconcile

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"sort"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy"

	"rebroadcastr/event"
)

// Item is one event as negentropy sees it.
type Item struct {
	CreatedAt int64
	ID        event.ID
}

// Compare orders items by time, then id.
func (a Item) Compare(b Item) int {
	return cmp.Or(cmp.Compare(a.CreatedAt, b.CreatedAt), bytes.Compare(a.ID[:], b.ID[:]))
}

// maxCreatedAt is the first created_at that no archived event has.
const maxCreatedAt = 1 << 53

// items are a window's, sorted and distinct, as the storage of go-nostr's core. Its own vector takes 88 bytes an item, this one
// 40; its accumulator drops a carry where two words of all ones meet.
type items []Item

// check says what the core would not survive, or would reconcile wrongly.
func (s items) check() error {
	for i := range s {
		if s[i].CreatedAt < 0 || s[i].CreatedAt >= maxCreatedAt {
			return fmt.Errorf("item %s: created_at %d", s[i].ID, s[i].CreatedAt)
		}
		if i > 0 && s[i-1].Compare(s[i]) >= 0 {
			return fmt.Errorf("item %s: out of order", s[i].ID)
		}
	}
	return nil
}

func (s items) Size() int { return len(s) }

func (s items) item(i int) negentropy.Item {
	return negentropy.Item{Timestamp: nostr.Timestamp(s[i].CreatedAt), ID: s[i].ID.String()}
}

func (s items) Range(begin, end int) iter.Seq2[int, negentropy.Item] {
	return func(yield func(int, negentropy.Item) bool) {
		for i := begin; i < end; i++ {
			if !yield(i, s.item(i)) {
				return
			}
		}
	}
}

// FindLowerBound is the index of the first item that is not before b, whose id is a prefix.
func (s items) FindLowerBound(begin, end int, b negentropy.Bound) int {
	var buf [len(event.ID{})]byte
	n, _ := hex.Decode(buf[:], []byte(b.ID[:min(len(b.ID), 2*len(buf))])) // checked, or made by the core
	prefix := buf[:n]
	return begin + sort.Search(end-begin, func(i int) bool {
		it := &s[begin+i]
		if at := int64(b.Timestamp); it.CreatedAt != at {
			return it.CreatedAt > at
		}
		return bytes.Compare(it.ID[:], prefix) >= 0
	})
}

func (s items) GetBound(i int) negentropy.Bound {
	if i >= len(s) {
		return negentropy.InfiniteBound
	}
	return negentropy.Bound{Item: s.item(i)}
}

// Fingerprint is the first half of the hash of the sum of all ids, as little-endian numbers of 256 bits, and their count.
func (s items) Fingerprint(begin, end int) string {
	var sum [4]uint64
	for i := begin; i < end; i++ {
		id, carry := &s[i].ID, uint64(0)
		for k := range sum {
			sum[k], carry = bits.Add64(sum[k], binary.LittleEndian.Uint64(id[8*k:]), carry)
		}
	}
	b := make([]byte, 0, 48)
	for _, word := range sum {
		b = binary.LittleEndian.AppendUint64(b, word)
	}
	hash := sha256.Sum256(append(b, negentropy.EncodeVarInt(end-begin)...))
	return hex.EncodeToString(hash[:negentropy.FingerprintSize])
}

// OpenEnd stands for no upper end: events dated in the future exist.
const OpenEnd = math.MaxInt64
