package sources_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

func TestLiveThenCatchUpThenHistory(t *testing.T) {
	recent := note(1, 9000, now-60)
	r := relaytest.New(t, relaytest.Script{Events: append(notes(1, 250, 7), recent), Cap: 100})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{})
	in.until("everything stored", func() bool { return in.count() == 251 })
	in.until("live", func() bool { return g.source.Status().Phase == sources.Live })
	r.Wait("the last page's CLOSE", func() bool { return slices.Equal(r.Conns()[0].Subscriptions(), []string{"live-0"}) })
	late := note(1, 9001, now-400*86400) // dated back
	r.Publish(late)
	in.until("the live event", func() bool { return in.has(late) })
	for ev, want := range map[string]record.How{recent: record.CatchUp, late: record.Live, note(1, 5, now-86400-35): record.Page} {
		if got := in.how(ev); got != want {
			t.Errorf("%s came by %v, want %v", ev, got, want)
		}
	}
	first := r.Got("REQ")[0].Raw
	if !strings.HasPrefix(first, `["REQ","live-0",`) || !strings.Contains(first, `"limit":0`) || strings.Contains(first, "since") {
		t.Errorf("the first request is %s, want live-0 with limit 0 and without since", first)
	}
	wantComplete(t, g.source.Status(), sources.Yes, "")
	g.stop()
	if got := r.Got("CLOSE"); len(got) == 0 || got[len(got)-1].Raw != `["CLOSE","live-0"]` {
		t.Errorf("the last CLOSE is %v, want live-0", got)
	}
}

func TestAReconnectCatchesUpWhatWasMissed(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 20, 7)})
	in := newIntake(t)
	var clock atomic.Int64
	clock.Store(now)
	db := openState(t)
	o := sources.Options{Now: func() time.Time { return time.Unix(clock.Load(), 0) }}
	g := start(t, r, in, db, o)
	in.until("live", func() bool { return g.source.Status().Phase == sources.Live })
	in.until("the first catch-up saved", func() bool { return g.source.Status().CaughtUp.Unix() == now })
	g.stop()

	clock.Store(now + 7*86400)
	missed := note(1, 1, now+3*86400)
	early := note(1, 2, now-600) // published while we were away, dated into the overlap
	r.Publish(missed, early)
	o.Door = g.door
	g = start(t, r, in, db, o)
	in.until("what was missed", func() bool { return in.has(missed) && in.has(early) })
	if got := in.how(missed); got != record.CatchUp {
		t.Errorf("it came by %v, want %v", got, record.CatchUp)
	}
	in.until("live", func() bool { return g.source.Status().Phase == sources.Live })

	down := note(1, 3, now+7*86400)
	r.Drop()
	r.Publish(down)
	in.until("what was published while the connection was down", func() bool { return in.has(down) })
}

func TestAFutureSavedTimeIsVoid(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	in, db := newIntake(t), openState(t)
	g := start(t, r, in, db, sources.Options{Now: func() time.Time { return time.Unix(now+365*86400, 0) }})
	in.until("a saved time", func() bool { return !g.source.Status().CaughtUp.IsZero() })
	g.stop()
	asked := len(requests(t, r, "page-"))
	ev := note(1, 1, now-300)
	r.Publish(ev) // nobody listens
	start(t, r, in, db, sources.Options{})
	in.until("an event since the clock was put back", func() bool { return in.has(ev) })
	if f := requests(t, r, "page-")[asked]; f.Since == nil || int64(*f.Since) > now-1200 {
		t.Errorf("catch-up asked since %v, want at most 20 minutes before now", f.Since)
	}
}

func TestHourlyCatchUp(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	in := newIntake(t)
	var clock atomic.Int64
	clock.Store(now)
	g := start(t, r, in, openState(t), sources.Options{
		CatchUpEvery: 100 * time.Millisecond, Now: func() time.Time { return time.Unix(clock.Load(), 0) },
	})
	in.until("live", func() bool { return g.source.Status().Phase == sources.Live })
	clock.Store(now + 3600)
	quiet := note(1, 1, now+1000) // stored, but never sent live
	r.Update(func(s *relaytest.Script) { s.Events = []string{quiet} })
	in.until("an event that the live subscription did not bring", func() bool { return in.has(quiet) })
	in.until("the saved time of that catch-up", func() bool { return g.source.Status().CaughtUp.Unix() == now+3600 })
	r.Wait("one more catch-up", func() bool {
		pages := requests(t, r, "page-")
		last := pages[len(pages)-1]
		return last.Since != nil && int64(*last.Since) == now+3600-1200
	})
}

func TestHistoryNone(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: append(notes(1, 30, 7), note(1, 77, now-60))})
	in, db := newIntake(t), openState(t)
	g := start(t, r, in, db, sources.Options{History: sources.History{None: true}})
	in.until("a saved time", func() bool { return !g.source.Status().CaughtUp.IsZero() })
	ev := note(1, 99, now)
	r.Publish(ev)
	in.until("a live event", func() bool { return in.has(ev) })
	if in.count() != 1 || len(requests(t, r, "page-")) != 0 {
		t.Errorf("%d events and %d pages, want the live one and no page", in.count(), len(requests(t, r, "page-")))
	}
}

func TestHistorySince(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 100, 3600)})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Once: true, History: sources.History{Since: now - 2*86400}})
	wantComplete(t, g.finished(), sources.Yes, "")
	if in.count() != 25 {
		t.Errorf("%d events came, want the 25 of the second day back", in.count())
	}
}

func TestFilterWindowsAreKept(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 100, 3600), Cap: 10})
	in := newIntake(t)
	lo, hi := int64(now-3*86400), int64(now-2*86400)
	g := start(t, r, in, openState(t), sources.Options{Once: true, Filters: []event.Filter{{Authors: []event.PubKey{author(1)}, Since: lo, Until: hi}}})
	wantComplete(t, g.finished(), sources.Yes, "")
	if in.count() != 25 {
		t.Errorf("%d events came, want 25", in.count())
	}
}

func TestLimitZeroDisliked(t *testing.T) {
	for name, script := range map[string]relaytest.Script{
		"by CLOSED": {RefuseLimit0: "invalid: limit must be positive"},
		"by NOTICE": {Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
			if m.Label == "REQ" && strings.Contains(m.Raw, `"limit":0`) {
				c.Send(`["NOTICE","limit must be positive"]`)
				return true
			}
			return false
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := relaytest.New(t, script)
			in := newIntake(t)
			g := start(t, r, in, openState(t), sources.Options{Idle: 300 * time.Millisecond})
			in.until("live", func() bool { return g.source.Status().Phase == sources.Live })
			ev := note(1, 1, now)
			r.Publish(ev)
			in.until("a live event", func() bool { return in.has(ev) })
			var limits []int
			for _, f := range requests(t, r, "live-") {
				limits = append(limits, f.Limit)
			}
			if len(limits) != 2 || limits[0] != 0 || limits[1] != 1 {
				t.Errorf("live limits %v, want 0 then 1", limits)
			}
		})
	}
}

// A CLOSED after EOSE (a restart, an idle kill) must not end the source, and what came in the hole is caught up.
func TestClosedAfterEOSE(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{})
	in.until("live", func() bool { return g.source.Status().Phase == sources.Live })
	hole := note(1, 1, now)
	r.Update(func(s *relaytest.Script) {
		s.Events = []string{hole} // stored, sent to nobody
		s.Closed = func(sub string, _ []nostr.Filter) string { return "" }
	})
	r.Send(`["CLOSED","live-0","error: shutting down idle subscription"]`)
	in.until("what came in the hole", func() bool { return in.has(hole) })
	ev := note(1, 2, now)
	r.Publish(ev)
	in.until("a live event on the new subscription", func() bool { return in.has(ev) })
	if r.Accepted() != 1 {
		t.Errorf("%d connections, want the one to have stayed", r.Accepted())
	}
}

func TestALoginIsAPause(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{AuthRequired: true})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{})
	in.until("a pause", func() bool { return g.source.Status().Phase == sources.Paused })
	if note := g.source.Status().Note; !strings.Contains(note, "auth-required") {
		t.Errorf("the note is %q, want it to say auth-required", note)
	}
}

func TestManyAuthorsAreAskedInParts(t *testing.T) {
	const most = 100
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 5, 7), Closed: func(_ string, fs []nostr.Filter) string {
		if len(fs[0].Authors) > most {
			return "invalid: too many authors"
		}
		return ""
	}})
	f := event.Filter{Kinds: []int{1}, Authors: []event.PubKey{author(1)}} // first: a relay that has shown nothing is waited for
	for i := range 700 {
		f.Authors = append(f.Authors, event.PubKey{byte(i), byte(i >> 8), 1})
	}
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Filters: []event.Filter{f}})
	in.until("live", func() bool { return g.source.Status().Phase == sources.Live })
	if in.count() != 5 {
		t.Errorf("%d events came, want 5", in.count())
	}
	wantComplete(t, g.source.Status(), sources.Yes, "")
}

func TestMostlyGarbageIsAPause(t *testing.T) {
	all := notes(1, 300, 7)
	forged := make([]string, len(all))
	for i, ev := range all {
		forged[i] = relaytest.BadSig(ev)
	}
	r := relaytest.New(t, relaytest.Script{First: forged, NoEOSE: true})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{})
	in.until("a pause", func() bool { return g.source.Status().Phase == sources.Paused })
	if note := g.source.Status().Note; !strings.Contains(note, "mostly garbage") {
		t.Errorf("the note is %q, want it to say mostly garbage", note)
	}
	if n := len(g.door.Samples()); n == 0 || n > 100 {
		t.Errorf("%d samples are kept, want 1 to 100", n)
	}
}

// Genuine events that nobody asked for are counted apart and are no garbage.
func TestUnaskedIsCounted(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 10, 7), First: notes(3, 300, 5)})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Once: true})
	st := g.finished()
	if in.count() != 10 || g.door.Tally.Unasked.Load() < 300 {
		t.Errorf("%d came and %d were unasked, want 10 and at least 300", in.count(), g.door.Tally.Unasked.Load())
	}
	if st.Complete == sources.Yes {
		t.Error("a relay that ignores filter and window counts as complete")
	}
}
