package archive_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"rebroadcastr/archive"
	"rebroadcastr/place"
)

// originTally is a filesystem that counts what is read of origin files.
type originTally struct {
	archive.FS
	origins *atomic.Int64
}

type talliedFile struct {
	archive.File
	n *atomic.Int64
}

func (c originTally) Open(name string) (archive.File, error) {
	f, err := c.FS.Open(name)
	if err != nil || !strings.HasSuffix(name, ".origin") {
		return f, err
	}
	return talliedFile{f, c.origins}, nil
}

func (f talliedFile) ReadAt(b []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(b, off)
	f.n.Add(int64(n))
	return n, err
}

// TestOneEventByItsPlace: whoever reads single events, in any order and beside others, gets what one who reads all gets, and
// does not read all origins before each.
func TestOneEventByItsPlace(t *testing.T) {
	const n = 12_000
	o := onDisk(t)
	var read atomic.Int64
	o.FS = originTally{archive.OS{}, &read}
	o.Ring = -1 // from the files
	r := start(t, o)
	defer r.stop()
	for i := range n {
		origin := originOf(i)
		origin.Relay = fmt.Sprintf("wss://relay%d.example", i/200) // new ones all along the file
		if err := r.Append(t.Context(), makeEvent(i, i%300), origin); err != nil {
			t.Fatal(err)
		}
	}
	r.barrier()
	all := readAll(t, r.Archive, place.Place{})
	if len(all) != n {
		t.Fatalf("the archive has %d records, want %d", len(all), n)
	}
	one := func(i int) {
		reader := r.Reader(all[i].Place)
		defer reader.Close()
		if rec, ok, err := reader.TryNext(); err != nil || !ok || !reflect.DeepEqual(rec, all[i]) {
			t.Errorf("event %d by its place: ordinal %d, %+v, %t, %v; want %d, %+v", i, rec.Ordinal, rec.Origin, ok, err, all[i].Ordinal, all[i].Origin)
		}
	}
	whole := read.Swap(0)
	one(n - 1)
	if got := read.Swap(0); got < whole/2 {
		t.Errorf("the first look at the last event read %d bytes of origins of about %d: nothing to measure", got, whole)
	}
	one(n - 1)
	if got := read.Load(); got > 24<<10 {
		t.Errorf("the second look read %d bytes of origins, want at most 24 KiB", got)
	}
	var readers sync.WaitGroup
	for seed := range uint64(4) {
		readers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 0))
			for range 500 {
				one(rng.IntN(n))
			}
		})
	}
	readers.Wait()
	for _, i := range []int{1, 99, n / 2} { // and goes on behind it
		if recs := readAll(t, r.Archive, all[i].Place); !reflect.DeepEqual(recs, all[i:]) {
			t.Errorf("from event %d: %d records, want %d that are the same", i, len(recs), n-i)
		}
	}
}
