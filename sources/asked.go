package sources

import (
	"bytes"
	"encoding/json"
	"fmt"

	"rebroadcastr/state"
)

// What is asked for, below a source's path in the bucket "asked": by atom, whose key is only a hash, what it stands for. It is there
// for who looks at the state and knows no config, such as `status --gaps` after a command that has ended. A row stays when nobody
// asks for its atom any more, as its windows do.
type askedRow struct {
	Filter json.RawMessage `json:"filter"` // without since and until
	Spans  [][2]int64      `json:"spans"`  // of created_at, as history was asked for last; openEnd: no end
}

// askedRows are the rows of a plan. once: a command asks for history whatever a daemon is told.
func (p *plan) askedRows(once bool) (map[atomKey][]byte, error) {
	spans := make(map[atomKey]windows, len(p.joined))
	filters := make(map[atomKey]json.RawMessage, len(p.joined))
	for _, a := range p.atoms {
		if filters[a.key] == nil {
			bare := a.filter
			bare.Since, bare.Until = 0, 0
			filters[a.key] = bare.AppendJSON(nil, -1)
		}
		if !p.history.None || once {
			spans[a.key] = spans[a.key].add(historyWindow(p, a))
		}
	}
	rows := make(map[atomKey][]byte, len(filters))
	for key, f := range filters {
		row := askedRow{Filter: f, Spans: [][2]int64{}}
		for _, w := range spans[key] {
			row.Spans = append(row.Spans, [2]int64{w.lo, w.hi})
		}
		b, err := json.Marshal(row)
		if err != nil {
			return nil, fmt.Errorf("encode what is asked for: %w", err)
		}
		rows[key] = b
	}
	return rows, nil
}

// historyWindow is what history asks for of an atom.
func historyWindow(p *plan, a atom) window { return a.from(p.history.Since) }

// from is the window of what the atom's filter asks for, from since on.
func (a atom) from(since int64) window {
	w := window{max(since, a.filter.Since), openEnd}
	if a.filter.Until != 0 {
		w.hi = a.filter.Until
	}
	return w
}

// noteAsked writes the rows that are not as they should be.
func (s *Source) noteAsked(p *plan) error {
	rows, err := p.askedRows(s.o.Once)
	if err != nil {
		return err
	}
	err = s.o.State.View(func(tx *state.Tx) error {
		if b := tx.Bucket(s.path("asked")...); b != nil {
			for key, row := range rows {
				if bytes.Equal(b.Get(key[:]), row) {
					delete(rows, key)
				}
			}
		}
		return nil
	})
	if err != nil || len(rows) == 0 {
		return err
	}
	return s.o.State.Update(func(tx *state.Tx) error {
		b := tx.Bucket(s.path("asked")...)
		for key, row := range rows {
			if err := b.Put(key[:], row); err != nil {
				return err
			}
		}
		return nil
	})
}
