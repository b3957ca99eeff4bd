package archive_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"rebroadcastr/archive"
	"rebroadcastr/event"
	"rebroadcastr/place"
)

// slowSync holds every fsync of a text while on, until gate is closed.
type slowSync struct {
	*disk
	on      atomic.Bool
	gate    chan struct{}
	entered chan struct{}
}

type slowFile struct {
	archive.File
	s *slowSync
}

func (s *slowSync) Create(name string, mode fs.FileMode) (archive.File, error) {
	f, err := s.disk.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return &slowFile{f, s}, nil
}

func (f *slowFile) Sync() error {
	if f.s.on.Load() {
		f.s.entered <- struct{}{}
		<-f.s.gate
	}
	return f.File.Sync()
}

// failing fails the operations on files with this ending, a number of times; -1: for ever.
type failing struct {
	op, ending string
	err        error
	times      int
	hits       int
}

func (f *failing) before(op, name string) error {
	if op != f.op || !strings.HasSuffix(name, f.ending) || f.times == 0 {
		return nil
	}
	f.times--
	f.hits++
	return f.err
}

func failAll(fs ...*failing) func(op, name string) error {
	return func(op, name string) error {
		for _, f := range fs {
			if err := f.before(op, name); err != nil {
				return err
			}
		}
		return nil
	}
}

// Whatever the disk refuses, for a while: every event is in the log once, readable once at any moment, in order, and
// durable when that is said; ordinals and numbers are used once.
func TestDiskErrors(t *testing.T) {
	eio, full := syscall.EIO, syscall.ENOSPC
	tests := []struct {
		name     string
		faults   []*failing
		sidecar  bool
		segments int // 0: any
	}{
		{name: "short write of lines", faults: []*failing{{op: "write", ending: ".jsonl", err: shortWrite{100}, times: 1}}, segments: 2},
		{name: "write of nothing", faults: []*failing{{op: "write", ending: ".jsonl", err: shortWrite{0}, times: 1}}, segments: 2},
		{name: "lines refused thrice", faults: []*failing{{op: "write", ending: ".jsonl", err: full, times: 3}}, segments: 2},
		{name: "short write of origins", faults: []*failing{{op: "write", ending: ".origin", err: shortWrite{20}, times: 1}}, segments: 2},
		{name: "origins refused", faults: []*failing{{op: "write", ending: ".origin", err: full, times: 4}}, segments: 2},
		{name: "fsync of lines", faults: []*failing{{op: "sync", ending: ".jsonl", err: eio, times: 1}}, segments: 2},
		{name: "fsync of origins", faults: []*failing{{op: "sync", ending: ".origin", err: eio, times: 1}}, segments: 2},
		{name: "fsync thrice", faults: []*failing{{op: "sync", ending: ".jsonl", err: eio, times: 3}}},
		{name: "no new segment for a while", faults: []*failing{
			{op: "write", ending: ".jsonl", err: shortWrite{7}, times: 1}, {op: "create", ending: ".jsonl", err: full, times: 5}}, segments: 2},
		{name: "no name can be made durable", faults: []*failing{
			{op: "sync", ending: ".jsonl", err: eio, times: 1}, {op: "syncdir", err: eio, times: 3}}, segments: 2},
		{name: "cut refused: spaces", faults: []*failing{
			{op: "sync", ending: ".jsonl", err: eio, times: 1}, {op: "truncate", ending: ".jsonl", err: eio, times: -1}}, segments: 2},
		{name: "cut and spaces refused: end mark", sidecar: true, faults: []*failing{
			{op: "sync", ending: ".jsonl", err: eio, times: 1}, {op: "truncate", ending: "1.jsonl", err: eio, times: -1},
			{op: "write", ending: "1.jsonl", err: eio, times: -1}}, segments: 2},
		{name: "the old segment is dead", sidecar: true, faults: []*failing{
			{op: "sync", ending: "1.jsonl", err: eio, times: -1}, {op: "write", ending: "1.jsonl", err: eio, times: -1},
			{op: "truncate", ending: "1.jsonl", err: eio, times: -1}}, segments: 2},
		{name: "even the end mark, for a while", sidecar: true, faults: []*failing{
			{op: "sync", ending: "1.jsonl", err: eio, times: -1}, {op: "truncate", ending: "1.jsonl", err: eio, times: -1},
			{op: "write", ending: "1.jsonl", err: eio, times: -1}, {op: "create", ending: ".end", err: full, times: 2}, {op: "sync", ending: ".end", err: full, times: 2}}, segments: 2},
		{name: "the new segment fails and cannot be removed", faults: []*failing{
			{op: "sync", ending: "1.jsonl", err: eio, times: 1}, {op: "write", ending: "2.jsonl", err: shortWrite{3000}, times: 1},
			{op: "remove", ending: "2.jsonl", err: eio, times: -1}}},
	}
	for _, tt := range tests {
		for _, policy := range []time.Duration{0, time.Hour} {
			t.Run(fmt.Sprintf("%s/%s", tt.name, policy), func(t *testing.T) {
				var faults []*failing
				for _, f := range tt.faults {
					c := *f
					faults = append(faults, &c)
				}
				synctest.Test(t, func(t *testing.T) {
					d := newDisk()
					r := start(t, archive.Options{Dir: "/a", FS: d, Sync: policy, State: nil})
					follow := r.Reader(place.Place{})
					defer follow.Close()
					r.append(upTo(40)...)
					r.barrier()
					r.append(between(40, 80)...) // in the tail, if there is one
					synctest.Wait()
					seen := drainReader(t, follow)
					d.hook(failAll(faults...))
					r.append(between(80, 120)...)
					r.barrier()
					hits := 0
					for _, f := range faults {
						hits += f.hits
					}
					if hits == 0 {
						t.Error("no fault was met")
					}
					r.append(between(120, 150)...)
					r.barrier()
					seen = append(seen, drainReader(t, follow)...)
					d.hook(nil)
					wantOnce(t, r, d, 150)
					if n := len(r.index.safe); n != 150 {
						t.Errorf("%d events durable, want 150", n)
					}
					// Who follows has every event, and nothing but ascending ordinals.
					ids := map[event.ID]bool{}
					last := uint64(0)
					for i, s := range seen {
						if i > 0 && s.ordinal <= last {
							t.Errorf("a reader got ordinal %d after %d", s.ordinal, last)
						}
						last = s.ordinal
						ids[s.id] = true
					}
					if len(ids) != 150 {
						t.Errorf("a reader that follows saw %d of 150 events", len(ids))
					}
					if st := r.Status(); st.Waiting != "" || tt.segments > 0 && st.Segments != tt.segments {
						t.Errorf("status %+v: want %d segments and no waiting", st, tt.segments)
					}
					r.stop()
					if ends := d.files(".end"); tt.sidecar && policy > 0 && len(ends) != 1 {
						t.Errorf("end marks: %v, want one", ends)
					}
					// and after a restart, which mends what it can
					next := r.index.highest()
					r = start(t, archive.Options{Dir: "/a", FS: d, Sync: policy})
					wantOnce(t, r, d, 150)
					if _, got := r.End(); got < next {
						t.Errorf("after a restart the next ordinal is %d, want at least %d", got, next)
					}
					if ends := d.files(".end"); len(ends) > 0 {
						t.Errorf("end marks after a restart on a sound disk: %v", ends)
					}
					r.stop()
				})
			})
		}
	}
}

type sight struct {
	id      event.ID
	ordinal uint64
}

func drainReader(t *testing.T, r *archive.Reader) (seen []sight) {
	t.Helper()
	for {
		rec, ok, err := r.TryNext()
		if err != nil {
			t.Fatalf("a reader that follows: %v", err)
		}
		if !ok {
			return seen
		}
		seen = append(seen, sight{rec.Event.ID, rec.Ordinal})
	}
}

// wantOnce checks that the log has events 0 to n-1, each once and in order, for readers with and without the lock.
func wantOnce(t *testing.T, r *rig, d *disk, n int) {
	t.Helper()
	wantEvents(t, "reader", readAll(t, r.Archive, place.Place{}), upTo(n))
	recs, damaged := scan(t, d, "/a")
	wantEvents(t, "scan", recs, upTo(n))
	if len(damaged) > 0 {
		t.Errorf("scan found damage: %v", damaged)
	}
}

func TestOneNumberPerSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Second})
		f := &failing{op: "write", ending: ".jsonl", err: syscall.ENOSPC, times: 20}
		d.hook(f.before)
		r.append(1)
		time.Sleep(5 * time.Second)
		if st := r.Status(); !strings.Contains(st.Waiting, "no space left") || st.WaitingSince.IsZero() {
			t.Errorf("status while the disk refuses: %+v", st)
		}
		r.barrier()
		r.stop()
		if names := d.files(".jsonl"); len(names) != 1 || !strings.HasSuffix(names[0], "0000000001.jsonl") {
			t.Errorf("segments after 20 failures: %v, want number 1 alone", names)
		}
	})
}

func TestMinFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		o := archive.Options{Dir: "/a", FS: d, Sync: time.Second, MinFree: 1000}
		r := start(t, o)
		r.append(upTo(10)...)
		r.barrier()
		d.setFree(999)
		time.Sleep(2 * time.Second)
		if st := r.Status(); !r.Low() || !strings.Contains(st.Waiting, "archive.min_free") || st.Free != 999 || st.MinFree != 1000 {
			t.Errorf("idle, with 999 of 1000 bytes free: low %v, status %+v", r.Low(), st)
		}
		before := len(d.ops())
		r.append(between(10, 20)...)
		time.Sleep(time.Minute)
		d.setFree(1199)
		time.Sleep(time.Minute)
		if ops := d.ops()[before:]; len(ops) > 0 {
			t.Errorf("below 1.2 times min_free there was %v, want nothing", ops)
		}
		if got := len(readAll(t, r.Archive, place.Place{})); got != 10 {
			t.Errorf("readers see %d events meanwhile, want 10", got)
		}
		d.setFree(1200)
		r.barrier()
		if st := r.Status(); r.Low() || st.Waiting != "" {
			t.Errorf("with 1200 bytes free: low %v, status %+v", r.Low(), st)
		}
		wantOnce(t, r, d, 20)
		r.stop()
	})
}

// While there is no room the index is not told to write; it is once there is.
func TestIndexIsNotToldBelowMinFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		r := start(t, archive.Options{Dir: "/a", FS: d, Sync: 10 * time.Second, MinFree: 1000})
		r.append(upTo(10)...)
		time.Sleep(time.Second)
		d.setFree(10)
		time.Sleep(20 * time.Second)
		told := func() int {
			r.index.mu.Lock()
			defer r.index.mu.Unlock()
			return len(r.index.safe)
		}
		if st := r.Status(); st.Unsynced != 0 || told() != 0 {
			t.Errorf("without room: %d events unsynced, the index knows of %d; want them durable and the index not told", st.Unsynced, told())
		}
		d.setFree(5000)
		time.Sleep(2 * time.Second)
		if told() != 10 {
			t.Errorf("with room again the index knows of %d events, want 10", told())
		}
		r.stop()
	})
}

func TestMinFreeByDefault(t *testing.T) {
	for _, tt := range []struct{ total, want int64 }{
		{1 << 30, 128 << 20}, {10 << 30, 512 << 20}, {1 << 40, 1 << 30},
	} {
		d := newDisk()
		d.total = tt.total
		if _, need, err := archive.Room(d, "/a", 0); err != nil || need != tt.want {
			t.Errorf("filesystem of %d bytes: min_free %d (%v), want %d", tt.total, need, err, tt.want)
		}
	}
	if free, need, err := archive.Room(nil, t.TempDir(), 42); err != nil || free <= 0 || need != 42 {
		t.Errorf("real filesystem: free %d, need %d (%v), want some, 42", free, need, err)
	}
}

// A stop while the disk refuses ends, and says what is lost.
func TestStopWhileTheDiskRefuses(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		synctest.Test(t, func(t *testing.T) {
			d := newDisk()
			r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Second})
			r.append(upTo(5)...)
			r.barrier()
			f := &failing{op: op, ending: ".jsonl", err: syscall.EIO, times: -1}
			d.hook(f.before)
			r.append(between(5, 10)...)
			answer := make(chan error, 1)
			if err := r.Barrier(t.Context(), answer); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
			r.cancel()
			r.end(errors.New("some"))
			if err := <-r.done; err == nil || !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: Run ended with %v, want EIO", op, err)
			}
			if err := <-answer; !errors.Is(err, archive.ErrClosed) {
				t.Errorf("%s: the barrier was answered %v, want ErrClosed", op, err)
			}
			d.hook(nil)
			r = start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Second})
			got := readAll(t, r.Archive, place.Place{})
			if len(got) < 5 {
				t.Errorf("%s: %d events left, want the 5 that were durable", op, len(got))
			}
			wantEvents(t, op, got[:5], upTo(5))
			r.stop()
		})
	}
}

// An fsync that never returns holds a hard stop up for a moment only: it says what is not durable, every barrier is
// answered, and what was durable is there for the next start.
func TestStopWhileAnFsyncHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowSync{disk: newDisk(), gate: make(chan struct{}), entered: make(chan struct{}, 100)}
		r := start(t, archive.Options{Dir: "/a", FS: slow, Sync: time.Second})
		r.append(upTo(5)...)
		r.barrier()
		slow.on.Store(true)
		r.append(between(5, 10)...)
		answer := make(chan error, 1)
		if err := r.Barrier(t.Context(), answer); err != nil {
			t.Fatal(err)
		}
		<-slow.entered
		r.append(between(10, 15)...)
		r.cancel()
		r.end(archive.ErrStuck)
		if err := <-r.done; !errors.Is(err, archive.ErrStuck) || !strings.Contains(err.Error(), "10 events") {
			t.Errorf("Run ended with %v, want ErrStuck and how many are not durable", err)
		}
		if err := <-answer; !errors.Is(err, archive.ErrClosed) {
			t.Errorf("the barrier was answered %v, want ErrClosed", err)
		}
		if err := r.Append(t.Context(), makeEvent(99, 0), originOf(99)); !errors.Is(err, archive.ErrClosed) {
			t.Errorf("an Append after the end: %v, want ErrClosed", err)
		}
		if why := r.Status().Waiting; !strings.Contains(why, "does not answer") {
			t.Errorf("the status says %q, want that the disk does not answer", why)
		}
		recs, _ := scan(t, slow.disk.cut(newRand(1)), "/a")
		if len(recs) < 5 {
			t.Errorf("after a power cut %d events are left, want the 5 that were durable", len(recs))
		}
		wantEvents(t, "durable", recs[:5], upTo(5))
		close(slow.gate) // the kernel returns after all: what was left behind ends
		time.Sleep(time.Second)
	})
}

// A hard stop writes what is queued and syncs.
func TestCancelKeepsWhatWasHandedOver(t *testing.T) {
	d := newDisk()
	r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Hour})
	r.append(upTo(200)...)
	r.cancel()
	r.end(nil)
	recs, _ := scan(t, d.cut(newRand(1)), "/a")
	wantEvents(t, "after a power cut behind the stop", recs, upTo(200))
}

// A panic in the observer ends Run with an error, and everything that waits.
func TestPanicEndsRun(t *testing.T) {
	d := newDisk()
	r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Millisecond})
	r.index.mu.Lock()
	r.index.onSync = func(place.Place) { panic("boom") }
	r.index.mu.Unlock()
	r.append(1)
	r.end(errors.New("panic"))
	if err := <-r.done; err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("Run ended with %v, want the panic", err)
	}
	names := d.files(".jsonl")
	if !slices.Equal(names, d.files(".jsonl")) || len(names) != 1 {
		t.Errorf("segments %v, want one", names)
	}
}
