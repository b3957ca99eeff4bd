package archive

import (
	"fmt"

	"rebroadcastr/place"
)

// Resume is the place from which whoever has met every ordinal below ordinal, and every line before p, goes on reading: p, or
// before it where lines there have later ordinals. Those stand behind damage and were renumbered after they had been read, so
// nothing that is known of their old ordinals can be found any more. Who began in the middle of the log may be sent back before that, to
// lines that were not durable when they were damaged.
func (a *Archive) Resume(p place.Place, ordinal uint64) (place.Place, error) {
	s, _, ok, _ := a.shelf.look(p.Segment(), false) // a shelf's look does not fail
	// Only the last segment that has lines can be damaged behind what is durable, so no segment before p's was renumbered.
	if !ok || s.number != p.Segment() || p.Offset() == 0 || s.first+s.lines <= ordinal {
		return p, nil
	}
	h, err := a.pool.get(s)
	if err != nil {
		return p, fmt.Errorf("read origins of %s: %w", s.base(), err)
	}
	defer a.pool.put(h)
	o := originReader{f: h.origin}
	h.guide.lead(&o, int64(p.Offset())-1)
	if _, _, err := o.at(int64(p.Offset()) - 1); err != nil { // no line begins there, so all before p are passed
		return p, fmt.Errorf("read origins of %s: %w", s.base(), err)
	}
	if !o.hasLast || o.last.ordinal < ordinal { // a renumbered line always has its record
		return p, nil
	}
	for o = (originReader{f: h.origin}); ; {
		ok, err := o.readBlock()
		if err != nil {
			return p, fmt.Errorf("read origins of %s: %w", s.base(), err)
		}
		if !ok {
			return p, nil
		}
		for _, rec := range o.block {
			if rec.ordinal >= ordinal {
				return place.Make(s.number, uint64(rec.offset)), nil
			}
		}
	}
}
