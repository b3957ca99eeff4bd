package sinks

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"rebroadcastr/record"
	"rebroadcastr/state"
)

// ledger is one sink's durable account of the archive: what the sink relay answered, what is open, what waits. It is
// the only type that moves a cursor. Safe for concurrent use; nothing is durable before Commit returned nil.
//
// Next opens ordinals in the order of the log; Ack, Later, Reject and Skip settle them in any order.
type ledger struct {
	db   State
	path []string // of its bucket

	committing sync.Mutex // one commit at a time; taken before mu

	mu        sync.Mutex
	since     int64
	filter    string
	frontier  mark
	open      []openMark // ascending by ordinal; settled ones leave lazily
	settled   int        // settled ones within open
	counters  Counters
	control   *mark // an event that the sink took; nil: none
	dirty     bool
	answers   int           // settled by an answer since the last snapshot: what a crash would send again
	flying    int           // the same, in the commit that is under way
	changes   rowChanges    // rows to change with the next commit
	inFlight  rowChanges    // rows in the commit that is under way
	nextDue   time.Time     // no parked row is due before
	committed mark          // the cursor as it is on disk
	advanced  chan struct{} // closed and replaced when committed moves

	full chan struct{} // 1: commitAfter answers wait for a commit
}

type openMark struct {
	mark
	settled bool
}

// rowChanges are rows to be written, nil for a deletion.
type rowChanges struct {
	parked   map[parkedKey][]byte
	rejected map[uint64][]byte
}

func newRowChanges() rowChanges {
	return rowChanges{make(map[parkedKey][]byte), make(map[uint64][]byte)}
}

// item is one event the ledger waits for: an open ordinal, or a parked row that is due.
type item struct {
	mark
	parked   bool
	key      parkedKey // if parked
	attempts int       // answers so far that asked to wait
	reason   string    // of the last of them
}

var (
	recordKey      = []byte("ledger")
	parkedBucket   = "parked"
	rejectedBucket = "rejected"
)

// sinksBucket holds one bucket per sink, by normalised URL.
const sinksBucket = "sinks"

// openLedger reads the ledger of url, or makes one that begins at start; since is in unix seconds, 0: none. A record that
// cannot be read is replaced by one that begins at the beginning of the archive and the error is returned as lost: that sends
// again what was sent, and skips nothing.
func openLedger(db State, url string, start mark, since int64, filter string) (l *ledger, lost error, err error) {
	l = &ledger{
		db: db, path: []string{sinksBucket, url}, since: since, filter: filter, frontier: start, committed: start, dirty: true,
		changes: newRowChanges(), inFlight: newRowChanges(), advanced: make(chan struct{}), full: make(chan struct{}, 1),
	}
	l.counters = Counters{Before: start.Ordinal, Rejected: map[string]uint64{}, Skipped: map[string]uint64{}}
	var stored []byte
	err = db.View(func(tx *state.Tx) error {
		if b := tx.Bucket(l.path...); b != nil {
			stored = bytes.Clone(b.Get(recordKey))
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the ledger of %s: %w", url, err)
	}
	if stored == nil {
		return l, nil, nil
	}
	r, open, lost := decodeRecord(stored)
	if lost != nil {
		l.frontier, l.committed, l.counters.Before = mark{}, mark{}, 0
		// Rows of the lost record would be counted twice.
		err = db.Update(func(tx *state.Tx) error {
			b := tx.Bucket(l.path...)
			for _, name := range []string{parkedBucket, rejectedBucket} {
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
	l.since, l.filter, l.frontier, l.committed, l.counters, l.control, l.dirty = r.Since, r.Filter, r.Frontier, r.Cursor, r.Counters, r.Control, false
	if l.counters.Rejected == nil {
		l.counters.Rejected = map[string]uint64{}
	}
	if l.counters.Skipped == nil {
		l.counters.Skipped = map[string]uint64{}
	}
	for _, m := range open {
		l.open = append(l.open, openMark{mark: m})
	}
	return l, nil, nil
}

// Next opens the ordinal of rec, which must not lie below the frontier, and moves the frontier behind it. Ordinals
// passed over, because no line holds them, are skipped.
func (l *ledger) Next(rec *record.Record) (item, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if rec.Ordinal < l.frontier.Ordinal {
		return item{}, fmt.Errorf("read ordinal %d at %s: the ledger is already at %d, %s", rec.Ordinal, rec.Place, l.frontier.Ordinal, l.frontier.Place)
	}
	l.skipGapLocked(rec.Ordinal)
	m := mark{rec.Ordinal, rec.Place}
	l.open = append(l.open, openMark{mark: m})
	l.frontier = mark{rec.Ordinal + 1, rec.End}
	l.dirty = true
	return item{mark: m}, nil
}

// Pass moves the frontier to end when nothing readable is left before it.
func (l *ledger) Pass(end mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if end.Ordinal <= l.frontier.Ordinal {
		return
	}
	l.skipGapLocked(end.Ordinal)
	l.frontier = end
	l.dirty = true
}

func (l *ledger) skipGapLocked(to uint64) {
	if gap := to - l.frontier.Ordinal; gap > 0 {
		l.counters.Skipped[SkipWithdrawn] += gap
	}
}

// outcome is an answer that ends in the relay having the event, or a newer one.
type outcome uint8

const (
	delivered outcome = iota
	duplicate
	superseded
)

// Ack settles it: the relay has the event.
func (l *ledger) Ack(it item, o outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settleLocked(it)
	l.answeredLocked()
	l.control = &it.mark
	switch o {
	case delivered:
		l.counters.Delivered++
	case duplicate:
		l.counters.Duplicate++
	case superseded:
		l.counters.Superseded++
	}
}

// Reject settles it for good and keeps a row that says why, which is returned.
func (l *ledger) Reject(it item, r Rejected) Rejected {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settleLocked(it)
	l.answeredLocked()
	r.Ordinal, r.At, r.Prefix = it.Ordinal, it.Place, keyFor(l.counters.Rejected, r.Prefix)
	if len(r.Text) > maxText {
		r.Text = r.Text[:maxText]
	}
	l.counters.Rejected[r.Prefix]++
	l.changes.rejected[it.Ordinal] = r.encode()
	return r
}

// Skip settles it without the relay: it is not sent, for reason.
func (l *ledger) Skip(it item, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settleLocked(it)
	l.counters.Skipped[keyFor(l.counters.Skipped, reason)]++
}

// Later parks it until due; the cursor may pass it. attempts and reason are kept in the row, which is returned.
func (l *ledger) Later(it item, due time.Time, attempts int, reason string) item {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settleLocked(it)
	l.answeredLocked()
	return l.parkLocked(it.mark, due, attempts, reason)
}

func (l *ledger) parkLocked(m mark, due time.Time, attempts int, reason string) item {
	k := makeParkedKey(due, m.Ordinal)
	row, err := json.Marshal(parkedRow{m, attempts, reason})
	if err != nil {
		panic("sinks: encode a parked row: " + err.Error()) // strings and numbers only: cannot fail
	}
	l.changes.parked[k] = row
	l.counters.Parked++
	if reason == parkedForError {
		l.counters.ParkedErrors++
	}
	if due.Before(l.nextDue) {
		l.nextDue = due
	}
	return item{mark: m, parked: true, key: k, attempts: attempts, reason: reason}
}

// Restore parks again what Reject settled, when the refusals turn out to be meant for us and not for the events.
func (l *ledger) Restore(r Rejected, due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = true
	l.counters.Rejected[r.Prefix]--
	if l.counters.Rejected[r.Prefix] == 0 {
		delete(l.counters.Rejected, r.Prefix)
	}
	l.changes.rejected[r.Ordinal] = nil
	l.parkLocked(mark{r.Ordinal, r.At}, due, 0, r.Prefix)
}

func (l *ledger) answeredLocked() {
	if l.answers++; l.answers < commitAfter {
		return
	}
	select {
	case l.full <- struct{}{}:
	default:
	}
}

// settleLocked takes it out of what is waited for. Settling anything twice is a broken invariant.
func (l *ledger) settleLocked(it item) {
	l.dirty = true
	if it.parked {
		l.changes.parked[it.key] = nil
		l.counters.Parked--
		if it.reason == parkedForError {
			l.counters.ParkedErrors--
		}
		return
	}
	i, found := slices.BinarySearchFunc(l.open, it.Ordinal, func(o openMark, ordinal uint64) int {
		switch {
		case o.Ordinal < ordinal:
			return -1
		case o.Ordinal > ordinal:
			return 1
		}
		return 0
	})
	if !found || l.open[i].settled {
		panic(fmt.Sprintf("sinks: ordinal %d of %s settled twice", it.Ordinal, l.path[1]))
	}
	l.open[i].settled = true
	l.settled++
	// Rebuilt when more than half is settled, so that one event that waits cannot make the slice grow with the log.
	if l.settled*2 > len(l.open) {
		l.open = slices.DeleteFunc(l.open, func(o openMark) bool { return o.settled })
		l.settled = 0
	}
}

// cursorLocked is the contiguous settled prefix: its end is the oldest open ordinal, or the frontier.
func (l *ledger) cursorLocked() mark {
	for _, o := range l.open {
		if !o.settled {
			return o.mark
		}
	}
	return l.frontier
}

// Open lists what is open, oldest first.
func (l *ledger) Open() []item {
	l.mu.Lock()
	defer l.mu.Unlock()
	items := make([]item, 0, len(l.open)-l.settled)
	for _, o := range l.open {
		if !o.settled {
			items = append(items, item{mark: o.mark})
		}
	}
	return items
}

// Uncommitted counts the answers that a crash now would ask for again.
func (l *ledger) Uncommitted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answers + l.flying
}

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

// Control is an event that the sink took not long ago.
func (l *ledger) Control() (at mark, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.control == nil {
		return mark{}, false
	}
	return *l.control, true
}

// DropControl forgets the control at m, which cannot be sent any more.
func (l *ledger) DropControl(m mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.control != nil && *l.control == m {
		l.control, l.dirty = nil, true
	}
}

// SetFilter keeps the key of the filter in use; it returns the one before.
func (l *ledger) SetFilter(key string) (before string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before = l.filter
	if before != key {
		l.filter, l.dirty = key, true
	}
	return before
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
	rows := l.changes
	l.inFlight, l.changes = rows, newRowChanges()
	l.flying, l.answers = l.answers, 0
	l.dirty = false
	l.mu.Unlock()

	// May run more than once (Update coalesces callers and repeats): it only puts and deletes.
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
		if len(rows.rejected) > 0 {
			rejected := tx.Bucket(append(slices.Clone(l.path), rejectedBucket)...)
			for ordinal, v := range rows.rejected {
				if err := putOrDelete(rejected, binary.BigEndian.AppendUint64(nil, ordinal), v); err != nil {
					return err
				}
			}
		}
		return nil
	})

	l.mu.Lock()
	defer l.mu.Unlock()
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
		l.answers, l.dirty = l.answers+l.flying, true
	} else if l.committed != cursor {
		l.committed = cursor
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
	r := storedRecord{Version: recordVersion, Since: l.since, Filter: l.filter, Cursor: cursor, Frontier: l.frontier, Counters: l.counters, Control: l.control}
	for _, o := range l.open {
		if !o.settled {
			r.Open = appendMark(r.Open, o.mark)
		}
	}
	value, err := json.Marshal(r)
	if err != nil {
		panic("sinks: encode a ledger: " + err.Error()) // strings and numbers only: cannot fail
	}
	return cursor, value
}

// Committed returns the cursor as it is on disk, and a channel that is closed when it moves.
func (l *ledger) Committed() (mark, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed, l.advanced
}

// Account is a consistent view of the counters and of what is not settled below the frontier.
func (l *ledger) Account() (c Counters, cursor, frontier mark, open int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counters.clone(), l.cursorLocked(), l.frontier, len(l.open) - l.settled
}

// Since is the date before which events are skipped, in unix seconds, 0: none.
func (l *ledger) Since() int64 { return l.since }

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
