package sinks

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

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
		var row parkedRow
		if err := json.Unmarshal(v, &row); err != nil {
			return nil, fmt.Errorf("read a parked event of %s: %w", l.path[1], err)
		}
		items = append(items, item{row.Place, true, k, row.Attempts, row.Reason})
	}
	slices.SortFunc(items, func(a, b item) int { return bytes.Compare(a.key[:], b.key[:]) })
	return items, nil
}

// LookAgain forgets NextDue, so that rows taken by a session that has ended are found again.
func (l *ledger) LookAgain() {
	l.mu.Lock()
	l.nextDue = time.Time{}
	l.mu.Unlock()
}

// rejectedRows calls fn with what the sink refused, oldest first, until fn returns false. Only committed rows.
func (l *ledger) rejectedRows(fn func(Rejected) bool) error {
	return l.db.View(func(tx *state.Tx) error {
		b := tx.Bucket(append(slices.Clone(l.path), rejectedBucket)...)
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			r, err := decodeRejected(v)
			if err != nil {
				return err
			}
			if !fn(r) {
				return nil
			}
		}
		return nil
	})
}
