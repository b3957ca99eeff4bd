package sinks

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"rebroadcastr/state"
)

// What a ledger keeps as rows, read in ranges. Nothing here moves a cursor.

// NextDue is a time before which Due has nothing to give; zero: unknown.
func (l *ledger) NextDue() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nextDue
}

// never is a due time that does not come.
var never = time.UnixMilli(math.MaxInt64)

// Due returns up to limit parked rows that are due at now, the longest due first, without those that taken reports.
func (l *ledger) Due(now time.Time, limit int, taken func(parkedKey) bool) ([]item, error) {
	// Held through the view: rows of a commit must not leave inFlight between our look there and into the file.
	l.mu.Lock()
	defer l.mu.Unlock()
	rows := make(map[parkedKey][]byte)
	next := never
	consider := func(k parkedKey, v []byte) (beyond bool) {
		if due := k.due(); due.After(now) {
			if due.Before(next) {
				next = due
			}
			return true
		}
		if !taken(k) {
			rows[k] = bytes.Clone(v)
		}
		return false
	}
	err := l.db.View(func(tx *state.Tx) error {
		b := tx.Bucket(append(slices.Clone(l.path), parkedBucket)...)
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, v := c.First(); k != nil && len(rows) < limit; k, v = c.Next() {
			key := parkedKey(k)
			if _, changed := l.changes.parked[key]; changed {
				continue
			}
			if _, changed := l.inFlight.parked[key]; changed {
				continue
			}
			if consider(key, v) {
				break
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the parked events of %s: %w", l.path[1], err)
	}
	full := len(rows) >= limit
	for k, v := range l.inFlight.parked {
		if _, changed := l.changes.parked[k]; !changed && v != nil {
			consider(k, v)
		}
	}
	for k, v := range l.changes.parked {
		if v != nil {
			consider(k, v)
		}
	}
	if full {
		next = now
	}
	l.nextDue = next
	items := make([]item, 0, len(rows))
	for k, v := range rows {
		it, err := decodeParked(k[:], v)
		if err != nil {
			return nil, fmt.Errorf("read a parked event of %s: %w", l.path[1], err)
		}
		items = append(items, it)
	}
	slices.SortFunc(items, func(a, b item) int { return bytes.Compare(a.key[:], b.key[:]) })
	return items, nil
}

// Waiting says whether it is open, or parked, as it was when it was given out.
func (l *ledger) Waiting(it item) (waiting bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !it.parked {
		return slices.ContainsFunc(l.open, func(o openMark) bool { return o.Ordinal == it.Ordinal && !o.settled }), nil
	}
	for _, rows := range []rowChanges{l.changes, l.inFlight} { // the newer first
		if v, changed := rows.parked[it.key]; changed {
			return v != nil, nil
		}
	}
	err = l.db.View(func(tx *state.Tx) error {
		b := tx.Bucket(append(slices.Clone(l.path), parkedBucket)...)
		waiting = b != nil && b.Get(it.key[:]) != nil
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("read a parked event of %s: %w", l.path[1], err)
	}
	return waiting, nil
}

// LookAgain forgets NextDue, so that rows taken by a session that has ended are found again.
func (l *ledger) LookAgain() {
	l.mu.Lock()
	l.nextDue = time.Time{}
	l.mu.Unlock()
}

// rowsAtOnce is how many rows are read in one look into the state: a look that lasts holds up who writes to it.
const rowsAtOnce = 500

// rejectedRows calls fn with what the sink refused, in the order of the archive, until fn returns false. Only committed rows.
func (l *ledger) rejectedRows(fn func(Rejected) bool) error {
	for next, more := uint64(0), true; more; {
		var rows []Rejected
		err := l.db.View(func(tx *state.Tx) (err error) {
			rows, next, more, err = rejectedFrom(tx.Bucket(append(slices.Clone(l.path), rejectedBucket)...), next)
			return err
		})
		if err != nil {
			return fmt.Errorf("read what %s refused: %w", l.path[1], err)
		}
		for _, r := range rows {
			if !fn(r) {
				return nil
			}
		}
	}
	return nil
}

// rejectedFrom reads up to rowsAtOnce rows, and where the next ones begin. b may be nil.
func rejectedFrom(b *bbolt.Bucket, from uint64) (rows []Rejected, next uint64, more bool, err error) {
	if b == nil {
		return nil, from, false, nil
	}
	c := b.Cursor()
	k, v := c.Seek(binary.BigEndian.AppendUint64(nil, from))
	for ; k != nil && len(rows) < rowsAtOnce; k, v = c.Next() {
		r, err := decodeRejected(v)
		if err != nil {
			return nil, from, false, err
		}
		rows, next = append(rows, r), r.Ordinal+1
	}
	return rows, next, k != nil, nil
}

// parkedRows calls fn with what is parked, the earliest due first. Only committed rows.
func (l *ledger) parkedRows(fn func(item)) error {
	for next, more := []byte(nil), true; more; {
		var items []item
		err := l.db.View(func(tx *state.Tx) error {
			more = false
			b := tx.Bucket(append(slices.Clone(l.path), parkedBucket)...)
			if b == nil {
				return nil
			}
			c := b.Cursor()
			k, v := c.Seek(next)
			for ; k != nil && len(items) < rowsAtOnce; k, v = c.Next() {
				it, err := decodeParked(k, v)
				if err != nil {
					return err
				}
				items = append(items, it)
			}
			more, next = k != nil, bytes.Clone(k)
			return nil
		})
		if err != nil {
			return fmt.Errorf("read the parked events of %s: %w", l.path[1], err)
		}
		for _, it := range items {
			fn(it)
		}
	}
	return nil
}

func decodeParked(k, v []byte) (item, error) {
	var row parkedRow
	if err := json.Unmarshal(v, &row); err != nil {
		return item{}, err
	}
	return item{row.Place, true, parkedKey(k), row.Attempts, row.Reason}, nil
}

// Reoffer parks again, due at due, what was refused and is taken by match, in a range of rows from the ordinal from on. It
// returns how many by what they were counted under, and where the next range begins.
func (l *ledger) Reoffer(from uint64, due time.Time, match func(Rejected) bool) (taken map[string]uint64, kept, next uint64, more bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reofferLocked(from, due, match)
}

// reofferLocked is Reoffer under the lock that is held through the view, as in Due.
func (l *ledger) reofferLocked(from uint64, due time.Time, match func(Rejected) bool) (taken map[string]uint64, kept, next uint64, more bool, err error) {
	var rows []Rejected
	err = l.db.View(func(tx *state.Tx) (err error) {
		rows, next, more, err = rejectedFrom(tx.Bucket(append(slices.Clone(l.path), rejectedBucket)...), from)
		return err
	})
	if err != nil {
		return nil, 0, from, false, fmt.Errorf("read what %s refused: %w", l.path[1], err)
	}
	taken = make(map[string]uint64)
	for _, r := range rows {
		_, changed := l.changes.rejected[r.Ordinal]
		_, changing := l.inFlight.rejected[r.Ordinal]
		switch {
		case changed || changing: // taken back already
		case match(r):
			taken[r.Prefix]++
			l.restoreLocked(r, due)
		default:
			kept++
		}
	}
	return taken, kept, next, more, nil
}

// MustOffer has OfferAgain offer every refused row whose text begins with text, from the next Commit on also after a crash.
func (l *ledger) MustOffer(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offers = append(slices.DeleteFunc(l.offers, func(o offer) bool { return o.Text == text }), offer{Text: text})
	l.dirty = true
}

// Offering says whether OfferAgain has anything to look at.
func (l *ledger) Offering() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.offers) > 0
}

// OfferAgain looks at the next range of refused rows and parks those again, due at due, that MustOffer has named.
func (l *ledger) OfferAgain(due time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.offers) == 0 {
		return nil
	}
	o := &l.offers[0]
	match := func(r Rejected) bool { return strings.HasPrefix(r.Text, o.Text) }
	_, _, next, more, err := l.reofferLocked(o.Next, due, match)
	if err != nil {
		return err
	}
	if l.dirty = true; more {
		o.Next = next
		return nil
	}
	// What was refused since the last commit.
	for _, c := range []rowChanges{l.inFlight, l.changes} {
		for ordinal, v := range c.rejected {
			if newer, changed := l.changes.rejected[ordinal]; changed {
				v = newer
			}
			if v == nil {
				continue
			}
			r, err := decodeRejected(v)
			if err != nil {
				return err
			}
			if match(r) {
				l.restoreLocked(r, due)
			}
		}
	}
	l.offers = slices.Delete(l.offers, 0, 1)
	return nil
}

// DueNow moves a parked row to due. Nobody may have it in hand.
func (l *ledger) DueNow(it item, due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settleLocked(it)
	l.parkLocked(it.mark, due, it.attempts, it.reason)
}

// trace is what the ledger has of one ordinal.
type trace struct {
	before   bool      // issued before the sink's start
	open     bool      // met, and neither settled nor parked
	unmet    bool      // behind the frontier
	ahead    uint64    // where open or unmet: ordinals that are to be settled before
	parked   *item     // its row
	rejected *Rejected // its row
	held     string    // why it was skipped, where other rules may lift that
	again    bool      // held, and a second pass has still to look at it
	// None of these: settled, by an answer or another reason to skip; no row is kept of that.
}

// Trace looks for an ordinal.
func (l *ledger) Trace(ordinal uint64) (tr trace, err error) {
	// Held through the view, as in Due.
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case ordinal < l.counters.Before:
		return trace{before: true}, nil
	case ordinal >= l.frontier.Ordinal:
		return trace{unmet: true, ahead: ordinal - l.frontier.Ordinal + uint64(len(l.open)-l.settled)}, nil
	}
	for i, o := range l.open {
		if o.Ordinal == ordinal && !o.settled {
			return trace{open: true, ahead: uint64(len(slices.DeleteFunc(slices.Clone(l.open[:i]), func(o openMark) bool { return o.settled })))}, nil
		}
	}
	err = l.db.View(func(tx *state.Tx) error {
		if b := tx.Bucket(append(slices.Clone(l.path), rejectedBucket)...); b != nil {
			if v := b.Get(binary.BigEndian.AppendUint64(nil, ordinal)); v != nil {
				r, err := decodeRejected(v)
				if err != nil {
					return err
				}
				tr.rejected = &r
			}
		}
		if b := tx.Bucket(append(slices.Clone(l.path), parkedBucket)...); b != nil {
			c := b.Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				if parkedKey(k).ordinal() != ordinal {
					continue
				}
				it, err := decodeParked(k, v)
				if err != nil {
					return err
				}
				tr.parked = &it
			}
		}
		return nil
	})
	if err == nil {
		var rows map[string]held
		rows, err = l.heldAtLocked(ordinal / heldSpan)
		for reason, row := range rows {
			if row.set.has(ordinal) {
				tr.held, tr.again = reason, l.pass.Next <= ordinal && ordinal < l.pass.To
			}
		}
	}
	if err != nil {
		return trace{}, fmt.Errorf("look for ordinal %d in the ledger of %s: %w", ordinal, l.path[1], err)
	}
	for _, changes := range []rowChanges{l.inFlight, l.changes} {
		if err := tr.change(changes, ordinal); err != nil {
			return trace{}, fmt.Errorf("look for ordinal %d in the ledger of %s: %w", ordinal, l.path[1], err)
		}
	}
	return tr, nil
}

// Declined reports whether the sink will never have the event at ordinal: it stands before the sink's start, or the relay has
// refused it for good.
func (l *ledger) Declined(ordinal uint64) (declined bool, err error) {
	// Held through the view, as in Due.
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case ordinal < l.counters.Before:
		return true, nil
	case ordinal >= l.frontier.Ordinal || len(l.counters.Rejected) == 0:
		return false, nil
	}
	for _, changes := range []rowChanges{l.changes, l.inFlight} {
		if v, changed := changes.rejected[ordinal]; changed {
			return v != nil, nil
		}
	}
	err = l.db.View(func(tx *state.Tx) error {
		b := tx.Bucket(append(slices.Clone(l.path), rejectedBucket)...)
		declined = b != nil && b.Get(binary.BigEndian.AppendUint64(nil, ordinal)) != nil
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("look for ordinal %d in the ledger of %s: %w", ordinal, l.path[1], err)
	}
	return declined, nil
}

// change applies what is not in the file yet.
func (tr *trace) change(c rowChanges, ordinal uint64) error {
	if v, changed := c.rejected[ordinal]; changed {
		tr.rejected = nil
		if v != nil {
			r, err := decodeRejected(v)
			if err != nil {
				return err
			}
			tr.rejected = &r
		}
	}
	if tr.parked != nil {
		if v, changed := c.parked[tr.parked.key]; changed && v == nil {
			tr.parked = nil
		}
	}
	for k, v := range c.parked {
		if v == nil || k.ordinal() != ordinal {
			continue
		}
		it, err := decodeParked(k[:], v)
		if err != nil {
			return err
		}
		tr.parked = &it
	}
	return nil
}
