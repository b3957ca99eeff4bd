package archive_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rebroadcastr/archive"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

func TestWhatIsAppendedIsReadBack(t *testing.T) {
	for _, sync := range []time.Duration{0, time.Millisecond, time.Hour} {
		t.Run(sync.String(), func(t *testing.T) {
			o := onDisk(t)
			o.Sync = sync
			r := start(t, o)
			r.append(upTo(700)...)
			r.barrier()
			recs := readAll(t, r.Archive, place.Place{})
			wantEvents(t, "reader", recs, upTo(700))
			wantOrdinals(t, recs, 0)
			end, next := r.End()
			if next != 700 || recs[699].End != end {
				t.Errorf("end is %s, ordinal %d; the last record ends at %s, want ordinal 700", end, next, recs[699].End)
			}
			if st := r.Status(); st.Events != 700 || st.Segments != 1 || st.Bytes != int64(end.Offset()) || st.Unsynced != 0 || st.LastSync.IsZero() {
				t.Errorf("status %+v: want 700 events in 1 segment, nothing unsynced", st)
			}
			r.stop()
			scanned, damaged := scan(t, nil, o.Dir)
			wantEvents(t, "scan", scanned, upTo(700))
			wantOrdinals(t, scanned, 0)
			if len(damaged) > 0 {
				t.Errorf("scan found damage: %v", damaged)
			}
			if len(r.index.safe) != 700 {
				t.Errorf("the observer heard of %d durable events, want 700", len(r.index.safe))
			}
		})
	}
}

func TestFilesAreWhatTheContractSays(t *testing.T) {
	o := onDisk(t)
	o.Now = func() time.Time { return time.Date(2026, 11, 21, 23, 0, 0, 0, time.UTC) }
	r := start(t, o)
	if names := glob(t, o.Dir, "events_*"); len(names) > 0 {
		t.Errorf("before the first event there is %v, want nothing", names)
	}
	r.append(1)
	r.stop()
	want := []string{"events_20261121_0000000001.jsonl", "events_20261121_0000000001.origin"}
	if names := glob(t, o.Dir, "events_*"); !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
	if got, want := read(t, filepath.Join(o.Dir, want[0])), string(makeEvent(1, 1).Line)+"\n"; got != want {
		t.Errorf("segment holds %q, want %q", got, want)
	}
	if info, err := os.Stat(filepath.Join(o.Dir, want[0])); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v (%v), want 0640", info.Mode(), err)
	}
}

func TestEachStartOpensANewSegmentLazily(t *testing.T) {
	o := onDisk(t)
	for life := range 4 {
		r := start(t, o)
		if life != 2 { // a life without events leaves no trace
			r.append(between(life*10, life*10+10)...)
		}
		r.stop()
	}
	if n := len(glob(t, o.Dir, "events_*.jsonl")); n != 3 {
		t.Errorf("%d segments after 3 lives with events and one without, want 3", n)
	}
	recs, _ := scan(t, nil, o.Dir)
	wantEvents(t, "scan", recs, slices.Concat(upTo(20), between(30, 40)))
	wantOrdinals(t, recs, 0)
}

func TestNumbersAreNeverReused(t *testing.T) {
	o := onDisk(t)
	r := start(t, o)
	r.append(1)
	r.stop()
	for _, name := range glob(t, o.Dir, "events_*") {
		if err := os.Remove(filepath.Join(o.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	r = start(t, o) // the state remembers
	r.append(2)
	r.stop()
	r = start(t, o, func(a *archive.Archive) { a.RaiseFloor(place.Make(40, 7), 1000) }) // the index knows better
	r.append(3)
	r.barrier()
	recs := readAll(t, r.Archive, place.Place{})
	r.stop()
	if recs[0].Place.Segment() != 2 || recs[0].Ordinal != 1 {
		t.Errorf("after its files were deleted: %s, ordinal %d; want segment 2, ordinal 1", recs[0].Place, recs[0].Ordinal)
	}
	if recs[1].Place.Segment() != 41 || recs[1].Ordinal != 1000 {
		t.Errorf("above the floor: %s, ordinal %d; want segment 41, ordinal 1000", recs[1].Place, recs[1].Ordinal)
	}
	write(t, filepath.Join(o.Dir, "events_20200101_0000000077.origin"), "")
	r = start(t, o)
	r.append(4)
	r.stop()
	if names := glob(t, o.Dir, "*0000000078.jsonl"); len(names) != 1 {
		t.Errorf("files: %v; want number 78 above the stray 77", glob(t, o.Dir, "events_*"))
	}
}

func TestRollsAtSize(t *testing.T) {
	o := onDisk(t)
	o.SegmentBytes = 10_000
	o.Sync = time.Hour
	r := start(t, o)
	r.inGroups(upTo(200)...)
	r.stop()
	names := glob(t, o.Dir, "events_*.jsonl")
	if len(names) < 8 {
		t.Errorf("%d segments, want about one per 10,000 bytes", len(names))
	}
	for _, name := range names {
		if info, err := os.Stat(filepath.Join(o.Dir, name)); err != nil || info.Size() > o.SegmentBytes {
			t.Errorf("%s has %d bytes (%v), want at most %d", name, info.Size(), err, o.SegmentBytes)
		}
	}
	recs, _ := scan(t, nil, o.Dir)
	wantEvents(t, "scan", recs, upTo(200))
	wantOrdinals(t, recs, 0)
}

func TestRollsAtMidnightAndTheNumberOrders(t *testing.T) {
	day := func(d, h int) time.Time { return time.Date(2026, 11, d, h, 0, 0, 0, time.UTC) }
	var now atomic.Pointer[time.Time]
	set := func(at time.Time) { now.Store(&at) }
	set(day(21, 23))
	o := onDisk(t)
	o.Now = func() time.Time { return *now.Load() }
	r := start(t, o)
	add := func(n int) { r.append(n); r.barrier() }
	add(0)
	add(1)
	set(day(22, 0))
	add(2)
	set(day(20, 12)) // the clock steps back: no new segment, and no earlier date
	add(3)
	r.stop()
	r = start(t, o)
	add(4)
	set(day(23, 1))
	add(5)
	r.stop()
	want := []string{
		"events_20261121_0000000001.jsonl", "events_20261122_0000000002.jsonl",
		"events_20261122_0000000003.jsonl", "events_20261123_0000000004.jsonl",
	}
	if names := glob(t, o.Dir, "events_*.jsonl"); !slices.Equal(names, want) {
		t.Errorf("segments %v, want %v", names, want)
	}
	recs, _ := scan(t, nil, o.Dir)
	wantEvents(t, "scan", recs, upTo(6))
	wantOrdinals(t, recs, 0)
}

func TestAnIdleSegmentEndsAtMidnight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Second})
		r.append(1)
		r.barrier()
		time.Sleep(25 * time.Hour)
		if got := r.Status(); got.Segments != 1 {
			t.Errorf("%d segments after an idle midnight, want 1", got.Segments)
		}
		r.append(2)
		r.stop()
		if names := d.files(".jsonl"); len(names) != 2 || !strings.Contains(names[1], "20000102") {
			t.Errorf("segments %v, want a second one of the next day", names)
		}
	})
}

func TestSyncPolicies(t *testing.T) {
	syncs := func(d *disk) (n int) {
		for _, op := range d.ops() {
			if strings.HasPrefix(op, "sync ") && strings.HasSuffix(op, ".jsonl") {
				n++
			}
		}
		return n - 1 // one is for the new file
	}
	t.Run("interval", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk()
			r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Second})
			for n := range 30 { // 3 s of events, one each 100 ms
				r.append(n)
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(10 * time.Second)
			if n := syncs(d); n < 2 || n > 4 {
				t.Errorf("%d fsyncs for 3 s of events at archive.sync 1s, want about 3", n)
			}
			if st := r.Status(); st.Unsynced != 0 {
				t.Errorf("%d events unsynced after 10 idle seconds, want 0", st.Unsynced)
			}
			r.stop()
		})
	})
	t.Run("8 MiB", func(t *testing.T) {
		d := newDisk()
		r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Hour})
		for n := range 20 {
			if err := r.Append(t.Context(), makeEvent(n, 1<<20), originOf(n)); err != nil {
				t.Fatal(err)
			}
		}
		for deadline := time.Now().Add(10 * time.Second); syncs(d) < 1 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if n := syncs(d); n < 1 || n > 3 {
			t.Errorf("%d fsyncs for 20 MiB at archive.sync 1h, want 2", n)
		}
		r.stop()
	})
	t.Run("always", func(t *testing.T) {
		d := newDisk()
		var early atomic.Int64
		r := start(t, archive.Options{Dir: "/a", FS: d})
		d.hook(func(op, name string) error {
			if end, _ := r.End(); op == "sync" && strings.HasSuffix(name, ".jsonl") {
				early.Store(int64(end.Offset()))
			}
			return nil
		})
		for n := range 5 {
			before, _ := r.End()
			r.append(n)
			r.barrier()
			if got := early.Load(); got != int64(before.Offset()) {
				t.Errorf("during the fsync of event %d readers saw %d bytes, want %d as before", n, got, before.Offset())
			}
		}
		if n := syncs(d); n < 5 {
			t.Errorf("%d fsyncs for 5 events, want one each", n)
		}
		d.hook(nil)
		r.stop()
	})
	t.Run("barrier", func(t *testing.T) {
		d := newDisk()
		r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Hour})
		r.barrier() // nothing unsynced: at once
		if n := syncs(d); n != -1 {
			t.Errorf("%d fsyncs without an event, want none", n+1)
		}
		r.append(upTo(10)...)
		r.barrier()
		if n := syncs(d); n < 1 || n > 2 {
			t.Errorf("%d fsyncs for a barrier behind 10 events, want 1", n)
		}
		if len(r.index.safe) != 10 {
			t.Errorf("%d events durable when the barrier was answered, want 10", len(r.index.safe))
		}
		for range 100 { // nobody listens: nobody waits
			if err := r.Barrier(t.Context(), make(chan error, 1)); err != nil {
				t.Fatal(err)
			}
		}
		r.stop()
	})
}

func TestAppendWaitsWhileTheQueueIsFull(t *testing.T) {
	d := newDisk()
	d.setFree(1 << 20) // below min_free: nothing is taken
	r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	var in atomic.Int64
	ended := make(chan error, 1)
	go func() {
		for n := range 5000 {
			if err := r.Append(ctx, makeEvent(n, n%300), originOf(n)); err != nil {
				ended <- err
				return
			}
			in.Add(1)
		}
		ended <- nil
	}()
	for last := int64(-1); in.Load() != last || last < 256; {
		last = in.Load()
		time.Sleep(20 * time.Millisecond)
	}
	if n := in.Load(); n > 2*256+1 {
		t.Errorf("%d events were taken without room, want at most a queue and a group", n)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("an Append that waits answers %v when its context ends", err)
	}
	r.cancel()
	r.end(errors.New("not written"))
	if err := <-r.done; err == nil || !strings.Contains(err.Error(), "not in the archive") {
		t.Errorf("Run ended with %v, want it to say that events were not written", err)
	}
	if err := r.Append(t.Context(), makeEvent(0, 0), record.Origin{}); !errors.Is(err, archive.ErrClosed) {
		t.Errorf("Append after the end: %v, want ErrClosed", err)
	}
	if err := r.Barrier(t.Context(), make(chan error, 1)); !errors.Is(err, archive.ErrClosed) {
		t.Errorf("Barrier after the end: %v, want ErrClosed", err)
	}
}

func TestManyProducersOneOrder(t *testing.T) {
	o := onDisk(t)
	r := start(t, o)
	const producers, each = 8, 300
	done := make(chan error, producers)
	for p := range producers {
		go func() {
			for n := range each {
				if err := r.Append(t.Context(), makeEvent(p*each+n, 10), originOf(n)); err != nil {
					done <- err
					return
				}
				if n%50 == 49 {
					answer := make(chan error, 1)
					err := r.Barrier(t.Context(), answer)
					if err == nil {
						err = <-answer
					}
					if err != nil {
						done <- err
						return
					}
				}
			}
			done <- nil
		}()
	}
	for range producers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	r.stop()
	recs, _ := scan(t, nil, o.Dir)
	seen := map[event.ID]int{}
	for i, rec := range recs {
		seen[rec.Event.ID] = i
	}
	if len(recs) != producers*each || len(seen) != producers*each {
		t.Errorf("%d lines, %d ids, want %d of both", len(recs), len(seen), producers*each)
	}
	for p := range producers {
		for n := 1; n < each; n++ {
			if a, b := seen[makeEvent(p*each+n-1, 10).ID], seen[makeEvent(p*each+n, 10).ID]; a > b {
				t.Fatalf("producer %d: event %d is behind its successor", p, n-1)
			}
		}
	}
}

func TestReplay(t *testing.T) {
	o := onDisk(t)
	o.SegmentBytes = 50_000
	r := start(t, o)
	r.append(upTo(900)...)
	r.stop()
	a := opened(t, o)
	defer a.Close()
	var all []record.Record
	batches := 0
	if err := a.Replay(t.Context(), place.Place{}, func(rs []record.Record) error {
		all = append(all, rs...)
		batches++
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wantEvents(t, "replay", all, upTo(900))
	wantOrdinals(t, all, 0)
	if batches > 5 {
		t.Errorf("%d batches for 900 events, want few", batches)
	}
	for _, from := range []int{1, 450, 899} {
		var rest []record.Record
		if err := a.Replay(t.Context(), all[from].Place, func(rs []record.Record) error {
			rest = append(rest, rs...)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		wantEvents(t, fmt.Sprintf("replay from %d", from), rest, between(from, 900))
		wantOrdinals(t, rest, uint64(from))
	}
	enough := errors.New("enough")
	if err := a.Replay(t.Context(), place.Place{}, func([]record.Record) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("replay answers %v, want the callback's error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Replay(ctx, place.Place{}, func([]record.Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("replay answers %v when its context has ended", err)
	}
}

func TestBound(t *testing.T) {
	o := onDisk(t)
	r := start(t, o)
	r.append(upTo(10)...)
	r.stop()
	a := opened(t, o)
	defer a.Close()
	end, _ := a.End()
	bound := a.Bound()
	for _, tt := range []struct {
		p    place.Place
		want bool
	}{
		{place.Make(1, 0), true},
		{place.Make(1, end.Offset()-1), true},
		{end, false},
		{place.Make(1, end.Offset()+100), false},
		{place.Make(0, 5), false},
		{place.Make(2, 0), true}, // this process makes it
	} {
		if got := bound(tt.p); got != tt.want {
			t.Errorf("bound(%s) = %v, want %v; the log ends at %s", tt.p, got, tt.want, end)
		}
	}
	a.RaiseFloor(place.Make(7, 1), 0)
	if bound := a.Bound(); bound(place.Make(7, 0)) || !bound(place.Make(8, 0)) {
		t.Error("segment 7, which only the index knows, counts; or 8, the next one, does not")
	}
}
