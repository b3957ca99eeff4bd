package reconcile

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"rebroadcastr/event"
)

func filled(t *testing.T, s *Set, list []Item) {
	t.Helper()
	for _, it := range list {
		if err := s.Add(it); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
}

// TestSet: what was added comes back in order, each once, over any number of files.
func TestSet(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	s := NewSet(t.TempDir())
	defer s.Close()
	var all []Item
	for i := range 3 * fewRuns {
		more := randomItems(r, 200+i, 500)
		if i > 0 {
			more = append(more, all[:20]...) // a line that was appended again is met twice
		}
		filled(t, s, more)
		if i > 0 {
			more = more[:len(more)-20]
		}
		all = append(all, more...)
		if len(s.runs) > fewRuns {
			t.Fatalf("%d files are open, want at most %d", len(s.runs), fewRuns)
		}
	}
	sorted(all)
	for _, w := range [][2]int64{{0, OpenEnd}, {1_600_000_100, 1_600_000_100}, {1_600_000_100, 1_600_000_250}, {0, 5}, {1_700_000_000, OpenEnd}} {
		want := slices.DeleteFunc(slices.Clone(all), func(it Item) bool { return it.CreatedAt < w[0] || it.CreatedAt > w[1] })
		got, err := s.List(w[0], w[1])
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: %d items, %v; want %d", w, len(got), err, len(want))
		}
		if n, err := s.Count(w[0], w[1]); n < len(want) || n > len(want)+20*fewRuns || err != nil {
			t.Errorf("%v: counted %d, %v; want %d, perhaps some of them twice", w, n, err, len(want))
		}
	}
}

// TestSetBounds: a list is bounded, and what no event of ours can be is left out.
func TestSetBounds(t *testing.T) {
	s := NewSet(t.TempDir())
	defer s.Close()
	filled(t, s, append(randomItems(rand.New(rand.NewPCG(4, 4)), MostItems+1, 100), Item{-1, event.ID{}}, Item{maxCreatedAt, event.ID{}}))
	if n := s.Len(); n != MostItems+1 {
		t.Errorf("the set has %d items, want %d", n, MostItems+1)
	}
	if _, err := s.List(0, OpenEnd); !errors.Is(err, ErrTooMany) {
		t.Errorf("a list of all: %v, want ErrTooMany", err)
	}
}

// BenchmarkSet is for a set of a million: made, counted, listed.
func BenchmarkSet(b *testing.B) {
	const n = 1_000_000
	list := randomItems(rand.New(rand.NewPCG(2, 2)), n, 190_000_000)
	for b.Loop() {
		s := NewSet(b.TempDir())
		for _, it := range list {
			if err := s.Add(it); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Flush(); err != nil {
			b.Fatal(err)
		}
		made := b.Elapsed()
		seen := 0
		for spans := NewSpans(s, 0, OpenEnd, 1_790_000_000); ; {
			lo, hi, ok, err := spans.Next()
			if err != nil {
				b.Fatal(err)
			}
			if !ok {
				break
			}
			window, err := s.List(lo, hi)
			if err != nil {
				b.Fatal(err)
			}
			seen += len(window)
			spans.Done(len(window))
		}
		if seen != n {
			b.Fatalf("listed %d of %d", seen, n)
		}
		b.ReportMetric(float64((b.Elapsed()-made).Nanoseconds())/n, "ns-listed/item")
		b.ReportMetric(float64(made.Nanoseconds())/n, "ns-made/item")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		b.StartTimer()
	}
}

// TestSweep: what a killed process left is removed, and nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	s := NewSet(dir)
	defer s.Close()
	filled(t, s, []Item{{CreatedAt: 1}})
	for _, name := range []string{".ids-1234", "ids-1", "events_20260101_0000000001.jsonl"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != "events_20260101_0000000001.jsonl" || left[1].Name() != "ids-1" {
		t.Errorf("%v are left, %v; want the other two", left, err)
	}
	if n, err := s.Count(0, OpenEnd); n != 1 || err != nil {
		t.Errorf("the set has %d items, %v; want 1: its file has no name", n, err)
	}
}

// TestClosedSet: a set that was given up while somebody uses it is not an empty one.
func TestClosedSet(t *testing.T) {
	s := NewSet(t.TempDir())
	if err := errors.Join(s.Add(Item{CreatedAt: 1}), s.Flush(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(0, 2); err == nil {
		t.Error("a closed set is listed")
	}
	if _, err := s.Count(0, 2); err == nil {
		t.Error("a closed set is counted")
	}
}
