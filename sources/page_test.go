package sources

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/record"
)

// An empty page that stays empty says that a relay's EOSE can be relied on only where another has shown that its events come before it;
// and once some came after it, none of its empty pages is taken for that at once.
func TestWhatAnEmptyPageSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &visit{s: &Source{}}
		w := newWalk(event.Filter{}, window{0, openEnd}, newManners(500, false))
		// ask is a page with so many events before its EOSE, and one so long after it, if that is not 0; it returns what came and how
		// long that took.
		ask := func(before int, after time.Duration) (n int, took time.Duration) {
			p := newPage(1, record.Page, w, w.next(500), openEnd, 0)
			for i := range before {
				p.event(eventID(i), 1000, true, false, 0)
			}
			p.end(pageEnd{eose: true})
			if after > 0 {
				time.AfterFunc(after, func() { p.event(eventID(before), 1000, true, false, 0) })
			}
			begun := time.Now()
			if err := v.lingers(context.Background(), p); err != nil {
				t.Fatal(err)
			}
			a, _ := p.result()
			return a.n, time.Since(begun)
		}
		for i, step := range []struct {
			before int
			after  time.Duration
			n      int
			most   time.Duration
		}{
			{0, 0, 0, linger},              // nothing there
			{0, linger / 2, 1, 2 * linger}, // what is there comes after EOSE
			{0, 5 * linger, 1, 7 * linger}, // also late
			{0, 0, 0, 10 * linger},
		} {
			if n, took := ask(step.before, step.after); n != step.n || took > step.most {
				t.Errorf("page %d: %d events after %s, want %d within %s", i+1, n, took, step.n, step.most)
			}
		}
		v = &visit{s: &Source{}}
		ask(3, 0)
		ask(0, 0)
		if _, took := ask(0, 0); took > 0 {
			t.Errorf("an empty page of a relay that gives its events before EOSE was waited for: %s", took)
		}
	})
}

// Where old events come after EOSE, an EOSE says nothing of a window: no page proves one, nor the end.
func TestLateEventsLeaveNothingProven(t *testing.T) {
	known := newManners(500, false)
	known.steps, known.known = orderedAfter, true
	w := newWalk(event.Filter{}, window{0, openEnd}, known)
	w.late = true
	if out := run(t, model{events: at(9, 8, 7, 6, 5), cap: 3}, w); len(out.proven) > 0 || out.verdict.complete != Unknown {
		t.Errorf("proven %v, complete %v, want nothing and unknown", out.proven, out.verdict.complete)
	}
}
