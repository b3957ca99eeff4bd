package sinks

import (
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/bbolt"

	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/state"
)

// A second pass asks the rules of now about what the rules of then held back, behind the tail. It needs no memory of the
// rules that were: a held ordinal is one that they held back, so a pass over all that are held sends what is wanted now
// and was not sent, and one that was cut short or overtaken by other rules just begins again.

// pass is how far a second pass is, in ordinals: next is the first not looked at, to the first that was never judged by
// other rules. The zero pass is none.
type pass struct {
	Next uint64 `json:"next"`
	To   uint64 `json:"to"`
}

// SetRules keeps the key of the rules in use. When it is another than before, a second pass begins over everything that
// is held now; the caller has the new rules in force already. It returns how many that are.
func (l *ledger) SetRules(key string) (changed bool, heldBack uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.rules == key {
		return false, 0
	}
	l.rules, l.dirty = key, true
	for reason, n := range l.counters.Skipped {
		if lifted[reason] {
			heldBack += n
		}
	}
	l.passes++
	l.pass = pass{}
	// What is open or parked may be in the middle of being judged by the old rules.
	if heldBack > 0 || len(l.open) > l.settled || l.counters.Parked > 0 {
		l.pass = pass{l.counters.Before, l.frontier.Ordinal}
	}
	return true, heldBack
}

// Passing is the second pass under way, and a number that is another after each change of rules.
func (l *ledger) Passing() (p pass, number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pass, l.passes
}

// Passed moves the pass called number to next, or ends it there. A pass of former rules is left alone.
func (l *ledger) Passed(number int, next uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number != l.passes || next <= l.pass.Next {
		return
	}
	l.dirty = true
	if l.pass.Next = next; next >= l.pass.To {
		l.pass = pass{}
	}
}

// heldRange are the held ordinals of one span, by reason. The record of the first one of them is at at, or behind it.
type heldRange struct {
	span uint64
	at   place.Place
	by   map[string]held
	last uint64 // ordinal
}

func (h *heldRange) reason(ordinal uint64) string {
	for reason, row := range h.by {
		if row.set.has(ordinal) {
			return reason
		}
	}
	return ""
}

// Held returns the first span, from the one of ordinal on, with anything held; false: there is none.
func (l *ledger) Held(ordinal uint64) (heldRange, bool, error) {
	// Held through the views, as in Due.
	l.mu.Lock()
	defer l.mu.Unlock()
	for span := ordinal / heldSpan; ; span++ {
		span, ok, err := l.nextSpanLocked(span)
		if err != nil || !ok {
			return heldRange{}, false, err
		}
		rows, err := l.heldAtLocked(span)
		if err != nil {
			return heldRange{}, false, err
		}
		h := heldRange{span: span, by: rows}
		for _, row := range rows {
			h.at, h.last = lowest(h.at, row.at), max(h.last, span*heldSpan+uint64(row.set.last()))
		}
		if len(rows) > 0 {
			return h, true, nil
		}
	}
}

// nextSpanLocked is the first span from from on that has rows, or changes of them.
func (l *ledger) nextSpanLocked(from uint64) (span uint64, ok bool, err error) {
	see := func(s uint64) {
		if s >= from && (!ok || s < span) {
			span, ok = s, true
		}
	}
	for _, changes := range []rowChanges{l.inFlight, l.changes} {
		for k := range changes.held {
			see(k.span)
		}
	}
	err = l.viewHeld(func(b *bbolt.Bucket) error {
		if k, _ := b.Cursor().Seek(heldKey{from, ""}.bytes()); k != nil {
			see(decodeHeldKey(k).span)
		}
		return nil
	})
	return span, ok, err
}

// heldAtLocked are the rows of a span that are not empty, by reason, committed or not.
func (l *ledger) heldAtLocked(span uint64) (rows map[string]held, err error) {
	rows = make(map[string]held)
	err = l.viewHeld(func(b *bbolt.Bucket) error {
		c := b.Cursor()
		for k, v := c.Seek(heldKey{span, ""}.bytes()); k != nil; k, v = c.Next() {
			key := decodeHeldKey(k)
			if key.span != span {
				return nil
			}
			row, err := decodeHeld(v)
			if err != nil {
				return err
			}
			rows[key.reason] = row
		}
		return nil
	})
	for _, changes := range []rowChanges{l.inFlight, l.changes} {
		for k, c := range changes.held {
			if k.span == span {
				row := rows[k.reason]
				c.apply(&row)
				rows[k.reason] = row
			}
		}
	}
	maps.DeleteFunc(rows, func(_ string, row held) bool { return row.set == ordinals{} })
	return rows, err
}

func (l *ledger) viewHeld(fn func(*bbolt.Bucket) error) error {
	err := l.db.View(func(tx *state.Tx) error {
		if b := tx.Bucket(append(slices.Clone(l.path), heldBucket)...); b != nil {
			return fn(b)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what was held back from %s: %w", l.path[1], err)
	}
	return nil
}

// passer walks over what is held, for one attempt.
type passer struct {
	number int // of the pass, see ledger.Passing
	have   bool
	span   heldRange // if have
	reader Reader    // nil: none open
	rec    record.Record
	ahead  bool   // rec was read and not looked at
	at     uint64 // the ordinal read last
}

// passAtOnce is how many records a pass looks at before the tail is asked again.
const passAtOnce = 64

// passOn takes the second pass a bit further; false: there is none.
func (a *attempt) passOn() (found bool, err error) {
	decide := func(rec *record.Record) (decision, error) { return a.s.decide(rec, a.sess) }
	again, more, err := a.pass.on(a.s.ledger, a.s.o.Open, decide)
	if again == nil || err != nil {
		return more, err
	}
	return true, a.act(again.item, again.rec, again.decision)
}

// reopened is an event that a second pass has opened again, for it is not to be skipped as it was.
type reopened struct {
	item
	rec *record.Record // valid until the passer goes on
	decision
}

// on takes the pass that is under way a bit further, to the first event that it opens again; more: there is a pass.
func (w *passer) on(l *ledger, open func(place.Place) (Reader, error), decide func(*record.Record) (decision, error)) (again *reopened, more bool, err error) {
	p, number := l.Passing()
	if p == (pass{}) {
		w.close()
		return nil, false, nil
	}
	if w.number != number {
		w.close()
		*w = passer{number: number}
	}
	for range passAtOnce {
		if !w.have {
			if w.span, w.have, err = l.Held(p.Next); err != nil {
				return nil, true, err
			}
			if !w.have || w.span.span*heldSpan >= p.To {
				w.close()
				p.Next = p.To
				break
			}
		}
		if err := w.read(open); err != nil {
			return nil, true, err
		}
		if !w.ahead || w.rec.Ordinal > w.span.last {
			// What is left of the span stands on no line any more: it was withdrawn, or its segment is gone.
			p.Next, w.have = (w.span.span+1)*heldSpan, false
			continue
		}
		rec, from := &w.rec, p.Next
		w.ahead, p.Next = false, max(p.Next, rec.Ordinal+1)
		if rec.Ordinal < from || rec.Ordinal >= p.To {
			continue
		}
		reason := w.span.reason(rec.Ordinal)
		if reason == "" {
			continue
		}
		v, err := decide(rec)
		if err != nil {
			return nil, true, err
		}
		if v.skip != reason {
			// Open before the pass is moved: who waits for its end waits for this one then.
			again = &reopened{l.Reopen(mark{rec.Ordinal, rec.Place}, reason), rec, v}
			break
		}
	}
	l.Passed(number, p.Next)
	return again, true, nil
}

// read has the next record ready that lies in the span, or behind it.
func (w *passer) read(open func(place.Place) (Reader, error)) error {
	// A gap is read over when it is short, for a reader knows where it is.
	if w.reader != nil && w.span.span*heldSpan > w.at+heldSpan/4 {
		w.close()
	}
	if w.reader == nil {
		r, err := open(w.span.at)
		if err != nil {
			return fmt.Errorf("read the archive from %s: %w", w.span.at, err)
		}
		w.reader, w.ahead = r, false
	}
	for !w.ahead || w.rec.Ordinal < w.span.span*heldSpan {
		rec, ok, err := w.reader.TryNext()
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if w.ahead = ok; !ok {
			w.close() // at the log's end, where more may come
			return nil
		}
		w.rec, w.at = rec, rec.Ordinal
	}
	return nil
}

func (w *passer) close() {
	if w.reader != nil {
		w.reader.Close()
	}
	w.reader, w.ahead = nil, false
}
