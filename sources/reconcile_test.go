package sources_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip77"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy/storage/vector"
	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/reconcile"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// archived is what the archive has: those events of all that are in the intake.
type archived struct {
	in  *intake
	all []string
}

func (a archived) IDs(_ context.Context, f event.Filter) (sources.IDs, func(), error) {
	s := reconcile.NewSet(a.in.t.TempDir())
	for _, ev := range a.all {
		if !a.in.has(ev) {
			continue
		}
		var e event.Event
		if err := event.Parse([]byte(ev), &e); err != nil {
			return nil, nil, err
		}
		f.Since, f.Until = 0, 0
		if f.Match(&e) {
			if err := s.Add(reconcile.Item{CreatedAt: e.CreatedAt, ID: e.ID}); err != nil {
				return nil, nil, err
			}
		}
	}
	return s, func() { _ = s.Close() }, s.Flush()
}

func (a archived) Room(context.Context) (func(), error) { return func() {}, nil }

func (a archived) Known(id event.ID) (bool, error) {
	a.in.mu.Lock()
	defer a.in.mu.Unlock()
	_, ok := a.in.got[id]
	return ok, nil
}

// holds puts events into the intake as if they had come before.
func (k *intake) holds(events []string) {
	for _, ev := range events {
		id, err := event.ParseID(relaytest.ID(ev))
		if err != nil {
			k.t.Fatal(err)
		}
		k.mu.Lock()
		k.got[id] = sources.Frame{}
		k.mu.Unlock()
	}
}

// reconciler answers NEG-OPEN and NEG-MSG by go-nostr's responder, as khatru does.
type reconciler struct {
	events []string
	cap    int                                                        // most ids of a session, as strfry's
	before func(c *relaytest.Conn, sub, msg string) bool              // true: it has answered the NEG-OPEN or NEG-MSG
	lists  func(f nostr.Filter, newest []*nostr.Event) []*nostr.Event // of what the filter takes; nil: all

	mu    sync.Mutex
	open  map[string]*negentropy.Negentropy
	calls []string // labels
	most  int      // bytes of a message that came, half of its hex
}

func (n *reconciler) handle(c *relaytest.Conn, m relaytest.Message) bool {
	if !strings.HasPrefix(m.Label, "NEG-") {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, m.Label)
	env := nip77.ParseNegMessage(m.Raw)
	var sub, msg string
	switch e := env.(type) {
	case *nip77.OpenEnvelope:
		sub, msg = e.SubscriptionID, e.Message
	case *nip77.MessageEnvelope:
		sub, msg = e.SubscriptionID, e.Message
	case *nip77.CloseEnvelope:
		delete(n.open, e.SubscriptionID)
		return true
	}
	n.most = max(n.most, len(msg)/2)
	if n.before != nil && n.before(c, sub, msg) {
		return true
	}
	if e, ok := env.(*nip77.OpenEnvelope); ok {
		var list []*nostr.Event
		for _, ev := range n.events {
			var parsed nostr.Event
			if err := json.Unmarshal([]byte(ev), &parsed); err == nil && e.Filter.Matches(&parsed) {
				list = append(list, &parsed)
			}
		}
		if n.lists != nil {
			newestFirst(list)
			list = n.lists(e.Filter, list)
		}
		v := vector.New()
		for _, ev := range list {
			v.Insert(ev.CreatedAt, ev.ID)
		}
		if n.cap > 0 && v.Size() > n.cap {
			c.Send(fmt.Sprintf(`["NEG-ERR",%q,"blocked: too many query results",%d]`, sub, n.cap))
			return true
		}
		v.Seal()
		if n.open == nil {
			n.open = map[string]*negentropy.Negentropy{}
		}
		n.open[sub] = negentropy.New(v, 1<<20)
	}
	session := n.open[sub]
	if session == nil {
		c.Send(`["NEG-ERR","` + sub + `","closed: unknown subscription handle"]`)
		return true
	}
	out, err := session.Reconcile(msg)
	if err != nil {
		c.Send(`["NEG-ERR","` + sub + `","` + err.Error() + `"]`)
		return true
	}
	c.Send(`["NEG-MSG","` + sub + `","` + out + `"]`)
	return true
}

func (n *reconciler) count(label string) (got int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.calls {
		if l == label {
			got++
		}
	}
	return got
}

// without gives all but every n-th, and those.
func without(all []string, n int) (most, rest []string) {
	for i, ev := range all {
		if i%n == n/2 {
			rest = append(rest, ev)
		} else {
			most = append(most, ev)
		}
	}
	return most, rest
}

func TestReconcilingFetchesOnlyWhatIsMissing(t *testing.T) {
	all := notes(1, 2000, 7)
	had, lacked := without(all, 13)
	n := &reconciler{events: all}
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, Handle: n.handle})
	in, db := newIntake(t), openState(t)
	in.holds(had)
	o := sources.Options{Once: true, Seen: archived{in, all}}
	g := start(t, r, in, db, o)
	wantComplete(t, g.finished(), sources.Yes, "")
	if in.count() != len(all) {
		t.Errorf("%d events are archived, want %d", in.count(), len(all))
	}
	if got := int(g.door.Tally.Received.Load()); got != len(lacked) {
		t.Errorf("%d events came, want the %d that were missing", got, len(lacked))
	}
	if how := in.how(lacked[3]); how != record.Negentropy {
		t.Errorf("a missing event came by %v, want %v", how, record.Negentropy)
	}
	if p := requests(t, r, "page-"); len(p) > 0 {
		t.Errorf("%d pages were asked for, want none: %v", len(p), p[0])
	}
	for _, f := range requests(t, r, "ids-") {
		if len(f.IDs) == 0 || len(f.IDs) > 100 {
			t.Errorf("a request asks for %d ids, want 1 to 100", len(f.IDs))
		}
	}
	if opened, closed := n.count("NEG-OPEN"), n.count("NEG-CLOSE"); opened == 0 || opened != closed {
		t.Errorf("%d reconciliations were opened and %d closed", opened, closed)
	}
	before := n.count("NEG-OPEN")
	wantComplete(t, start(t, r, in, db, sources.Options{Once: true, Seen: o.Seen, Now: func() time.Time { return time.Unix(now+1, 0) }}).finished(), sources.Yes, "")
	if got := int(g.door.Tally.Received.Load()); got != len(lacked) || n.count("NEG-OPEN") > before+1 {
		t.Errorf("asked again, %d events came by %d reconciliations; want none by one for the overlap", got-len(lacked), n.count("NEG-OPEN")-before)
	}
}

// TestRefusals: however a relay says that it does not reconcile, it is paged at once, and not asked again for a day.
func TestRefusals(t *testing.T) {
	all := notes(1, 300, 7)
	had, lacked := without(all, 13)
	frame := func(f string) func(c *relaytest.Conn, sub, msg string) bool {
		return func(c *relaytest.Conn, sub, _ string) bool {
			if f != "" {
				c.Send(strings.ReplaceAll(f, "SUB", sub))
			}
			return true
		}
	}
	for name, before := range map[string]func(c *relaytest.Conn, sub, msg string) bool{
		"silence":                  frame(""),
		"NOTICE, disabled":         frame(`["NOTICE","ERROR: bad msg: negentropy disabled"]`),
		"NOTICE, unknown command":  frame(`["NOTICE","unknown command: NEG-OPEN"]`),
		"CLOSED":                   frame(`["CLOSED","SUB","unsupported: negentropy"]`),
		"NEG-ERR":                  frame(`["NEG-ERR","SUB","auth-required: members only"]`),
		"NEG-ERR without a reason": frame(`["NEG-ERR","SUB"]`),
		"NEG-ERROR":                frame(`["NEG-ERROR","SUB","blocked: no"]`),
		"NEG-ERR, PROTOCOL-ERROR":  frame(`["NEG-ERR","SUB","PROTOCOL-ERROR"]`),
		"another version":          frame(`["NEG-MSG","SUB","60"]`),
		"nonsense":                 frame(`["NEG-MSG","SUB","hello"]`),
		"a count of 2^56":          frame(`["NEG-MSG","SUB","61000002ffffffffffffff7f"]`),
		"the connection ends": func(c *relaytest.Conn, _, _ string) bool {
			c.Drop()
			return true
		},
		"not a websocket's bytes": func(c *relaytest.Conn, _, _ string) bool {
			c.Write([]byte{0xff, 0x05, 'a', 'b', 'c', 'd', 'e'})
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := &reconciler{events: all, before: before}
			r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, Handle: n.handle})
			in, db := newIntake(t), openState(t)
			in.holds(had)
			var log bytes.Buffer
			o := sources.Options{Once: true, Seen: archived{in, all}, Idle: 2 * time.Second, Log: zerolog.New(&log)}
			wantComplete(t, start(t, r, in, db, o).finished(), sources.Yes, "")
			for _, ev := range lacked {
				if !in.has(ev) {
					t.Fatalf("%d events are archived, want %d", in.count(), len(all))
				}
			}
			if got := strings.Count(log.String(), "it is paged"); got != 1 {
				t.Errorf("%d lines say that the relay does not reconcile, want one:\n%s", got, log.String())
			}
			asked := n.count("NEG-OPEN")
			later := func(d time.Duration) {
				o.Again, o.Now = true, func() time.Time { return time.Unix(now, 0).Add(d) }
				wantComplete(t, start(t, r, in, db, o).finished(), sources.Yes, "")
			}
			later(23 * time.Hour)
			if got := n.count("NEG-OPEN") - asked; got != 0 {
				t.Errorf("asked %d times within a day, want none", got)
			}
			if later(25 * time.Hour); n.count("NEG-OPEN") == asked {
				t.Error("not asked again after a day")
			}
		})
	}
}

// TestTooManyResults: a relay that reconciles so many ids at once is asked for smaller windows.
func TestTooManyResults(t *testing.T) {
	all := notes(1, 1500, 7)
	had, _ := without(all, 13)
	n := &reconciler{events: all, cap: 200}
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, Handle: n.handle})
	in, db := newIntake(t), openState(t)
	in.holds(had)
	wantComplete(t, start(t, r, in, db, sources.Options{Once: true, Seen: archived{in, all}}).finished(), sources.Yes, "")
	if p := requests(t, r, "page-"); in.count() != len(all) || len(p) > 0 {
		t.Errorf("%d of %d events, %d pages; want all and no page", in.count(), len(all), len(p))
	}
	if got := n.count("NEG-OPEN"); got > 80 {
		t.Errorf("%d windows for 1,500 ids of at most 200, want about 30", got)
	}
}

// TestClosedReconciliation: khatru forgets one that rests for 7 s, which is begun anew. It also answers a NEG-OPEN before it has
// noted the reconciliation, and says CLOSED to who is faster, who says it again.
func TestClosedReconciliation(t *testing.T) {
	for name, c := range map[string]struct {
		forgets bool
		times   int // in all, or for each where nothing is forgotten
	}{
		"forgotten":     {true, 1},
		"not noted yet": {false, 3},
	} {
		t.Run(name, func(t *testing.T) {
			all := notes(1, 1500, 7)
			had, _ := without(all, 13)
			n := &reconciler{events: all}
			closed := map[string]int{}
			n.before = func(conn *relaytest.Conn, sub, _ string) bool {
				key := sub
				if c.forgets {
					key = ""
				}
				if n.open[sub] == nil || closed[key] == c.times {
					return false
				}
				closed[key]++
				if c.forgets {
					delete(n.open, sub)
				}
				conn.Send(`["NEG-ERROR","` + sub + `","CLOSED"]`)
				return true
			}
			r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, Handle: n.handle})
			in, db := newIntake(t), openState(t)
			in.holds(had)
			wantComplete(t, start(t, r, in, db, sources.Options{Once: true, Seen: archived{in, all}}).finished(), sources.Yes, "")
			if p := requests(t, r, "page-"); in.count() != len(all) || len(p) > 0 || len(closed) == 0 {
				t.Errorf("%d of %d events, %d pages, %d reconciliations closed; want all, no page, and one or more", in.count(), len(all), len(p), len(closed))
			}
		})
	}
}

// TestUnfetchable: what a relay lists and does not give leaves its window unproven, and is not asked for again the same day.
func TestUnfetchable(t *testing.T) {
	all := notes(1, 300, 7)
	had, lacked := without(all, 13)
	gives := slices.DeleteFunc(slices.Clone(all), func(ev string) bool { return ev == lacked[0] || ev == lacked[1] })
	n := &reconciler{events: all}
	r := relaytest.New(t, relaytest.Script{Events: gives, Cap: 100, Handle: n.handle})
	in, db := newIntake(t), openState(t)
	in.holds(had)
	o := sources.Options{Once: true, Again: true, Seen: archived{in, all}}
	asked := func(ev string) (times int) {
		for _, f := range requests(t, r, "ids-") {
			if slices.Contains(f.IDs, relaytest.ID(ev)) {
				times++
			}
		}
		return times
	}
	wantComplete(t, start(t, r, in, db, o).finished(), sources.Yes, "")
	if pages := requests(t, r, "page-"); len(pages) > 1 { // what is too new to be proven
		t.Errorf("%d pages of what was reconciled: %v; events that the relay does not give by their ids are on no page", len(pages), pages)
	}
	first := asked(lacked[0])
	if first == 0 || first > 2 {
		t.Errorf("asked %d times for an event that the relay does not give, want once, and once more without those that came", first)
	}
	wantComplete(t, start(t, r, in, db, o).finished(), sources.Yes, "")
	if got := asked(lacked[0]); got != first {
		t.Errorf("asked again the same day: %d times, want %d", got, first)
	}
	o.Now = func() time.Time { return time.Unix(now, 0).Add(25 * time.Hour) }
	wantComplete(t, start(t, r, in, db, o).finished(), sources.Yes, "")
	if got := asked(lacked[0]); got == first {
		t.Error("not asked again after a day")
	}
}

// TestMostlyMissingIsPaged: ids are not how to get what is not there at all.
func TestMostlyMissingIsPaged(t *testing.T) {
	all := notes(1, 2600, 7)
	n := &reconciler{events: all}
	r := relaytest.New(t, relaytest.Script{Events: all, Handle: n.handle})
	in, db := newIntake(t), openState(t)
	in.holds(all[:20])
	wantComplete(t, start(t, r, in, db, sources.Options{Once: true, Seen: archived{in, all}}).finished(), sources.Yes, "")
	if got := requests(t, r, "ids-"); in.count() != len(all) || len(got) > 0 {
		t.Errorf("%d of %d events, %d requests for ids; want all and none", in.count(), len(all), len(got))
	}
}

// TestSecondThatCannotBePaged: what a second holds beyond the relay's cap comes by reconciling it alone.
func TestSecondThatCannotBePaged(t *testing.T) {
	all := notes(1, 100, 7)
	for i := range 260 {
		all = append(all, note(1, 10_000+i, now-90_000))
	}
	n := &reconciler{events: all}
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 50, Handle: n.handle})
	in, db := newIntake(t), openState(t)
	st := start(t, r, in, db, sources.Options{Once: true, Seen: archived{in, all}}).finished()
	wantComplete(t, st, sources.Yes, "")
	if in.count() != len(all) || len(st.Gaps) > 0 {
		t.Errorf("%d of %d events, gaps %v", in.count(), len(all), st.Gaps)
	}
}

// TestRefusedIsNotMissing: what the door keeps out comes once, is not asked for each time, and leaves nothing unproven; it comes
// when the door lets it in.
func TestRefusedIsNotMissing(t *testing.T) {
	all := notes(1, 300, 7)
	had, lacked := without(all, 13)
	n := &reconciler{events: all}
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, Handle: n.handle})
	in, db := newIntake(t), openState(t)
	in.holds(had)
	filters := []event.Filter{{Authors: []event.PubKey{author(1)}}}
	except := []event.Filter{{IDs: ids(t, lacked)}}
	closed := sources.NewDoor(r.URL, event.Selection{All: [][]event.Filter{filters}, Except: except}.Compile())
	o := sources.Options{Once: true, Again: true, Seen: archived{in, all}, Door: closed, Filters: filters, Narrow: []string{"except"}}
	for range 2 {
		wantComplete(t, start(t, r, in, db, o).finished(), sources.Yes, "")
	}
	if got := int(closed.Tally.Received.Load()); got != len(lacked) || len(requests(t, r, "page-")) > 0 {
		t.Errorf("%d events came, and %d pages; want the %d that the door keeps out, once, and no page", got, len(requests(t, r, "page-")), len(lacked))
	}
	o.Door, o.Narrow = nil, nil
	wantComplete(t, start(t, r, in, db, o).finished(), sources.Yes, "")
	if in.count() != len(all) {
		t.Errorf("%d events are archived once the door is open, want %d", in.count(), len(all))
	}
}

// TestInventedIDs: a relay that lists what nobody ever made costs a few requests each time.
func TestInventedIDs(t *testing.T) {
	all := notes(1, 1900, 7)
	r := relaytest.New(t, relaytest.Script{Events: all[:20], Cap: 100, Handle: (&reconciler{events: all}).handle})
	in, db := newIntake(t), openState(t)
	in.holds(all[:20])
	o := sources.Options{Once: true, Again: true, Seen: archived{in, all}}
	wantComplete(t, start(t, r, in, db, o).finished(), sources.Yes, "") // by paging
	if got := len(requests(t, r, "ids-")); got != 10 {
		t.Errorf("%d requests for 1,880 ids that do not exist, want 10", got)
	}
	wantComplete(t, start(t, r, in, db, o).finished(), sources.Yes, "")
	if got := len(requests(t, r, "ids-")); got != 19 {
		t.Errorf("%d requests after the second time, want 19: each id once", got)
	}
}

// TestAskWhileIDsAreFetched: what the door refuses because its author has just left is not remembered as refused: the author may come back.
func TestAskWhileIDsAreFetched(t *testing.T) {
	all := append(notes(1, 200, 7), notes(2, 200, 7)...)
	had, lacked := without(all, 13)
	n := &reconciler{events: all}
	held, release := make(chan struct{}), make(chan struct{})
	var hold sync.Once
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if strings.HasPrefix(m.Raw, `["REQ","ids-`) {
			hold.Do(func() {
				close(held)
				<-release
			})
		}
		return n.handle(c, m)
	}})
	in, db := newIntake(t), openState(t)
	in.holds(had)
	w := wish(nil, 1, 2)
	g := start(t, r, in, db, sources.Options{Filters: w.Filters, Seen: archived{in, all}})
	<-held
	g.source.Ask(wish(nil, 1))
	close(release)
	g.untilLive()
	if in.count() == len(all) {
		t.Fatal("the second author's events are in: nothing was interrupted")
	}
	g.source.Ask(w)
	in.until("both authors' events", func() bool { return in.count() == len(all) })
	g.untilLive()
	if got := g.door.Tally.New.Load(); got != int64(len(lacked)) {
		t.Errorf("%d new events, want the %d that were lacked", got, len(lacked))
	}
}
