package archive_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"rebroadcastr/archive"
	"rebroadcastr/place"
)

// The order of writes, as a disk sees it: origins before lines, the origins' fsync before the lines', both before
// the index and the barrier; a new segment is durable, with its name, before it takes a line; and the one before it is
// durable before that.
func TestOrderOfWrites(t *testing.T) {
	for _, sync := range []time.Duration{0, time.Hour} {
		t.Run(sync.String(), func(t *testing.T) {
			d := newDisk()
			note := func(what string) {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.log = append(d.log, what)
			}
			r := start(t, archive.Options{Dir: "/a", FS: d, Sync: sync, SegmentBytes: 3000, Now: func() time.Time {
				return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			}})
			r.index.mu.Lock()
			r.index.onSync = func(p place.Place) { note(fmt.Sprintf("index up to segment %d", p.Segment())) }
			r.index.mu.Unlock()
			r.append(1)
			r.barrier()
			note("answered")
			for n := range 3 {
				if err := r.Append(t.Context(), makeEvent(900+n, 1000), originOf(n)); err != nil {
					t.Fatal(err)
				}
				r.barrier()
			}
			r.stop()
			const o1, t1 = "events_20260101_0000000001.origin", "events_20260101_0000000001.jsonl"
			const o2, t2 = "events_20260101_0000000002.origin", "events_20260101_0000000002.jsonl"
			wantOrder(t, d.ops(),
				"create "+o1, "write "+o1, "sync "+o1, "create "+t1, "sync "+t1, "syncdir a",
				"write "+o1, "write "+t1, "sync "+o1, "sync "+t1, "index up to segment 1", "answered",
				"write "+o1, "write "+t1, "sync "+o1, "sync "+t1, "index up to segment 1",
				"create "+o2, "write "+o2, "sync "+o2, "create "+t2, "sync "+t2, "syncdir a", "write "+o2, "write "+t2)
		})
	}
}

// wantOrder checks that want stands in got, in this order.
func wantOrder(t *testing.T, got []string, want ...string) {
	t.Helper()
	at := 0
	for _, w := range want {
		from := at
		for at < len(got) && got[at] != w {
			at++
		}
		if at == len(got) {
			t.Fatalf("no %q behind step %d of\n%s", w, from, strings.Join(got, "\n"))
		}
		at++
	}
}

// Nothing may be written to a segment while another is not durable.
func TestTheOldSegmentIsDurableBeforeTheNewOneTakesEvents(t *testing.T) {
	d := newDisk()
	dirty := map[string]bool{}
	var wrong []string
	d.hook(func(op, name string) error {
		switch op {
		case "write":
			for other := range dirty {
				if other[:len("events_20000101_0000000001")] != name[:len("events_20000101_0000000001")] {
					wrong = append(wrong, fmt.Sprintf("write to %s while %s is not durable", name, other))
				}
			}
			dirty[name] = true
		case "sync":
			delete(dirty, name)
		}
		return nil
	})
	r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Hour, SegmentBytes: 20_000})
	r.inGroups(upTo(1000)...)
	r.stop()
	if n := len(d.files(".jsonl")); n < 4 {
		t.Errorf("%d segments, want several", n)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range wrong {
		t.Error(w)
	}
}

// An fsync that takes long stands in nobody's way until the tail is full.
func TestAppendGoesOnDuringFsync(t *testing.T) {
	d := newDisk()
	slow := &slowSync{disk: d, gate: make(chan struct{}), entered: make(chan struct{}, 100)}
	r := start(t, archive.Options{Dir: "/a", FS: slow, Sync: time.Millisecond})
	r.append(0) // makes the segment
	r.barrier()
	slow.on.Store(true)
	r.append(1)
	<-slow.entered
	reader := r.Reader(place.Place{})
	defer reader.Close()
	for n := range 1000 {
		r.append(n + 2)
		if _, err := reader.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if st := r.Status(); st.Unsynced < 900 { // the last group may not be counted yet
		t.Errorf("%d events unsynced during the fsync, want nearly all 1001: %+v", st.Unsynced, st)
	}
	slow.on.Store(false)
	close(slow.gate)
	r.barrier()
	r.stop()
}

// TestIndexWithoutRoom: an index that has to write first what it holds does not have to wait for the next fsync's time.
func TestIndexWithoutRoom(t *testing.T) {
	o := onDisk(t)
	o.Sync = time.Hour
	small := &smallIndex{index: newIndex(), most: 10, shorter: make(chan struct{}, 1)}
	r := start(t, o, func(a *archive.Archive) {
		small.end = a.End
		a.SetObserver(small)
	})
	reader := r.Reader(place.Place{})
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for n := range 50 {
		r.append(n)
		if _, err := reader.Next(ctx); err != nil {
			t.Fatalf("event %d is not written: %v", n, err)
		}
	}
	r.stop()
}

// smallIndex takes no group while it holds most ids that are not durable.
type smallIndex struct {
	*index
	most    int
	shorter chan struct{}
}

func (x *smallIndex) Room(ctx context.Context, _ int) error {
	for {
		x.mu.Lock()
		full := len(x.pending) >= x.most
		x.mu.Unlock()
		if !full {
			return nil
		}
		select {
		case <-x.shorter:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (x *smallIndex) Synced(end place.Place) {
	x.index.Synced(end)
	select {
	case x.shorter <- struct{}{}:
	default:
	}
}
