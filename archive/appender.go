package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"time"

	"rebroadcastr/place"
	"rebroadcastr/record"
)

// Run appends and syncs until Drain was called and everything handed over is durable, or until ctx ends: then it
// writes what is queued if that goes without waiting, syncs once and returns. What could not be written or made
// durable is an error. A disk that does not answer then holds Run up for lastTry: its error is ErrStuck, the call that
// waits in the kernel is left behind, and the Lock must not be given up before the process ends.
func (a *Archive) Run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	last := time.NewTimer(lastTry)
	defer last.Stop()
	select {
	case err := <-ended:
		return err
	case <-last.C:
		return a.leave()
	}
}

// lastTry is what the disk gets for the last writes and the last fsync of a stop that is cut short.
const lastTry = 2 * time.Second

// ErrStuck means that the disk has not answered: what was written and is not durable may be lost by a power cut. No
// ledger, window or index speaks of it.
var ErrStuck = errors.New("the disk does not answer")

// leave ends a Run whose loops wait for the disk. Everything stays theirs but the queue.
func (a *Archive) leave() error {
	a.queue.close()
	t := &a.tail
	t.mu.Lock()
	barriers, unsynced := slices.Clone(t.barriers), len(t.recs) // a second answer, later, is one that nobody reads
	t.mu.Unlock()
	items, lost := []item(nil), 0
	for left := true; left; {
		items, barriers, left = a.queue.take(items[:0], barriers)
		lost += len(items)
	}
	for _, b := range barriers {
		tell(b, ErrClosed)
	}
	err := fmt.Errorf("append: %w: %d events are written and not known to be durable, %d that were handed over are not written", ErrStuck, unsynced, lost)
	a.waiting(err.Error())
	return err
}

// run is Run without regard to a disk that does not answer.
func (a *Archive) run(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic at the archive's end: %v\n%s", p, debug.Stack())
		}
	}()
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- a.syncLoop(stop) }()
	err = a.appendLoop(ctx)
	a.queue.close()
	close(stop)
	if serr := <-ended; serr != nil && !errors.Is(err, serr) {
		err = errors.Join(err, serr)
	}
	if lost := a.refuseRest(); lost > 0 {
		err = errors.Join(err, fmt.Errorf("append: %d events that were handed over are not in the archive", lost))
	}
	if a.seg != nil {
		err = errors.Join(err, a.closeSegment())
	}
	if !a.Low() {
		a.saveMark()
	}
	return err
}

// refuseRest answers the barriers that will not be met and counts the events that nobody will write.
func (a *Archive) refuseRest() (lost int) {
	t := &a.tail
	t.mu.Lock()
	barriers := t.barriers
	t.barriers = nil
	t.mu.Unlock()
	for left := true; left; {
		a.items, a.barriers, left = a.queue.take(a.items[:0], a.barriers[:0])
		lost += len(a.items)
		barriers = append(barriers, a.barriers...)
	}
	for _, b := range barriers {
		tell(b, ErrClosed)
	}
	return lost
}

func (a *Archive) appendLoop(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in the appender: %v\n%s", p, debug.Stack())
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := a.mendFsync(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			a.queue.close()
		}
		var left bool
		a.items, a.barriers, left = a.queue.take(a.items[:0], a.barriers[:0])
		a.awaitBarriers(a.barriers)
		if len(a.items) > 0 {
			if err := a.writeGroup(ctx, a.items); err != nil {
				return err
			}
			clear(a.items)
			continue
		}
		if !left {
			return a.sync(ctx)
		}
		select {
		case <-a.queue.more:
		case <-a.tail.news:
		case <-tick.C:
			a.look()
			if a.seg != nil && a.today() > a.seg.date {
				if err := a.roll(ctx); err != nil {
					return err
				}
			}
		case <-ctx.Done():
		}
	}
}

// writeGroup returns once the events are in the log, whatever it takes. Its error means that Run has to end.
func (a *Archive) writeGroup(ctx context.Context, items []item) error {
	unwritten := func(err error) error {
		return fmt.Errorf("append: %d events that were handed over are not in the archive: %w", len(items), err)
	}
	if err := a.roomInIndex(ctx, len(items)); err != nil {
		return unwritten(err)
	}
	if err := a.waitForRoom(ctx); err != nil {
		return unwritten(err)
	}
	for {
		err := a.waitForTail()
		if err == nil {
			break
		}
		if err := a.mendFsync(ctx); err != nil {
			return unwritten(err)
		}
	}
	if err := a.openSegment(ctx, items); err != nil {
		return unwritten(err)
	}
	recs := a.recs[:0]
	for i := range items {
		recs = append(recs, record.Record{Event: items[i].event, Origin: items[i].origin})
	}
	a.recs = recs
	defer clear(recs)
	setPlaces(a.seg, recs)
	a.reserve(recs[len(recs)-1].Ordinal + 1)
	if err := a.seg.write(recs); err != nil {
		return a.mend(ctx, err, false, recs)
	}
	if a.o.Sync == 0 {
		if err := a.seg.sync(); err != nil {
			return a.mend(ctx, err, true, recs)
		}
	}
	// Written first: what one of these lines says of others counts for all who can read it, or anything behind it.
	a.ob.Written(recs)
	a.shelf.publish(a.seg.written, a.seg.lines, recs)
	if a.o.Sync == 0 {
		a.durable(recs[len(recs)-1].End, a.seg.lines)
	} else {
		a.addTail(recs) // after Written: from here on the syncer may tell of them
	}
	return nil
}

// roomInIndex returns when the index has room for n more events. What it holds it may only write once that is durable, and
// Options.Sync may be an hour.
func (a *Archive) roomInIndex(ctx context.Context, n int) error {
	now, cancel := context.WithCancel(ctx)
	cancel()
	if a.ob.Room(now, n) == nil {
		return nil
	}
	signal(a.tail.kick)
	return a.ob.Room(ctx, n)
}

// setPlaces gives recs the places and ordinals that they get when seg takes them next.
func setPlaces(seg *segmentFile, recs []record.Record) {
	off, ordinal := seg.written, seg.first+seg.lines
	for i := range recs {
		r := &recs[i]
		r.Place = place.Make(seg.number, uint64(off))
		off += int64(len(r.Event.Line)) + 1
		r.End = place.Make(seg.number, uint64(off))
		r.Ordinal = ordinal
		ordinal++
	}
}

// today is the date that a segment made now has in its name: the clock may have stepped back.
func (a *Archive) today() string { return max(dateOf(a.o.Now()), a.date) }

// openSegment has a segment open that takes items: it rolls by size and by date.
func (a *Archive) openSegment(ctx context.Context, items []item) error {
	if a.seg != nil {
		size := int64(len(items))
		for i := range items {
			size += int64(len(items[i].event.Line))
		}
		if a.today() > a.seg.date || a.seg.written > 0 && a.seg.written+size > a.o.SegmentBytes {
			if err := a.roll(ctx); err != nil {
				return err
			}
		}
	}
	if a.seg != nil {
		return nil
	}
	seg, err := a.create(ctx)
	if err != nil {
		return err
	}
	a.adopt(seg)
	a.shelf.add(shelved(seg))
	signal(a.tail.markDue)
	return nil
}

// create makes the next segment, as soon as the disk lets it. A number is spent on success only.
func (a *Archive) create(ctx context.Context) (*segmentFile, error) {
	_, first := a.shelf.end()
	for {
		n := name{date: a.today(), number: a.number}
		seg, err := createSegment(a.o.FS, a.o.Dir, n, fs.FileMode(a.live.mode.Load()), first)
		if err == nil {
			a.waiting("")
			return seg, nil
		}
		if isExist(err) {
			a.number++ // something of that number is there already: never touch it
			continue
		}
		a.waiting(err.Error())
		a.warn("no segment can be made, trying again each second", err)
		if perr := pause(ctx, time.Second); perr != nil {
			return nil, err
		}
		if err := a.waitForRoom(ctx); err != nil {
			return nil, err
		}
	}
}

// adopt makes seg the one that takes events.
func (a *Archive) adopt(seg *segmentFile) {
	a.seg = seg
	a.number, a.date = seg.number+1, seg.date
	t := &a.tail
	t.mu.Lock()
	t.seg, t.syncedTo, t.synced = seg, 0, 0
	t.number = a.number
	t.mu.Unlock()
}

func shelved(seg *segmentFile) segment {
	return segment{
		files: files{name: seg.name, plain: true, hasOrigin: true},
		first: seg.first, known: true, lines: seg.lines, held: seg.lines, end: seg.written,
	}
}

// roll ends the open segment, durably: the next one may only take events after that.
func (a *Archive) roll(ctx context.Context) error {
	old := a.seg
	if err := a.sync(ctx); err != nil || a.seg != old {
		return err
	}
	if err := a.closeSegment(); err != nil {
		a.warn("closing a segment", err) // it is durable
	}
	return nil
}

func (a *Archive) closeSegment() error {
	a.shelf.finish()
	err := a.seg.close()
	a.seg = nil
	return err
}

// sync makes durable what is written, whatever it takes.
func (a *Archive) sync(ctx context.Context) error {
	for {
		if err := a.syncAll(); err == nil {
			return nil
		}
		if err := a.mendFsync(ctx); err != nil {
			return err
		}
	}
}
