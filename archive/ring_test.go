package archive_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/archive"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

// TestRing: readers that are now at the log's end and now behind what is kept in memory get the same records as one that reads
// the files alone: all of them, once, in order, over segments' borders.
func TestRing(t *testing.T) {
	const events, readers = 6000, 8
	rng := rand.New(rand.NewPCG(1, 2))
	o := onDisk(t)
	o.SegmentBytes, o.Ring = 200_000, 50_000 // of some 600 events, and of some 60
	r := start(t, o)
	var open [readers]*archive.Reader
	var got [readers][]record.Record
	for i := range open {
		open[i] = r.Reader(place.Place{})
	}
	read := func(i, most int) {
		for range most {
			rec, ok, err := open[i].TryNext()
			if err != nil {
				t.Fatalf("reader %d: %v", i, err)
			}
			if !ok {
				return
			}
			got[i] = append(got[i], rec)
		}
	}
	for from := 0; from < events; {
		to := min(from+1+rng.IntN(60), events)
		r.append(between(from, to)...)
		r.barrier()
		from = to
		for i := range open {
			switch rng.IntN(i + 2) {
			case 0:
				read(i, events)
			case 1:
				read(i, rng.IntN(80))
			case 2: // goes on in a new one
				open[i].Close()
				at := place.Place{}
				if n := len(got[i]); n > 0 {
					at = got[i][n-1].End
				}
				open[i] = r.Reader(at)
			}
		}
	}
	for i := range open {
		read(i, events)
		open[i].Close()
	}
	r.stop()
	want, damaged := scan(t, archive.OS{}, o.Dir)
	if len(want) != events || len(damaged) > 0 {
		t.Fatalf("the files hold %d events and %d damaged lines, want %d and none", len(want), len(damaged), events)
	}
	for i := range got {
		if len(got[i]) != len(want) {
			t.Errorf("reader %d got %d records, want %d", i, len(got[i]), len(want))
			continue
		}
		for n := range want {
			if !reflect.DeepEqual(got[i][n], want[n]) {
				t.Errorf("reader %d, record %d: %+v, the files say %+v", i, n, got[i][n], want[n])
				break
			}
		}
	}
}

// reads counts what readers take out of files.
type reads struct {
	archive.FS
	n atomic.Int64
}

type readFile struct {
	archive.File
	of *reads
}

func (r *reads) Open(name string) (archive.File, error) {
	f, err := r.FS.Open(name)
	return readFile{f, r}, err
}

func (f readFile) ReadAt(b []byte, at int64) (int, error) {
	f.of.n.Add(1)
	return f.File.ReadAt(b, at)
}

func (r *reads) Create(name string, mode fs.FileMode) (archive.File, error) {
	return r.FS.Create(name, mode)
}

// TestRingServesTheEnd: a reader at the log's end reads no file, however many there are, and the lines that an error of the disk
// took back are not given from memory.
func TestRingServesTheEnd(t *testing.T) {
	d := newDisk()
	files := &reads{FS: d}
	r := start(t, archive.Options{Dir: "/a", FS: files, Sync: time.Hour})
	reader := r.Reader(place.Place{})
	defer reader.Close()
	next := func(n int) record.Record {
		t.Helper()
		rec, err := reader.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if rec.Event.ID != ids(n) {
			t.Fatalf("event %s, want number %d", rec.Event.ID, n)
		}
		return rec
	}
	r.append(0)
	next(0) // enters the segment
	before := files.n.Load()
	for n := 1; n <= 100; n++ {
		r.append(n)
		for _, written := r.End(); written <= uint64(n); _, written = r.End() { // one that comes between a reader's two looks is read
			runtime.Gosched()
		}
		next(n)
	}
	if got := files.n.Load() - before; got > 0 {
		t.Errorf("%d reads of files for 100 events at the log's end, want none", got)
	}
	r.barrier()

	fault := failing{op: "sync", ending: ".jsonl", err: errors.New("input/output error"), times: 1}
	d.hook(fault.before)
	r.append(101)
	old := next(101)
	r.barrier() // its fsync fails; the line is taken back and written anew
	if again := next(101); !old.Place.Before(again.Place) || again.Place.Segment() == old.Place.Segment() {
		t.Errorf("event 101 stands at %s, was taken back at %s", again.Place, old.Place)
	}
	from := r.Reader(old.Place)
	defer from.Close()
	if rec, err := from.Next(t.Context()); err != nil || rec.Place == old.Place {
		t.Errorf("at %s, where lines were taken back: %+v, %v; want the line behind them", old.Place, rec, err)
	}
	r.stop()
}
