package pipeline

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"rebroadcastr/archive"
	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

func TestMain(m *testing.M) {
	if os.Getenv(copiesFile) != "" {
		sendCopies(os.Getenv(copiesFile))
		return
	}
	goleak.VerifyTestMain(m)
}

// rig is a Mirror on a real archive, with scripted relays around it.
type rig struct {
	t      testing.TB
	cfg    *config.Config
	store  *Store
	m      *Mirror
	cancel context.CancelFunc
	hurry  context.CancelFunc
	ended  chan error
}

// config of an empty archive that takes everything from sources and gives it to sinks.
func testConfig(t testing.TB, sources, sinks []*relaytest.Relay) *config.Config {
	cfg := config.Defaults()
	cfg.Want, cfg.All, cfg.Archive.Dir = []event.Filter{{}}, true, t.TempDir()
	cfg.Archive.Sync, cfg.Archive.MinFree = 10*time.Millisecond, 1<<20
	cfg.Grace = 5 * time.Second
	cfg.Default.Backoff.Initial, cfg.Default.Backoff.Max = 10*time.Millisecond, 50*time.Millisecond
	cfg.Default.Pace = 1000
	for _, r := range sources {
		cfg.Sources = append(cfg.Sources, config.Source{URL: r.URL, Enabled: true})
	}
	for _, r := range sinks {
		cfg.Sinks = append(cfg.Sinks, config.Sink{URL: r.URL, Enabled: true})
	}
	return cfg
}

func begin(t testing.TB, cfg *config.Config, o Options) *rig {
	t.Helper()
	r := prepare(t, cfg, o)
	r.run()
	return r
}

// prepare opens everything; nothing runs yet.
func prepare(t testing.TB, cfg *config.Config, o Options) *rig {
	t.Helper()
	return prepareOn(t, archive.OS{}, cfg, o)
}

// prepareOn is prepare with segments on a filesystem that a test has its hands in.
func prepareOn(t testing.TB, fsys archive.FS, cfg *config.Config, o Options) *rig {
	t.Helper()
	if o.Now == nil {
		o.Now = time.Now
	}
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)
	store, err := OpenStore(t.Context(), fsys, cfg, log, o.Now, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	o.Config, o.Store, o.Log, o.Version = cfg, store, log, "test"
	return &rig{t: t, cfg: cfg, store: store, m: New(o), ended: make(chan error, 1)}
}

func (r *rig) run() {
	var ctx, hurry context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	hurry, r.hurry = context.WithCancel(context.Background())
	returned := make(chan struct{})
	go func() {
		defer close(returned)
		r.ended <- r.m.Run(ctx, hurry)
	}()
	r.t.Cleanup(func() { // a test that has failed leaves nothing behind that logs
		r.cancel()
		r.hurry()
		<-returned
	})
}

// end waits for Run, closes the store and returns Run's error and the last status.
func (r *rig) end() (report.Status, error) {
	r.t.Helper()
	var err error
	select {
	case err = <-r.ended:
	case <-time.After(time.Minute):
		r.t.Fatal("Run has not returned within a minute")
	}
	s := r.m.Status()
	if cerr := r.store.Close(); cerr != nil {
		r.t.Errorf("close the store: %v", cerr)
	}
	if bad := s.Unbalanced(); len(bad) > 0 {
		r.t.Errorf("counts do not balance:\n%s", strings.Join(bad, "\n"))
	}
	return s, err
}

func (r *rig) stop() report.Status {
	r.t.Helper()
	r.cancel()
	s, err := r.end()
	if err != nil {
		r.t.Errorf("a stop that was asked for: %v, want nil", err)
	}
	return s
}

func (r *rig) eventually(what string, ok func(report.Status) bool) {
	r.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok(r.m.Status()) {
		if time.Now().After(deadline) {
			r.t.Fatalf("within a minute: %s; %+v", what, r.m.Status())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// settled says that no sink has anything to get of what the archive has in the same status.
func settled(s report.Status) bool {
	return len(s.Sinks) > 0 && !slices.ContainsFunc(s.Sinks, func(k report.Sink) bool { return k.Pending > 0 || k.Issued < s.Archive.Issued })
}

// archived reads the archive's ids in order, the way export does.
func archived(t *testing.T, dir string) (ids []string) {
	t.Helper()
	for rec, err := range archive.Scan(t.Context(), dir, archive.ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, rec.Event.ID.String())
	}
	return ids
}

func notes(author, n int) (events []string) {
	key := relaytest.Key(author)
	for i := range n {
		events = append(events, relaytest.Sign(key, 1, 1_700_000_000+int64(i), nil, fmt.Sprintf("note %d of %d", i, author)))
	}
	return events
}

func idsOf(events []string) (ids []string) {
	for _, e := range events {
		ids = append(ids, relaytest.ID(e))
	}
	return ids
}

func sameSet(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = slices.Clone(got), slices.Clone(want)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s: %d events, want %d (or the same number of others)", what, len(got), len(want))
	}
}

// Every source serves the same events, one of them forged copies first: each goes once into the archive and to the sink.
func TestBackfill(t *testing.T) {
	events := notes(1, 300)
	var forged []string
	for _, e := range events[:90] { // below what makes a relay "mostly garbage"
		forged = append(forged, relaytest.BadSig(e))
	}
	a := relaytest.New(t, relaytest.Script{Events: events, Cap: 100})
	b := relaytest.New(t, relaytest.Script{Events: events, First: forged})
	sink := relaytest.New(t, relaytest.Script{})
	r := begin(t, testConfig(t, []*relaytest.Relay{a, b}, []*relaytest.Relay{sink}), Options{Once: true, GiveUp: 10 * time.Second})
	s, err := r.end()
	if err != nil {
		t.Fatal(err)
	}
	sameSet(t, "archive", archived(t, r.cfg.Archive.Dir), idsOf(events))
	sameSet(t, "sink", sink.Stored(), idsOf(events))
	for _, src := range s.Sources { // b's forged copies lie outside of what is asked: it cannot be relied upon
		if src.URL == a.URL && src.Complete != report.Yes {
			t.Errorf("%s: complete %s (%s), want yes", src.URL, src.Complete, src.CompleteNote)
		}
	}
	if k := s.Sinks[0]; k.Delivered != 300 || k.Pending != 0 {
		t.Errorf("the sink: %d delivered, %d pending, want 300 and 0", k.Delivered, k.Pending)
	}
}

// Links are added, replaced and removed while events flow; connections that stay are not touched.
func TestApply(t *testing.T) {
	a, b := relaytest.New(t, relaytest.Script{}), relaytest.New(t, relaytest.Script{})
	first, second := relaytest.New(t, relaytest.Script{}), relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{first})
	r := begin(t, cfg, Options{})
	subscribed := func(relay *relaytest.Relay) {
		t.Helper()
		relay.Wait("a live subscription", func() bool {
			return slices.ContainsFunc(relay.Got("REQ"), func(m relaytest.Message) bool { return strings.Contains(m.Raw, "live-0") })
		})
	}
	subscribed(a)
	one := notes(1, 10)
	a.Publish(one...)
	first.Wait("the first ten", func() bool { return len(first.Stored()) == 10 })

	// b and second join; a stays as it is.
	wider := *cfg
	wider.Sources = append(slices.Clone(cfg.Sources), config.Source{URL: b.URL, Enabled: true})
	wider.Sinks = append(slices.Clone(cfg.Sinks), config.Sink{URL: second.URL, Enabled: true})
	if err := r.m.Apply(&wider); err != nil {
		t.Fatal(err)
	}
	subscribed(b)
	two := notes(2, 10)
	b.Publish(two...)
	for _, sink := range []*relaytest.Relay{first, second} {
		sink.Wait("all twenty", func() bool { return len(sink.Stored()) == 20 })
	}

	// a and first leave, and b takes only kind 7 from here on.
	narrower := wider
	narrower.Sources = []config.Source{{URL: b.URL, Enabled: true, Only: []event.Filter{{Kinds: []int{7}}}}}
	narrower.Sinks = []config.Sink{{URL: second.URL, Enabled: true}}
	if err := r.m.Apply(&narrower); err != nil {
		t.Fatal(err)
	}
	a.Wait("a has left", func() bool { return len(a.Conns()) == 0 })
	b.Wait("b is asked for less", func() bool { return slices.ContainsFunc(b.Got("REQ"), asks(`"live-1",{"kinds":[7]`)) })
	like := relaytest.Sign(relaytest.Key(3), 7, 1_700_000_000, nil, "+")
	b.Publish(append(notes(3, 1), like)...)
	second.Wait("the like", func() bool { return len(second.Stored()) == 21 })
	if got := len(first.Stored()); got != 20 {
		t.Errorf("the sink that left has %d events, want the 20 from before", got)
	}
	if n := b.Accepted(); n != 1 {
		t.Errorf("b was dialled %d times, want once", n)
	}
	s := r.stop()
	if len(s.Sources) != 1 || s.Sources[0].New != 11 {
		t.Errorf("b: %+v, want 11 new, from before and after the change", s.Sources)
	}
	sameSet(t, "archive", archived(t, cfg.Archive.Dir), slices.Concat(idsOf(one), idsOf(two), []string{relaytest.ID(like)}))
}

// A relay that is source and sink has one connection, and gets nothing back that came from it.
func TestBothRolesOneConnection(t *testing.T) {
	both := relaytest.New(t, relaytest.Script{Events: notes(1, 20)})
	other := relaytest.New(t, relaytest.Script{Events: notes(2, 20)})
	all := []*relaytest.Relay{both, other}
	r := begin(t, testConfig(t, all, all), Options{})
	both.Wait("the other's events", func() bool { return len(both.Stored()) == 40 })
	other.Wait("the first's events", func() bool { return len(other.Stored()) == 40 })
	r.eventually("nothing is pending", settled)
	s := r.stop()
	if both.Accepted() != 1 || other.Accepted() != 1 {
		t.Errorf("connections: %d and %d, want one each", both.Accepted(), other.Accepted())
	}
	for _, k := range s.Sinks {
		if k.Delivered != 20 || k.SkippedBy["echo"] != 20 {
			t.Errorf("%s: %d delivered, skipped %v; want 20 and 20 for echo", k.URL, k.Delivered, k.SkippedBy)
		}
	}
}

// A stop under load archives what came in, lets the sink answer, and the next run sends nothing again.
func TestStopAndGoOn(t *testing.T) {
	events := notes(1, 500)
	a := relaytest.New(t, relaytest.Script{Events: events})
	sink := relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	r := begin(t, cfg, Options{})
	sink.Wait("some events", func() bool { return len(sink.Stored()) > 20 })
	r.stop()
	before := len(sink.Got("EVENT"))
	r = begin(t, cfg, Options{})
	sink.Wait("every event", func() bool { return len(sink.Stored()) == 500 })
	r.eventually("nothing is pending", func(s report.Status) bool { return settled(s) && s.Archive.Lines == 500 })
	r.stop()
	sameSet(t, "archive", archived(t, cfg.Archive.Dir), idsOf(events))
	if got := len(sink.Got("EVENT")); got != 500 {
		t.Errorf("the sink was sent %d events in two runs (%d in the first), want each of the 500 once", got, before)
	}
}

// A second signal cuts the stop short even while a sink never answers; nothing is lost.
func TestHurry(t *testing.T) {
	events := notes(1, 50)
	a := relaytest.New(t, relaytest.Script{Events: events})
	mute := relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Answer{None: true} }})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{mute})
	cfg.Grace = time.Hour
	r := begin(t, cfg, Options{})
	mute.Wait("every event", func() bool { return len(mute.Got("EVENT")) == 50 })
	r.cancel()
	r.hurry()
	if _, err := r.end(); err != nil {
		t.Errorf("a stop that was hurried: %v, want nil", err)
	}
	mute.Update(func(s *relaytest.Script) { s.OK = nil })
	r = begin(t, cfg, Options{})
	mute.Wait("every event", func() bool { return len(mute.Stored()) == 50 })
	r.eventually("nothing is pending", settled)
	r.stop()
}

// A one-shot command does not wait for a sink that only an operator can open; its queue is kept and it is said why.
func TestPausedSinkEndsOneShot(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{Events: notes(1, 10)})
	private := relaytest.New(t, relaytest.Script{AuthRequired: true})
	open := relaytest.New(t, relaytest.Script{})
	r := begin(t, testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{private, open}), Options{Once: true, GiveUp: time.Hour})
	s, err := r.end()
	if err != nil {
		t.Fatal(err)
	}
	k := s.Sinks[0]
	if k.State != report.Ended && k.State != report.Paused || k.Pending != 10 || !strings.Contains(k.Note, "auth-required") || !strings.Contains(k.Note, "Queue kept: 10") {
		t.Errorf("the private sink: %+v; want 10 pending and the reason", k)
	}
	if _, sinks := s.Incomplete(); len(sinks) != 1 {
		t.Errorf("incomplete sinks: %v, want the private one", sinks)
	}
	if n := len(open.Stored()); n != 10 {
		t.Errorf("the other sink has %d events, want 10", n)
	}
}

// A panic in a stage ends the run with an error that names it, and the ledgers are saved.
func TestPanicStopsInOrder(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{Events: notes(1, 30)})
	sink := relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	r := begin(t, cfg, Options{})
	sink.Wait("every event", func() bool { return len(sink.Stored()) == 30 })
	r.eventually("nothing is pending", settled)
	boom := start(context.Background(), "a stage", r.m.failed, func(context.Context) error { panic("boom") })
	_, err := r.end()
	if err == nil || !strings.Contains(err.Error(), "a stage: panic: boom") {
		t.Errorf("Run = %v, want the panic", err)
	}
	<-boom.done
	r = begin(t, cfg, Options{})
	r.eventually("the ledger is as it was", func(s report.Status) bool { return settled(s) && s.Sinks[0].Delivered == 30 })
	r.stop()
	if got := len(sink.Got("EVENT")); got != 30 {
		t.Errorf("the sink was sent %d events, want each of the 30 once", got)
	}
}

// An import takes events and messages, refuses what is bad with its reason, and is answered when all is durable.
func TestImport(t *testing.T) {
	events := notes(1, 40)
	sink := relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, nil, []*relaytest.Relay{sink})
	r := begin(t, cfg, Options{})
	text := strings.Join(events[:20], "\n") + "\n\n" + relaytest.BadSig(events[30]) + "\r\nnot json\n" + events[0] + "\n" +
		`["EVENT","x",` + events[20] + "]\n" + `["EVENT",` + events[39] + "]\n" + relaytest.EscapedID(events[21]) // without a last newline
	var rejects strings.Builder
	done, err := r.m.Import(t.Context(), strings.NewReader(text), false, &rejects)
	if err != nil {
		t.Fatal(err)
	}
	if done.Received != 26 || done.New != 23 || done.Copies != 1 || done.Invalid != 2 {
		t.Errorf("import: %+v; want 26 received, 23 new, 1 copy, 2 invalid", done)
	}
	for _, reason := range []string{`{"reason":"signature"`, `{"reason":"json","line":"not json"}`} {
		if !strings.Contains(rejects.String(), reason) {
			t.Errorf("the rejects lack %s:\n%s", reason, rejects.String())
		}
	}
	sink.Wait("what is new", func() bool { return len(sink.Stored()) == 23 })
	kept, err := r.m.Import(t.Context(), strings.NewReader(strings.Join(events[22:], "\n")), true, nil)
	if err != nil || kept.New != 17 {
		t.Errorf("an import with no-deliver: %d new, %v; want 17", kept.New, err)
	}
	r.eventually("nothing is pending", settled)
	r.stop()
	if got := len(sink.Stored()); got != 23 {
		t.Errorf("the sink has %d events, want the 23 that may be delivered", got)
	}
	sameSet(t, "archive", archived(t, cfg.Archive.Dir), idsOf(events))
}

// The index is made anew when it is lost or damaged, before the first event is accepted.
func TestIndexLost(t *testing.T) {
	events := notes(1, 60)
	a := relaytest.New(t, relaytest.Script{Events: events})
	cfg := testConfig(t, []*relaytest.Relay{a}, nil)
	if _, err := begin(t, cfg, Options{Once: true}).end(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(dir string) error{
		"lost": os.RemoveAll,
		"damaged": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte("nonsense"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := spoil(filepath.Join(cfg.Archive.Dir, indexDir)); err != nil {
				t.Fatal(err)
			}
			s, err := begin(t, cfg, Options{Once: true, Again: true}).end()
			if err != nil {
				t.Fatal(err)
			}
			if src := s.Sources[0]; src.New != 0 || src.Copies < 60 {
				t.Errorf("with the index %s: %d new, %d copies, want 0 and at least 60", name, src.New, src.Copies)
			}
			sameSet(t, "archive", archived(t, cfg.Archive.Dir), idsOf(events))
		})
	}
}
