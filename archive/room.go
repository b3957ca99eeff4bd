package archive

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
)

// room is whether the filesystem has what archive.min_free asks for.
type room struct {
	low atomic.Bool

	mu    sync.Mutex
	free  int64
	need  int64
	why   string // why nothing is appended
	since time.Time
}

// look measures the filesystem. Below min_free it is low, and until there is 1.2 times that.
func (a *Archive) look() bool {
	free, need, err := Room(a.o.FS, a.o.Dir, a.live.minFree.Load())
	if err != nil {
		a.warn("free space cannot be measured, going on", err)
		return !a.room.low.Load()
	}
	a.room.mu.Lock()
	a.room.free, a.room.need = free, need
	a.room.mu.Unlock()
	was := a.room.low.Load()
	low := free < need || was && free < need+need/5
	a.room.low.Store(low)
	switch {
	case low:
		why := fmt.Sprintf("no room: %s free in %s, archive.min_free is %s; goes on by itself at %s",
			size(free), a.o.Dir, size(need), size(need+need/5))
		a.waiting(why)
		if !was {
			a.o.Log.Error().Msg(why)
		}
	case was:
		a.waiting("")
		a.o.Log.Info().Str("free", size(free)).Msg("there is room again")
		a.releaseHeld()
	}
	return !low
}

// Spare is how many bytes anything but the archive may still write to its filesystem: what is free beyond min_free. Negative: that
// is not there.
func (a *Archive) Spare() (int64, error) {
	free, need, err := Room(a.o.FS, a.o.Dir, a.live.minFree.Load())
	if err != nil {
		return 0, fmt.Errorf("measure what is free in %s: %w", a.o.Dir, err)
	}
	return free - need, nil
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// waiting says in the status why nothing is appended; "" that it is.
func (a *Archive) waiting(why string) {
	a.room.mu.Lock()
	defer a.room.mu.Unlock()
	if why == "" {
		a.room.since = time.Time{}
	} else if a.room.why == "" {
		a.room.since = a.o.Now()
	}
	a.room.why = why
}

// waitForRoom returns when the filesystem has room, or with ctx's error.
func (a *Archive) waitForRoom(ctx context.Context) error {
	for !a.look() {
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// pause waits for d, or for ctx to end.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// releaseHeld tells the observer what it was not told for want of room. The appender calls it.
func (a *Archive) releaseHeld() {
	was := a.stopSyncer()
	if held := a.tail.held; !held.IsZero() {
		a.settle(held, nil)
	}
	if !was {
		a.startSyncer()
	}
}
