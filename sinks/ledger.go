package sinks

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"rebroadcastr/place"
	"rebroadcastr/record"
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
	rules     string // key of what the sink wants and may have
	pass      pass
	again     again
	lack      LackCount
	takenBack TakenBack
	passes    int // passes begun since it was opened, of either kind
	frontier  mark
	open      []openMark // ascending by ordinal; settled ones leave lazily
	settled   int        // settled ones within open
	counters  Counters
	texts     map[string]string // by prefix: what the relay has said last, in this process, when it refused
	control   *mark             // an event that the sink took; nil: none
	offers    []offer
	dirty     bool
	answers   int           // settled by an answer since the last snapshot: what a crash would send again
	flying    int           // the same, in the commit that is under way
	failed    bool          // the last commit
	changes   rowChanges    // rows to change with the next commit
	inFlight  rowChanges    // rows in the commit that is under way
	nextDue   time.Time     // no parked row is due before
	committed mark          // the cursor as it is on disk
	passed    int           // the number of the last pass that has ended on disk
	advanced  chan struct{} // closed and replaced when committed or passed moves

	resumed bool // the frontier stands where it is to go on

	full chan struct{} // 1: commitAfter answers wait for a commit
}

type openMark struct {
	mark
	settled bool
	lacked  bool // opened again because the relay lacks it
}

// item is what stands for o where it is given out.
func (o openMark) item() item {
	it := item{mark: o.mark}
	if o.lacked {
		it.reason = parkedForLack
	}
	return it
}

// item is one event the ledger waits for: an open ordinal, or a parked row that is due.
type item struct {
	mark
	parked   bool
	key      parkedKey // if parked
	attempts int       // answers so far that asked to wait
	reason   string    // of the last of them; or parkedForLack
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

// resume moves the frontier back to lines that were renumbered since they were met: whatever is kept of their old ordinals stands on
// no line any more, so they are met again. Lines are renumbered when the archive is opened only, so this is done once. A ledger that has
// met nothing begins where it begins.
func (l *ledger) resume(where func(place.Place, uint64) (place.Place, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if where == nil || l.resumed {
		return nil
	}
	if l.frontier.Ordinal > l.counters.Before {
		at, err := where(l.frontier.Place, l.frontier.Ordinal)
		if err != nil {
			return err
		}
		if at.Before(l.frontier.Place) {
			l.frontier.Place, l.dirty = at, true
		}
	}
	l.resumed = true
	return nil
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
	if l.control == nil {
		l.control = new(mark)
	}
	*l.control = it.mark
	if it.reason == parkedForLack {
		l.ackLackedLocked(it.Ordinal, o)
	}
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
	if it.reason == parkedForLack {
		l.lack.Refused++
	}
	r.Ordinal, r.At, r.Prefix = it.Ordinal, it.Place, keyFor(l.counters.Rejected, r.Prefix)
	if len(r.Text) > maxText {
		r.Text = r.Text[:maxText]
	}
	l.counters.Rejected[r.Prefix]++
	if l.texts == nil {
		l.texts = make(map[string]string)
	}
	l.texts[r.Prefix] = r.Text
	l.changes.rejected[it.Ordinal] = r.encode()
	return r
}

// Skip settles it without the relay: it is not sent, for reason.
func (l *ledger) Skip(it item, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settleLocked(it)
	l.counters.Skipped[keyFor(l.counters.Skipped, reason)]++
	if lifted[reason] {
		l.changes.heldChange(it.Ordinal, reason).hold(it.mark)
	}
}

// Reopen takes back what was skipped for reason: m is open again, and the cursor stands before it.
func (l *ledger) Reopen(m mark, reason string) item {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.counters.Skipped[reason] == 0 {
		panic(fmt.Sprintf("sinks: ordinal %d of %s reopened, and none is skipped for %s", m.Ordinal, l.path[1], reason))
	}
	if l.counters.Skipped[reason]--; l.counters.Skipped[reason] == 0 {
		delete(l.counters.Skipped, reason)
	}
	l.changes.heldChange(m.Ordinal, reason).release(m.Ordinal)
	return l.reopenLocked(openMark{mark: m})
}

func (l *ledger) reopenLocked(o openMark) item {
	l.dirty = true
	i, found := l.findLocked(o.Ordinal)
	switch {
	case !found:
		l.open = slices.Insert(l.open, i, o)
	case l.open[i].settled:
		l.open[i] = o
		l.settled--
	default:
		panic(fmt.Sprintf("sinks: ordinal %d of %s reopened while it is open", o.Ordinal, l.path[1]))
	}
	return o.item()
}

func (l *ledger) findLocked(ordinal uint64) (i int, found bool) {
	return slices.BinarySearchFunc(l.open, ordinal, func(o openMark, ordinal uint64) int { return cmp.Compare(o.Ordinal, ordinal) })
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
	switch reason {
	case parkedForError:
		l.counters.ParkedErrors++
	case parkedForLack:
		l.counters.ParkedLacked++
	}
	// By the wall clock, as the row will be read: the monotonic one stands still while the machine sleeps.
	if at := k.due(); at.Before(l.nextDue) {
		l.nextDue = at
	}
	return item{mark: m, parked: true, key: k, attempts: attempts, reason: reason}
}

// Restore parks again what Reject settled, when the refusals turn out to be meant for us and not for the events.
func (l *ledger) Restore(r Rejected, due time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restoreLocked(r, due)
}

func (l *ledger) restoreLocked(r Rejected, due time.Time) {
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
		switch it.reason {
		case parkedForError:
			l.counters.ParkedErrors--
		case parkedForLack:
			l.counters.ParkedLacked--
		}
		return
	}
	i, found := l.findLocked(it.Ordinal)
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
			items = append(items, o.item())
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

// Crowded says that no more should be sent before a commit has succeeded: so many answers wait for one.
func (l *ledger) Crowded() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	most := commitMost
	if l.failed {
		most = commitAfter // it may never come
	}
	return l.answers+l.flying >= most
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

// Committed returns the cursor as it is on disk, whether a pass has still to end there, and a channel that is
// closed when either changes.
func (l *ledger) Committed() (cursor mark, passing bool, changed <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed, l.passed != l.passes, l.advanced
}

// Texts are what the relay has said last when it refused, by the prefix that it is counted under.
func (l *ledger) Texts() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.texts)
}

// Account is a consistent view of the counters and of what is not settled below the frontier.
func (l *ledger) Account() (c Counters, cursor, frontier mark, open int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counters.clone(), l.cursorLocked(), l.frontier, len(l.open) - l.settled
}

// Since is the date before which events are skipped, in unix seconds, 0: none.
func (l *ledger) Since() int64 { return l.since }
