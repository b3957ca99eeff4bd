package sinks

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"rebroadcastr/state"
)

// How a ledger comes from the state file and gets back there. Nothing here moves a cursor.

var (
	recordKey      = []byte("ledger")
	parkedBucket   = "parked"
	rejectedBucket = "rejected"
	heldBucket     = "held"
	lackedBucket   = "lacked"
)

// sinksBucket holds one bucket per sink, by normalised URL.
const sinksBucket = "sinks"

// openLedger reads the ledger of url, or makes one that begins at start; since is in unix seconds, 0: none. A record that
// cannot be read is replaced by one that begins at the beginning of the archive and the error is returned as lost: that sends
// again what was sent, and skips nothing.
func openLedger(db State, url string, start mark, since int64, rules string) (l *ledger, lost error, err error) {
	l = &ledger{
		db: db, path: []string{sinksBucket, url}, since: since, rules: rules, frontier: start, committed: start, dirty: true,
		changes: newRowChanges(), inFlight: newRowChanges(), advanced: make(chan struct{}), full: make(chan struct{}, 1),
	}
	l.counters = Counters{Before: start.Ordinal, Rejected: map[string]uint64{}, Skipped: map[string]uint64{}}
	var stored []byte
	err = db.View(func(tx *state.Tx) error {
		b := tx.Bucket(l.path...)
		if b == nil {
			return nil
		}
		stored = bytes.Clone(b.Get(recordKey))
		if b = b.Bucket([]byte(heldBucket)); b != nil {
			return b.ForEach(func(_, v []byte) error {
				if _, err := decodeHeld(v); err != nil {
					lost = err
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the ledger of %s: %w", url, err)
	}
	if stored == nil {
		return l, nil, nil
	}
	r, open, bad := decodeRecord(stored)
	if lost = cmp.Or(bad, lost); lost != nil {
		l.frontier, l.committed, l.counters.Before = mark{}, mark{}, 0
		// Rows of the lost record would be counted twice.
		err = db.Update(func(tx *state.Tx) error {
			b := tx.Bucket(l.path...)
			for _, name := range []string{parkedBucket, rejectedBucket, heldBucket, lackedBucket} {
				if b.Bucket([]byte(name)) == nil {
					continue
				}
				if err := b.DeleteBucket([]byte(name)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("start the ledger of %s anew: %w", url, err)
		}
		return l, lost, nil
	}
	l.since, l.rules, l.frontier, l.committed, l.counters, l.control, l.dirty = r.Since, r.Rules, r.Frontier, r.Cursor, r.Counters, r.Control, false
	l.offers, l.lack = r.Offers, r.Lack
	if l.pass, l.again = r.Pass, r.Again; l.passingLocked() {
		l.passes++
	}
	if l.counters.Rejected == nil {
		l.counters.Rejected = map[string]uint64{}
	}
	if l.counters.Skipped == nil {
		l.counters.Skipped = map[string]uint64{}
	}
	for _, m := range open {
		l.open = append(l.open, openMark{mark: m, lacked: slices.Contains(r.Lacked, m.Ordinal)})
	}
	return l, nil, nil
}

// rowChanges are rows to be written, nil for a deletion, and bits of rows to be changed.
type rowChanges struct {
	parked   map[parkedKey][]byte
	rejected map[uint64][]byte
	lacked   map[uint64][]byte
	held     map[heldKey]*heldChange // at most one for each reason in heldSpan ordinals, however long no commit succeeds
}

func newRowChanges() rowChanges {
	return rowChanges{make(map[parkedKey][]byte), make(map[uint64][]byte), make(map[uint64][]byte), make(map[heldKey]*heldChange)}
}

// heldChange is the change of the row that ordinal and reason belong to.
func (r rowChanges) heldChange(ordinal uint64, reason string) *heldChange {
	k := heldKey{ordinal / heldSpan, reason}
	c := r.held[k]
	if c == nil {
		c = &heldChange{}
		r.held[k] = c
	}
	return c
}

// putHeld changes the rows of b. What the file holds is read anew each time, so it may run more than once.
func (r rowChanges) putHeld(b *bbolt.Bucket) error {
	for k, c := range r.held {
		var h held
		if v := b.Get(k.bytes()); v != nil {
			var err error
			if h, err = decodeHeld(v); err != nil {
				return err
			}
		}
		c.apply(&h)
		if err := putOrDelete(b, k.bytes(), h.encode()); err != nil {
			return err
		}
	}
	return nil
}

// Commit writes everything that changed since the last one, in one transaction. After an error nothing is forgotten: the
// next Commit writes it too.
func (l *ledger) Commit() error {
	l.committing.Lock()
	defer l.committing.Unlock()

	l.mu.Lock()
	if !l.dirty {
		l.mu.Unlock()
		return nil
	}
	cursor, value := l.encodeLocked()
	passed := l.passed
	if !l.passingLocked() {
		passed = l.passes
	}
	rows := l.changes
	l.inFlight, l.changes = rows, newRowChanges()
	l.flying, l.answers = l.answers, 0
	l.dirty = false
	l.mu.Unlock()

	// May run more than once (Update coalesces callers and repeats): what it changes, it reads from tx.
	err := l.db.Update(func(tx *state.Tx) error {
		b := tx.Bucket(l.path...)
		if err := b.Put(recordKey, value); err != nil {
			return err
		}
		if len(rows.parked) > 0 {
			parked := tx.Bucket(append(slices.Clone(l.path), parkedBucket)...)
			for k, v := range rows.parked {
				if err := putOrDelete(parked, k[:], v); err != nil {
					return err
				}
			}
		}
		for name, byOrdinal := range map[string]map[uint64][]byte{rejectedBucket: rows.rejected, lackedBucket: rows.lacked} {
			if len(byOrdinal) == 0 {
				continue
			}
			bucket := tx.Bucket(append(slices.Clone(l.path), name)...)
			for ordinal, v := range byOrdinal {
				if err := putOrDelete(bucket, binary.BigEndian.AppendUint64(nil, ordinal), v); err != nil {
					return err
				}
			}
		}
		if len(rows.held) > 0 {
			return rows.putHeld(tx.Bucket(append(slices.Clone(l.path), heldBucket)...))
		}
		return nil
	})

	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = err != nil
	if err != nil {
		// What changed meanwhile is newer and stays.
		for k, v := range rows.parked {
			if _, newer := l.changes.parked[k]; !newer {
				l.changes.parked[k] = v
			}
		}
		for k, v := range rows.rejected {
			if _, newer := l.changes.rejected[k]; !newer {
				l.changes.rejected[k] = v
			}
		}
		for k, v := range rows.lacked {
			if _, newer := l.changes.lacked[k]; !newer {
				l.changes.lacked[k] = v
			}
		}
		for k, c := range rows.held {
			if newer := l.changes.held[k]; newer != nil {
				newer.before(c)
			} else {
				l.changes.held[k] = c
			}
		}
		l.answers, l.dirty = l.answers+l.flying, true
	} else if l.committed != cursor || l.passed != passed {
		l.committed, l.passed = cursor, passed
		close(l.advanced)
		l.advanced = make(chan struct{})
	}
	l.flying, l.inFlight = 0, newRowChanges()
	if err != nil {
		return fmt.Errorf("commit the ledger of %s: %w", l.path[1], err)
	}
	return nil
}

func (l *ledger) encodeLocked() (cursor mark, value []byte) {
	cursor = l.cursorLocked()
	r := storedRecord{Version: recordVersion, Since: l.since, Rules: l.rules, Pass: l.pass, Cursor: cursor, Frontier: l.frontier, Counters: l.counters, Control: l.control, Offers: l.offers, Again: l.again, Lack: l.lack}
	for _, o := range l.open {
		if !o.settled {
			r.Open = appendMark(r.Open, o.mark)
			if o.lacked {
				r.Lacked = append(r.Lacked, o.Ordinal)
			}
		}
	}
	value, err := json.Marshal(r)
	if err != nil {
		panic("sinks: encode a ledger: " + err.Error()) // strings and numbers only: cannot fail
	}
	return cursor, value
}
