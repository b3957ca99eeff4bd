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

// TestNoticeBesideAPage: a NOTICE that may stand for a page's EOSE shortens the wait from then on; what came before it does not count, and
// once an event has come it was about something else. In all the wait is never longer than without it.
func TestNoticeBesideAPage(t *testing.T) {
	const idle = time.Second
	for _, c := range []struct {
		name          string
		notice, event time.Duration // when they come; 0: they do not
		at            time.Duration // when the silence counts as one
		complaint     bool
	}{
		{"nothing", 0, 0, idle, false},
		{"at once", time.Millisecond, 0, time.Millisecond + idle/10, true},
		{"after a while", idle / 2, 0, idle/2 + idle/10, true},
		{"near the end", idle - time.Millisecond, 0, idle, true},
		{"about something else", idle / 2, idle/2 + idle/20, idle/2 + idle/20 + idle, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWalk(event.Filter{}, window{0, openEnd}, newManners(500, false))
				p := newPage(1, record.Page, w, w.next(500), openEnd, 0)
				begun := time.Now()
				if c.notice > 0 {
					time.AfterFunc(c.notice, func() { p.noticed("invalid: what?", 0) })
				}
				if c.event > 0 {
					time.AfterFunc(c.event, func() { p.event(eventID(1), 1000, true, false, 0) })
				}
				for {
					left, complaint := p.silent(idle, 0, time.Time{}, 0)
					if left > 0 {
						time.Sleep(min(left, idle/1000))
						continue
					}
					if took := time.Since(begun); took < c.at || took > c.at+idle/500 || complaint != "" != c.complaint {
						t.Errorf("over after %s, complaint %q; want %s, %t", took, complaint, c.at, c.complaint)
					}
					return
				}
			})
		})
	}
}

// TestWhatComesForAPageThatIsOver: what comes after a page's EOSE tells that the relay says EOSE too early; what comes for a page that we
// gave up does not, nor what an earlier visit asked for.
func TestWhatComesForAPageThatIsOver(t *testing.T) {
	var o openPages
	w := newWalk(event.Filter{}, window{0, openEnd}, newManners(500, false))
	for number := 5; number < 8; number++ {
		p := newPage(number, record.Page, w, w.next(500), openEnd, 0)
		o.add(p)
		if number != 6 {
			p.end(pageEnd{eose: number == 5, closed: number == 7})
		}
		o.remove(p, 0)
	}
	for sub, want := range map[string]bool{
		"page-3": true, "page-4": true, "page-5": false, "page-6": true, "page-7": true, "page-9999": false, "page-0": false, "page--1": false, "": false, "live-6": false,
	} {
		if got := o.gaveUp([]byte(sub), 4); got != want {
			t.Errorf("%q: given up %t, want %t", sub, got, want)
		}
	}
	for number := 8; number < 8+2*maxCut; number++ {
		p := newPage(number, record.Page, w, w.next(500), openEnd, 0)
		o.remove(p, 0)
	}
	if len(o.cut) > maxCut {
		t.Errorf("%d pages are remembered, want at most %d", len(o.cut), maxCut)
	}
}
