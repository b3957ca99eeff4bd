package archive_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"rebroadcastr/archive"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/state"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// moment is what there is when the power goes, or the process.
type moment struct {
	disk  *disk
	state []byte
	safe  map[event.ID]bool // what the observer had been told to be durable
	ids   map[uint64]event.ID
}

// crashAt takes the moment of the nth operation of the disk from now on. The disk stands still meanwhile: what an fsync that ends
// a little later makes durable is not of that moment. leave is called with the disk's lock held.
func (r *rig) crashAt(d *disk, st *state.DB, n int, leave func(*disk) *disk) *atomic.Pointer[moment] {
	var m atomic.Pointer[moment]
	var count atomic.Int64
	d.hook(func(op, name string) error {
		if op == "read" || op == "open" || count.Add(1) != int64(n) {
			return nil
		}
		m.Store(r.now(leave(d), st))
		return nil
	})
	return &m
}

func (r *rig) now(d *disk, st *state.DB) *moment {
	m := &moment{disk: d, safe: map[event.ID]bool{}, ids: map[uint64]event.ID{}}
	var b bytes.Buffer
	if st != nil {
		if err := st.CopyTo(&b); err != nil {
			panic(err)
		}
	}
	m.state = b.Bytes()
	r.index.mu.Lock()
	defer r.index.mu.Unlock()
	for id := range r.index.safe {
		m.safe[id] = true
	}
	for o, id := range r.index.ids {
		m.ids[o] = id
	}
	return m
}

// Any crash point: synced records are all there, no line is there twice, ordinals and places are never issued again.
func TestAnyCrashPoint(t *testing.T) {
	dir := t.TempDir()
	var run atomic.Int64
	rapid.Check(t, func(rt *rapid.T) {
		at := filepath.Join(dir, fmt.Sprint(run.Add(1)))
		if err := os.Mkdir(at, 0o700); err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(at)
		d := newDisk()
		safe := map[event.ID]bool{}          // must be there
		given := map[event.ID]bool{}         // may be there
		ordinals := map[uint64]event.ID{}    // ever told to anyone
		places := map[place.Place]event.ID{} // of what was durable
		next := 0
		var lastState []byte
		lives := rapid.IntRange(2, 5).Draw(rt, "lives")
		for life := range lives {
			path := filepath.Join(at, fmt.Sprintf("state%d.db", life))
			if lastState != nil && rapid.IntRange(0, 3).Draw(rt, "state lost") > 0 {
				if err := os.WriteFile(path, lastState, 0o600); err != nil {
					rt.Fatal(err)
				}
			} else {
				clear(ordinals) // the ledgers, who remember them, are lost with it
			}
			st, err := state.Open(path, zerolog.Nop())
			if err != nil {
				rt.Fatal(err)
			}
			o := archive.Options{
				Dir: "/a", FS: d, State: st,
				Sync:         rapid.SampledFrom([]time.Duration{0, time.Microsecond, time.Hour}).Draw(rt, "sync"),
				SegmentBytes: rapid.SampledFrom([]int64{3000, 20_000, 1 << 20}).Draw(rt, "segment"),
			}
			highest := uint64(0)
			for ordinal := range ordinals {
				highest = max(highest, ordinal+1)
			}
			r := start(t, o, func(a *archive.Archive) { a.RaiseFloor(place.Place{}, highest) })
			recs := readAll(t, r.Archive, place.Place{})
			seen := map[event.ID]bool{}
			for _, rec := range recs {
				id := rec.Event.ID
				if seen[id] {
					rt.Fatalf("life %d: %s is there twice", life, id)
				}
				seen[id] = true
				if !given[id] {
					rt.Fatalf("life %d: %s was never appended", life, id)
				}
				if was, ok := ordinals[rec.Ordinal]; ok && was != id {
					rt.Fatalf("life %d: ordinal %d was %s and is %s", life, rec.Ordinal, was, id)
				}
				if was, ok := places[rec.Place]; ok && was != id {
					rt.Fatalf("life %d: place %s was %s and is %s", life, rec.Place, was, id)
				}
			}
			for id := range safe {
				if !seen[id] {
					rt.Fatalf("life %d: %s was durable and is gone", life, id)
				}
			}
			scanned, damaged := scan(t, d, "/a")
			if len(scanned) != len(recs) || len(damaged) > 0 {
				rt.Fatalf("life %d: a scan sees %d events and %d damaged lines, a reader %d events", life, len(scanned), len(damaged), len(recs))
			}
			for _, rec := range recs {
				ordinals[rec.Ordinal] = rec.Event.ID
				places[rec.Place] = rec.Event.ID
				safe[rec.Event.ID] = true // the start has made it durable
			}

			power := rapid.Bool().Draw(rt, "power cut")
			seed := rapid.Uint64().Draw(rt, "what is left")
			m := r.crashAt(d, st, rapid.IntRange(1, 60).Draw(rt, "crash at"), func(d *disk) *disk {
				if power {
					return d.cutLocked(newRand(seed))
				}
				return d.killedLocked()
			})
			var fault *failing
			if rapid.IntRange(0, 2).Draw(rt, "faulty") == 0 {
				fault = &failing{
					op:     rapid.SampledFrom([]string{"write", "sync", "truncate", "create", "syncdir"}).Draw(rt, "op"),
					ending: rapid.SampledFrom([]string{".jsonl", ".origin", ""}).Draw(rt, "file"),
					err:    rapid.SampledFrom([]error{syscall.EIO, shortWrite{100}}).Draw(rt, "error"),
					times:  1,
				}
				skip, crash := rapid.IntRange(0, 20).Draw(rt, "fault after"), d.before
				d.hook(func(op, name string) error {
					if err := crash(op, name); err != nil {
						return err
					}
					if skip--; skip >= 0 {
						return nil
					}
					return fault.before(op, name)
				})
			}
			for range rapid.IntRange(1, 6).Draw(rt, "steps") {
				n := rapid.IntRange(0, 30).Draw(rt, "events")
				for range n {
					given[makeEvent(next, next%300).ID] = true
					r.append(next)
					next++
				}
				if rapid.Bool().Draw(rt, "barrier") {
					r.barrier()
				}
			}
			if m.Load() == nil && rapid.Bool().Draw(rt, "clean stop") {
				r.stop()
				d.hook(nil)
				left := d.cut(newRand(seed)) // a clean stop stands a power cut
				mm := r.now(left, st)
				if m.Load() == nil {
					m.Store(mm)
				}
			} else {
				r.stop()
				if m.Load() == nil {
					m.Store(r.now(d.killed(), st))
				}
			}
			_ = st.Close()
			crash := m.Load()
			d, lastState = crash.disk, crash.state
			for id := range crash.safe {
				safe[id] = true
			}
			for o, id := range crash.ids {
				ordinals[o] = id
			}
		}
	})
}

// kill -9 at any moment, played by copying the files while they are written: each one at another moment even.
func TestCopiedAtAnyMoment(t *testing.T) {
	o := onDisk(t)
	o.SegmentBytes = 100_000
	r := start(t, o)
	var appended atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 4000 {
			if err := r.Append(t.Context(), makeEvent(n, n%300), originOf(n)); err != nil {
				t.Error(err)
				return
			}
			appended.Add(1)
		}
	}()
	for range 12 {
		r.index.mu.Lock()
		safe := len(r.index.safe)
		r.index.mu.Unlock()
		copied := copyArchive(t, o.Dir)
		a := opened(t, archive.Options{Dir: copied, State: openState(t, filepath.Join(copied, "state.db"))})
		recs := readAll(t, a, place.Place{})
		wantEvents(t, "copy", withoutUnknownOrigins(recs), upTo(len(recs)))
		wantOrdinals(t, recs, 0)
		if len(recs) < safe {
			t.Errorf("%d events in a copy, want at least the %d that were durable before", len(recs), safe)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	<-done
	r.stop()
}

// withoutUnknownOrigins gives the events of a copy, whose origin files may be older than the text, their origins.
func withoutUnknownOrigins(recs []record.Record) []record.Record {
	out := append([]record.Record(nil), recs...)
	for i := range out {
		if out[i].Origin == (record.Origin{}) {
			out[i].Origin = originOf(i)
		}
	}
	return out
}

// copyArchive copies the files by number, so that a later one is never older than an earlier one.
func copyArchive(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range glob(t, dir, "events_*") {
		from, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(to, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, from); err != nil {
			t.Fatal(err)
		}
		from.Close()
		out.Close()
	}
	return to
}

// Any page of an unsynced tail of 16 pages, alone and in pairs, zeroed; and the text cut at each page: what does not
// touch the pages stays, in place and with its ordinal.
func TestPagesLost(t *testing.T) {
	const pages = 16
	d := newDisk()
	r := start(t, archive.Options{Dir: "/a", FS: d, Sync: time.Hour})
	n := 0
	for end, _ := r.End(); end.Offset() < pages*page; end, _ = r.End() {
		r.append(n)
		n++
		r.barrier()
	}
	r.stop()
	text, origin := d.files(".jsonl")[0], d.files(".origin")[0]
	whole, origins := d.content(text), d.content(origin)
	lines := strings.SplitAfter(whole, "\n")
	check := func(what, content string, lost func(from, to int) bool) {
		d := newDisk()
		d.set(text, content)
		d.set(origin, origins)
		a := opened(t, archive.Options{Dir: "/a", FS: d})
		defer a.Close()
		var want []int
		off := 0
		for i, l := range lines[:n] {
			if !lost(off, off+len(l)) {
				want = append(want, i)
			}
			off += len(l)
		}
		recs := readAll(t, a, place.Place{})
		wantEvents(t, what, recs, want)
		for i := range min(len(recs), len(want)) {
			if recs[i].Ordinal != uint64(want[i]) {
				t.Errorf("%s: event %d has ordinal %d", what, want[i], recs[i].Ordinal)
				break
			}
		}
		if _, next := a.End(); next != uint64(n) {
			t.Errorf("%s: next ordinal %d, want %d", what, next, n)
		}
	}
	for i := range pages {
		content := whole[:i*page]
		check(fmt.Sprintf("cut at page %d", i), content, func(_, to int) bool { return to > len(content) })
		for j := i; j < pages; j++ {
			b := []byte(whole)
			clear(b[i*page : (i+1)*page])
			clear(b[j*page : (j+1)*page])
			in := func(p, from, to int) bool { return from < (p+1)*page && to > p*page }
			// The line that follows a lost newline is lost with it.
			check(fmt.Sprintf("pages %d and %d zeroed", i, j), string(b), func(from, to int) bool {
				return in(i, from, to) || in(j, from, to) || b[max(from, 1)-1] == 0 && from > 0
			})
		}
	}
}
