package reconcile

import (
	"bytes"
	"errors"
	"fmt"

	"rebroadcastr/event"
)

var (
	// ErrVersion: the peer speaks another version of negentropy than 1.
	ErrVersion = errors.New("the relay speaks another version of negentropy")
	// ErrMessage: the peer's message is not one of negentropy's.
	ErrMessage = errors.New("malformed negentropy message")
)

const (
	version = 0x61 // 1
	// maxBound is the first time that a bound cannot have: the core writes eight groups of seven bits at most, of one more.
	maxBound = 1<<56 - 1
)

const (
	modeSkip = iota
	modeFingerprint
	modeIDs
)

// check reports whether b can be given to the core. It walks the ranges: each bound not before the last, each count
// within what follows it.
func check(b []byte) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: empty", ErrMessage)
	}
	if b[0] != version {
		if len(b) == 1 && b[0]&0xf0 == version&0xf0 {
			return fmt.Errorf("%w: %d", ErrVersion, b[0]&0x0f)
		}
		return fmt.Errorf("%w: it begins with %#x", ErrMessage, b[0])
	}
	r := scanner{rest: b[1:]}
	var at uint64
	var prefix []byte
	for last := false; len(r.rest) > 0; {
		before, beforePrefix := at, prefix
		if delta := r.varint(); delta == 0 {
			last = true
		} else if last { // an empty one without an end is what go-nostr writes where the last one fills its frame
			return fmt.Errorf("%w: a range behind the last one", ErrMessage)
		} else if at += delta - 1; at >= maxBound { // neither is above 2^56
			return fmt.Errorf("%w: bound at %d", ErrMessage, at)
		}
		prefix = r.bytes(r.varint(), len(event.ID{}))
		if !last && (at < before || at == before && bytes.Compare(prefix, beforePrefix) < 0) {
			return fmt.Errorf("%w: bounds are not in order", ErrMessage)
		}
		switch mode := r.varint(); mode {
		case modeSkip:
		case modeFingerprint:
			r.bytes(16, 16)
		case modeIDs:
			n := r.varint()
			if n > uint64(len(r.rest)/len(event.ID{})) {
				return fmt.Errorf("%w: %d ids in %d bytes", ErrMessage, n, len(r.rest))
			}
			r.bytes(n*uint64(len(event.ID{})), len(r.rest))
		default:
			return fmt.Errorf("%w: mode %d", ErrMessage, mode)
		}
		if r.bad {
			return fmt.Errorf("%w: cut off, or a number out of range", ErrMessage)
		}
	}
	return nil
}

// scanner takes a message apart. After the first thing that is wrong it gives zeros.
type scanner struct {
	rest []byte
	bad  bool
}

// varint is base 128, most significant group first; of 56 bits at most.
func (r *scanner) varint() (n uint64) {
	for i, c := range r.rest {
		if i == 8 {
			break
		}
		if n = n<<7 | uint64(c&0x7f); c < 0x80 {
			r.rest = r.rest[i+1:]
			return n
		}
	}
	r.bad, r.rest = true, nil
	return 0
}

func (r *scanner) bytes(n uint64, most int) []byte {
	if n > uint64(most) || n > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}
