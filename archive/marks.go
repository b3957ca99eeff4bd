package archive

import (
	"encoding/binary"
	"fmt"

	"rebroadcastr/place"
	"rebroadcastr/state"
)

// In the state's bucket "archive":
//
//	mark            place (place.Append) | number of the next segment u32 | next ordinal u64 | reserved u64 | held u64, big-endian
//	segments/NUMBER first ordinal u64 | lines u64 | length of the text u64 | held u64; of segments that take no more
//
// Older ones have no held: it is counted then.
const (
	stateBucket    = "archive"
	segmentsBucket = "segments"
)

var markKey = []byte("mark")

type mark struct {
	synced place.Place // everything before is durable and was checked
	number uint32
	next   uint64 // ordinal, at that time
	// reserved is above every ordinal that may have been issued since.
	reserved uint64
	held     uint64 // lines with an event in synced's segment, before synced
	counted  bool   // held is known
}

// reserveAhead is how many ordinals a mark reserves: what some minutes bring at full speed.
const reserveAhead = 1 << 20

func (m mark) encode() []byte {
	b := m.synced.Append(nil)
	b = binary.BigEndian.AppendUint32(b, m.number)
	b = binary.BigEndian.AppendUint64(b, m.next)
	b = binary.BigEndian.AppendUint64(b, m.reserved)
	if m.counted {
		b = binary.BigEndian.AppendUint64(b, m.held)
	}
	return b
}

// loadState returns zero values where there are none. A value that cannot be right is as if it were not there: more
// is checked then.
func (a *Archive) loadState() (m mark, segs map[uint32]segment, err error) {
	segs = map[uint32]segment{}
	if a.o.State == nil {
		return m, segs, nil
	}
	err = a.o.State.View(func(tx *state.Tx) error {
		b := tx.Bucket(stateBucket)
		if b == nil {
			return nil
		}
		if v := b.Get(markKey); len(v) == place.Size+4+8+8 || len(v) == place.Size+4+8+8+8 {
			m.synced, _ = place.Decode(v)
			m.number = binary.BigEndian.Uint32(v[place.Size:])
			m.next = binary.BigEndian.Uint64(v[place.Size+4:])
			m.reserved = binary.BigEndian.Uint64(v[place.Size+4+8:])
			if v = v[place.Size+4+8+8:]; len(v) > 0 {
				m.held, m.counted = binary.BigEndian.Uint64(v), true
			}
		}
		rows := tx.Bucket(stateBucket, segmentsBucket)
		if rows == nil {
			return nil
		}
		return rows.ForEach(func(k, v []byte) error {
			if len(k) == 4 && len(v) == 32 {
				segs[binary.BigEndian.Uint32(k)] = segment{
					first: binary.BigEndian.Uint64(v), known: true,
					lines: binary.BigEndian.Uint64(v[8:]), end: int64(binary.BigEndian.Uint64(v[16:])),
					held: binary.BigEndian.Uint64(v[24:]),
				}
			}
			return nil
		})
	})
	if err != nil {
		err = fmt.Errorf("read the archive's marks: %w", err)
	}
	return m, segs, err
}

// saveMark puts down how far the log is durable, the next number and ordinal, and what is known of segments that are
// complete. Without it the next start only checks more, so an error is no more than a line in the log.
func (a *Archive) saveMark() {
	if a.o.State == nil {
		return
	}
	a.tail.mu.Lock()
	m := mark{synced: a.tail.mark, held: a.tail.markHeld, counted: true, number: a.tail.number}
	a.tail.mu.Unlock()
	segs := a.shelf.unsaved()
	_, m.next = a.shelf.end()
	m.reserved = m.next + reserveAhead
	err := a.o.State.Update(func(tx *state.Tx) error {
		b := tx.Bucket(stateBucket)
		if err := b.Put(markKey, m.encode()); err != nil {
			return err
		}
		rows := tx.Bucket(stateBucket, segmentsBucket)
		for _, s := range segs {
			v := binary.BigEndian.AppendUint64(nil, s.first)
			v = binary.BigEndian.AppendUint64(v, s.lines)
			v = binary.BigEndian.AppendUint64(v, uint64(s.end))
			v = binary.BigEndian.AppendUint64(v, s.held)
			if err := rows.Put(binary.BigEndian.AppendUint32(nil, s.number), v); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		a.warn("the archive's mark cannot be saved; the next start checks more", err)
		return
	}
	a.reserved.Store(m.reserved)
	a.shelf.saved(segs)
}

// reserve sees to it that the ordinals below next are known to be issued when they are: a mark is asked for long
// before the last one's reservation is used up.
func (a *Archive) reserve(next uint64) {
	switch reserved := a.reserved.Load(); {
	case next+reserveAhead/2 <= reserved:
	case next <= reserved:
		signal(a.tail.markDue)
	default:
		a.saveMark()
		a.reserved.CompareAndSwap(reserved, next+maxGroup) // where the state refuses: not for each group again
	}
}
