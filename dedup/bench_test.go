package dedup_test

import (
	"sync"
	"testing"

	"rebroadcastr/dedup"
	"rebroadcastr/event"
	"rebroadcastr/place"
)

// BenchmarkStageLRUHit is where a copy of a known event ends.
func BenchmarkStageLRUHit(b *testing.B) {
	x := open(b, dedup.Options{Dir: b.TempDir()})
	defer closeIndex(b, x)
	x.Written(lines(1, 0, 100_000))
	ids := make([]event.ID, 4096)
	for i := range ids {
		ids[i] = id(uint64(i) + 90_000)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Hit(ids[i%len(ids)])
	}
}

// What the appender pays for an event: a note, which says nothing of others, and a new version of a profile.
func BenchmarkWritten(b *testing.B) {
	const group = 250
	for name, kind := range map[string]int{"notes": 1, "profiles": 0} {
		b.Run(name, func(b *testing.B) {
			x := open(b, dedup.Options{Dir: b.TempDir()})
			defer func() { closeIndex(b, x) }()
			all := lines(1, 0, dedup.MaxOverlay)
			for i := range all {
				all[i].Event.Kind, all[i].Event.PubKey = kind, event.PubKey(id(uint64(i%5000)))
			}
			b.ReportAllocs()
			at := 0
			for b.Loop() {
				x.Written(all[at : at+group])
				if at += group; at == len(all) {
					b.StopTimer()
					closeIndex(b, x)
					x, at = open(b, dedup.Options{Dir: b.TempDir()}), 0
					b.StartTimer()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(group*b.N), "ns/event")
		})
	}
}

// A lookup while batches of ids are committed all the time, as in a backfill: it must not wait for their fsync.
func BenchmarkLookupBesideWriter(b *testing.B) {
	x := open(b, dedup.Options{Dir: b.TempDir(), LRU: 10})
	defer closeIndex(b, x)
	const batch, far = 5_000, 1 << 40
	stop, batches := make(chan struct{}), uint64(0)
	var writer sync.WaitGroup
	writer.Go(func() {
		for ; ; batches++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := x.Replay(lines(1, batches*batch, (batches+1)*batch)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportAllocs()
	for n := uint64(far); b.Loop(); n++ {
		if _, err := x.Lookup(id(n)); err != nil {
			b.Fatal(err)
		}
	}
	close(stop)
	writer.Wait()
	b.ReportMetric(float64(batches)/b.Elapsed().Seconds(), "batches/s")
}

// A million ids: what an insert in batches costs, and a start. BenchmarkStageBadger has the lookups.
func BenchmarkMillion(b *testing.B) {
	const million = 1_000_000
	dir := b.TempDir()
	b.Run("insert", func(b *testing.B) {
		for b.Loop() {
			if err := dedup.Destroy(dir); err != nil {
				b.Fatal(err)
			}
			x := open(b, dedup.Options{Dir: dir})
			for n := uint64(0); n < million; n += 50_000 {
				if err := x.Replay(lines(1, n, n+50_000)); err != nil {
					b.Fatal(err)
				}
			}
			closeIndex(b, x)
		}
		b.ReportMetric(float64(million*b.N)/b.Elapsed().Seconds(), "ids/s")
	})
	x := open(b, dedup.Options{Dir: dir, LRU: 10})
	defer func() { closeIndex(b, x) }() // the x of then
	if x.Checkpoint() != place.Make(1, million*lineBytes) {
		b.Skip("run it with insert")
	}
	b.Run("open", func(b *testing.B) {
		closeIndex(b, x)
		for b.Loop() {
			x = open(b, dedup.Options{Dir: dir, LRU: 10})
			closeIndex(b, x)
		}
		x = open(b, dedup.Options{Dir: dir, LRU: 10})
	})
}
