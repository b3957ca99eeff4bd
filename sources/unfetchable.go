package sources

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/state"
)

// Ids that a relay lists and does not give, or whose events nobody can take in, come up in each reconciliation. They are
// remembered, and asked for again after a day, then two, four and so on.
const (
	// maxUnfetchable of a relay: 6 MiB in the state. More are asked for each time.
	maxUnfetchable = 100_000
	firstRefetch   = 24 * time.Hour
	lastRefetch    = 32 * 24 * time.Hour
)

// unfetchable is a row of them.
type unfetchable struct {
	due     time.Time
	wait    time.Duration // before due; 0: there is no row
	refused bool          // it came, and our door did not take it in: nothing is missing
}

// fetchable are those of ids that are to be asked for now; waiting counts those of the others that are missing.
func (s *Source) fetchable(ids []event.ID) (now []event.ID, waiting int, err error) {
	at := s.o.Now()
	err = s.o.State.View(func(tx *state.Tx) error {
		b := tx.Bucket(s.path("unfetchable")...)
		for _, id := range ids {
			if b != nil {
				if u := decodeUnfetchable(b.Get(id[:])); u.due.After(at) && u.due.Before(at.Add(2*lastRefetch)) {
					if !u.refused {
						waiting++
					}
					continue
				}
			}
			now = append(now, id)
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("look up what %s does not give: %w", s.o.URL, err)
	}
	return now, waiting, nil
}

// noteUnfetchable remembers ids that did not come, and those that came and were refused, and forgets those that were archived.
func (s *Source) noteUnfetchable(not, refused, got []event.ID) error {
	if len(not)+len(refused)+len(got) == 0 {
		return nil
	}
	err := s.o.State.Update(func(tx *state.Tx) error {
		b := tx.Bucket(s.path("unfetchable")...)
		n := b.Sequence() // of ids in it
		for _, id := range got {
			if b.Get(id[:]) != nil {
				if err := b.Delete(id[:]); err != nil {
					return err
				}
				n--
			}
		}
		for i, id := range slices.Concat(not, refused) {
			u := decodeUnfetchable(b.Get(id[:]))
			if u.wait == 0 {
				if n >= maxUnfetchable {
					continue
				}
				n++
			}
			u.wait, u.refused = min(max(2*u.wait, firstRefetch), lastRefetch), i >= len(not)
			u.due = s.o.Now().Add(u.wait)
			if err := b.Put(id[:], u.encode()); err != nil {
				return err
			}
		}
		return b.SetSequence(n)
	})
	if err != nil {
		return fmt.Errorf("save what %s does not give: %w", s.o.URL, err)
	}
	return nil
}

// encode is the due time in unix seconds (8 bytes), the wait in seconds (4) and 1 if it was refused (1).
func (u unfetchable) encode() []byte {
	row := binary.BigEndian.AppendUint64(make([]byte, 0, 13), uint64(u.due.Unix()))
	row = binary.BigEndian.AppendUint32(row, uint32(u.wait/time.Second))
	if u.refused {
		return append(row, 1)
	}
	return append(row, 0)
}

func decodeUnfetchable(row []byte) (u unfetchable) {
	if len(row) != 13 {
		return u
	}
	u.due = time.Unix(int64(binary.BigEndian.Uint64(row)), 0)
	u.wait = time.Duration(binary.BigEndian.Uint32(row[8:])) * time.Second
	u.refused = row[12] == 1
	return u
}
