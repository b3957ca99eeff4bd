package archive_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/archive"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/state"
)

func benchOptions(b *testing.B, sync time.Duration) archive.Options {
	b.Helper()
	dir := b.TempDir()
	st, err := state.Open(filepath.Join(dir, "state.db"), zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = st.Close() })
	return archive.Options{Dir: dir, State: st, Sync: sync, MinFree: 1}
}

type silent struct{ index }

func (*silent) Written([]record.Record) {}
func (*silent) Moved([]record.Record)   {}
func (*silent) Synced(place.Place)      {}

// prepared are distinct events of some 1.1 kB, the mean of the real ones.
func prepared(n int) []event.Event {
	out := make([]event.Event, n)
	for i := range out {
		out[i] = makeEvent(i, 750)
	}
	return out
}

// running is an archive that nobody checks, and what ends it.
func running(b *testing.B, o archive.Options) (*archive.Archive, func()) {
	b.Helper()
	a := opened(b, o)
	a.SetObserver(&silent{})
	done := make(chan error, 1)
	go func() { done <- a.Run(b.Context()) }()
	return a, func() {
		a.Drain()
		if err := errors.Join(<-done, a.Close()); err != nil {
			b.Error(err)
		}
	}
}

// BenchmarkStageLiveRing is the way of the newest events, from Append to Next of a reader that waits: a burst is appended, then read.
func BenchmarkStageLiveRing(b *testing.B) {
	evs := prepared(1000)
	o := record.Origin{Relay: "wss://relay.example", Received: time.Now(), How: record.Live}
	for _, sync := range []time.Duration{time.Second, 0} {
		for _, burst := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("sync=%s/burst=%d", sync, burst), func(b *testing.B) {
				a, end := running(b, benchOptions(b, sync))
				reader := a.Reader(place.Place{})
				b.SetBytes(int64(len(evs[0].Line)))
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					if err := a.Append(b.Context(), evs[n%len(evs)], o); err != nil {
						b.Fatal(err)
					}
					for n++; n%burst == 0; {
						rec, err := reader.Next(b.Context())
						if err != nil {
							b.Fatal(err)
						}
						if rec.Ordinal == uint64(n)-1 {
							break
						}
					}
				}
				reader.Close()
				end()
			})
		}
	}
}

// BenchmarkStageAppend appends events as fast as they go, durable at the end; sync=0s is archive.sync: always.
func BenchmarkStageAppend(b *testing.B) {
	evs := prepared(1000)
	origin := record.Origin{Relay: "wss://relay.example", Received: time.Now(), How: record.Page}
	for _, sync := range []time.Duration{time.Second, 100 * time.Millisecond, 0} {
		b.Run("sync="+sync.String(), func(b *testing.B) {
			a, end := running(b, benchOptions(b, sync))
			b.SetBytes(int64(len(evs[0].Line)))
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if err := a.Append(b.Context(), evs[n%len(evs)], origin); err != nil {
					b.Fatal(err)
				}
			}
			end()
		})
	}
}

// inFiles is an archive of the events, all durable, that is read from its files alone; end stops it.
func inFiles(b *testing.B, evs []event.Event) (a *archive.Archive, end func()) {
	b.Helper()
	o := benchOptions(b, time.Second)
	o.Ring = -1 // from the files
	a, end = running(b, o)
	for i := range evs {
		if err := a.Append(b.Context(), evs[i], originOf(i)); err != nil {
			b.Fatal(err)
		}
	}
	answer := make(chan error, 1)
	if err := errors.Join(a.Barrier(b.Context(), answer), <-answer); err != nil {
		b.Fatal(err)
	}
	return a, end
}

// BenchmarkStageTailRead is a reader that is behind: the events come from the segments.
func BenchmarkStageTailRead(b *testing.B) {
	evs := prepared(20_000)
	a, end := inFiles(b, evs)
	reader := a.Reader(place.Place{})
	b.SetBytes(int64(len(evs[0].Line)))
	b.ReportAllocs()
	for b.Loop() {
		_, ok, err := reader.TryNext()
		if err != nil {
			b.Fatal(err)
		}
		if !ok {
			reader.Close()
			reader = a.Reader(place.Place{})
		}
	}
	reader.Close()
	end()
}

// What a start costs for each event behind the mark.
func BenchmarkRecover(b *testing.B) {
	evs := prepared(5000)
	o := benchOptions(b, time.Second)
	a, end := running(b, o)
	for i := range evs {
		if err := a.Append(b.Context(), evs[i], originOf(i)); err != nil {
			b.Fatal(err)
		}
	}
	end()
	o.State = nil
	b.ReportAllocs()
	for b.Loop() {
		if err := opened(b, o).Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(evs)), "ns/event")
}

// One event by its place, as of what is sent again, or supersedes another.
func BenchmarkReadOne(b *testing.B) {
	evs := prepared(20_000)
	a, end := inFiles(b, evs)
	all := readAll(b, a, place.Place{})
	b.ReportAllocs()
	for n := 0; b.Loop(); n += 7919 {
		reader := a.Reader(all[n%len(all)].Place)
		if _, ok, err := reader.TryNext(); !ok || err != nil {
			b.Fatal(ok, err)
		}
		reader.Close()
	}
	end()
}
