package reconcile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/nbd-wtf/go-nostr/nip77/negentropy"
	"pgregory.net/rapid"
)

// remote is a relay that refuses a window of more than most ids.
type remote struct {
	list []Item
	most int
}

func (r *remote) window(lo, hi int64) []Item {
	from, _ := slices.BinarySearchFunc(r.list, lo, func(it Item, at int64) int {
		if it.CreatedAt < at {
			return -1
		}
		return 1
	})
	to := from
	for to < len(r.list) && r.list[to].CreatedAt <= hi {
		to++
	}
	return r.list[from:to]
}

// TestSpans: whatever the distribution of either side's events over the seconds and whatever the relay's cap, the windows cover
// everything once, but for seconds that hold more than the cap.
func TestSpans(t *testing.T) {
	const now = 1_790_000_000
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		far := &remote{most: rapid.IntRange(1, 300).Draw(t, "cap")}
		for range rapid.IntRange(0, 4).Draw(t, "clusters") {
			at := rapid.Int64Range(0, now+1000).Draw(t, "at")
			wide := rapid.Int64Range(1, 1_000_000).Draw(t, "wide")
			for _, it := range randomItems(r, rapid.IntRange(1, 400).Draw(t, "n"), wide) {
				it.CreatedAt += at - 1_600_000_000
				far.list = append(far.list, it)
			}
		}
		sorted(far.list)
		lo := rapid.SampledFrom([]int64{0, 1, 1_500_000_000}).Draw(t, "lo")
		hi := rapid.SampledFrom([]int64{OpenEnd, now, 1_600_000_000}).Draw(t, "hi")
		spans := NewSpans(counting{}, lo, hi, now)
		next := hi // the upper end of the window to come
		tries := 0
		for {
			from, to, ok, err := spans.Next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if tries++; tries > 100_000 {
				t.Fatal("no end")
			}
			if to != next || from > to {
				t.Fatalf("window %d to %d, want one that ends at %d", from, to, next)
			}
			if n := len(far.window(from, to)); n > far.most {
				if spans.Smaller() {
					continue
				}
				if from < to && to != OpenEnd {
					t.Fatalf("given up at %d to %d, want one second", from, to)
				}
				spans.Skip()
			} else {
				spans.Done(n)
			}
			next = from - 1
		}
		if next != max(lo, 0)-1 {
			t.Fatalf("ended at %d, want %d", next+1, lo)
		}
	})
}

type counting struct{}

func (counting) Count(int64, int64) (int, error) { return 0, nil }

// TestSpansMillion: a million on either side go through windows that both hold, in not many more than needed.
func TestSpansMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const n, now = 1_000_000, 1_790_000_000
	r := rand.New(rand.NewPCG(6, 6))
	s := NewSet(t.TempDir())
	defer s.Close()
	var list []Item
	for range 4 {
		more := randomItems(r, n/4, 1+r.Int64N(190_000_000))
		filled(t, s, more)
		list = append(list, more...)
	}
	far := &remote{list: sorted(list), most: 1_000_000}
	spans := NewSpans(s, 0, OpenEnd, now)
	windows, refused, got := 0, 0, 0
	for {
		lo, hi, ok, err := spans.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		ours, err := s.List(lo, hi)
		if err != nil {
			t.Fatal(fmt.Errorf("%d to %d: %w", lo, hi, err))
		}
		theirs := far.window(lo, hi)
		if len(theirs) > far.most {
			refused++
			spans.Smaller()
			continue
		}
		if !slices.Equal(ours, theirs) {
			t.Fatalf("%d to %d: %d of ours, %d of theirs", lo, hi, len(ours), len(theirs))
		}
		windows++
		got += len(ours)
		spans.Done(len(ours))
	}
	t.Logf("%d windows, %d refused", windows, refused)
	if got != n || windows > 4*n/MostItems {
		t.Errorf("%d of %d items in %d windows", got, n, windows)
	}
}

// BenchmarkMillions compares two sets that differ by a thousand on each side, by windows, with go-nostr's responder.
func BenchmarkMillions(b *testing.B) {
	for _, n := range []int{1_000_000, 10_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := rand.New(rand.NewPCG(8, 8))
			ours, theirs := NewSet(b.TempDir()), NewSet(b.TempDir())
			defer ours.Close()
			defer theirs.Close()
			for i := range n {
				it := randomItems(r, 1, 190_000_000)[0]
				for k, s := range []*Set{ours, theirs} {
					if i%(n/1000) == k {
						continue
					}
					if err := s.Add(it); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := errors.Join(ours.Flush(), theirs.Flush()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				need, have, windows, rounds, bytes, most := 0, 0, 0, 0, 0, uint64(0)
				var m runtime.MemStats
				for spans := NewSpans(ours, 0, OpenEnd, 1_790_000_000); ; windows++ {
					lo, hi, ok, err := spans.Next()
					if err != nil {
						b.Fatal(err)
					}
					if !ok {
						break
					}
					mine, err := ours.List(lo, hi)
					if err != nil {
						b.Fatal(err)
					}
					far, err := theirs.List(lo, hi)
					if errors.Is(err, ErrTooMany) {
						spans.Smaller()
						continue
					}
					if err != nil {
						b.Fatal(err)
					}
					s, err := NewSession(mine, 0, nil)
					if err != nil {
						b.Fatal(err)
					}
					p := negentropy.New(items(far), 500_000)
					msg, err := s.Open()
					for done := false; !done && err == nil; rounds++ {
						var answer string
						if answer, err = p.Reconcile(msg); err == nil {
							bytes += len(msg) + len(answer)
							msg, done, err = s.Answer(answer)
						}
					}
					if err != nil {
						b.Fatal(err)
					}
					runtime.ReadMemStats(&m)
					most = max(most, m.HeapAlloc)
					n, h := s.Counts()
					need, have = need+n, have+h
					spans.Done(len(mine) + n)
				}
				if need != 1000 || have != 1000 {
					b.Fatalf("need %d, have %d; want 1000 each", need, have)
				}
				b.ReportMetric(float64(windows), "windows")
				b.ReportMetric(float64(rounds), "rounds")
				b.ReportMetric(float64(bytes)/1e6, "MB-on-the-wire")
				b.ReportMetric(float64(most)/(1<<20), "MiB-heap")
			}
		})
	}
}
