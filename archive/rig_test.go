package archive_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"rebroadcastr/archive"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/state"
)

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "25") // some 80 crashes, in 10 s under -race; more by the flag
	goleak.VerifyTestMain(m)
}

// makeEvent is event number n, with an id that is its hash. The archive does not look at signatures.
func makeEvent(n, size int) event.Event {
	const form = `{"id":"%s","pubkey":"%064x","created_at":%d,"kind":1,"tags":[["t","test"]],"content":"%d %s","sig":"%0128x"}`
	line := func(id string) string {
		return fmt.Sprintf(form, id, n%7, 1700000000+n, n, strings.Repeat("x", size), n)
	}
	var e event.Event
	if err := event.Parse([]byte(line(strings.Repeat("0", 64))), &e); err != nil {
		panic(err)
	}
	var out event.Event
	if err := event.Parse([]byte(line(e.Hash().String())), &out); err != nil {
		panic(err)
	}
	return out
}

func originOf(n int) record.Origin {
	return record.Origin{
		Relay:     fmt.Sprintf("wss://relay%d.example", n%3),
		Received:  time.UnixMilli(1700000000000 + int64(n)),
		How:       record.How(1 + n%5),
		NoDeliver: n%11 == 0,
	}
}

// index is the observer of the tests. It checks the order in which it is told.
type index struct {
	mu      sync.Mutex
	places  map[event.ID]place.Place
	ids     map[uint64]event.ID // by ordinal
	written place.Place
	synced  place.Place
	safe    map[event.ID]bool
	pending []record.Record // written, not synced
	moved   int
	wrong   []string
	onSync  func(place.Place)
	end     func() (place.Place, uint64) // of what readers are given
}

func newIndex() *index {
	return &index{places: map[event.ID]place.Place{}, ids: map[uint64]event.ID{}, safe: map[event.ID]bool{}}
}

func (x *index) Room(context.Context, int) error { return nil }

func (x *index) Written(rs []record.Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unreadLocked(rs)
	for _, r := range rs {
		if _, ok := x.places[r.Event.ID]; ok {
			x.wrongLocked("written twice: %s", r.Event.ID)
		}
		if r.Place.Before(x.written) {
			x.wrongLocked("written at %s after %s", r.Place, x.written)
		}
		x.setLocked(r)
		x.pending = append(x.pending, r)
		x.written = r.End
	}
}

// unreadLocked: what a line says of others must be known before anyone reads it, or what is behind it.
func (x *index) unreadLocked(rs []record.Record) {
	if end, _ := x.end(); rs[0].Place.Before(end) {
		x.wrongLocked("told of %s when readers are given all up to %s", rs[0].Place, end)
	}
}

func (x *index) setLocked(r record.Record) {
	if id, ok := x.ids[r.Ordinal]; ok && id != r.Event.ID {
		x.wrongLocked("ordinal %d issued twice", r.Ordinal)
	}
	x.ids[r.Ordinal] = r.Event.ID
	x.places[r.Event.ID] = r.Place
}

func (x *index) Moved(rs []record.Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.unreadLocked(rs)
	for _, r := range rs {
		if old, ok := x.places[r.Event.ID]; !ok || !old.Before(r.Place) {
			x.wrongLocked("moved %s from %s to %s", r.Event.ID, old, r.Place)
		}
		x.setLocked(r)
		x.moved++
		x.written = r.End
		for i := range x.pending {
			if x.pending[i].Event.ID == r.Event.ID {
				x.pending[i] = r
			}
		}
	}
}

func (x *index) Synced(end place.Place) {
	x.mu.Lock()
	if end.Before(x.synced) {
		x.wrongLocked("synced goes back from %s to %s", x.synced, end)
	}
	x.synced = end
	rest := x.pending[:0]
	for _, r := range x.pending {
		if r.Place.Before(end) {
			x.safe[r.Event.ID] = true
		} else {
			rest = append(rest, r)
		}
	}
	x.pending = rest
	f := x.onSync
	x.mu.Unlock()
	if f != nil {
		f(end)
	}
}

func (x *index) wrongLocked(format string, args ...any) {
	x.wrong = append(x.wrong, fmt.Sprintf(format, args...))
}

func (x *index) check(t testing.TB) {
	t.Helper()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, w := range x.wrong {
		t.Error(w)
	}
}

func (x *index) highest() (next uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for o := range x.ids {
		next = max(next, o+1)
	}
	return next
}

// rig is one life of an archive.
type rig struct {
	testing.TB
	*archive.Archive
	index  *index
	opts   archive.Options
	cancel context.CancelFunc
	done   chan error
}

func openState(t testing.TB, path string) *state.DB {
	t.Helper()
	st, err := state.Open(path, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// opened opens without running.
func opened(t testing.TB, o archive.Options) *archive.Archive {
	t.Helper()
	a, err := archive.Open(o)
	if err != nil {
		t.Fatalf("open the archive: %v", err)
	}
	return a
}

func start(t testing.TB, o archive.Options, with ...func(*archive.Archive)) *rig {
	t.Helper()
	r := &rig{TB: t, Archive: opened(t, o), index: newIndex(), opts: o, done: make(chan error, 1)}
	r.SetObserver(r.index)
	r.index.end = r.End
	for _, f := range with {
		f(r.Archive)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { r.done <- r.Run(ctx) }()
	return r
}

func (r *rig) append(ns ...int) {
	r.Helper()
	for _, n := range ns {
		if err := r.Append(r.Context(), makeEvent(n, n%300), originOf(n)); err != nil {
			r.Fatalf("append %d: %v", n, err)
		}
	}
}

// inGroups appends in groups of at most ten, so that segments roll near their size.
func (r *rig) inGroups(ns ...int) {
	r.Helper()
	for ten := range slices.Chunk(ns, 10) {
		r.append(ten...)
		r.barrier()
	}
}

func (r *rig) barrier() {
	r.Helper()
	answer := make(chan error, 1)
	if err := r.Barrier(r.Context(), answer); err != nil {
		r.Fatalf("barrier: %v", err)
	}
	select {
	case err := <-answer:
		if err != nil {
			r.Fatalf("barrier's answer: %v", err)
		}
	case <-time.After(time.Minute):
		r.Fatalf("no answer to a barrier; status %+v", r.Status())
	}
}

func (r *rig) stop() {
	r.Helper()
	r.Drain()
	r.end(nil)
}

// end waits for Run, and checks what the observer saw.
func (r *rig) end(want error) {
	r.Helper()
	select {
	case err := <-r.done:
		if want == nil && err != nil {
			r.Errorf("Run: %v", err)
		}
		r.done <- err
	case <-time.After(time.Minute):
		r.Fatalf("Run does not end; status %+v", r.Status())
	}
	r.cancel()
	r.index.check(r)
	if err := r.Close(); err != nil {
		r.Errorf("close: %v", err)
	}
}

func upTo(n int) []int { return between(0, n) }

func between(from, to int) (ns []int) {
	for n := from; n < to; n++ {
		ns = append(ns, n)
	}
	return ns
}

// onDisk are options for real files.
func onDisk(t testing.TB) archive.Options {
	t.Helper()
	dir := t.TempDir()
	return archive.Options{Dir: dir, State: openState(t, filepath.Join(dir, "state.db")), Sync: 5 * time.Millisecond, MinFree: 1}
}

// scan reads everything without the lock. Damaged lines are counted apart.
func scan(t testing.TB, fsys archive.FS, dir string) (recs []record.Record, damaged []*archive.Damage) {
	t.Helper()
	for rec, err := range archive.Scan(context.Background(), dir, archive.ScanOptions{FS: fsys}) {
		if d, ok := err.(*archive.Damage); ok {
			damaged = append(damaged, d)
		} else if err != nil {
			t.Fatalf("scan: %v", err)
		} else {
			recs = append(recs, rec)
		}
	}
	return recs, damaged
}

// readAll reads what there is through a Reader.
func readAll(t testing.TB, a *archive.Archive, from place.Place) (recs []record.Record) {
	t.Helper()
	r := a.Reader(from)
	defer r.Close()
	for {
		rec, ok, err := r.TryNext()
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		if !ok {
			return recs
		}
		recs = append(recs, rec)
	}
}

// wantEvents checks that recs are the events of these numbers in this order, with their origins.
func wantEvents(t testing.TB, what string, recs []record.Record, ns []int) {
	t.Helper()
	if len(recs) != len(ns) {
		t.Errorf("%s: %d events, want %d", what, len(recs), len(ns))
	}
	for i := range min(len(recs), len(ns)) {
		n, r := ns[i], recs[i]
		want := makeEvent(n, n%300)
		if r.Event.ID != want.ID || string(r.Event.Line) != string(want.Line) {
			t.Errorf("%s: record %d is %s, want event %d (%s)", what, i, r.Event.ID, n, want.ID)
			return
		}
		if o := originOf(n); r.Origin.Relay != o.Relay || !r.Origin.Received.Equal(o.Received) || r.Origin.How != o.How || r.Origin.NoDeliver != o.NoDeliver {
			t.Errorf("%s: origin of event %d is %+v, want %+v", what, n, r.Origin, o)
		}
	}
}

// wantOrdinals checks that ordinals ascend from first without a gap.
func wantOrdinals(t testing.TB, recs []record.Record, first uint64) {
	t.Helper()
	for i, r := range recs {
		if r.Ordinal != first+uint64(i) {
			t.Errorf("record %d has ordinal %d, want %d", i, r.Ordinal, first+uint64(i))
			return
		}
	}
}

func glob(t testing.TB, dir, pattern string) (names []string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		names = append(names, filepath.Base(f))
	}
	return names
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
}
