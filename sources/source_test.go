package sources_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
	"rebroadcastr/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// now is far enough from every test event for the overlap not to matter, unless a test wants it to.
const now = 1_700_000_000

// intake is the pipeline, faked: it checks, drops copies and counts as the shards do.
type intake struct {
	t       testing.TB
	mu      sync.Mutex
	got     map[event.ID]sources.Frame
	kept    []chan error // barriers that were not answered, while hold
	hold    bool
	fail    error // of barriers
	changed chan struct{}
}

func newIntake(t testing.TB) *intake {
	return &intake{t: t, got: map[event.ID]sources.Frame{}, changed: make(chan struct{})}
}

func (k *intake) Offer(_ context.Context, f sources.Frame) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	raw := f.Raw[f.Scan.Event:]
	if f.Simple {
		if _, ok := k.got[f.Scan.ID]; ok {
			f.Door.Tally.Copies.Add(1)
			return nil
		}
		raw = raw[:strings.LastIndexByte(string(raw), ']')]
	} else {
		_, bare, err := event.ParseFrame(f.Raw)
		if err != nil {
			f.Door.Refused(f.Raw, event.ReasonOf(err))
			return nil
		}
		raw = bare
	}
	var e event.Event
	err := event.Parse(raw, &e)
	if err == nil && !f.Door.Wants(&e) {
		f.Door.Tally.Unasked.Add(1)
		return nil
	}
	if err == nil {
		err = e.Verify()
	}
	if err != nil {
		f.Door.Refused(f.Raw, event.ReasonOf(err))
		return nil
	}
	if _, ok := k.got[e.ID]; ok {
		f.Door.Tally.Copies.Add(1)
		return nil
	}
	f.Raw, f.Scan.Sub = nil, slices.Clone(f.Scan.Sub)
	k.got[e.ID] = f
	f.Door.Tally.New.Add(1)
	k.tellLocked()
	return nil
}

func (k *intake) tellLocked() {
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *intake) Barrier(context.Context) (<-chan error, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ch := make(chan error, 1)
	if k.hold {
		k.kept = append(k.kept, ch)
	} else {
		ch <- k.fail
	}
	k.tellLocked()
	return ch, nil
}

func (k *intake) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.got)
}

func (k *intake) has(ev string) bool {
	id, err := event.ParseID(relaytest.ID(ev))
	if err != nil {
		k.t.Fatal(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.got[id]
	return ok
}

func (k *intake) how(ev string) record.How {
	id, err := event.ParseID(relaytest.ID(ev))
	if err != nil {
		k.t.Fatal(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.got[id].How
}

// until waits for cond, looked at after each thing that reaches the intake.
func (k *intake) until(what string, cond func() bool) {
	k.t.Helper()
	deadline := time.After(time.Minute)
	for {
		k.mu.Lock()
		changed := k.changed
		k.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			k.t.Fatalf("%s did not come to pass within a minute (%d events are in)", what, k.count())
		}
	}
}

// rig is one source on one link.
type rig struct {
	t      testing.TB
	relay  *relaytest.Relay
	intake *intake
	door   *sources.Door
	db     *state.DB
	source *sources.Source
	link   *relay.Link
	done   chan error
	stop   func() error
}

func openState(t testing.TB) *state.DB {
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
	return db
}

func author(n int) event.PubKey {
	p, err := event.ParsePubKey(relaytest.Pub(relaytest.Key(n)))
	if err != nil {
		panic(err)
	}
	return p
}

// start runs a source until stop, or until it ends by itself. What o leaves open is filled in.
func start(t testing.TB, r *relaytest.Relay, in *intake, db *state.DB, o sources.Options) *rig {
	t.Helper()
	if o.Filters == nil {
		o.Filters = []event.Filter{{Authors: []event.PubKey{author(1)}}}
	}
	o.URL, o.Intake, o.State = r.URL, in, db
	if o.Door == nil {
		o.Door = sources.NewDoor(r.URL, event.Selection{All: [][]event.Filter{o.Filters}}.Compile())
	}
	if o.Now == nil {
		o.Now = func() time.Time { return time.Unix(now, 0) }
	}
	if o.Idle == 0 {
		o.Idle = 5 * time.Second
	}
	o.Backoff = relay.Backoff{Initial: time.Millisecond, Max: 20 * time.Millisecond, Multiplier: 2}
	g := &rig{t: t, relay: r, intake: in, door: o.Door, db: db, source: sources.New(o), done: make(chan error, 1)}
	settings := relay.DefaultSettings()
	settings.Backoff = o.Backoff
	settings.Pace = 10_000
	lo := relay.LinkOptions{URL: r.URL, Settings: settings, Log: zerolog.Nop()}
	if o.Once {
		lo.MaxTries = 3
	}
	link := relay.NewLink(lo)
	link.Add("source", g.source)
	g.link = link
	ctx, cancel := context.WithCancel(context.Background())
	go func() { g.done <- link.Run(ctx) }()
	g.stop = sync.OnceValue(func() error {
		cancel()
		return <-g.done
	})
	t.Cleanup(func() {
		cancel()
		g.stop()
		g.balance()
	})
	return g
}

// finished waits for a one-shot source's end.
func (g *rig) finished() sources.Status {
	g.t.Helper()
	select {
	case err := <-g.done:
		g.done <- err
		if err != nil {
			g.t.Errorf("the link ended: %v", err)
		}
	case <-time.After(2 * time.Minute):
		g.t.Fatal("a one-shot source did not end within 2 minutes")
	}
	return g.source.Status()
}

func (g *rig) balance() {
	g.t.Helper()
	c := g.door.Tally.Read()
	if received := g.door.Tally.Received.Load(); received != c.Copies+c.Invalid+c.Unasked+c.New {
		g.t.Errorf("received %d ≠ copies %d + invalid %d + unasked %d + new %d", received, c.Copies, c.Invalid, c.Unasked, c.New)
	}
}

var signedMu sync.Mutex
var signedCache = map[string]string{}

// note is event i of author a, dated at.
func note(a, i int, at int64) string {
	signedMu.Lock()
	defer signedMu.Unlock()
	k := fmt.Sprint(a, i, at)
	if signedCache[k] == "" {
		signedCache[k] = relaytest.Sign(relaytest.Key(a), 1, at, nil, fmt.Sprintf("note %d", i))
	}
	return signedCache[k]
}

// notes are n of author a, step seconds apart, the newest a day before now.
func notes(a, n int, step int64) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = note(a, i, now-86400-int64(i)*step)
	}
	return out
}

// requests are the filters of the REQs whose subscription begins with prefix.
func requests(t testing.TB, r *relaytest.Relay, prefix string) []nostr.Filter {
	t.Helper()
	var out []nostr.Filter
	for _, m := range r.Got("REQ") {
		var req nostr.ReqEnvelope
		if err := req.FromJSON(m.Raw); err != nil {
			t.Fatalf("the relay got %s, want a REQ: %v", m.Raw, err)
		}
		if len(req.Filters) != 1 {
			t.Errorf("%s has %d filters, want one", m.Raw, len(req.Filters))
		}
		if strings.HasPrefix(req.SubscriptionID, prefix) {
			out = append(out, req.Filters[0])
		}
	}
	return out
}

func wantComplete(t testing.TB, st sources.Status, want sources.Completeness, text string) {
	t.Helper()
	if st.Complete != want || !strings.Contains(st.Text, text) {
		t.Errorf("complete: %v %q, want %v %q", st.Complete, st.Text, want, text)
	}
}

func TestBackfillOfACappedRelay(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 1500, 7), Cap: 100})
	in, db := newIntake(t), openState(t)
	g := start(t, r, in, db, sources.Options{Once: true})
	st := g.finished()
	wantComplete(t, st, sources.Yes, "")
	if in.count() != 1500 {
		t.Errorf("%d events came, want 1500", in.count())
	}
	if !st.Proven || st.ProvenBack != 0 {
		t.Errorf("proven %v back to %d, want the whole time", st.Proven, st.ProvenBack)
	}
	if st.Phase != sources.Done {
		t.Errorf("phase %q, want %q", st.Phase, sources.Done)
	}
	for _, f := range requests(t, r, "page-") {
		if f.Limit != 500 && f.Limit != 400 { // eventstore would give 400, if this were one
			t.Errorf("a page asked for %d events, want 500 or four times what comes", f.Limit)
		}
	}
	if got := len(requests(t, r, "live-")); got != 0 {
		t.Errorf("%d live subscriptions in a backfill, want none", got)
	}
	reqs, closes := len(r.Got("REQ")), len(r.Got("CLOSE"))
	if reqs != closes {
		t.Errorf("%d REQ and %d CLOSE, want every page closed", reqs, closes)
	}

	t.Run("the second run asks only for what is missing", func(t *testing.T) {
		before := g.door.Tally.Received.Load()
		g := start(t, r, in, db, sources.Options{Once: true, Door: g.door})
		wantComplete(t, g.finished(), sources.Yes, "")
		again := requests(t, r, "page-")[reqs:]
		if len(again) != 1 || again[0].Since == nil || int64(*again[0].Since) != now-1200+1 || again[0].Until != nil {
			t.Errorf("it asked %v, want one page from 20 minutes before the first run", again)
		}
		if got := g.door.Tally.Received.Load() - before; got != 0 {
			t.Errorf("%d events came again, want none", got)
		}
	})
	t.Run("again asks for everything", func(t *testing.T) {
		g := start(t, r, newIntake(t), db, sources.Options{Once: true, Again: true})
		wantComplete(t, g.finished(), sources.Yes, "")
		if n := g.door.Tally.New.Load(); n != 1500 {
			t.Errorf("%d events came, want 1500", n)
		}
	})
	t.Run("one more author costs one more author", func(t *testing.T) {
		r.Publish(notes(2, 30, 11)...)
		g := start(t, r, in, db, sources.Options{Once: true, Filters: []event.Filter{{Authors: []event.PubKey{author(1), author(2)}}}})
		wantComplete(t, g.finished(), sources.Yes, "")
		if n := g.door.Tally.Received.Load(); n < 30 || n > 31+30 {
			t.Errorf("%d events came, want the new author's 30 with at most one more page of them", n)
		}
		if in.count() != 1530 {
			t.Errorf("%d events are in, want 1530", in.count())
		}
	})
	t.Run("limit", func(t *testing.T) {
		for _, limit := range []int{1, 10, 100, 250, 5000} {
			db := openState(t)
			g := start(t, r, newIntake(t), db, sources.Options{Once: true, Limit: limit})
			st := g.finished()
			if n := savedWindows(t, db, r.URL); n != 0 || st.Proven {
				t.Errorf("--limit %d: %d windows are saved, proven %v; want none: it is a first look", limit, n, st.Proven)
			}
			if limit == 5000 {
				wantComplete(t, st, sources.Yes, "")
				continue
			}
			wantComplete(t, st, sources.Unknown, fmt.Sprintf("--limit %d", limit))
			if n := g.door.Tally.New.Load(); n != int64(limit) {
				t.Errorf("--limit %d: %d events came", limit, n)
			}
		}
	})
}

func TestADropInTheMiddleOfAPageIsAskedAgain(t *testing.T) {
	all := notes(1, 400, 7)
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 100, CloseAfter: 250})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Once: true})
	wantComplete(t, g.finished(), sources.Yes, "")
	if in.count() != 400 {
		t.Errorf("%d events came, want 400", in.count())
	}
	if r.Accepted() < 2 {
		t.Errorf("%d connections, want the drop to have happened", r.Accepted())
	}
	// The second session goes on where the first had proof, not at the top.
	if n := g.door.Tally.Received.Load(); n > 400+250 {
		t.Errorf("%d events were received for 400, want the proven part not to be asked again", n)
	}
}

func TestAWindowIsSavedOnlyAfterTheBarrier(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 300, 7), Cap: 100})
	in, db := newIntake(t), openState(t)
	in.hold = true
	g := start(t, r, in, db, sources.Options{Once: true})
	in.until("a page whose barrier is not answered", func() bool { return in.count() == 100 && len(r.Got("CLOSE")) == 1 })
	if ws := savedWindows(t, db, r.URL); ws != 0 {
		t.Errorf("%d windows are saved before anything is on disk, want none", ws)
	}
	select {
	case err := <-g.done:
		t.Fatalf("a backfill ended before its barriers were answered: %v", err)
	default:
	}
	in.mu.Lock()
	for _, ch := range in.kept {
		ch <- nil
	}
	in.hold = false
	in.mu.Unlock()
	wantComplete(t, g.finished(), sources.Yes, "")
	if ws := savedWindows(t, db, r.URL); ws != 1 {
		t.Errorf("%d atoms have windows, want 1", ws)
	}
}

func TestNothingIsSavedWhenTheArchiveFails(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 30, 7)})
	in, db := newIntake(t), openState(t)
	in.fail = errors.New("disk on fire")
	g := start(t, r, in, db, sources.Options{Once: true})
	in.until("three tries", func() bool { return r.Accepted() >= 3 })
	g.stop()
	if ws := savedWindows(t, db, r.URL); ws != 0 {
		t.Errorf("%d windows are saved, want none", ws)
	}
}

func savedWindows(t testing.TB, db *state.DB, url string) (n int) {
	t.Helper()
	err := db.View(func(tx *state.Tx) error {
		n = 0
		if b := tx.Bucket("sources", url, "windows"); b != nil {
			return b.ForEach(func(_, _ []byte) error { n++; return nil })
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
