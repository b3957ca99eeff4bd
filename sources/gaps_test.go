package sources

import (
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/state"
)

func sourceAndSaver(t *testing.T) (*Source, *saver) {
	t.Helper()
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s := New(Options{URL: "wss://gaps.example", State: db, Door: &Door{}, Filters: []event.Filter{{Kinds: []int{1}}}, Log: zerolog.Nop()})
	k := new(saver)
	k.init(s)
	return s, k
}

// TestGapsAreBounded: whatever number of seconds a relay cannot give, 1,000 are kept, on disk and in memory, and the others counted.
func TestGapsAreBounded(t *testing.T) {
	s, k := sourceAndSaver(t)
	p := s.asked.Load()
	save := func(from, to int64) {
		t.Helper()
		step := saved{atoms: p.atoms, plan: p.number}
		for at := from; at < to; at++ {
			step.gaps = append(step.gaps, hole{at: at, filter: p.atoms[0].filter, most: 500})
		}
		if err := k.save([]saved{step}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(kept, more int) {
		t.Helper()
		rows := 0
		err := s.o.State.View(func(tx *state.Tx) error {
			return tx.Bucket(s.path("gaps")...).ForEach(func(_, _ []byte) error { rows++; return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		if st := s.Status(); rows != kept || len(s.kept) != kept || len(st.Gaps) != kept || st.MoreGaps != more {
			t.Errorf("%d gaps on disk, %d in memory, %d in the status and %d more, want %d and %d more", rows, len(s.kept), len(st.Gaps), st.MoreGaps, kept, more)
		}
	}
	save(0, 600)
	save(0, 600) // found again
	want(600, 0)
	save(600, 3600)
	want(maxKept, 2600)
	if err := k.save([]saved{{atoms: p.atoms, plan: p.number, window: window{0, 99}}}); err != nil { // a hundred are proven after all
		t.Fatal(err)
	}
	want(maxKept-100, 2600)
	save(5000, 5100)
	want(maxKept, 2600)
}

// TestNewGaps: a walk hands its gaps over and remembers only what its end depends on.
func TestNewGaps(t *testing.T) {
	w := newWalk(event.Filter{}, window{0, 100}, newManners(10, false))
	for at := range int64(50) {
		w.gaps = append(w.gaps, hole{at: at, unsure: at != 7})
	}
	if got := w.newGaps(); len(got) != 50 || got[49].at != 49 {
		t.Errorf("%d gaps are new, want 50", len(got))
	}
	w.gaps = append(w.gaps, hole{at: 50, unsure: true})
	if got := w.newGaps(); len(got) != 1 || got[0].at != 50 {
		t.Errorf("new gaps %v, want that of 50", got)
	}
	if len(w.gaps) != 2 || !w.gaps[0].unsure || w.gaps[1].at != 7 {
		t.Errorf("kept %v, want one of each sort", w.gaps)
	}
	if got := w.newGaps(); len(got) != 0 {
		t.Errorf("new gaps %v, want none", got)
	}
}

// TestWithdrawnBesideDamage: windows that cannot be read keep nobody from taking back what the others say.
func TestWithdrawnBesideDamage(t *testing.T) {
	s, k := sourceAndSaver(t)
	good, bad := atomKey{1}, atomKey{2}
	put := func(a atomKey, row []byte) {
		t.Helper()
		if err := s.o.State.Update(func(tx *state.Tx) error { return tx.Bucket(s.path("windows")...).Put(a[:], row) }); err != nil {
			t.Fatal(err)
		}
	}
	put(good, windows{{10, 99}}.encode())
	put(bad, []byte("damaged"))
	all := windows{{0, 1000}}
	if err := k.save([]saved{{void: map[atomKey]windows{good: {{50, 99}}, bad: all}}}); err != nil {
		t.Fatal(err)
	}
	err := s.o.State.View(func(tx *state.Tx) error {
		ws, err := s.stored(tx.Bucket(s.path("windows")...).Get(good[:]))
		if len(ws) != 1 || ws[0] != (window{10, 49}) {
			t.Errorf("proven %v, want 10 to 49", ws)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
