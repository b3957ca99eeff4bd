package sinks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"rebroadcastr/place"
	"rebroadcastr/policy"
)

// Which ordinals a sink's own rules held back, so that other rules can be asked about just these. The rules that held
// at the time are not kept: an event is judged when it is sent, which can be long after its ordinal was met, so no range
// of ordinals belongs to one set of rules. A bit per ordinal is exact whatever changes, in whatever order.
//
// Ordinals are grouped in spans. A row is one span's ordinals of one reason: what is held back for a whole span takes 17
// bytes, one that alternates 526. A filter that takes every second event costs 1.3 MB in 10 million events.

// heldSpan is how many ordinals a row covers.
const heldSpan = 4096

// lifted are the reasons to skip that other rules may lift.
var lifted = func() map[string]bool {
	m := map[string]bool{SkipFilter: true}
	for _, name := range policy.Names() {
		m[name] = true
	}
	return m
}()

// ordinals is a set of ordinals of one span.
type ordinals [heldSpan / 64]uint64

func (s *ordinals) add(ordinal uint64)      { s[ordinal%heldSpan/64] |= 1 << (ordinal % 64) }
func (s *ordinals) remove(ordinal uint64)   { s[ordinal%heldSpan/64] &^= 1 << (ordinal % 64) }
func (s *ordinals) has(ordinal uint64) bool { return s[ordinal%heldSpan/64]&(1<<(ordinal%64)) != 0 }

func (s *ordinals) count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// last is the highest member, less the span's first ordinal; -1: there is none.
func (s *ordinals) last() int {
	for i, w := range slices.Backward(s[:]) {
		if w != 0 {
			return 64*i + 63 - bits.LeadingZeros64(w)
		}
	}
	return -1
}

// heldKey names a row: span number, big-endian, then the reason.
type heldKey struct {
	span   uint64
	reason string
}

func (k heldKey) bytes() []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(k.reason)), k.span), k.reason...)
}

func decodeHeldKey(b []byte) heldKey {
	return heldKey{binary.BigEndian.Uint64(b), string(b[8:])}
}

// held is a row's value. No ordinal of the row lies before at.
type held struct {
	at  place.Place
	set ordinals
}

// How the set of a row is written: as its words, or as the lengths of runs, absent and present in turn; what is shorter.
const (
	heldWords byte = iota
	heldRuns
)

// encode returns nil for an empty set.
func (h *held) encode() []byte {
	if h.set == (ordinals{}) {
		return nil
	}
	b := append(h.at.Append(nil), heldRuns)
	for n, in := uint64(0), false; n < heldSpan; in = !in {
		from := n
		for n < heldSpan && h.set.has(n) == in {
			n++
		}
		b = binary.AppendUvarint(b, n-from)
	}
	if len(b) <= place.Size+1+heldSpan/8 {
		return b
	}
	b = append(b[:place.Size], heldWords)
	for _, w := range h.set {
		b = binary.BigEndian.AppendUint64(b, w)
	}
	return b
}

var errHeld = errors.New("not as it was written")

func decodeHeld(b []byte) (h held, err error) {
	if h.at, err = place.Decode(b); err != nil || len(b) == place.Size {
		return held{}, fmt.Errorf("read what the rules held back: %w", errHeld)
	}
	how, b := b[place.Size], b[place.Size+1:]
	switch {
	case how == heldWords && len(b) == heldSpan/8:
		for i := range h.set {
			h.set[i] = binary.BigEndian.Uint64(b[8*i:])
		}
		return h, nil
	case how == heldRuns:
		at := uint64(0)
		for in := false; at < heldSpan; in = !in {
			run, n := binary.Uvarint(b)
			if n <= 0 || run > heldSpan-at {
				return held{}, fmt.Errorf("read what the rules held back: %w", errHeld)
			}
			b = b[n:]
			for ; run > 0; run-- {
				if in {
					h.set.add(at)
				}
				at++
			}
		}
		if len(b) == 0 {
			return h, nil
		}
	}
	return held{}, fmt.Errorf("read what the rules held back: %w", errHeld)
}

// heldChange is what a row gains and loses. No ordinal is in both.
type heldChange struct {
	at      place.Place // of the lowest that it ever gained; zero: none
	in, out ordinals
}

func (c *heldChange) hold(m mark) {
	c.in.add(m.Ordinal)
	c.out.remove(m.Ordinal)
	c.at = lowest(c.at, m.Place)
}

func (c *heldChange) release(ordinal uint64) {
	c.out.add(ordinal)
	c.in.remove(ordinal)
}

// apply makes h what it is after c.
func (c *heldChange) apply(h *held) {
	for i := range h.set {
		h.set[i] = h.set[i]&^c.out[i] | c.in[i]
	}
	h.at = lowest(h.at, c.at)
}

// before puts an older change, which was not committed, in front of c.
func (c *heldChange) before(older *heldChange) {
	for i := range c.in {
		c.in[i], c.out[i] = c.in[i]|older.in[i]&^c.out[i], c.out[i]|older.out[i]&^c.in[i]
	}
	c.at = lowest(c.at, older.at)
}

// lowest is the earlier of two places, of which zero is none.
func lowest(a, b place.Place) place.Place {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
