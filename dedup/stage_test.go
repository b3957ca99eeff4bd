package dedup_test

import (
	"flag"
	"fmt"
	"testing"

	"rebroadcastr/dedup"
)

var idsFlag = flag.Uint64("ids", 0, "another number of ids for BenchmarkStageBadger, such as 10000000 (1 GB of disk, a minute)")

// BenchmarkStageBadger is a lookup past the LRU, of ids that Badger has in its tables and of others, which the filter before it tells but
// for one in 300.
func BenchmarkStageBadger(b *testing.B) {
	sizes := []uint64{10_000, 100_000}
	if !testing.Short() {
		sizes = append(sizes, 1_000_000)
	}
	if *idsFlag > 0 {
		sizes = append(sizes, *idsFlag)
	}
	for _, size := range sizes {
		b.Run(fmt.Sprintf("ids=%d", size), func(b *testing.B) {
			o := dedup.Options{Dir: b.TempDir(), LRU: 10}
			x := open(b, o)
			const batch = 50_000
			for n := uint64(0); n < size; n += batch {
				if err := x.Replay(lines(1, n, min(n+batch, size))); err != nil {
					b.Fatal(err)
				}
			}
			closeIndex(b, x) // all of it into tables
			x = open(b, o)
			defer closeIndex(b, x)
			for _, of := range []struct {
				name string
				id   func(n uint64) uint64
				want dedup.State
			}{
				{"hit", func(n uint64) uint64 { return n * 7919 % size }, dedup.Known},
				{"miss", func(n uint64) uint64 { return size + n }, dedup.Absent},
			} {
				b.Run(of.name, func(b *testing.B) {
					b.ReportAllocs()
					for n := uint64(0); b.Loop(); n++ {
						if got, err := x.Lookup(id(of.id(n))); err != nil || got != of.want {
							b.Fatalf("id %d of %d is %s, %v; want %s", of.id(n), size, got, err, of.want)
						}
					}
				})
			}
		})
	}
}
