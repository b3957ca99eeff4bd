package sources

import (
	"fmt"
	"slices"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/state"
)

// Ids that a relay lists and does not give, or whose events nobody can take in, come up in each reconciliation. They are
// remembered, each as a state.Rest, and asked for again after a day, then two, four and so on. The mark is set where it came, and our
// door did not take it in: nothing is missing.
const (
	// maxUnfetchable of a relay: 6 MiB in the state. More are asked for each time.
	maxUnfetchable = 100_000
	firstRefetch   = 24 * time.Hour
	lastRefetch    = 32 * 24 * time.Hour
)

// fetchable are those of ids that are to be asked for now; waiting counts those of the others that are missing.
func (s *Source) fetchable(ids []event.ID) (now []event.ID, waiting int, err error) {
	at := s.o.Now()
	err = s.o.State.View(func(tx *state.Tx) error {
		b := tx.Bucket(s.path("unfetchable")...)
		for _, id := range ids {
			if b != nil {
				if row := state.DecodeRest(b.Get(id[:])); row.Rests(at, lastRefetch) {
					if !row.Mark {
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
			row := state.DecodeRest(b.Get(id[:]))
			if row.Wait == 0 {
				if n >= maxUnfetchable {
					continue
				}
				n++
			}
			row = row.Longer(s.o.Now(), firstRefetch, lastRefetch)
			row.Mark = i >= len(not)
			if err := b.Put(id[:], row.Encode()); err != nil {
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
