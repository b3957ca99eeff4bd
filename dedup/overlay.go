package dedup

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

// MaxOverlay bounds the overlay: 48 bytes an entry in the queue and about 50 in the shards' maps, 10 MiB in all.
const MaxOverlay = 100_000

// maxBatch is the number of ids in one Badger transaction. Badger's own bound with a 16 MiB memtable is 2.4 MiB.
const maxBatch = 5_000

// recheck is how often a writer that waits for room on disk asks again.
const recheck = time.Second

// overlay is the queue of what was written to the log and is not in Badger yet, in the log's order. The shards' maps
// hold the same ids for lookups.
type overlay struct {
	qmu        sync.Mutex
	queue      []entry // log order
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
}

// Checkpoint is a place that has everything before it in Badger. Its segment number is the highest that the index
// has seen.
func (x *Index) Checkpoint() place.Place {
	x.qmu.Lock()
	defer x.qmu.Unlock()
	return x.checkpoint
}

// Room waits while n more entries would take the overlay over its bound.
func (x *Index) Room(ctx context.Context, n int) error {
	for {
		x.qmu.Lock()
		// A group larger than the whole bound goes alone.
		ok := len(x.queue)+n <= MaxOverlay || len(x.queue) == 0
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

// Written makes ids known: the archive has written their lines, in this order. It must return before Synced is called
// with an end that covers them, or the checkpoint would pass them by.
func (x *Index) Written(rs []record.Record) {
	if len(rs) == 0 {
		return
	}
	if x.from.Load() == nil {
		first := rs[0].Place
		x.from.Store(&first)
	}
	x.known(rs)
	x.qmu.Lock()
	for i := range rs {
		x.queue = append(x.queue, entry{rs[i].Event.ID, rs[i].Place})
	}
	x.qmu.Unlock()
}

// known comes before the queue: Run takes an id out of its shard's map after the queue has given it.
func (x *Index) known(rs []record.Record) {
	for i := range rs {
		id := rs[i].Event.ID
		sh := &x.shards[x.Shard(id)]
		sh.mu.Lock()
		sh.way[id] = Known // pending out and overlay in are one step
		sh.mu.Unlock()
		sh.refresh(id)
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
	unsynced := x.syncedLocked()
	kept := x.queue[:unsynced]
	for _, e := range x.queue[unsynced:] {
		if _, again := moved[e.id]; !again {
			kept = append(kept, e)
		}
	}
	for i := range rs {
		kept = append(kept, entry{rs[i].Event.ID, rs[i].Place})
	}
	x.queue = kept
	x.qmu.Unlock()
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

// syncedLocked counts the entries at the queue's head that are on disk.
func (x *Index) syncedLocked() int {
	lo, hi := 0, len(x.queue)
	for lo < hi {
		mid := (lo + hi) / 2
		if x.queue[mid].at.Before(x.synced) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
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
	ready := x.syncedLocked()
	n := min(ready, maxBatch)
	batch := append([]entry(nil), x.queue[:n]...)
	checkpoint := x.synced
	if n < len(x.queue) && x.queue[n].at.Before(checkpoint) {
		checkpoint = x.queue[n].at
	}
	done := !x.checkpoint.Before(checkpoint)
	x.qmu.Unlock()
	if n == 0 && done {
		return false, nil
	}

	if err := x.store.put(batch, checkpoint); err != nil {
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
	x.checkpoint = checkpoint
	close(x.drained)
	x.drained = make(chan struct{})
	return ready > n, nil
}

// Replay puts lines that are on disk already straight into Badger: at start from the checkpoint, and for a reindex.
// Run must not be running.
func (x *Index) Replay(rs []record.Record) error {
	for len(rs) > 0 {
		n := min(len(rs), maxBatch)
		batch := make([]entry, n)
		for i := range batch {
			batch[i] = entry{rs[i].Event.ID, rs[i].Place}
		}
		end := rs[n-1].End
		if err := x.store.put(batch, end); err != nil {
			return fmt.Errorf("replay %d ids into the index: %w", n, err)
		}
		x.qmu.Lock()
		x.checkpoint, x.synced = end, end
		x.qmu.Unlock()
		rs = rs[n:]
	}
	return nil
}
