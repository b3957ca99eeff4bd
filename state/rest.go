package state

import (
	"encoding/binary"
	"time"
)

// Rest is a row about something that is tried again after a while, which doubles each time. The zero Rest is no row.
type Rest struct {
	Due  time.Time     // not before; in whole seconds
	Wait time.Duration // before Due; in whole seconds, below 2^32 of them
	Mark bool          // what its owner wants to know besides
}

// Longer is the row after one more try: Wait is twice as long, from first up to last. Its Mark is not set.
func (r Rest) Longer(now time.Time, first, last time.Duration) Rest {
	wait := min(max(2*r.Wait, first), last)
	return Rest{Due: now.Add(wait), Wait: wait}
}

// Rests says that it is not Due yet. A time more than twice last ahead was made by a clock that ran ahead.
func (r Rest) Rests(now time.Time, last time.Duration) bool {
	return r.Due.After(now) && r.Due.Before(now.Add(2*last))
}

// Encode is Due in unix seconds (8 bytes, big-endian), Wait in seconds (4) and the Mark (1).
func (r Rest) Encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 13), uint64(r.Due.Unix()))
	b = binary.BigEndian.AppendUint32(b, uint32(r.Wait/time.Second))
	if r.Mark {
		return append(b, 1)
	}
	return append(b, 0)
}

// DecodeRest reads what Encode made; anything else is no row.
func DecodeRest(b []byte) (r Rest) {
	if len(b) != 13 {
		return r
	}
	r.Due = time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
	r.Wait = time.Duration(binary.BigEndian.Uint32(b[8:])) * time.Second
	r.Mark = b[12] == 1
	return r
}
