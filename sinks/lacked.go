package sinks

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"
	"time"

	"go.etcd.io/bbolt"

	"rebroadcastr/state"
)

// What a ledger does about events that the relay lacks, though it has answered that it has them. No row is kept of what was
// delivered: an ordinal below the frontier that is neither open nor parked, refused or held back was, if the rules of now would
// send it. Reopened, it leaves the counters of what was delivered, so that the balance holds.

const (
	// firstLack is how long an event that was offered again because the relay lacked it is not offered so again, though the relay
	// lacks it still: it said that it has it, or deletes what it takes. The time doubles up to lastLack.
	firstLack = 24 * time.Hour
	lastLack  = 32 * 24 * time.Hour
	// maxLacked rows of such events are kept: 3 MiB in the state. What would be one more is not offered.
	maxLacked = 100_000
)

// LackCount is what became of the events that were offered because the relay lacked them, since the last comparison that found
// any.
type LackCount struct {
	Offered uint64 `json:"offered"`
	Taken   uint64 `json:"taken"`   // as new
	Had     uint64 `json:"had"`     // the relay says that it has them, or newer versions
	Refused uint64 `json:"refused"` // for good
	Rows    uint64 `json:"rows"`    // kept of events that were, ever
}

// lackedRow remembers an event that was offered because the relay lacked it. Its mark: the relay took it as new, that time.
type lackedRow struct{ state.Rest }

func decodeLacked(b []byte) lackedRow { return lackedRow{state.DecodeRest(b)} }

// rests says that the event is not to be offered yet. insist: an operator wants what was taken and is gone to be offered.
func (r lackedRow) rests(now time.Time, insist bool) bool {
	return r.Rests(now, lastLack) && !(insist && r.Mark)
}

// lacking is what a ledger says of events that the relay lacks.
type lacking struct {
	marks []mark // delivered once, and to be offered again
	rest  []mark // delivered once, and offered again not long ago
}

// Lacking says which of the events, in ascending order, the relay had by its own word. It looks only, at one span after the other:
// answers need not wait for all.
func (l *ledger) Lacking(events []mark, now time.Time, insist bool) (all lacking, err error) {
	for len(events) > 0 {
		span := events[0].Ordinal / heldSpan
		n := sort.Search(len(events), func(i int) bool { return events[i].Ordinal/heldSpan > span })
		l.mu.Lock()
		part, _, err := l.lackingLocked(events[:n], now, insist)
		l.mu.Unlock()
		if err != nil {
			return all, err
		}
		all.marks, all.rest = append(all.marks, part.marks...), append(all.rest, part.rest...)
		events = events[n:]
	}
	return all, nil
}

// OfferLacked parks those of the events, in ascending order, that the relay had by its own word, due now. It returns how many.
func (l *ledger) OfferLacked(events []mark, now time.Time, insist bool) (offered int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out, rows, err := l.lackingLocked(events, now, insist)
	if err != nil {
		return 0, err
	}
	for _, m := range out.marks {
		row := rows[m.Ordinal]
		if row.Wait == 0 {
			if l.lack.Rows >= maxLacked {
				continue
			}
			l.lack.Rows++
		}
		if !l.undeliverLocked() {
			break
		}
		l.changes.lacked[m.Ordinal] = row.Longer(now, firstLack, lastLack).Encode()
		l.parkLocked(m, now, 0, parkedForLack)
		l.lack.Offered++
		l.dirty = true
		offered++
	}
	return offered, nil
}

// NewLack begins the count of what becomes of lacked events anew.
func (l *ledger) NewLack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lack, l.dirty = LackCount{Rows: l.lack.Rows}, true
}

// Lack is that count, how many lacked events are still parked, and what was taken back.
func (l *ledger) Lack() (c LackCount, parked uint64, back TakenBack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lack, l.counters.ParkedLacked, l.takenBack
}

// TakenBack counts, since the ledger was opened, what left these counters because the relay lacks it.
type TakenBack struct{ Delivered, Duplicate, Superseded uint64 }

// undeliverLocked takes one event out of what was delivered; false: nothing was. Which of the counters it was counted by is not
// known, only that it was by one.
func (l *ledger) undeliverLocked() bool {
	b := &l.takenBack
	for _, c := range []struct{ n, back *uint64 }{
		{&l.counters.Delivered, &b.Delivered}, {&l.counters.Duplicate, &b.Duplicate}, {&l.counters.Superseded, &b.Superseded},
	} {
		if *c.n > 0 {
			*c.n--
			*c.back++
			return true
		}
	}
	return false
}

// lackingLocked is Lacking, with the rows of what was offered before.
func (l *ledger) lackingLocked(events []mark, now time.Time, insist bool) (out lacking, rows map[uint64]lackedRow, err error) {
	rows = make(map[uint64]lackedRow)
	var known ordinals
	var span uint64
	have := false
	for _, m := range events {
		if m.Ordinal < l.counters.Before || m.Ordinal >= l.frontier.Ordinal {
			continue
		}
		if !have || m.Ordinal/heldSpan != span {
			span, have = m.Ordinal/heldSpan, true
			if known, err = l.knownLocked(span); err != nil {
				return out, nil, err
			}
		}
		if known.has(m.Ordinal) {
			continue
		}
		row, err := l.lackedRowLocked(m.Ordinal)
		if err != nil {
			return out, nil, err
		}
		rows[m.Ordinal] = row
		if row.rests(now, insist) {
			out.rest = append(out.rest, m)
		} else {
			out.marks = append(out.marks, m)
		}
	}
	return out, rows, nil
}

// knownLocked are the ordinals of a span that are open, or of which a row tells that they are parked, refused or held back.
func (l *ledger) knownLocked(span uint64) (known ordinals, err error) {
	lo, hi := span*heldSpan, (span+1)*heldSpan
	add := func(ordinal uint64) {
		if lo <= ordinal && ordinal < hi {
			known.add(ordinal)
		}
	}
	err = l.db.View(func(tx *state.Tx) error {
		if b := tx.Bucket(append(slices.Clone(l.path), parkedBucket)...); b != nil {
			c := b.Cursor()
			for k, _ := c.First(); k != nil; k, _ = c.Next() {
				key := parkedKey(k)
				if !l.changedLocked(key) {
					add(key.ordinal())
				}
			}
		}
		if b := tx.Bucket(append(slices.Clone(l.path), rejectedBucket)...); b != nil {
			c := b.Cursor()
			for k, _ := c.Seek(binary.BigEndian.AppendUint64(nil, lo)); k != nil; k, _ = c.Next() {
				ordinal := binary.BigEndian.Uint64(k)
				if ordinal >= hi {
					break
				}
				add(ordinal)
			}
		}
		return nil
	})
	if err != nil {
		return known, fmt.Errorf("read the rows of %s: %w", l.path[1], err)
	}
	for _, changes := range []rowChanges{l.inFlight, l.changes} {
		for ordinal, v := range changes.rejected {
			switch {
			case ordinal < lo || ordinal >= hi:
			case v != nil:
				known.add(ordinal)
			default:
				known.remove(ordinal) // parked, then
			}
		}
	}
	for k, v := range l.inFlight.parked {
		if _, newer := l.changes.parked[k]; !newer && v != nil {
			add(k.ordinal())
		}
	}
	for k, v := range l.changes.parked {
		if v != nil {
			add(k.ordinal())
		}
	}
	for _, o := range l.open {
		if !o.settled {
			add(o.Ordinal)
		}
	}
	rows, err := l.heldAtLocked(span)
	for _, row := range rows {
		for i := range known {
			known[i] |= row.set[i]
		}
	}
	return known, err
}

// changedLocked says that a parked row is another on disk than here.
func (l *ledger) changedLocked(k parkedKey) bool {
	if _, changed := l.changes.parked[k]; changed {
		return true
	}
	_, changed := l.inFlight.parked[k]
	return changed
}

func (l *ledger) lackedRowLocked(ordinal uint64) (row lackedRow, err error) {
	for _, changes := range []rowChanges{l.changes, l.inFlight} { // the newer first
		if v, changed := changes.lacked[ordinal]; changed {
			return decodeLacked(v), nil
		}
	}
	err = l.viewLacked(func(b *bbolt.Bucket) error {
		row = decodeLacked(b.Get(binary.BigEndian.AppendUint64(nil, ordinal)))
		return nil
	})
	return row, err
}

func (l *ledger) viewLacked(fn func(*bbolt.Bucket) error) error {
	err := l.db.View(func(tx *state.Tx) error {
		if b := tx.Bucket(append(slices.Clone(l.path), lackedBucket)...); b != nil {
			return fn(b)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what %s lacked: %w", l.path[1], err)
	}
	return nil
}

// ackLackedLocked counts what became of a lacked event that the relay has taken, or has.
func (l *ledger) ackLackedLocked(ordinal uint64, o outcome) {
	if o != delivered {
		l.lack.Had++
		return
	}
	l.lack.Taken++
	// A row that cannot be read rests as if it had not been taken.
	if row, err := l.lackedRowLocked(ordinal); err == nil && row.Wait > 0 {
		row.Mark = true
		l.changes.lacked[ordinal] = row.Encode()
	}
}

// KeepLacked forgets which events were offered because the relay lacked them, but for those that it lacks still: lacks says
// which. It works in ranges, each committed.
func (l *ledger) KeepLacked(lacks func(ordinal uint64) bool) error {
	for next, more := uint64(0), true; more; {
		var gone []uint64
		more = false
		n := 0
		err := l.viewLacked(func(b *bbolt.Bucket) error {
			c := b.Cursor()
			for k, _ := c.Seek(binary.BigEndian.AppendUint64(nil, next)); k != nil; k, _ = c.Next() {
				if n++; n > rowsAtOnce {
					more = true
					return nil
				}
				ordinal := binary.BigEndian.Uint64(k)
				next = ordinal + 1
				if !lacks(ordinal) {
					gone = append(gone, ordinal)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		l.mu.Lock()
		for _, ordinal := range gone {
			row, err := l.lackedRowLocked(ordinal)
			if err != nil || row.Wait == 0 {
				continue
			}
			l.changes.lacked[ordinal], l.dirty = nil, true
			l.lack.Rows -= min(l.lack.Rows, 1)
		}
		l.mu.Unlock()
		if err := l.Commit(); err != nil {
			return err
		}
	}
	return nil
}
