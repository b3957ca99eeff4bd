package archive

import (
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"rebroadcastr/place"
	"rebroadcastr/record"
)

const (
	// syncBytes unsynced bring an fsync at once.
	syncBytes = 8 << 20
	// maxTailBytes unsynced, in lines and in what is kept beside each, make the appender wait: while one fsync runs,
	// as much again as started it may come.
	maxTailBytes = 2 * syncBytes
	// recordBytes is what a record costs beside its line.
	recordBytes = 300
	// markEvery bounds how much of the log the next start checks, against two fsyncs of the state for each mark.
	markEvery = 10 * time.Second
)

// syncLoop makes the tail durable: Options.Sync after its first line, at syncBytes, and when kicked. It is the only
// one to fsync while the appender appends, and it takes no lock for that.
func (a *Archive) syncLoop(stop <-chan struct{}) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in the syncer: %v\n%s", p, debug.Stack())
		}
		if err != nil {
			a.tail.mu.Lock()
			a.tail.busy, a.tail.failed, a.tail.dead = false, err, true
			a.tail.mu.Unlock()
		}
		signal(a.tail.news)
	}()
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	running := false
	marked := a.o.Now()
	for {
		select {
		case <-stop:
			return nil
		case <-a.tail.armed:
			if !running {
				timer.Reset(time.Duration(a.live.sync.Load()))
				running = true
			}
			continue
		case <-a.tail.markDue:
			marked = a.o.Now()
			a.saveMark()
			continue
		case <-timer.C:
		case <-a.tail.kick:
			timer.Stop()
		}
		running = false
		if a.syncOnce() {
			timer.Reset(time.Duration(a.live.sync.Load()))
			running = true
		}
		if now := a.o.Now(); (now.Sub(marked) >= markEvery || now.Before(marked)) && !a.Low() {
			marked = now
			a.saveMark()
		}
	}
}

// syncOnce makes durable what is in the tail now, then tells. It reports whether there is more.
func (a *Archive) syncOnce() (more bool) {
	t := &a.tail
	t.mu.Lock()
	if t.stopped || t.failed != nil || len(t.recs) == 0 {
		t.mu.Unlock()
		return false
	}
	t.busy = true
	seg, n, bytes, end := t.seg, len(t.recs), t.bytes, t.end
	barriers := len(t.barriers)
	t.mu.Unlock()

	err := seg.sync() // outside the lock: the appender goes on meanwhile

	t.mu.Lock()
	if err != nil {
		t.failed, t.busy = err, false
		t.mu.Unlock()
		signal(t.news)
		return false
	}
	rest := copy(t.recs, t.recs[n:])
	clear(t.recs[rest:])
	t.recs, t.bytes = t.recs[:rest], t.bytes-bytes
	t.syncedTo = int64(end.Offset())
	t.synced += uint64(n)
	if rest == 0 {
		barriers = len(t.barriers) // nothing was written since: those that came since are answered too
	}
	ripe := slices.Clone(t.barriers[:barriers])
	t.barriers = slices.Delete(t.barriers, 0, barriers)
	t.mark, t.markHeld = end, t.synced
	t.lastSync = a.o.Now()
	t.mu.Unlock()

	a.settle(end, ripe)

	t.mu.Lock()
	t.busy = false
	more = len(t.recs) > 0
	if t.bytes >= syncBytes {
		signal(t.kick)
	}
	t.mu.Unlock()
	signal(t.news)
	return more
}

// settle tells the observer, then those who wait, that everything before end is durable. In this order: who hears it
// may ask the index.
func (a *Archive) settle(end place.Place, barriers []chan<- error) {
	t := &a.tail
	t.mu.Lock()
	held := a.Low()
	if held {
		t.held = end
	} else {
		t.held = place.Place{}
	}
	t.mu.Unlock()
	if !held {
		a.ob.Synced(end)
	}
	for _, b := range barriers {
		tell(b, nil)
	}
}

// addTail hands written lines to the syncer.
func (a *Archive) addTail(recs []record.Record) {
	t := &a.tail
	t.mu.Lock()
	t.seg = a.seg
	if len(t.recs) == 0 {
		signal(t.armed)
	}
	before := t.bytes
	for i := range recs {
		t.recs = append(t.recs, recs[i])
		t.bytes += tailCost(&recs[i])
	}
	t.end = recs[len(recs)-1].End
	full := before < syncBytes && t.bytes >= syncBytes
	t.mu.Unlock()
	if full {
		signal(t.kick)
	}
}

func tailCost(r *record.Record) int64 { return int64(len(r.Event.Line)) + recordBytes }

// awaitBarriers has barriers answered once all that is written is durable: at once if it is.
func (a *Archive) awaitBarriers(barriers []chan<- error) {
	if len(barriers) == 0 {
		return
	}
	t := &a.tail
	t.mu.Lock()
	durable := len(t.recs) == 0
	if !durable {
		t.barriers = append(t.barriers, barriers...)
	}
	t.mu.Unlock()
	if !durable {
		signal(t.kick)
		return
	}
	for _, b := range barriers {
		tell(b, nil)
	}
}

// syncAll returns when all that is written is durable, or with what failed. The appender calls it.
func (a *Archive) syncAll() error {
	t := &a.tail
	for {
		t.mu.Lock()
		err, done := t.failed, len(t.recs) == 0 && !t.busy
		t.mu.Unlock()
		if err != nil || done {
			return err
		}
		signal(t.kick)
		<-t.news
	}
}

// waitForTail returns when another group may wait for its fsync, or with what failed.
func (a *Archive) waitForTail() error {
	t := &a.tail
	for {
		t.mu.Lock()
		err, full := t.failed, t.bytes >= maxTailBytes
		t.mu.Unlock()
		if err != nil || !full {
			return err
		}
		signal(t.kick)
		<-t.news
	}
}

// stopSyncer returns once the syncer leaves the tail alone. Until startSyncer the tail is the appender's. It reports
// whether it was stopped already.
func (a *Archive) stopSyncer() (was bool) {
	t := &a.tail
	t.mu.Lock()
	was, t.stopped = t.stopped, true
	for t.busy {
		t.mu.Unlock()
		<-t.news
		t.mu.Lock()
	}
	t.mu.Unlock()
	return was
}

func (a *Archive) startSyncer() {
	t := &a.tail
	t.mu.Lock()
	t.stopped = false
	more := len(t.recs) > 0
	t.mu.Unlock()
	if more {
		signal(t.kick)
	}
}

// durable empties the tail: everything written is durable up to end, the end of the open segment.
func (a *Archive) durable(end place.Place, lines uint64) {
	t := &a.tail
	t.mu.Lock()
	t.recs, t.bytes = nil, 0
	t.mark, t.markHeld, t.syncedTo, t.synced = end, lines, int64(end.Offset()), lines
	t.lastSync = a.o.Now()
	barriers := t.barriers
	t.barriers = nil
	t.mu.Unlock()
	a.settle(end, barriers)
}

// tell answers a barrier. The channel has room for the answer; should it not, nobody waits for that.
func tell(b chan<- error, err error) {
	select {
	case b <- err:
	default:
	}
}
