package sources

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"

	"rebroadcastr/event"
	"rebroadcastr/state"
)

// maxKept gaps of one source are kept in the state.
const maxKept = 1000

// unsureSecond is why a second is a gap of which nobody knows whether it is one.
const unsureSecond = "the relay never gave more events at once than in one second, so there may be more in it"

// Gaps that are kept, below a source's path in the bucket "gaps": seconds that hold more than the relay gives at once. Key: atom,
// second (8 bytes, big-endian), key of the filter. Value: keptGap as JSON. A row goes when its second is proven.
type keptGap struct {
	Filter string `json:"filter"`
	Words  string `json:"words,omitempty"` // of the filter
	Reason string `json:"reason"`
	Found  int64  `json:"found"` // unix seconds
}

func gapKey(a atomKey, at int64, filter []byte) []byte {
	return append(binary.BigEndian.AppendUint64(slices.Clone(a[:]), uint64(at)), filter...)
}

// asksFor says whether a part of a group's filter asks for something of one of its atoms.
func asksFor(f event.Filter, a atom) bool {
	if len(a.filter.Authors) > 0 {
		return slices.Contains(f.Authors, a.filter.Authors[0])
	}
	if tag, values := firstTag(a.filter); tag != "" {
		return slices.Contains(f.Tags[tag], values[0])
	}
	return true
}

// hole is a second of which not everything can be got.
type hole struct {
	at     int64
	filter event.Filter
	most   int  // events that the relay gives of it at once
	unsure bool // perhaps everything came: it is as much as the relay ever gave at once, and nothing shows that it gives more
}

// newGaps are those that were found since it was called last. Of the others one of each sort is kept, which is what the end depends
// on: a relay may have any number of them.
func (w *walk) newGaps() (list []hole) {
	list = slices.Clone(w.gaps[w.told:])
	had := make(map[bool]bool, 2)
	w.gaps = slices.DeleteFunc(w.gaps, func(h hole) bool {
		again := had[h.unsure]
		had[h.unsure] = true
		return again
	})
	w.told = len(w.gaps)
	return list
}

func (h hole) reason() string {
	if h.unsure {
		return unsureSecond
	}
	return fmt.Sprintf("more than %d %s in one second", h.most, map[bool]string{true: "event", false: "events"}[h.most == 1])
}

// keepGaps adds what a walk has found, as far as there is room. more is how many there was none for.
func (s *Source) keepGaps(tx *state.Tx, step saved) (more int, err error) {
	b := tx.Bucket(s.path("gaps")...)
	rows := 0
	if err := b.ForEach(func(_, _ []byte) error { rows++; return nil }); err != nil {
		return 0, err
	}
	found := s.o.Now().Unix()
	for _, h := range step.gaps {
		key := h.filter.Key()
		value, err := json.Marshal(keptGap{clipped(h.filter.String()), Words(h.filter), h.reason(), found})
		if err != nil {
			return 0, fmt.Errorf("encode gap: %w", err)
		}
		for _, a := range step.atoms {
			if !asksFor(h.filter, a) {
				continue
			}
			row := gapKey(a.key, h.at, key[:])
			if b.Get(row) == nil {
				if rows >= maxKept {
					more++
					continue
				}
				rows++
			}
			if err := b.Put(row, value); err != nil {
				return 0, err
			}
			s.mu.Lock()
			s.kept[string(row)] = Gap{clipped(h.filter.String()), Words(h.filter), h.at, h.at, h.reason(), found}
			s.mu.Unlock()
		}
	}
	return more, nil
}

// leftOut counts gaps that are not kept.
func (s *Source) leftOut(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unkept += n
}

// closeGaps removes those of an atom that lie in a window that is proven now.
func (s *Source) closeGaps(tx *state.Tx, a atom, w window) error {
	from, to := gapKey(a.key, w.lo, nil), gapKey(a.key, min(w.hi, math.MaxInt64-1)+1, nil)
	var gone [][]byte
	c := tx.Bucket(s.path("gaps")...).Cursor()
	for k, _ := c.Seek(from); k != nil && bytes.Compare(k, to) < 0; k, _ = c.Next() {
		gone = append(gone, slices.Clone(k))
	}
	b := tx.Bucket(s.path("gaps")...)
	for _, k := range gone {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.kept {
		if k >= string(from) && k < string(to) {
			delete(s.kept, k)
		}
	}
	return nil
}

// loadGaps reads what is kept of a plan.
func (s *Source) loadGaps(tx *state.Tx, p *plan) error {
	kept := make(map[string]Gap)
	if b := tx.Bucket(s.path("gaps")...); b != nil {
		err := b.ForEach(func(k, v []byte) error {
			if g, ok := decodeGap(k, v); ok {
				if _, asked := p.joined[atomKey(k[:16])]; asked {
					kept[string(k)] = g
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept, s.unkept = kept, 0
	return nil
}

// decodeGap reads a row; one that is damaged is found again.
func decodeGap(k, v []byte) (Gap, bool) {
	var g keptGap
	if len(k) < 24 || json.Unmarshal(v, &g) != nil {
		return Gap{}, false
	}
	at := int64(binary.BigEndian.Uint64(k[16:24]))
	return Gap{g.Filter, g.Words, at, at, g.Reason, g.Found}, true
}

// keptLocked are the gaps that are kept, the newest first.
func (s *Source) keptLocked() (list []Gap, more int) {
	list, more = sortedGaps(slices.Collect(maps.Values(s.kept)))
	return list, more + s.unkept
}

// sortedGaps are the newest of list, each once.
func sortedGaps(list []Gap) (_ []Gap, more int) {
	slices.SortFunc(list, func(a, b Gap) int {
		return cmp.Or(cmp.Compare(b.From, a.From), cmp.Compare(a.Filter, b.Filter))
	})
	list = slices.Compact(list)
	if len(list) > maxGaps {
		list, more = list[:maxGaps], len(list)-maxGaps
	}
	return list, more
}

// clipped is a filter's text, cut off where it is long.
func clipped(text string) string {
	const most = 200
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}
