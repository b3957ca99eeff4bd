package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"rebroadcastr/place"
	"rebroadcastr/record"
)

func isExist(err error) bool { return errors.Is(err, fs.ErrExist) }

// mendFsync mends what the syncer met, if it met anything.
func (a *Archive) mendFsync(ctx context.Context) error {
	t := &a.tail
	t.mu.Lock()
	failed, dead := t.failed, t.dead
	t.mu.Unlock()
	if failed == nil {
		return nil
	}
	if dead {
		return failed
	}
	return a.mend(ctx, failed, true, nil)
}

// mend goes on after an error of the disk: the open segment is given up at its last good length, and what was
// written to it and is not durable goes into a new one, with group behind it, which nobody was told of yet.
//
// After a failed fsync the kernel has forgotten which pages were not written, and a later success proves nothing: all
// that is not durable is withdrawn and written again. After a failed write, what came before it may still be made
// durable where it is.
func (a *Archive) mend(ctx context.Context, cause error, fsync bool, group []record.Record) error {
	a.stopSyncer()
	t := &a.tail
	if t.dead {
		return a.giveUp(t.failed, group)
	}
	if t.failed != nil {
		fsync = true
	}
	a.waiting(cause.Error())
	a.warn("the disk refuses, what is not durable yet is kept in memory and tried again", cause)
	seg := a.seg
	if !fsync && seg.cut() == nil && seg.sync() == nil {
		a.durable(place.Make(seg.number, uint64(seg.written)), seg.lines)
	} else if err := a.takeBack(ctx); err != nil {
		return a.giveUp(err, group)
	}
	// Nothing of seg is readable now but what is durable.
	if t.synced == 0 && len(t.recs) == 0 {
		a.shelf.drop() // nobody has seen a place in it
		if err := seg.remove(); err == nil {
			a.number = seg.number
		}
	} else {
		a.shelf.finish()
		_ = seg.close() // its content was dealt with above
	}
	a.seg = nil

	old := len(t.recs)
	recs := append(t.recs[:old:old], group...)
	if len(recs) > 0 {
		if err := a.writeAnew(ctx, recs); err != nil {
			return a.giveUp(err, group)
		}
		if old > 0 {
			a.ob.Moved(recs[:old])
		}
		if len(group) > 0 {
			a.ob.Written(recs[old:])
		}
		a.shelf.add(shelved(a.seg)) // after these two, as in writeGroup
		a.durable(recs[len(recs)-1].End, a.seg.lines)
		signal(a.tail.markDue)
	}
	t.mu.Lock()
	t.failed = nil
	t.mu.Unlock()
	a.startSyncer()
	a.waiting("")
	a.o.Log.Info().Int("moved", old).Msg("the disk takes events again")
	return nil
}

func (a *Archive) giveUp(err error, group []record.Record) error {
	return fmt.Errorf("append: %d events are in memory only: %w", len(a.tail.recs)+len(group), err)
}

// takeBack withdraws all that is not durable from the open segment.
func (a *Archive) takeBack(ctx context.Context) error {
	t, seg := &a.tail, a.seg
	a.shelf.withdraw(t.syncedTo, t.synced) // first: a reader must not take what is about to go for damage
	for {
		err := withdraw(a.o.FS, a.o.Dir, seg.name, seg.text, t.syncedTo, a.o.Mode)
		if err == nil {
			return nil
		}
		a.warn("lines that are not durable cannot be taken back, trying again each second", err)
		if perr := pause(ctx, time.Second); perr != nil {
			return err
		}
	}
}

// writeAnew writes recs into a new segment and makes it durable, before anyone is told of it.
func (a *Archive) writeAnew(ctx context.Context, recs []record.Record) error {
	for {
		if err := a.waitForRoom(ctx); err != nil {
			return err
		}
		seg, err := a.create(ctx)
		if err != nil {
			return err
		}
		for from := 0; from < len(recs) && err == nil; {
			to := groupEnd(recs, from)
			setPlaces(seg, recs[from:to])
			err = seg.write(recs[from:to])
			from = to
		}
		if err == nil {
			err = seg.sync()
		}
		if err == nil {
			a.adopt(seg)
			return nil
		}
		a.waiting(err.Error())
		a.warn("the disk still refuses, trying again each second", err)
		if derr := a.discard(ctx, seg); derr != nil {
			return errors.Join(err, derr)
		}
		if perr := pause(ctx, time.Second); perr != nil {
			return err
		}
	}
}

// groupEnd is where a group that begins at from ends.
func groupEnd(recs []record.Record, from int) int {
	size := 0
	for to := from; to < len(recs); to++ {
		size += len(recs[to].Event.Line)
		if to > from && (to-from == maxGroup || size > maxGroupBytes) {
			return to
		}
	}
	return len(recs)
}

// discard sees to it, durably, that nothing of seg can ever be read. If its files go, its number is free again.
func (a *Archive) discard(ctx context.Context, seg *segmentFile) error {
	defer seg.close()
	err := errors.Join(
		a.o.FS.Remove(filepath.Join(a.o.Dir, seg.name.text())),
		a.o.FS.Remove(filepath.Join(a.o.Dir, seg.name.origin())))
	if err == nil {
		err = a.o.FS.SyncDir(a.o.Dir)
	}
	if err == nil {
		return nil
	}
	a.number = seg.number + 1
	for {
		werr := withdraw(a.o.FS, a.o.Dir, seg.name, seg.text, 0, a.o.Mode)
		if werr == nil {
			return nil
		}
		a.warn("a segment that failed can be neither removed nor emptied, trying again each second", errors.Join(err, werr))
		if perr := pause(ctx, time.Second); perr != nil {
			return errors.Join(err, werr)
		}
	}
}
