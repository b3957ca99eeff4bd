package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/archive"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

// counting counts open files.
type counting struct {
	archive.FS
	open, most atomic.Int64
}

type countedFile struct {
	archive.File
	c *counting
}

func (c *counting) Open(name string) (archive.File, error) {
	f, err := c.FS.Open(name)
	if err != nil {
		return nil, err
	}
	for n := c.open.Add(1); ; {
		if most := c.most.Load(); n <= most || c.most.CompareAndSwap(most, n) {
			break
		}
	}
	return &countedFile{f, c}, nil
}

func (f *countedFile) Close() error {
	f.c.open.Add(-1)
	return f.File.Close()
}

// Many readers, each from somewhere else, beside the writer: every one gets every record from its place on, in order.
func TestManyReadersAtOnce(t *testing.T) {
	const events, readers = 3000, 40
	c := &counting{FS: archive.OS{}}
	o := onDisk(t)
	o.FS = c
	o.SegmentBytes = 30_000
	r := start(t, o)
	r.append(upTo(500)...)
	r.barrier()
	known := readAll(t, r.Archive, place.Place{})
	var wg sync.WaitGroup
	for i := range readers {
		wg.Go(func() {
			from := i * len(known) / readers
			reader := r.Reader(known[from].Place)
			defer reader.Close()
			for n := from; n < events; n++ {
				rec, err := reader.Next(t.Context())
				if err != nil {
					t.Errorf("reader %d at event %d: %v", i, n, err)
					return
				}
				if rec.Ordinal != uint64(n) || rec.Event.ID != ids(n) || rec.Origin.Relay != originOf(n).Relay {
					t.Errorf("reader %d: record %d is ordinal %d, %s from %q", i, n, rec.Ordinal, rec.Event.ID, rec.Origin.Relay)
					return
				}
				if i%8 == 0 && n%100 == 0 { // some go on in a new reader
					reader.Close()
					reader = r.Reader(rec.End)
				}
			}
		})
	}
	r.append(between(500, events)...)
	wg.Wait()
	if n := c.open.Load(); n > 64 {
		t.Errorf("%d descriptors open for %d readers, want at most 64", n, readers)
	}
	if n := c.most.Load(); n > 64+2*readers {
		t.Errorf("%d descriptors were open at once", n)
	}
	r.stop()
	if n := c.open.Load(); n != 0 {
		t.Errorf("%d descriptors open after the end", n)
	}
}

var idCache sync.Map

func ids(n int) event.ID {
	if id, ok := idCache.Load(n); ok {
		return id.(event.ID)
	}
	id := makeEvent(n, n%300).ID
	idCache.Store(n, id)
	return id
}

// No wake-up is lost: each event is written only after the reader has come to wait for it, or just before.
func TestWakeUp(t *testing.T) {
	d := newDisk()
	r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Hour})
	ping := make(chan int)
	done := make(chan error, 1)
	go func() {
		reader := r.Reader(place.Place{})
		defer reader.Close()
		for n := range 3000 {
			ping <- n
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			_, err := reader.Next(ctx)
			cancel()
			if err != nil {
				done <- fmt.Errorf("event %d: %w", n, err)
				close(ping)
				return
			}
		}
		close(ping)
		done <- nil
	}()
	for n := range ping {
		for range rand.IntN(2000) { // a moment, of any length
		}
		if err := r.Append(t.Context(), makeEvent(n, 1), record.Origin{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.stop()
}

func TestNextEndsWithItsContext(t *testing.T) {
	d := newDisk()
	r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Hour})
	reader := r.Reader(place.Place{})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	if _, err := reader.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next of an empty archive: %v, want its context's error", err)
	}
	r.append(0)
	if _, err := reader.Next(t.Context()); err != nil {
		t.Errorf("Next after that: %v", err)
	}
	reader.Close()
	if _, err := reader.Next(t.Context()); !errors.Is(err, archive.ErrClosed) {
		t.Errorf("Next of a closed reader: %v, want ErrClosed", err)
	}
	r.stop()
}

func TestReadersStart(t *testing.T) {
	o := onDisk(t)
	o.SegmentBytes = 5_000
	r := start(t, o)
	r.inGroups(upTo(60)...)
	r.stop()
	a := opened(t, o)
	defer a.Close()
	all := readAll(t, a, place.Place{})
	end, _ := a.End()
	at := func(n int) place.Place { return all[n].Place }
	var border int // the first event of the second segment
	for all[border].Place.Segment() == all[0].Place.Segment() {
		border++
	}
	tests := map[string]struct {
		from  place.Place
		first int
	}{
		"the beginning":                      {place.Place{}, 0},
		"a line":                             {at(7), 7},
		"the end of a segment":               {all[border-1].End, border},
		"past the end of a segment":          {place.Make(at(0).Segment(), 1<<40), border},
		"the written end":                    {end, 60},
		"past the written end":               {place.Make(end.Segment(), end.Offset()+1000), 60},
		"a segment that is not there yet":    {place.Make(end.Segment()+1, 0), 60},
		"the middle of the one being looked": {at(border + 3), border + 3},
	}
	for name, tt := range tests {
		recs := readAll(t, a, tt.from)
		wantEvents(t, name, recs, between(tt.first, 60))
		wantOrdinals(t, recs, uint64(tt.first))
	}
}

// A line in the middle of a segment knows its ordinal although origins are lost around it.
func TestOrdinalsInTheMiddleWithoutOrigins(t *testing.T) {
	o := onDisk(t)
	r := start(t, o)
	r.append(upTo(100)...)
	r.stop()
	if err := os.Remove(filepath.Join(o.Dir, glob(t, o.Dir, "*.origin")[0])); err != nil {
		t.Fatal(err)
	}
	a := opened(t, o)
	defer a.Close()
	all := readAll(t, a, place.Place{})
	wantOrdinals(t, all, 0)
	for _, n := range []int{1, 50, 99} {
		recs := readAll(t, a, all[n].Place)
		wantOrdinals(t, recs, uint64(n))
		if len(recs) != 100-n {
			t.Errorf("from event %d: %d records", n, len(recs))
		}
	}
}

func TestLinesOfAnyLength(t *testing.T) {
	o := onDisk(t)
	r := start(t, o)
	sizes := []int{0, 1, 60_000, 64 << 10, 70_000, 3, 2 << 20, 5, 16 << 20, 7}
	for n, size := range sizes {
		if err := r.Append(t.Context(), makeEvent(n, size), originOf(n)); err != nil {
			t.Fatal(err)
		}
	}
	r.barrier()
	for n, rec := range readAll(t, r.Archive, place.Place{}) {
		if want := makeEvent(n, sizes[n]); string(want.Line) != string(rec.Event.Line) {
			t.Errorf("event %d of %d bytes came back as %d bytes", n, len(want.Line), len(rec.Event.Line))
		}
	}
	r.stop()
	recs, damaged := scan(t, nil, o.Dir)
	if len(recs) != len(sizes) || len(damaged) > 0 {
		t.Errorf("scan: %d events, %d damaged, want %d and none", len(recs), len(damaged), len(sizes))
	}
}

func TestReadErrorsCanBeRepeated(t *testing.T) {
	d := newDisk()
	r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Hour})
	r.append(upTo(10)...)
	r.barrier()
	reader := r.Reader(place.Place{})
	defer reader.Close()
	for n := range 10 {
		d.hook(func(op, name string) error {
			if op == "read" || op == "open" {
				return errors.New("cable")
			}
			return nil
		})
		rec, _, err := reader.TryNext()
		if n == 0 && err == nil {
			t.Error("the error was not told")
		}
		d.hook(nil)
		if err != nil {
			if rec, err = reader.Next(t.Context()); err != nil {
				t.Fatalf("after the error: %v", err)
			}
		}
		if rec.Ordinal != uint64(n) {
			t.Errorf("record %d has ordinal %d", n, rec.Ordinal)
		}
	}
	r.stop()
}
