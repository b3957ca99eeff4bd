// Package place names a place in the archive: where a line of it begins.
//
// A place is opaque and ordered. Only package archive makes one; everything else compares, stores and hands
// back what it was given. A place is never reused and stays valid for ever, also after its segment is sealed.
package place

import (
	"cmp"
	"encoding/binary"
	"fmt"
)

// Size is the length of an encoded place in bytes.
const Size = 12

// Place is (segment number, offset in the segment's uncompressed text). The zero Place is before every other.
type Place struct {
	segment uint32
	offset  uint64
}

// Make builds a place. Only package archive calls it.
func Make(segment uint32, offset uint64) Place { return Place{segment, offset} }

// Segment and Offset take a place apart. Only package archive calls them.
func (p Place) Segment() uint32 { return p.segment }

// Offset is in bytes of uncompressed text.
func (p Place) Offset() uint64 { return p.offset }

// IsZero reports whether p is before the whole archive.
func (p Place) IsZero() bool { return p == Place{} }

// Compare orders places by arrival: -1, 0 or +1.
func (p Place) Compare(q Place) int {
	if c := cmp.Compare(p.segment, q.segment); c != 0 {
		return c
	}
	return cmp.Compare(p.offset, q.offset)
}

// Before reports whether p lies before q.
func (p Place) Before(q Place) bool { return p.Compare(q) < 0 }

// Append encodes p, big-endian so that encoded places sort as places do.
func (p Place) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, p.segment)
	return binary.BigEndian.AppendUint64(dst, p.offset)
}

// Decode reads what Append wrote; b must hold at least Size bytes.
func Decode(b []byte) (Place, error) {
	if len(b) < Size {
		return Place{}, fmt.Errorf("decode a place: %d bytes, want %d", len(b), Size)
	}
	return Place{binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:])}, nil
}

func (p Place) String() string { return fmt.Sprintf("%010d:%d", p.segment, p.offset) }
