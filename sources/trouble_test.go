package sources_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// asEventstore answers a REQ for ids as eventstore does: without regard to since, until and limit.
func asEventstore(all []string) func(c *relaytest.Conn, m relaytest.Message) bool {
	byID := map[string]string{}
	for _, ev := range all {
		byID[relaytest.ID(ev)] = ev
	}
	return func(c *relaytest.Conn, m relaytest.Message) bool {
		var req nostr.ReqEnvelope
		if m.Label != "REQ" || req.FromJSON(m.Raw) != nil || len(req.Filters[0].IDs) == 0 || req.Filters[0].LimitZero {
			return false
		}
		for _, id := range req.Filters[0].IDs {
			if ev := byID[id]; ev != "" {
				c.Send(`["EVENT","` + req.SubscriptionID + `",` + ev + `]`)
			}
		}
		c.Send(`["EOSE","` + req.SubscriptionID + `"]`)
		return true
	}
}

func ids(t testing.TB, events []string) (out []event.ID) {
	t.Helper()
	for _, ev := range events {
		id, err := event.ParseID(relaytest.ID(ev))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, id)
	}
	return out
}

func TestIDsNeedNoPaging(t *testing.T) {
	all := notes(1, 230, 7)
	r := relaytest.New(t, relaytest.Script{Handle: asEventstore(all)})
	in, db := newIntake(t), openState(t)
	f := event.Filter{IDs: append(ids(t, all), event.ID{1}, event.ID{2})}
	g := start(t, r, in, db, sources.Options{Once: true, Filters: []event.Filter{f}})
	wantComplete(t, g.finished(), sources.Yes, "")
	if in.count() != 230 {
		t.Errorf("%d events came, want 230", in.count())
	}
	pages := requests(t, r, "page-")
	if len(pages) > 4 { // what a first page lacks is asked for once more: it may have been cut off
		t.Errorf("%d requests for 232 ids, want 3, or 4", len(pages))
	}
	for _, p := range pages {
		if len(p.IDs) > 100 {
			t.Errorf("a request asks for %d ids, want at most 100", len(p.IDs))
		}
	}

	t.Run("one more id costs one more id", func(t *testing.T) {
		f.IDs = append(f.IDs, event.ID{3})
		wantComplete(t, start(t, r, in, db, sources.Options{Once: true, Filters: []event.Filter{f}}).finished(), sources.Yes, "")
		for _, p := range requests(t, r, "page-")[len(pages):] {
			if p.Since == nil && len(p.IDs) != 1 {
				t.Errorf("%d ids were asked for from the beginning, want the new one", len(p.IDs))
			}
		}
	})
	t.Run("limit", func(t *testing.T) {
		db := openState(t)
		g := start(t, r, newIntake(t), db, sources.Options{Once: true, Limit: 5, Filters: []event.Filter{f}})
		wantComplete(t, g.finished(), sources.Unknown, "--limit 5")
		if savedWindows(t, db, r.URL) != 0 {
			t.Error("a request cut by --limit has proven something")
		}
	})
	t.Run("EOSE never, but all came", func(t *testing.T) {
		r := relaytest.New(t, relaytest.Script{Events: all[:20], NoEOSE: true})
		g := start(t, r, newIntake(t), openState(t), sources.Options{Once: true, Idle: 50 * time.Millisecond, Filters: []event.Filter{{IDs: ids(t, all[:20])}}})
		wantComplete(t, g.finished(), sources.Yes, "")
	})
}

// A limit is of the whole run: a session that follows a connection's end goes on with what is left of it, and asks for no page of none.
func TestALimitOverTwoSessions(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 100, 7), Cap: 20, CloseAfter: 30})
	in, db := newIntake(t), openState(t)
	g := start(t, r, in, db, sources.Options{Once: true, Limit: 35})
	wantComplete(t, g.finished(), sources.Unknown, "--limit 35")
	if n := in.count(); n < 34 || n > 35 || r.Accepted() < 2 { // the second session's first page repeats the last second of the first's
		t.Errorf("%d events came over %d connections, want 34 or 35 over several", n, r.Accepted())
	}
	if savedWindows(t, db, r.URL) != 0 {
		t.Error("a run with --limit has proven something")
	}
	for _, f := range requests(t, r, "page-") {
		if f.LimitZero {
			t.Errorf("a page of none was asked for: %v", f)
		}
	}
	wantComplete(t, start(t, r, in, db, sources.Options{Once: true}).finished(), sources.Yes, "")
	if in.count() != 100 {
		t.Errorf("%d events are in after a run without limit, want 100", in.count())
	}
}

func TestDropsEndSomeTime(t *testing.T) {
	all := notes(1, 200, 7)
	for _, test := range []struct {
		name     string
		after    int
		again    bool
		complete sources.Completeness
		text     string
		came     int
	}{
		{"every 130 events", 130, false, sources.Yes, "", 200},
		{"every 130 events, all asked again", 130, true, sources.Yes, "", 200},
		{"sooner than a page is full", 60, false, sources.Yes, "", 200},
		{"always", 7, false, sources.No, "ended 8 times before anything was proven", 7},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := relaytest.New(t, relaytest.Script{Events: all, CloseAfter: test.after})
			in := newIntake(t)
			g := start(t, r, in, openState(t), sources.Options{Once: true, Again: test.again})
			wantComplete(t, g.finished(), test.complete, test.text)
			if in.count() != test.came {
				t.Errorf("%d events came, want %d", in.count(), test.came)
			}
			seen := map[string]bool{}
			for _, m := range r.Got("REQ") {
				var parts []json.RawMessage
				if err := json.Unmarshal([]byte(m.Raw), &parts); err != nil {
					t.Fatal(err)
				}
				if sub := string(parts[1]); seen[sub] {
					t.Errorf("%s was used twice: an old answer may be taken for the new one's", sub)
				} else {
					seen[sub] = true
				}
			}
		})
	}
}

// TestACutSessionIsGoneOnWith: what is younger than the overlap is never proven, and more of it than a connection carries must
// come all the same, and what is older too.
func TestACutSessionIsGoneOnWith(t *testing.T) {
	all := notes(1, 300, 7)
	for i := range 600 {
		all = append(all, note(1, 1000+i, now-int64(i)/2))
	}
	for _, once := range []bool{true, false} {
		t.Run(fmt.Sprintf("once %t", once), func(t *testing.T) {
			r := relaytest.New(t, relaytest.Script{Events: all, Cap: 50, CloseAfter: 130})
			in := newIntake(t)
			g := start(t, r, in, openState(t), sources.Options{Once: once})
			if once {
				wantComplete(t, g.finished(), sources.Yes, "")
			} else {
				r.Wait("a session that is left in peace", func() bool { return g.source.Status().Phase == sources.Live })
			}
			if in.count() != len(all) {
				t.Errorf("%d events came over %d connections, want %d", in.count(), r.Accepted(), len(all))
			}
		})
	}
}

// A fit of drops, more in a row than one goes on trying history through, costs a moment of a session that stands and not an
// hour: what was published meanwhile, and history, come once it has stood for a while.
func TestAFitOfDropsIsNoHour(t *testing.T) {
	all := notes(1, 50, 7)
	r := relaytest.New(t, relaytest.Script{Events: all, CloseAfter: 1})
	in := newIntake(t)
	start(t, r, in, openState(t), sources.Options{Rest: 20 * time.Millisecond})
	r.Wait("more drops than are waited for", func() bool { return r.Accepted() > 12 })
	r.Update(func(s *relaytest.Script) { s.CloseAfter = 0 })
	r.Publish(note(1, 1000, now))
	in.until("everything", func() bool { return in.count() == len(all)+1 })
}

// A second that only the small pages of a link that was cut cannot hold is no gap: it is asked for in full ones.
func TestASecondOnSmallPages(t *testing.T) {
	var all []string
	for i := range 60 {
		all = append(all, note(1, i, now-600))
	}
	r := relaytest.New(t, relaytest.Script{Events: all, CloseAfter: 10})
	in := newIntake(t)
	start(t, r, in, openState(t), sources.Options{Rest: 20 * time.Millisecond})
	r.Wait("more drops than are waited for", func() bool { return r.Accepted() > 12 })
	r.Update(func(s *relaytest.Script) { s.CloseAfter = 0 })
	in.until("the whole second", func() bool { return in.count() == len(all) })
}

// A relay that never says EOSE but goes on sending what is published would keep a page open for ever.
func TestAPageWithoutEndEnds(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{NoEOSE: true})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Once: true, Idle: 25 * time.Millisecond})
	for i := 0; ; i++ {
		select {
		case err := <-g.done:
			g.done <- err
			wantComplete(t, g.finished(), sources.No, "8 tries")
			return
		case <-time.After(time.Millisecond):
			r.Publish(note(1, i%50, now-int64(i%50)))
			r.PassOn(note(1, i%50, now-int64(i%50)))
		}
	}
}

// What a clock that ran ahead has proven is not proven.
func TestWindowsOfTheFutureAreVoid(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 10, 7)})
	in, db := newIntake(t), openState(t)
	ahead := func() time.Time { return time.Unix(now+365*86400, 0) }
	wantComplete(t, start(t, r, in, db, sources.Options{Once: true, Now: ahead}).finished(), sources.Yes, "")
	missed := note(1, 1, now-3*86400)
	r.Publish(missed)
	wantComplete(t, start(t, r, in, db, sources.Options{Once: true}).finished(), sources.Yes, "")
	if !in.has(missed) {
		t.Error("an event inside a window that only a wrong clock had proven did not come")
	}
}

func TestASwallowedLiveRequestIsSentAgain(t *testing.T) {
	var times atomic.Int64
	r := relaytest.New(t, relaytest.Script{Handle: func(_ *relaytest.Conn, m relaytest.Message) bool {
		return m.Label == "REQ" && strings.Contains(m.Raw, "live-") && times.Add(1) <= 2
	}})
	in := newIntake(t)
	start(t, r, in, openState(t), sources.Options{Idle: 50 * time.Millisecond, History: sources.History{None: true}})
	r.Wait("a third live request", func() bool { return len(requests(t, r, "live-")) == 3 })
	ev := note(1, 1, now)
	r.Wait("the live event", func() bool { r.PassOn(ev); return in.has(ev) })
}

func TestRequestsFitTheRelaysMessages(t *testing.T) {
	const most = 16 << 10
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 5, 7), Info: fmt.Sprintf(`{"limitation":{"max_message_length":%d}}`, most)})
	f := event.Filter{Authors: []event.PubKey{author(1)}}
	for i := range 1500 {
		f.Authors = append(f.Authors, event.PubKey{byte(i), byte(i >> 8), 1})
	}
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Filters: []event.Filter{f}})
	in.until("live", func() bool { return g.source.Status().Phase == sources.Live })
	if in.count() != 5 {
		t.Errorf("%d events came, want 5", in.count())
	}
	for _, m := range r.Got("REQ") {
		if len(m.Raw) > most {
			t.Errorf("a request of %d bytes to a relay that takes %d", len(m.Raw), most)
		}
	}
}

// An event of somebody else at the end of each page must not lead the walk past what was asked for.
func TestAStrangersEventSteersNothing(t *testing.T) {
	all, stranger := notes(1, 100, 7), note(2, 1, now-900*86400)
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 30, Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		var req nostr.ReqEnvelope
		if m.Label != "REQ" || req.FromJSON(m.Raw) != nil {
			return false
		}
		n := 0
		for _, ev := range all {
			var e nostr.Event
			if json.Unmarshal([]byte(ev), &e) == nil && n < 30 && req.Filters[0].Matches(&e) {
				c.Send(`["EVENT","` + req.SubscriptionID + `",` + ev + `]`)
				n++
			}
		}
		c.Send(`["EVENT","` + req.SubscriptionID + `",` + stranger + `]`)
		c.Send(`["EOSE","` + req.SubscriptionID + `"]`)
		return true
	}})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Once: true})
	st := g.finished()
	if in.count() != 100 {
		t.Errorf("%d events came, want 100", in.count())
	}
	if st.Complete == sources.No {
		t.Errorf("complete: no, %q", st.Text)
	}
}

// TestLimitOfARelayThatIsFilled: --limit holds where a relay gains events while it is asked: no page is asked for again.
func TestLimitOfARelayThatIsFilled(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 3, 7)})
	asked := 0
	meanwhile(r, func() {
		switch asked++; asked {
		case 2: // behind the first page
			r.Publish(notesAt(now-90_000, 8)...)
		case 3: // on it, and behind
			r.Publish(notesAt(now-86_401, 10)...)
			r.Publish(notesAt(now-95_000, 30)...)
		}
	})
	in := newIntake(t)
	start(t, r, in, openState(t), sources.Options{Once: true, Limit: 20}).finished()
	if n := in.count(); n == 0 || n > 20 {
		t.Errorf("%d events came, want some, at most 20", n)
	}
}

// TestNoticeBesideASlowPage: a relay takes a fourth of Idle for each page, and says meanwhile that it could not save a sink's EVENT.
func TestNoticeBesideASlowPage(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 20, 7), Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "REQ" {
			time.Sleep(250 * time.Millisecond)
			c.Send(`["NOTICE","error: could not save"]`)
			time.Sleep(250 * time.Millisecond)
		}
		return false
	}})
	st := start(t, r, newIntake(t), openState(t), sources.Options{Once: true, Idle: 2 * time.Second}).finished()
	wantComplete(t, st, sources.Yes, "")
	if again := len(requests(t, r, "page-")); again > 4 {
		t.Errorf("%d requests for one page, want it asked for once", again)
	}
}

// TestLateForAnAbandonedPage: what comes for a page that was given up for its silence did not come after an EOSE.
func TestLateForAnAbandonedPage(t *testing.T) {
	var reqs atomic.Int64
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 20, 7), Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "REQ" && reqs.Add(1) == 1 {
			time.Sleep(700 * time.Millisecond) // a pause of its disk's
		}
		return false
	}})
	st := start(t, r, newIntake(t), openState(t), sources.Options{Once: true, Idle: 500 * time.Millisecond}).finished()
	wantComplete(t, st, sources.Yes, "")
}
