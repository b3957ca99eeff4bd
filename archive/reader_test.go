package archive_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

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

// seal does what sealing will do to the files of segment base.
func seal(t *testing.T, dir, base string, keepText bool) {
	t.Helper()
	for from, to := range map[string]string{".jsonl": ".jsonl.zst", ".origin": ".origin.zst"} {
		out, err := os.Create(filepath.Join(dir, base+to))
		if err != nil {
			t.Fatal(err)
		}
		enc, err := zstd.NewWriter(out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := enc.Write([]byte(read(t, filepath.Join(dir, base+from)))); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(enc.Close(), out.Close()); err != nil {
			t.Fatal(err)
		}
		if !keepText {
			if err := os.Remove(filepath.Join(dir, base+from)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSealedSegments(t *testing.T) {
	for _, stateLost := range []bool{false, true} {
		o := onDisk(t)
		o.SegmentBytes = 40_000
		r := start(t, o)
		r.inGroups(upTo(500)...)
		r.stop()
		all, _ := scan(t, nil, o.Dir)
		names := glob(t, o.Dir, "*.jsonl")
		for i, name := range names {
			seal(t, o.Dir, strings.TrimSuffix(name, ".jsonl"), i == 1) // one has both
		}
		if stateLost {
			o.State = nil
		}
		a := opened(t, o)
		recs := readAll(t, a, place.Place{})
		wantEvents(t, "reader", recs, upTo(500))
		wantOrdinals(t, recs, 0)
		for _, n := range []int{3, 250, 499} {
			recs := readAll(t, a, all[n].Place)
			wantEvents(t, fmt.Sprintf("reader from event %d", n), recs, between(n, 500))
			wantOrdinals(t, recs, uint64(n))
		}
		if end, next := a.End(); end != all[499].End || next != 500 {
			t.Errorf("end is %s, ordinal %d, want %s and 500", end, next, all[499].End)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		recs, damaged := scan(t, nil, o.Dir)
		wantEvents(t, "scan", recs, upTo(500))
		if len(damaged) > 0 {
			t.Errorf("scan found damage: %v", damaged)
		}
		if stateLost {
			continue
		}
		r = start(t, o)
		r.append(500)
		r.stop()
		recs, _ = scan(t, nil, o.Dir)
		wantEvents(t, "with one more", recs, upTo(501))
	}
}

func TestScanSaysThatASealedSegmentIsCut(t *testing.T) {
	o := onDisk(t)
	r := start(t, o)
	r.append(upTo(50)...)
	r.stop()
	base := strings.TrimSuffix(glob(t, o.Dir, "*.jsonl")[0], ".jsonl")
	seal(t, o.Dir, base, false)
	sealed := filepath.Join(o.Dir, base+".jsonl.zst")
	write(t, sealed, read(t, sealed)[:200])
	var failed error
	for _, err := range archive.Scan(t.Context(), o.Dir, archive.ScanOptions{}) {
		failed = err
	}
	if failed == nil {
		t.Error("the scan ended as if that was all")
	}
}

// A scan beside a running writer, over segments that come while it runs.
func TestScanBesideTheWriter(t *testing.T) {
	o := onDisk(t)
	o.SegmentBytes = 20_000
	r := start(t, o)
	r.append(0)
	r.barrier()
	const events = 6000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; n < events; n++ {
			if err := r.Append(t.Context(), makeEvent(n, n%300), originOf(n)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			r.barrier()
			running = false // and once more, to the end
		default:
		}
		r.index.mu.Lock()
		least := len(r.index.places)
		r.index.mu.Unlock()
		n := 0
		for rec, err := range archive.Scan(t.Context(), o.Dir, archive.ScanOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			if rec.Ordinal != uint64(n) || rec.Event.ID != ids(n) {
				t.Fatalf("record %d of the scan has ordinal %d", n, rec.Ordinal)
			}
			n++
		}
		if n < least {
			t.Errorf("a scan saw %d events, %d were there before it began", n, least)
		}
	}
	r.stop()
}

func TestScanFromAPlaceAndItsEnds(t *testing.T) {
	o := onDisk(t)
	r := start(t, o)
	r.append(upTo(20)...)
	r.stop()
	all, _ := scan(t, nil, o.Dir)
	var recs []record.Record
	for rec, err := range archive.Scan(t.Context(), o.Dir, archive.ScanOptions{From: all[12].Place}) {
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, rec)
	}
	wantEvents(t, "from a place", recs, between(12, 20))
	wantOrdinals(t, recs, 12)
	n := 0
	for range archive.Scan(t.Context(), o.Dir, archive.ScanOptions{}) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("a scan that is left after 3 records gave %d", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range archive.Scan(ctx, o.Dir, archive.ScanOptions{}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a scan whose context has ended gives %v", err)
		}
	}
	for _, err := range archive.Scan(t.Context(), filepath.Join(o.Dir, "no"), archive.ScanOptions{}) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a scan of nothing gives %v", err)
		}
	}
	text := filepath.Join(o.Dir, glob(t, o.Dir, "*.jsonl")[0])
	content := read(t, text)
	write(t, text, content[:len(content)-5]) // a line that is being written
	recs, damaged := scan(t, nil, o.Dir)
	if len(recs) != 19 || len(damaged) > 0 {
		t.Errorf("with half a line at the end: %d events, %d damaged, want 19 and none", len(recs), len(damaged))
	}
	write(t, text, "#"+content[1:])
	recs, damaged = scan(t, nil, o.Dir)
	if len(recs) != 19 || len(damaged) != 1 || damaged[0].Offset != 0 {
		t.Errorf("with a bad first line: %d events, damaged %v, want 19 and the line at byte 0", len(recs), damaged)
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

func withOrigins(recs []record.Record, ns ...int) []record.Record {
	out := append([]record.Record(nil), recs...)
	for i := range out {
		if i < len(ns) && out[i].Origin == (record.Origin{}) {
			out[i].Origin = originOf(ns[i])
		}
	}
	return out
}

// Segments are sealed under the feet of a reader and of a scan.
func TestSealedWhileBeingRead(t *testing.T) {
	o := onDisk(t)
	o.SegmentBytes = 20_000
	r := start(t, o)
	r.inGroups(upTo(300)...)
	r.stop()
	a := opened(t, o)
	defer a.Close()
	reader := a.Reader(place.Place{})
	defer reader.Close()
	var read []record.Record
	for rec, err := range archive.Scan(t.Context(), o.Dir, archive.ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, rec)
		if len(read) == 10 {
			if _, err := reader.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, name := range glob(t, o.Dir, "*.jsonl") {
				seal(t, o.Dir, strings.TrimSuffix(name, ".jsonl"), false)
			}
		}
	}
	wantEvents(t, "scan", read, upTo(300))
	for n := 1; n < 300; n++ {
		rec, ok, err := reader.TryNext()
		if err != nil || !ok || rec.Ordinal != uint64(n) || rec.Event.ID != ids(n) {
			t.Fatalf("reader at event %d: ordinal %d, %v, %v", n, rec.Ordinal, ok, err)
		}
	}
}
