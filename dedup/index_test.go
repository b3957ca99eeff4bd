package dedup_test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"rebroadcastr/dedup"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "30") // Badger takes its time to open; more by the flag
	goleak.VerifyTestMain(m,           // a Badger.Open that fails leaves these behind (its err is shadowed, so it skips its cleanup)
		goleak.IgnoreTopFunction("github.com/dgraph-io/badger/v4.(*DB).monitorCache"),
		goleak.IgnoreTopFunction("github.com/dgraph-io/ristretto/v2/z.(*AllocatorPool).freeupAllocators"))
}

const lineBytes = 300 // of a line in these tests' imaginary log

// id spreads n over the whole id, as a hash does.
func id(n uint64) (out event.ID) {
	for i := range 4 {
		n += 0x9e3779b97f4a7c15
		z := (n ^ n>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(out[8*i:], z^z>>31)
	}
	return out
}

// lines are records from to to-1 of segment seg.
func lines(seg uint32, from, to uint64) []record.Record {
	rs := make([]record.Record, 0, to-from)
	for n := from; n < to; n++ {
		rs = append(rs, record.Record{
			Place: place.Make(seg, n*lineBytes), End: place.Make(seg, (n+1)*lineBytes), Ordinal: n,
			Event: event.Event{ID: id(n), Kind: 1},
		})
	}
	return rs
}

func open(t rapid.TB, o dedup.Options) *dedup.Index {
	t.Helper()
	o.Log = zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel)
	x, err := dedup.Open(o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return x
}

func closeIndex(t rapid.TB, x *dedup.Index) {
	t.Helper()
	if err := x.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// running starts x.Run; stop ends it and waits.
func running(t rapid.TB, x *dedup.Index) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- x.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func state(t rapid.TB, x *dedup.Index, n uint64) dedup.State {
	t.Helper()
	s, err := x.Lookup(id(n))
	if err != nil {
		t.Fatalf("Lookup of event %d: %v", n, err)
	}
	return s
}

func want(t rapid.TB, x *dedup.Index, from, to uint64, state_ dedup.State) {
	t.Helper()
	for n := from; n < to; n++ {
		if got := state(t, x, n); got != state_ {
			t.Fatalf("event %d is %v, want %v", n, got, state_)
		}
	}
}

// eventually polls for what another goroutine brings about.
func eventually(t rapid.TB, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("never came: %s", what)
}

func TestAnIDGoesFromAbsentToPendingToKnown(t *testing.T) {
	x := open(t, dedup.Options{Dir: t.TempDir(), Shards: 2})
	defer closeIndex(t, x)
	stop := running(t, x)
	defer stop()

	want(t, x, 0, 1, dedup.Absent)
	x.Begin(id(0))
	want(t, x, 0, 1, dedup.Pending)
	if x.Hit(id(0)) {
		t.Error("a pending id is a hit in the LRU: a copy of it would be dropped before its line is written")
	}
	rs := lines(1, 0, 1)
	x.Written(rs)
	want(t, x, 0, 1, dedup.Known)
	if !x.Hit(id(0)) {
		t.Error("a written id is not in the LRU")
	}
	if got := x.Checkpoint(); !got.IsZero() {
		t.Errorf("the checkpoint is %v before any fsync: it would lie after a power cut", got)
	}
	x.Synced(rs[0].End)
	eventually(t, "the checkpoint at the synced end", func() bool { return x.Checkpoint() == rs[0].End })
	eventually(t, "an empty overlay", func() bool { return x.Status().Overlay == 0 })
	want(t, x, 0, 1, dedup.Known)
}

// A forged copy is looked up, fails its check and never reaches Begin.
func TestForgedCopiesLeaveNoTrace(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dedup.Options{Dir: dir, Shards: 2, LRU: 4})
	for range 100 {
		want(t, x, 0, 20, dedup.Absent)
		for n := range uint64(20) {
			if x.Hit(id(n)) {
				t.Fatalf("event %d is a hit after nothing but lookups", n)
			}
		}
	}
	if s := x.Status(); s.LRU != 0 || s.Pending != 0 || s.Overlay != 0 {
		t.Errorf("after lookups only: %+v, want nothing held", s)
	}
	closeIndex(t, x)
	x = open(t, dedup.Options{Dir: dir})
	defer closeIndex(t, x)
	want(t, x, 0, 20, dedup.Absent)
}

// One goroutine looks every id up at all times: once pending it may only become known, once known it stays.
func TestNoIDIsEverBetweenTwoStates(t *testing.T) {
	const ids, group = 6000, 50
	x := open(t, dedup.Options{Dir: t.TempDir(), Shards: 4, LRU: 64}) // small: lookups go past the LRU
	defer closeIndex(t, x)
	stop := running(t, x)
	defer stop()

	var wg sync.WaitGroup
	var end atomic.Uint64 // ids that are at least known
	var begun atomic.Uint64
	finished := make(chan struct{})
	wg.Go(func() { // the shards and the archive's appender
		defer close(finished)
		for n := uint64(0); n < ids; n += group {
			for i := n; i < n+group; i++ {
				x.Begin(id(i))
			}
			begun.Store(n + group)
			rs := lines(1, n, n+group)
			x.Written(rs)
			end.Store(n + group)
			if n%(4*group) == 0 {
				x.Synced(rs[group/2].End) // in the middle of a group, as an fsync may be
			}
		}
		x.Synced(place.Make(1, ids*lineBytes))
	})
	for w := range 4 { // readers and shards that get copies
		wg.Go(func() {
			step := uint64(2*w + 1)
			for n := uint64(w); ; n += step {
				select {
				case <-finished:
					return
				default:
				}
				known, started := end.Load(), begun.Load()
				if started == 0 {
					continue
				}
				i := n % started
				x.Hit(id(i))
				got, err := x.Lookup(id(i))
				if err != nil {
					t.Errorf("Lookup: %v", err)
					return
				}
				if got == dedup.Absent || i < known && got != dedup.Known {
					t.Errorf("event %d is %v after %d were begun and %d written", i, got, started, known)
					return
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "an empty overlay", func() bool { return x.Status().Overlay == 0 })
	want(t, x, 0, ids, dedup.Known)
	if s := x.Status(); s.LRU > 64 || s.Pending != 0 {
		t.Errorf("status %+v, want at most 64 in the LRU and nothing pending", s)
	}
}

func TestWhatIsNotSyncedIsNotInBadger(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dedup.Options{Dir: dir})
	stop := running(t, x)
	x.Written(lines(1, 0, 100))
	x.Synced(place.Make(1, 40*lineBytes))
	stop() // drains what is synced
	if got, end := x.Checkpoint(), place.Make(1, 40*lineBytes); got != end {
		t.Errorf("checkpoint %v, want %v", got, end)
	}
	want(t, x, 0, 100, dedup.Known)
	closeIndex(t, x)

	x = open(t, dedup.Options{Dir: dir})
	defer closeIndex(t, x)
	want(t, x, 0, 40, dedup.Known)
	want(t, x, 40, 100, dedup.Absent)
	if got, end := x.Checkpoint(), place.Make(1, 40*lineBytes); got != end {
		t.Errorf("checkpoint after a reopen %v, want %v", got, end)
	}
}

func TestRoomWaitsAtTheBound(t *testing.T) {
	x := open(t, dedup.Options{Dir: t.TempDir()})
	defer closeIndex(t, x)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := x.Room(ctx, dedup.MaxOverlay+1); err != nil {
		t.Errorf("a group above the bound never fits: %v", err)
	}
	x.Written(lines(1, 0, dedup.MaxOverlay-10))
	if err := x.Room(ctx, 10); err != nil {
		t.Errorf("Room for exactly the rest: %v", err)
	}
	gone, cancelGone := context.WithCancel(ctx)
	cancelGone()
	if err := x.Room(gone, 11); !errors.Is(err, context.Canceled) {
		t.Errorf("Room beyond the bound with an ended context: %v, want %v", err, context.Canceled)
	}
	got := make(chan error, 1)
	go func() { got <- x.Room(ctx, 11) }()
	stop := running(t, x)
	defer stop()
	select {
	case err := <-got:
		t.Errorf("Room answered %v while nothing was synced", err)
	case <-time.After(20 * time.Millisecond):
	}
	x.Synced(place.Make(1, 11*lineBytes))
	if err := <-got; err != nil {
		t.Errorf("Room after an fsync: %v", err)
	}
}

// After a failed fsync the tail is in a new segment, and the old places must not count as synced by the new end.
func TestATailAppendedAgainGetsItsNewPlaces(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dedup.Options{Dir: dir})
	stop := running(t, x)
	x.Written(lines(1, 0, 30))
	x.Synced(place.Make(1, 10*lineBytes))
	again := lines(2, 10, 30)
	x.Moved(again)
	want(t, x, 0, 30, dedup.Known)
	if s := x.Status(); s.Overlay > 30 {
		t.Errorf("overlay holds %d, want at most 30", s.Overlay)
	}
	x.Written(lines(2, 30, 40))
	x.Synced(place.Make(2, 35*lineBytes))
	stop()
	closeIndex(t, x)

	x = open(t, dedup.Options{Dir: dir})
	defer closeIndex(t, x)
	// Only what lies in segment 2 or in the part of segment 1 that was synced may be there.
	x.Trust(func(p place.Place) bool { return p.Segment() == 2 || p.Offset() < 10*lineBytes })
	want(t, x, 0, 35, dedup.Known)
	want(t, x, 35, 40, dedup.Absent)
}

func TestAnIndexNewerThanTheLogIsNotTrusted(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dedup.Options{Dir: dir})
	if err := x.Replay(lines(7, 0, 50)); err != nil {
		t.Fatal(err)
	}
	closeIndex(t, x)

	// The log comes back from a backup with 20 of the lines; the next segment's number follows the index's.
	x = open(t, dedup.Options{Dir: dir})
	defer closeIndex(t, x)
	x.Trust(func(p place.Place) bool { return p.Before(place.Make(7, 20*lineBytes)) })
	if got := x.Checkpoint().Segment(); got != 7 {
		t.Errorf("the checkpoint's segment is %d, want 7: the archive must not use that number again", got)
	}
	want(t, x, 0, 20, dedup.Known)
	want(t, x, 20, 50, dedup.Absent)

	stop := running(t, x)
	x.Begin(id(30))
	rs := []record.Record{{Place: place.Make(8, 0), End: place.Make(8, lineBytes), Event: event.Event{ID: id(30), Kind: 1}}}
	x.Written(rs)
	x.Synced(rs[0].End)
	stop()
	want(t, x, 30, 31, dedup.Known) // written by this process, behind the end known at start
	want(t, x, 31, 50, dedup.Absent)
}

func TestAnIndexOlderThanTheLogIsReplayed(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dedup.Options{Dir: dir})
	if err := x.Replay(lines(1, 0, 12_000)); err != nil { // more than one transaction
		t.Fatal(err)
	}
	closeIndex(t, x)
	x = open(t, dedup.Options{Dir: dir})
	defer closeIndex(t, x)
	if got, end := x.Checkpoint(), place.Make(1, 12_000*lineBytes); got != end {
		t.Fatalf("checkpoint %v, want %v", got, end)
	}
	want(t, x, 12_000, 12_100, dedup.Absent)
	if err := x.Replay(lines(1, 12_000, 12_100)); err != nil {
		t.Fatal(err)
	}
	want(t, x, 0, 12_100, dedup.Known)
}

// copyDir is the directory as a power cut or kill -9 would leave it.
func copyDir(t testing.TB, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestAnUncleanStopKeepsWhatWasCommitted(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dedup.Options{Dir: dir})
	stop := running(t, x)
	x.Written(lines(1, 0, 30_000))
	x.Synced(place.Make(1, 25_000*lineBytes))
	end := place.Make(1, 25_000*lineBytes)
	eventually(t, "the checkpoint", func() bool { return x.Checkpoint() == end })
	copied := copyDir(t, dir) // Badger is open and has flushed nothing
	stop()
	closeIndex(t, x)

	x = open(t, dedup.Options{Dir: copied})
	defer closeIndex(t, x)
	if got := x.Checkpoint(); got != end {
		t.Errorf("checkpoint %v, want %v", got, end)
	}
	want(t, x, 0, 25_000, dedup.Known)
	want(t, x, 25_000, 30_000, dedup.Absent)
}

// What a later process writes counts before what an earlier one wrote under the same key.
func TestEachStartWritesOverTheOneBefore(t *testing.T) {
	o := dedup.Options{Dir: t.TempDir()}
	for n := range uint64(4) {
		x := open(t, o)
		if got := x.Checkpoint(); got != place.Make(1, n*30*lineBytes) && n > 0 {
			t.Errorf("checkpoint at start %d: %v, want that of line %d", n, got, n*30)
		}
		for i := 3 * n; i < 10; i++ { // fewer transactions than the process before
			if err := x.Replay(lines(1, n*30+i*3, n*30+i*3+3)); err != nil {
				t.Fatal(err)
			}
		}
		closeIndex(t, x)
	}
}

// Cutting Badger's log at any byte may lose transactions, but only from the end and as a whole.
func TestATornTransactionIsNotHalfThere(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dedup.Options{Dir: dir})
	const txs, each = 5, 20
	for i := range uint64(txs) {
		if err := x.Replay(lines(1, i*each, (i+1)*each)); err != nil {
			t.Fatal(err)
		}
	}
	crashed := copyDir(t, dir)
	closeIndex(t, x)
	mems, err := filepath.Glob(filepath.Join(crashed, "*.mem"))
	if err != nil || len(mems) != 1 {
		t.Fatalf("memtable logs: %v, %v; want one", mems, err)
	}
	whole, err := os.ReadFile(mems[0])
	if err != nil {
		t.Fatal(err)
	}
	used := len(whole)
	for used > 0 && whole[used-1] == 0 {
		used--
	}
	for cut := used; cut > 20; cut -= 487 {
		torn := append([]byte(nil), whole...)
		clear(torn[cut:])
		at := copyDir(t, crashed)
		if err := os.WriteFile(filepath.Join(at, filepath.Base(mems[0])), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := dedup.Open(dedup.Options{Dir: at})
		if errors.Is(err, dedup.ErrDamaged) {
			continue // rebuilt: also right
		}
		if err != nil {
			t.Fatalf("cut at %d of %d: %v", cut, used, err)
		}
		n := x.Checkpoint().Offset() / lineBytes
		if n%each != 0 || n > txs*each {
			t.Errorf("cut at %d of %d: the checkpoint stands at event %d, want a multiple of %d", cut, used, n, each)
		}
		want(t, x, 0, n, dedup.Known)
		want(t, x, n, txs*each, dedup.Absent)
		closeIndex(t, x)
	}
}

func TestNothingIsWrittenBelowMinFree(t *testing.T) {
	var writable atomic.Bool
	dir := t.TempDir()
	x := open(t, dedup.Options{Dir: dir, Writable: writable.Load})
	stop := running(t, x)
	x.Written(lines(1, 0, 10))
	x.Synced(place.Make(1, 10*lineBytes))
	stop()
	if got := x.Checkpoint(); !got.IsZero() {
		t.Errorf("checkpoint %v while nothing may be written", got)
	}
	want(t, x, 0, 10, dedup.Known) // from the overlay
	writable.Store(true)
	closeIndex(t, x)
	x = open(t, dedup.Options{Dir: dir})
	defer closeIndex(t, x)
	want(t, x, 0, 10, dedup.Absent) // the archive replays them
}

func TestHitAllocatesNothing(t *testing.T) {
	x := open(t, dedup.Options{Dir: t.TempDir()})
	defer closeIndex(t, x)
	x.Written(lines(1, 0, 10))
	known, unknown := id(3), id(99)
	if n := testing.AllocsPerRun(1000, func() {
		if !x.Hit(known) || x.Hit(unknown) {
			t.Error("Hit is wrong")
		}
	}); n != 0 {
		t.Errorf("Hit allocates %v times, want 0", n)
	}
}

func TestShardsOwnTheirIDs(t *testing.T) {
	x := open(t, dedup.Options{Dir: t.TempDir(), Shards: 3})
	defer closeIndex(t, x)
	count := make([]int, x.Shards())
	for n := range uint64(3000) {
		count[x.Shard(id(n))]++
	}
	for i, n := range count {
		if n < 800 || n > 1200 {
			t.Errorf("shard %d owns %d of 3000 ids, want about a third", i, n)
		}
	}
}
