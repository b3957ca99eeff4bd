package dedup

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sort"
	"sync"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

// MaxOverlay bounds the overlay, ids and facts together: an id has 48 bytes in the queue and about 50 in the shards' maps,
// a fact 96 and about 120. 10 MiB where most events say nothing of others, 20 where all are versions. The facts of the
// group that is written last may come on top: 15,000 for 1 MiB of deletions.
const MaxOverlay = 100_000

// maxBatch is the number of ids, and that of facts, in one Badger transaction. Badger's own bounds with a 16 MiB memtable
// are 2.4 MiB and some 24,000 entries.
const maxBatch = 5_000

// recheck is how often a writer that waits for room on disk asks again.
const recheck = time.Second

// overlay is the queue of what was written to the log and is not in Badger yet, in the log's order. The shards' maps
// hold the same ids for lookups, facts the same facts.
type overlay struct {
	facts facts
	marks marks

	qmu        sync.Mutex
	queue      []entry // log order
	says       []said  // the same events' facts, log order
	saying     []said  // Written's, between calls
	synced     place.Place
	checkpoint place.Place   // everything before it is in Badger
	wake       chan struct{} // 1: there may be something to write
	drained    chan struct{} // closed and made anew when the queue gets shorter
	ended      chan struct{} // closed when Run has ended
	err        error         // why; set before ended is closed
	endOnce    sync.Once
}

type entry struct {
	id event.ID
	at place.Place
}

func (o *overlay) init(checkpoint place.Place) {
	o.checkpoint, o.synced = checkpoint, checkpoint
	o.wake = make(chan struct{}, 1)
	o.drained = make(chan struct{})
	o.ended = make(chan struct{})
	o.facts.held = make(map[key]heldFact)
	o.marks.init()
}

// Checkpoint is a place that has everything before it in Badger. Its segment number is the highest that the index
// has seen.
func (x *Index) Checkpoint() place.Place {
	x.qmu.Lock()
	defer x.qmu.Unlock()
	return x.checkpoint
}

// Room waits while n more events would take the overlay over its bound.
func (x *Index) Room(ctx context.Context, n int) error {
	for {
		x.qmu.Lock()
		// A group larger than the whole bound goes alone.
		held := len(x.queue) + len(x.says)
		ok := held+n <= MaxOverlay || held == 0
		drained := x.drained
		x.qmu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-drained:
		case <-x.ended:
			if x.err != nil {
				return fmt.Errorf("wait for the index: %w", x.err)
			}
			return errors.New("wait for the index: its writer has ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Written makes ids known, and what the events say of others: the archive has written their lines, in this order. It must
// return before Synced is called with an end that covers them, or the checkpoint would pass them by.
func (x *Index) Written(rs []record.Record) {
	if len(rs) == 0 {
		return
	}
	if x.from.Load() == nil {
		first := rs[0].Place
		x.from.Store(&first)
	}
	x.known(rs)
	says := x.saying[:0]
	for i := range rs {
		says = appendFacts(says, &rs[i].Event, rs[i].Place)
	}
	if x.saying = says; cap(says) > maxBatch {
		x.saying = nil
	}
	x.heard(says)
	x.qmu.Lock()
	for i := range rs {
		x.queue = append(x.queue, entry{rs[i].Event.ID, rs[i].Place})
	}
	x.says = append(x.says, says...)
	x.qmu.Unlock()
}

// heard comes before the queue, as known does.
func (x *Index) heard(says []said) {
	if len(says) > 0 {
		x.facts.add(says)
		x.marks.set(says)
	}
}

// known comes before the queue: Run takes an id out of its shard's map after the queue has given it.
func (x *Index) known(rs []record.Record) {
	for i := range rs {
		id := rs[i].Event.ID
		sh := &x.shards[x.Shard(id)]
		sh.mu.Lock()
		sh.way[id] = Known // pending out and overlay in are one step
		sh.mu.Unlock()
		x.recent.add(id)
	}
}

// Moved gives lines that were appended again, after a failed write or fsync, their new places. They are the whole
// unsynced tail.
func (x *Index) Moved(rs []record.Record) {
	x.known(rs)
	moved := make(map[event.ID]struct{}, len(rs))
	for i := range rs {
		moved[rs[i].Event.ID] = struct{}{}
	}
	x.qmu.Lock()
	defer x.qmu.Unlock()
	unsynced, unsyncedSays := x.syncedLocked()
	kept := x.queue[:unsynced]
	var withdrawn place.Place // from here on; zero: nothing
	for _, e := range x.queue[unsynced:] {
		if _, again := moved[e.id]; !again {
			kept = append(kept, e)
		} else if withdrawn.IsZero() {
			withdrawn = e.at
		}
	}
	says := x.says[:unsyncedSays]
	for _, s := range x.says[unsyncedSays:] {
		if withdrawn.IsZero() || s.at.Before(withdrawn) {
			says = append(says, s)
		}
	}
	for i := range rs {
		kept = append(kept, entry{rs[i].Event.ID, rs[i].Place})
		says = appendFacts(says, &rs[i].Event, rs[i].Place)
	}
	x.queue, x.says = kept, says
	x.facts.reset(says) // what Run is writing at this moment is at the head of it, and is taken out after
	x.marks.set(says)
}

// Synced says that every line before end is on disk: Run takes their ids to Badger. It does not wait for that.
func (x *Index) Synced(end place.Place) {
	x.qmu.Lock()
	if x.synced.Before(end) {
		x.synced = end
	}
	x.qmu.Unlock()
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// syncedLocked counts the entries at the queues' heads that are on disk.
func (x *Index) syncedLocked() (ids, says int) {
	ids = sort.Search(len(x.queue), func(i int) bool { return !x.queue[i].at.Before(x.synced) })
	says = sort.Search(len(x.says), func(i int) bool { return !x.says[i].at.Before(x.synced) })
	return ids, says
}

// Run takes synced ids to Badger until ctx ends, then what is synced by then, and returns nil. Any other end is an
// error, after which Room answers with it. What may not be written (Options.Writable) is left to the next start's Replay.
func (x *Index) Run(ctx context.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("write index: panic: %v\n%s", r, debug.Stack())
		}
		x.endOnce.Do(func() {
			x.err = err
			close(x.ended)
		})
	}()
	filling, stopFilling := context.WithCancel(ctx)
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		if err := x.store.fill(filling); err != nil {
			x.log.Warn().Err(err).Msg("lookups of new events stay slow")
		}
	}()
	defer func() {
		stopFilling()
		<-filled
	}()
	for {
		stopping := ctx.Err() != nil
		more, err := x.writeBatch()
		switch {
		case err != nil:
			return err
		case more:
		case stopping:
			return nil
		default:
			x.wait(ctx)
		}
	}
}

// wait returns once there may be something to write, or ctx has ended.
func (x *Index) wait(ctx context.Context) {
	if x.writable() {
		select {
		case <-x.wake:
		case <-ctx.Done():
		}
		return
	}
	t := time.NewTimer(recheck)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// writeBatch takes one batch to Badger and says whether more is ready.
func (x *Index) writeBatch() (more bool, err error) {
	if !x.writable() {
		return false, nil
	}
	x.qmu.Lock()
	ready, readySays := x.syncedLocked()
	n, m := min(ready, maxBatch), min(readySays, maxBatch)
	batch, says := slices.Clone(x.queue[:n]), slices.Clone(x.says[:m])
	checkpoint := x.synced
	if n < len(x.queue) && x.queue[n].at.Before(checkpoint) {
		checkpoint = x.queue[n].at
	}
	if m < len(x.says) && x.says[m].at.Before(checkpoint) {
		checkpoint = x.says[m].at
	}
	done := !x.checkpoint.Before(checkpoint)
	x.qmu.Unlock()
	if n == 0 && m == 0 && done {
		return false, nil
	}

	if err := x.store.put(batch, says, checkpoint, x.trusted); err != nil {
		return false, fmt.Errorf("write %d ids to the index: %w", n, err)
	}
	for _, e := range batch { // only now: a lookup that misses them here finds them in Badger
		sh := &x.shards[x.Shard(e.id)]
		sh.mu.Lock()
		delete(sh.way, e.id)
		sh.mu.Unlock()
	}

	x.qmu.Lock()
	defer x.qmu.Unlock()
	// Copied down rather than resliced: the array stays as large as the bound and no larger.
	x.queue = x.queue[:copy(x.queue, x.queue[n:])]
	x.facts.remove(says) // under qmu: Moved makes them anew from the queue
	x.says = x.says[:copy(x.says, x.says[m:])]
	x.checkpoint = checkpoint
	close(x.drained)
	x.drained = make(chan struct{})
	return ready > n || readySays > m, nil
}

// Replay puts lines that are on disk already straight into Badger: at start from the checkpoint, and for a reindex.
// Run must not be running.
func (x *Index) Replay(rs []record.Record) error {
	for len(rs) > 0 {
		n := min(len(rs), maxBatch)
		batch := make([]entry, n)
		var says []said
		for i := range batch {
			batch[i] = entry{rs[i].Event.ID, rs[i].Place}
			says = appendFacts(says, &rs[i].Event, rs[i].Place)
		}
		x.marks.set(says)
		for ; len(says) > maxBatch; says = says[maxBatch:] {
			if err := x.store.put(nil, says[:maxBatch], x.Checkpoint(), x.trusted); err != nil {
				return fmt.Errorf("replay %d events into the index: %w", n, err)
			}
		}
		end := rs[n-1].End
		if err := x.store.put(batch, says, end, x.trusted); err != nil {
			return fmt.Errorf("replay %d events into the index: %w", n, err)
		}
		x.qmu.Lock()
		x.checkpoint, x.synced = end, end
		x.qmu.Unlock()
		rs = rs[n:]
	}
	return nil
}
