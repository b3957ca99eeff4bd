package sources_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// wish is for the events of authors, of any kind but except.
func wish(except []int, authors ...int) sources.Wish {
	f := event.Filter{}
	for _, n := range authors {
		f.Authors = append(f.Authors, author(n))
	}
	w := sources.Wish{Filters: []event.Filter{f}}
	all := event.Selection{All: [][]event.Filter{w.Filters}}
	for _, k := range except {
		all.Except = append(all.Except, event.Filter{Kinds: []int{k}})
		w.Narrow = append(w.Narrow, fmt.Sprint("except kind ", k))
	}
	w.Want = all.Compile()
	return w
}

func (g *rig) untilLive() {
	g.t.Helper()
	g.intake.until("live", func() bool { return g.source.Status().Phase == sources.Live })
}

// place is where the first message that begins with text stands in what the relay got; -1: nowhere.
func place(r *relaytest.Relay, text string) int {
	return slices.IndexFunc(r.Got(""), func(m relaytest.Message) bool { return strings.HasPrefix(m.Raw, text) })
}

// The old live subscription is closed when the new one has been answered, not before.
func TestAskOpensBeforeItCloses(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{})
	g.untilLive()
	r.Update(func(s *relaytest.Script) { s.NoEOSE = true })
	g.source.Ask(wish(nil, 1, 2))
	r.Wait("the new live request", func() bool { return place(r, `["REQ","live-1",`) >= 0 })
	ev := note(1, 1, now)
	r.Publish(ev)
	in.until("an event on the old one", func() bool { return in.has(ev) })
	if at := place(r, `["CLOSE"`); at >= 0 && strings.Contains(r.Got("")[at].Raw, "live-0") {
		t.Error("the old subscription was closed before the new one was answered")
	}
	r.Update(func(s *relaytest.Script) { s.NoEOSE = false })
	r.Send(`["EOSE","live-1"]`)
	r.Wait("the old one's CLOSE", func() bool { return place(r, `["CLOSE","live-0"]`) > place(r, `["REQ","live-1",`) })
	other := note(2, 1, now)
	r.Publish(other)
	in.until("an event of the new author", func() bool { return in.has(other) })
	g.untilLive()
	if n := r.Accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// While filters change fifty times under a stream of events, each of them comes by the live subscription.
func TestAskMissesNothing(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{})
	g.untilLive()
	var published []string
	var publishing sync.WaitGroup
	var enough atomic.Bool
	publishing.Go(func() {
		for i := 0; !enough.Load() && i < 5000; i++ {
			ev := note(1, i, now+int64(i%100))
			published = append(published, ev)
			r.Publish(ev)
		}
	})
	for i := range 50 {
		g.source.Ask(wish(nil, 1, 2+i))
		r.Wait("the new author's history", func() bool {
			return slices.ContainsFunc(requests(t, r, "page-"), func(f nostr.Filter) bool {
				return slices.Contains(f.Authors, author(2+i).String())
			})
		})
	}
	enough.Store(true)
	publishing.Wait()
	in.until("all that was published", func() bool { return in.count() == len(published) })
	for _, ev := range published {
		if got := in.how(ev); got != record.Live {
			t.Fatalf("%s came by %v, want %v", ev, got, record.Live)
		}
	}
	if n := r.Accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	for _, f := range requests(t, r, "page-") {
		if since := f.Since; slices.Contains(f.Authors, author(1).String()) && (since == nil || *since < now-3600) && len(f.Authors) > 1 {
			t.Errorf("the first author's history is asked for again: %s", f)
		}
	}
	t.Logf("%d events during 50 changes", len(published))
}

// One more author costs that author's requests only, one less none; what is let in is what is asked for.
func TestAskCostsWhatIsNew(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: append(notes(1, 250, 7), notes(2, 30, 7)...), Cap: 100})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{})
	g.untilLive()
	before := len(requests(t, r, "page-"))
	g.source.Ask(wish(nil, 1, 2))
	in.until("the second author's history", func() bool { return in.count() == 280 })
	g.untilLive()
	for _, f := range requests(t, r, "page-")[before:] {
		if len(f.Authors) != 1 || f.Authors[0] != author(2).String() {
			t.Errorf("asked for %v, want the second author only", f.Authors)
		}
	}
	wantComplete(t, g.source.Status(), sources.Yes, "")
	before = len(requests(t, r, "page-"))
	g.source.Ask(wish(nil, 2))
	r.Wait("the narrower live request", func() bool { return place(r, `["CLOSE","live-1"]`) >= 0 })
	ev, other := note(1, 9000, now), note(2, 9000, now)
	r.PassOn(ev)
	r.Publish(other)
	in.until("the event that is asked for", func() bool { return in.has(other) })
	g.untilLive()
	if n := len(requests(t, r, "page-")) - before; in.has(ev) || n != 0 {
		t.Errorf("an event of the author that left is in: %v; %d requests for history, want 0", in.has(ev), n)
	}
}

// A page whose events the door refuses, because the author has just left, proves nothing: the author can come back,
// at once or in the next process, which goes by what was saved.
func TestAskInTheMiddleOfAPage(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) { askInTheMiddleOfAPage(t, restart) })
	}
}

func askInTheMiddleOfAPage(t *testing.T, restart bool) {
	held, release := make(chan struct{}), make(chan struct{})
	var hold sync.Once
	r := relaytest.New(t, relaytest.Script{
		Events: append(notes(1, 250, 7), notes(2, 250, 7)...), Cap: 50,
		Handle: func(_ *relaytest.Conn, m relaytest.Message) bool {
			if strings.HasPrefix(m.Raw, `["REQ","page-4"`) {
				hold.Do(func() {
					close(held)
					<-release
				})
			}
			return false
		},
	})
	in, db := newIntake(t), openState(t)
	w := wish(nil, 1, 2)
	g := start(t, r, in, db, sources.Options{Filters: w.Filters})
	<-held
	g.source.Ask(wish(nil, 1))
	close(release)
	in.until("the first author's history", func() bool {
		n := 0
		for i := range 250 {
			if in.has(note(1, i, now-86400-int64(i)*7)) {
				n++
			}
		}
		return n == 250
	})
	g.untilLive()
	if n := in.count(); n == 500 {
		t.Fatal("the second author's history is in: nothing was interrupted")
	}
	connections := 1
	if restart {
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
		g, connections = start(t, r, in, db, sources.Options{Filters: w.Filters}), 2
	} else {
		g.source.Ask(w)
	}
	in.until("both histories", func() bool { return in.count() == 500 })
	g.untilLive()
	wantComplete(t, g.source.Status(), sources.Yes, "")
	if n := r.Accepted(); n != connections {
		t.Errorf("%d connections, want %d", n, connections)
	}
}

// A relay that does not have both subscriptions at once gets one after the other, and what falls between is caught up.
func TestAskOfARelayWithOneSubscription(t *testing.T) {
	for _, words := range []string{"error: too many subscriptions", "NOTICE"} {
		t.Run(words, func(t *testing.T) {
			r := relaytest.New(t, relaytest.Script{})
			between := note(1, 5, now)
			var missed sync.Once
			r.Update(func(s *relaytest.Script) {
				s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
					if strings.HasPrefix(m.Raw, `["CLOSE","live-0"]`) {
						missed.Do(func() { r.Update(func(s *relaytest.Script) { s.Events = []string{between} }) }) // nobody is told
						return false
					}
					if !strings.HasPrefix(m.Raw, `["REQ","live-1"`) || place(r, `["CLOSE","live-0"]`) >= 0 {
						return false
					}
					if words == "NOTICE" {
						c.Send(`["NOTICE","ERROR: too many concurrent REQs"]`)
					} else {
						c.Send(`["CLOSED","live-1","` + words + `"]`)
					}
					return true
				}
			})
			in := newIntake(t)
			g := start(t, r, in, openState(t), sources.Options{})
			g.untilLive()
			g.source.Ask(wish(nil, 1, 2))
			in.until("what was published between the two subscriptions", func() bool { return in.has(between) })
			ev := note(2, 1, now)
			r.Publish(ev)
			in.until("a live event", func() bool { return in.has(ev) })
			if n := r.Accepted(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

// A relay that has room for one subscription is asked for pages without the live one, which stands again afterwards.
func TestARelayWithRoomForOne(t *testing.T) {
	for name, refusal := range map[string]string{"NOTICE": `["NOTICE","ERROR: too many concurrent REQs"]`, "CLOSED": `["CLOSED",%q,"ERROR: too many concurrent REQs"]`} {
		t.Run(name, func(t *testing.T) {
			all := notes(1, 120, 3600)
			r := relaytest.New(t, relaytest.Script{Cap: 50, Events: all})
			crowded(1, refusal)(r)
			in := newIntake(t)
			var clock atomic.Int64
			clock.Store(now)
			g := start(t, r, in, openState(t), sources.Options{Idle: brief, Now: func() time.Time { return time.Unix(clock.Load(), 0) }, CatchUpEvery: 2 * brief})
			in.until("history", func() bool { return in.count() == len(all) })
			g.untilLive()
			wantComplete(t, g.source.Status(), sources.Yes, "")
			r.Wait("the live subscription", func() bool {
				return slices.ContainsFunc(r.Conns()[0].Subscriptions(), func(sub string) bool { return strings.HasPrefix(sub, "live-") })
			})
			ev := note(1, 9001, now)
			r.Publish(ev)
			in.until("a live event", func() bool { return in.has(ev) })
			missed := note(1, 9002, now-60)
			r.Update(func(s *relaytest.Script) { s.Events = []string{missed} }) // while the live subscription was closed, say
			in.until("what the next catch-up brings", func() bool { return in.has(missed) })
		})
	}
}

// What an except kept out is asked for once it is gone, in the same process and by the next one.
func TestAskWithoutTheExcept(t *testing.T) {
	like := func(i int) string {
		return relaytest.Sign(relaytest.Key(1), 7, now-86400-int64(i), nil, "+")
	}
	stored := append(notes(1, 30, 7), like(1), like(2), like(3))
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprint("restart ", restart), func(t *testing.T) {
			r := relaytest.New(t, relaytest.Script{Events: stored})
			in, db := newIntake(t), openState(t)
			w := wish([]int{7, 9}, 1)
			o := sources.Options{Filters: w.Filters, Narrow: w.Narrow, Door: sources.NewDoor(r.URL, w.Want)}
			g := start(t, r, in, db, o)
			g.untilLive()
			if n := in.count(); n != 30 {
				t.Fatalf("%d events, want 30 without likes", n)
			}
			// One more except changes nothing in what is proven; it is in force.
			more := wish([]int{7, 9, 11}, 1)
			g.source.Ask(more)
			g.untilLive()
			less := wish([]int{9, 11}, 1)
			if restart {
				if err := g.stop(); err != nil {
					t.Fatal(err)
				}
				o.Narrow, o.Door = less.Narrow, sources.NewDoor(r.URL, less.Want)
				start(t, r, in, db, o)
			} else {
				g.source.Ask(less)
			}
			in.until("the likes", func() bool { return in.count() == 33 })
		})
	}
}

// An author that leaves and comes back while a page of the catch-up is under way: what the door refused between is asked for
// again, and the catch-up does not count as completed, also where no history is asked for.
func TestAskThereAndBackDuringCatchUp(t *testing.T) {
	var clock atomic.Int64
	clock.Store(now)
	pages := make(chan *relaytest.Conn, 1)
	r := relaytest.New(t, relaytest.Script{})
	in, db := newIntake(t), openState(t)
	both := wish(nil, 1, 2)
	both.History.None = true
	o := sources.Options{Filters: both.Filters, History: both.History, Now: func() time.Time { return time.Unix(clock.Load(), 0) }}
	g := start(t, r, in, db, o)
	g.untilLive()
	in.until("the first catch-up saved", func() bool { return g.source.Status().CaughtUp.Unix() == now })
	g.stop()

	clock.Store(now + 7*86400)
	missed := note(2, 1, now+3*86400)
	r.Publish(missed)
	var first sync.Once
	r.Update(func(s *relaytest.Script) {
		s.Handle = func(c *relaytest.Conn, m relaytest.Message) (handled bool) {
			if strings.HasPrefix(m.Raw, `["REQ","page-1"`) {
				first.Do(func() { pages <- c; handled = true })
			}
			return handled
		}
	})
	o.Door = nil
	g = start(t, r, in, db, o)
	page := <-pages
	one := wish(nil, 1)
	one.History.None = true
	g.source.Ask(one)
	page.Send(`["EVENT","page-1",` + missed + `]`)
	in.until("its refusal", func() bool { return g.door.Tally.Unasked.Load() == 1 })
	g.source.Ask(both)
	page.Send(`["EOSE","page-1","finish"]`)
	in.until("what was refused", func() bool { return in.has(missed) })
}
