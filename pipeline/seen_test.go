package pipeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/archive"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/reconcile"
	"rebroadcastr/record"
	"rebroadcastr/state"
)

// nobodyKnows is an index that has nothing.
type nobodyKnows struct{}

func (nobodyKnows) Hit(event.ID) bool { return false }

func (nobodyKnows) Place(event.ID) (at place.Place, found bool, err error) { return at, false, nil }

// written is an archive that runs, and the directory that it is in.
func written(t testing.TB) (*archive.Archive, string) {
	t.Helper()
	dir := t.TempDir()
	db, err := state.Open(filepath.Join(dir, "state.db"), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	a, err := archive.Open(archive.Options{Dir: dir, State: db, Sync: time.Second, MinFree: 1})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- a.Run(context.Background()) }()
	t.Cleanup(func() {
		a.Drain()
		if err := errors.Join(<-done, a.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return a, dir
}

// unsigned is an event that nobody has signed: the archive does not look.
func unsigned(t testing.TB, n int, author byte, kind int, at int64, size int) (e event.Event) {
	t.Helper()
	var id event.ID
	binary.BigEndian.PutUint64(id[:], uint64(n)*0x9E3779B97F4A7C15)
	id[31] = author
	line := fmt.Sprintf(`{"id":"%s","pubkey":"%064x","created_at":%d,"kind":%d,"tags":[["t","n%d"],["p","%064x"]],"content":"%*d","sig":"%0128x"}`,
		id, author, at, kind, n%3, n, size, n, n)
	if err := event.Parse([]byte(line), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func appended(t testing.TB, a *archive.Archive, events ...event.Event) {
	t.Helper()
	for _, e := range events {
		if err := a.Append(t.Context(), e, record.Origin{How: record.Page}); err != nil {
			t.Fatal(err)
		}
	}
	answer := make(chan error, 1)
	if err := errors.Join(a.Barrier(t.Context(), answer), <-answer); err != nil {
		t.Fatal(err)
	}
}

// TestSeen: the ids of a filter are those of the archive, as it grows, whatever the filter names; and the archive is read once.
func TestSeen(t *testing.T) {
	a, dir := written(t)
	s := newSeen(a, nobodyKnows{}, dir)
	var all []event.Event
	more := func(n int) {
		var new []event.Event
		for range n {
			i := len(all)
			all = append(all, unsigned(t, i, byte(i%5), i%2, int64(1000+i*37%500), 20))
			new = append(new, all[i])
		}
		appended(t, a, new...)
	}
	author := event.PubKey{31: 3}
	filters := []event.Filter{
		{},
		{Authors: []event.PubKey{author}},
		{Authors: []event.PubKey{author}, Kinds: []int{1}, Since: 1100, Until: 1200}, // of any time
		{Tags: map[string][]string{"t": {"n2"}}},
	}
	for _, n := range []int{0, 700, 1, 300} {
		more(n)
		for _, f := range filters {
			bare := f
			bare.Since, bare.Until = 0, 0
			var want []reconcile.Item
			for i := range all {
				if bare.Match(&all[i]) {
					want = append(want, reconcile.Item{CreatedAt: all[i].CreatedAt, ID: all[i].ID})
				}
			}
			slices.SortFunc(want, reconcile.Item.Compare)
			ids, release, err := s.IDs(t.Context(), f)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ids.List(0, reconcile.OpenEnd)
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("of %d events %s takes %d, %v; want %d", len(all), f, len(got), err, len(want))
			}
			release()
		}
	}
	if len(s.sets) != len(filters) {
		t.Errorf("%d sets are kept for %d filters", len(s.sets), len(filters))
	}
	t.Run("no more than are of use", func(t *testing.T) {
		for kind := range 2 * maxSets {
			_, release, err := s.IDs(t.Context(), event.Filter{Kinds: []int{kind}})
			if err != nil {
				t.Fatal(err)
			}
			release()
		}
		if len(s.sets) != maxSets {
			t.Errorf("%d sets are kept, want %d", len(s.sets), maxSets)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		more(2 * breathe)
		if _, _, err := s.IDs(ctx, filters[0]); !errors.Is(err, context.Canceled) {
			t.Errorf("a reading that nobody waits for ended with %v", err)
		}
		ids, release, err := s.IDs(t.Context(), filters[0])
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if n, err := ids.Count(0, reconcile.OpenEnd); n != len(all) || err != nil {
			t.Errorf("counted %d, %v; want %d", n, err, len(all))
		}
	})
	t.Run("no room on the disk", func(t *testing.T) {
		more(10)
		a.Change(time.Second, 1<<60, 0o600)
		if _, _, err := s.IDs(t.Context(), filters[0]); !errors.Is(err, reconcile.ErrNoRoom) {
			t.Errorf("below archive.min_free: %v, want %v", err, reconcile.ErrNoRoom)
		}
		a.Change(time.Second, 1, 0o600)
		ids, release, err := s.IDs(t.Context(), filters[0])
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if n, err := ids.Count(0, reconcile.OpenEnd); n != len(all) || err != nil {
			t.Errorf("counted %d once there was room, %v; want %d", n, err, len(all))
		}
	})
	t.Run("so many at once", func(t *testing.T) {
		var leave []func()
		for range atOnce {
			l, err := s.Room(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			leave = append(leave, l)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Room(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("one window more: %v, want it to wait", err)
		}
		if _, release, err := s.IDs(t.Context(), filters[1]); err != nil { // a list takes no memory
			t.Errorf("listed while no window can be held: %v", err)
		} else {
			release()
		}
		for _, l := range leave {
			l()
		}
	})
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if _, _, err := s.IDs(t.Context(), filters[0]); !errors.Is(err, errSeenClosed) {
		t.Errorf("asked when closed: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".ids-*")); len(left) > 0 {
		t.Errorf("files were left: %v", left)
	}
}

// BenchmarkSeen is what the first question for everything costs, an event of 1.1 kB.
func BenchmarkSeen(b *testing.B) {
	const n = 100_000
	a, dir := written(b)
	events := make([]event.Event, 0, 1000)
	for i := range n {
		events = append(events, unsigned(b, i, byte(i%10), 1, 1_600_000_000+int64(i)*7919%190_000_000, 560))
		if len(events) == cap(events) {
			appended(b, a, events...)
			events = events[:0]
		}
	}
	for name, f := range map[string]event.Filter{"everything": {}, "author": {Authors: []event.PubKey{{31: 3}}}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s := newSeen(a, nobodyKnows{}, dir)
				_, release, err := s.IDs(b.Context(), f)
				if err != nil {
					b.Fatal(err)
				}
				release()
				if err := s.close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/event")
		})
	}
}

// TestWhatAKilledProcessLeft: opening the store removes it.
func TestWhatAKilledProcessLeft(t *testing.T) {
	cfg := testConfig(t, nil, nil)
	left := filepath.Join(cfg.Archive.Dir, ".ids-1234")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	store := prepare(t, cfg, Options{Once: true}).store
	if err := store.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of ids without an owner: %v, want it gone", err)
	}
}
