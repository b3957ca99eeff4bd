package dedup

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/place"
)

// some are ids from on up to to, hashes as ids are.
func some(from, to uint64) []entry {
	batch := make([]entry, 0, to-from)
	for n := from; n < to; n++ {
		id := event.ID(sha256.Sum256(binary.BigEndian.AppendUint64(nil, n)))
		batch = append(batch, entry{id, place.Make(1, 100*n)})
	}
	return batch
}

// perhapsOf counts those that f does not rule out.
func perhapsOf(f *filter, batch []entry) (n int) {
	for i := range batch {
		if f.has(&batch[i].id) {
			n++
		}
	}
	return n
}

// A filter has every id that was added, also when it has grown, and rules out nearly all others.
func TestFilter(t *testing.T) {
	const ids = 4 * minFilter
	f := newFilter(0)
	for from := uint64(0); from < ids; from += 5000 {
		f.add(some(from, min(from+5000, ids)))
	}
	if n := len(*f.layers.Load()); n != 3 { // of 1, 2 and 4 times minFilter
		t.Errorf("%d layers, want 3", n)
	}
	if n := perhapsOf(f, some(0, ids)); n != ids {
		t.Errorf("it has %d of %d ids that were added", n, ids)
	}
	if n := perhapsOf(f, some(ids, 2*ids)); n > ids/100 {
		t.Errorf("it says perhaps of %d of %d unknown ids, want 1 in 100 at most", n, ids)
	}
}

// However many ids there are, the filter keeps to its bytes, and still has all of them.
func TestFilterIsBounded(t *testing.T) {
	f := newFilter(maxFilter) // as many bits for each as it is given
	layers := *f.layers.Load()
	if size := layers[0].bytes(); size > maxFilter || len(layers) != 1 {
		t.Fatalf("%d bytes, want %d at most", size, maxFilter)
	}
	layers[0].ids = 1 << 40
	f.add(some(0, 1000))
	if n := len(*f.layers.Load()); n != 1 {
		t.Errorf("%d layers, want 1: there is no more room", n)
	}
	if n := perhapsOf(f, some(0, 1000)); n != 1000 {
		t.Errorf("it has %d of 1000", n)
	}
}

// A filter comes back as it was, and only if it is whole and of the same version.
func TestFilterFile(t *testing.T) {
	dir := t.TempDir()
	f := newFilter(0)
	f.add(some(0, 300_000))
	if err := f.save(dir, 7); err != nil {
		t.Fatal(err)
	}
	back := loadFilter(dir, 7)
	if back == nil {
		t.Fatal("it is not read back")
	}
	if n := perhapsOf(back, some(0, 300_000)); n != 300_000 {
		t.Errorf("it has %d of 300000", n)
	}
	if was, is := *f.layers.Load(), *back.layers.Load(); len(is) != len(was) || is[1].ids != was[1].ids || !slices.Equal(is[1].words, was[1].words) {
		t.Error("it is another one")
	}
	if loadFilter(dir, 8) != nil {
		t.Error("it is taken for another version's")
	}
	path := filepath.Join(dir, filterFile)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{0, 8, 12, 16, 24, 32, 40, 100, len(whole) - 5, len(whole) - 1} {
		bad := slices.Clone(whole)
		bad[at] ^= 0x10
		for _, b := range [][]byte{bad, whole[:at]} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if loadFilter(dir, 7) != nil {
				t.Errorf("a file of %d bytes, changed at %d, is taken", len(b), at)
			}
		}
	}
}

func openTest(t *testing.T, dir string) *store {
	t.Helper()
	s, err := openStore(dir, 0, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *store) putTest(t *testing.T, batch []entry) {
	t.Helper()
	if err := s.put(batch, nil, batch[len(batch)-1].at, nil); err != nil {
		t.Fatal(err)
	}
}

func (s *store) wantAll(t *testing.T, batch []entry) {
	t.Helper()
	for _, e := range batch {
		if at, ok, err := s.get(e.id); err != nil || !ok || at != e.at {
			t.Fatalf("%s: at %v, found %t, %v; want it at %v", e.id, at, ok, err, e.at)
		}
	}
}

// The filter of an earlier stop knows nothing of what was put since: a kill may not bring it back.
func TestFilterAfterAKill(t *testing.T) {
	dir, killed := t.TempDir(), t.TempDir()
	s := openTest(t, dir)
	s.putTest(t, some(0, 1000))
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir)
	if s.known.filter.Load() == nil {
		t.Error("the filter was not kept over a clean stop")
	}
	s.putTest(t, some(1000, 2000))
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil { // what a kill leaves
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, killed)
	if s.known.filter.Load() != nil {
		t.Error("it has a filter, of a version before")
	}
	s.wantAll(t, some(0, 2000))
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

// What a put that failed has left in the index nobody knows: the number of its version may be the next put's, too, of whose ids the
// filter that is kept knows nothing.
func TestFilterAfterAFailedPut(t *testing.T) {
	dir, killed := t.TempDir(), t.TempDir()
	s := openTest(t, dir)
	s.putTest(t, some(0, 1000))
	if err := s.db.Close(); err != nil { // it takes no commit any more
		t.Fatal(err)
	}
	if err := s.put(some(1000, 1010), nil, place.Make(1, 100_000), nil); err == nil {
		t.Fatal("a closed database has taken a put")
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir)
	s.putTest(t, some(2000, 2010))
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil { // what a kill leaves
		t.Fatal(err)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, killed)
	s.wantAll(t, some(0, 1000))
	s.wantAll(t, some(2000, 2010))
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

// An index without a filter makes one once many ids were asked for, beside puts, and misses no id.
func TestFill(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	for from := uint64(0); from < 20_000; from += 5000 {
		s.putTest(t, some(from, from+5000))
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, filterFile)); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir)
	filled := make(chan error, 1)
	go func() { filled <- s.fill(t.Context()) }()
	for _, e := range some(1_000_000, 1_000_000+minAsked) {
		if _, ok, err := s.get(e.id); ok || err != nil {
			t.Fatalf("an unknown id is found: %t, %v", ok, err)
		}
	}
	for from := uint64(20_000); from < 30_000; from += 100 {
		s.putTest(t, some(from, from+100))
		s.wantAll(t, some(from, from+100))
	}
	if err := <-filled; err != nil {
		t.Fatal(err)
	}
	f := s.known.filter.Load()
	if f == nil {
		t.Fatal("there is no filter")
	}
	s.wantAll(t, some(0, 30_000))
	if n := perhapsOf(f, some(1_000_000, 1_010_000)); n > 100 {
		t.Errorf("it says perhaps of %d of 10000 unknown ids", n)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if s = openTest(t, dir); s.known.filter.Load() == nil {
		t.Error("the filter was not kept")
	}
	s.wantAll(t, some(0, 30_000))
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

// Badger's iterator leaves out a damaged block without a word: no filter is made of such an index, and the next start rebuilds it.
func TestFillOfADamagedIndex(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	s.putTest(t, some(0, 5000))
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, filterFile)); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(dir, "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables, %v", err)
	}
	b, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(tables[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir)
	s.known.wanted <- struct{}{}
	if err := s.fill(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Errorf("fill: %v, want %v", err, ErrDamaged)
	}
	if s.known.filter.Load() != nil {
		t.Error("there is a filter of what could be read")
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(dir, 0, zerolog.Nop()); !errors.Is(err, ErrDamaged) {
		t.Errorf("the next open: %v, want %v", err, ErrDamaged)
	}
}

// A stop does not wait until all ids are read.
func TestFillStops(t *testing.T) {
	s := openTest(t, t.TempDir())
	s.putTest(t, some(0, 2*fillStep))
	s.known.filter.Store(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 {
		if err := s.fill(ctx); err != nil || s.known.filter.Load() != nil {
			t.Errorf("fill: %v, want no error and no filter", err)
		}
		select {
		case s.known.wanted <- struct{}{}:
		default:
		}
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}
