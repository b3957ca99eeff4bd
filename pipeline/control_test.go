package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/config"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

func refusedAs(t *testing.T, err error, why report.Why, says string) {
	t.Helper()
	r, ok := errors.AsType[*report.Refusal](err)
	if !ok || r.Why != why || !strings.Contains(r.Text, says) {
		t.Errorf("%v, want a refusal of sort %d that says %q", err, why, says)
	}
}

// A pause stops both roles of one relay, holds over a restart, is no problem, and costs nothing of what came meanwhile.
func TestPause(t *testing.T) {
	both := relaytest.New(t, relaytest.Script{Events: notes(1, 5)})
	other := relaytest.New(t, relaytest.Script{Events: notes(2, 5)})
	all := []*relaytest.Relay{both, other}
	cfg := testConfig(t, all, all)
	cfg.Sources[0].Name = "mine"
	r := begin(t, cfg, Options{})
	r.eventually("all ten", func(s report.Status) bool { return s.Archive.Lines == 10 && settled(s) })
	h, err := r.m.Pause("mine")
	if err != nil || h.Relay != both.URL || !h.Paused || h.Since.IsZero() {
		t.Fatalf("pause: %+v, %v", h, err)
	}
	both.Wait("CLOSE and the close frame", func() bool { return len(both.Closes()) == 1 && len(both.Got("CLOSE")) > 0 })
	if again, err := r.m.Pause(both.URL); err != nil || !again.Since.Equal(h.Since) || again.Was == "" {
		t.Errorf("a second pause: %+v, %v; want that it is paused already", again, err)
	}
	paused := func(s report.Status) {
		t.Helper()
		if src, k := s.Sources[0], s.Sinks[0]; src.State != report.Paused || k.State != report.Paused || !src.Since.Equal(h.Since) || !strings.Contains(k.Note, "paused by the operator since 20") || !strings.Contains(k.Note, "rebroadcastr resume "+both.URL) {
			t.Errorf("rows of a paused relay: %s since %s, %s: %s", src.State, src.Since, k.State, k.Note)
		}
		if len(s.Problems) != 0 {
			t.Errorf("problems: %q, want none: the operator knows", s.Problems)
		}
	}
	// Dated now: older ones that a relay gets while nobody listens are reconcile's business.
	for i := range 5 {
		both.Publish(relaytest.Sign(relaytest.Key(3), 1, time.Now().Unix(), nil, fmt.Sprintf("meanwhile %d", i)))
	}
	other.Publish(notes(4, 5)...)
	r.eventually("the other's", func(s report.Status) bool { return s.Archive.Lines == 15 && s.Sinks[0].Pending == 5 })
	paused(r.m.Status())
	r.stop()

	r = begin(t, cfg, Options{})
	r.eventually("it runs", func(s report.Status) bool {
		return s.State == report.Running && len(s.Sources) == 2 && s.Sources[1].State == report.Connected
	})
	paused(r.m.Status())
	// Also a link that is made anew, since its settings changed.
	changed := *cfg
	changed.Default.OK *= 2
	if err := r.m.Apply(&changed); err != nil {
		t.Fatal(err)
	}
	paused(r.m.Status())
	if n := both.Dials(); n != 1 {
		t.Errorf("the paused relay was dialled %d times, want the once before its pause", n)
	}
	if got, err := r.m.Resume(both.URL); err != nil || got.Paused || !got.Since.Equal(h.Since) {
		t.Errorf("resume: %+v, %v", got, err)
	}
	r.eventually("everything everywhere", func(s report.Status) bool { return s.Archive.Lines == 20 && settled(s) })
	both.Wait("all twenty", func() bool { return len(both.Stored()) == 20 })
	other.Wait("all twenty", func() bool { return len(other.Stored()) == 20 })
	if got, err := r.m.Resume(both.URL); err != nil || !got.Since.IsZero() || got.Was != "" {
		t.Errorf("resume of what neither waits nor is paused: %+v, %v", got, err)
	}
	_, err = r.m.Pause("wss://nobody.example")
	refusedAs(t, err, report.Absent, "there is no relay wss://nobody.example here")
	_, err = r.m.Pause("not a relay")
	refusedAs(t, err, report.Malformed, `"not a relay" is no relay's name or address: `)
	refusedAs(t, err, report.Malformed, "; these are: "+both.URL+" (mine), "+other.URL)
	_, err = r.m.Relay("nsec1" + strings.Repeat("q", 58)) // by a URL of the status page, say
	refusedAs(t, err, report.Malformed, `"(private key, not shown)"`)
	r.stop()
}

// A one-shot command leaves a paused relay out, says so, and is not held up by it.
func TestPausedAndOnce(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{Events: notes(1, 5)})
	b := relaytest.New(t, relaytest.Script{Events: notes(2, 5)})
	sink := relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{a, b}, []*relaytest.Relay{sink})
	r := prepare(t, cfg, Options{}) // not run: as the commands do without a daemon
	for _, u := range []string{a.URL, sink.URL} {
		if _, err := r.m.Pause(u); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	r = begin(t, cfg, Options{Once: true})
	s, err := r.end()
	if err != nil {
		t.Fatal(err)
	}
	if a.Dials()+sink.Dials() != 0 {
		t.Errorf("paused relays were dialled %d times", a.Dials()+sink.Dials())
	}
	if s.Archive.Lines != 5 || s.Sources[0].Complete != report.No || !strings.Contains(s.Sources[0].CompleteNote, "left out: paused by the operator") {
		t.Errorf("%d archived; the paused source: %+v", s.Archive.Lines, s.Sources[0])
	}
	if k := s.Sinks[0]; k.Pending != 5 || !strings.Contains(k.Note, "left out: paused by the operator") {
		t.Errorf("the paused sink: %+v", k)
	}
	sources, sinks := s.Incomplete()
	if len(sources) != 1 || len(sinks) != 1 {
		t.Errorf("incomplete: %v %v, want the two that were left out", sources, sinks)
	}
}

// A sink that takes nothing from us is probed once a day; resume tries it now.
func TestResumeProbes(t *testing.T) {
	var open atomic.Bool
	a := relaytest.New(t, relaytest.Script{Events: notes(1, 5)})
	sink := relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer {
		if open.Load() {
			return relaytest.Accept()
		}
		return relaytest.Reject("auth-required: not an active member")
	}})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	r := begin(t, cfg, Options{})
	r.eventually("the sink is paused", func(s report.Status) bool {
		return len(s.Sinks) == 1 && s.Sinks[0].State == report.Paused && s.Archive.Lines == 5
	})
	s := r.m.Status()
	if note := s.Sinks[0].Note; !strings.Contains(note, "; probed daily, or: rebroadcastr resume "+sink.URL) || len(s.Problems) != 1 {
		t.Errorf("note %q, problems %q", note, s.Problems)
	}
	open.Store(true)
	h, err := r.m.Resume(sink.URL)
	if err != nil || !strings.Contains(h.Was, "not an active member") {
		t.Errorf("resume: %+v, %v; want what it waited for", h, err)
	}
	sink.Wait("all five", func() bool { return len(sink.Stored()) == 5 })
	r.eventually("no problem", func(s report.Status) bool { return settled(s) && len(s.Problems) == 0 })
	r.stop()
}

// A link that gave up for good is made anew by resume.
func TestResumeRevives(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{Events: notes(1, 3), Status: 500})
	cfg := testConfig(t, []*relaytest.Relay{a}, nil)
	cfg.Default.Backoff.MaxRetries = -1
	r := begin(t, cfg, Options{})
	r.eventually("it gives up", func(s report.Status) bool { return len(s.Sources) == 1 && s.Sources[0].State == report.Ended })
	if s := r.m.Status(); !strings.Contains(s.Sources[0].Note, "refused (500") || len(s.Problems) != 1 {
		t.Errorf("note %q, problems %q, want why it gave up", s.Sources[0].Note, s.Problems)
	}
	a.Update(func(s *relaytest.Script) { s.Status = 0 })
	if h, err := r.m.Resume(a.URL); err != nil || !strings.Contains(h.Was, "given up") {
		t.Errorf("resume: %+v, %v", h, err)
	}
	r.eventually("the notes", func(s report.Status) bool { return s.Archive.Lines == 3 })
	r.stop()
}

// A resume that makes a link anew takes the config of that moment: a reload at the same time is not undone.
func TestResumeKeepsTheReload(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{Status: 500})
	cfg := testConfig(t, []*relaytest.Relay{a}, nil)
	cfg.Default.Backoff.MaxRetries = -1
	r := begin(t, cfg, Options{})
	for range 20 {
		r.eventually("it gives up", func(s report.Status) bool { return len(s.Sources) == 1 && s.Sources[0].State == report.Ended })
		next := *cfg
		var both sync.WaitGroup
		r.m.applying.Lock() // until both wait for it
		for _, f := range []func() error{
			func() error { return r.m.Apply(&next) },
			func() error { _, err := r.m.Resume(a.URL); return err },
		} {
			both.Go(func() {
				if err := f(); err != nil {
					t.Error(err)
				}
			})
		}
		r.m.applying.Unlock()
		both.Wait()
		if r.m.config() != &next {
			t.Fatal("the config from before the reload is back")
		}
	}
	r.stop()
}

// The story of events, what was refused, a retry, and forget: with a mirror that runs, and with one that only looks.
func TestOperator(t *testing.T) {
	var open atomic.Bool
	events := notes(1, 6)
	dm := relaytest.Sign(relaytest.Key(1), 4, 1_700_000_000, nil, "?iv=")
	forged := relaytest.BadSig(notes(2, 1)[0])
	a := relaytest.New(t, relaytest.Script{Events: append([]string{dm}, events...), First: []string{forged}})
	sink := relaytest.New(t, relaytest.Script{
		Info:  `{"name":"a sink","supported_nips":[1,40],"limitation":{"max_message_length":9000,"restricted_writes":true}}`,
		Hello: []string{`["NOTICE","welcome"]`, `garbage`},
		OK: func(e nostr.Event) relaytest.Answer {
			switch {
			case open.Load():
			case strings.HasPrefix(e.Content, "note 0"):
				return relaytest.Reject("blocked: not on white-list")
			case strings.HasPrefix(e.Content, "note 1"):
				return relaytest.Reject("invalid: too early")
			case strings.HasPrefix(e.Content, "note 2"):
				return relaytest.Reject("error: try later")
			}
			return relaytest.Accept()
		},
	})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	cfg.Sinks[0].Name = "home"
	r := begin(t, cfg, Options{})
	r.eventually("seven archived and answered", func(s report.Status) bool {
		return s.Archive.Lines == 7 && settled(s) && s.Sinks[0].Rejected == 2 && s.Sinks[0].Parked == 1
	})

	ids := append(idsOf(events), relaytest.ID(dm))
	stories := func(what string) {
		t.Helper()
		for n, want := range []struct{ fate, reason, text string }{
			{"rejected", "blocked", "blocked: not on white-list"}, {"rejected", "invalid", "invalid: too early"}, {"parked", "", ""},
			{"delivered", "", ""}, {"delivered", "", ""}, {"delivered", "", ""}, {"skipped", "dm", ""},
		} {
			s, err := r.m.Explain(t.Context(), ids[n])
			if err != nil {
				t.Fatal(err)
			}
			if !s.Archived || s.Line == nil || !strings.HasPrefix(s.Line.File, "events_") || s.Event.Author != npub(mustKey(t, 1)) || s.Origin.Relay != a.URL || len(s.Sources) != 1 || !s.Sources[0].First || !s.Sources[0].Asks {
				t.Errorf("%s: event %d: %+v", what, n, s)
			}
			k := s.Sinks[0]
			if k.Fate != want.fate || k.Reason != want.reason || k.Text != want.text || !k.Configured || k.Name != "home" {
				t.Errorf("%s: event %d at the sink: %+v, want %v", what, n, k, want)
			}
			if want.fate == "skipped" && (k.NIP == "" || k.Why == "") {
				t.Errorf("%s: %+v, want the row's NIP and reason", what, k)
			}
		}
	}
	stories("running")

	// What was refused at a door is known by its sample only.
	s, err := r.m.Explain(t.Context(), relaytest.ID(forged))
	if err != nil || s.Archived || len(s.Sources[0].Samples) != 1 || s.Sources[0].Samples[0].Reason != "signature" || int64(s.Sources[0].Samples[0].Times) != s.Sources[0].Invalid {
		t.Errorf("a forged event: %+v, %v; want the sample that was refused", s, err)
	}
	if _, err := r.m.Explain(t.Context(), "zz"); err == nil {
		t.Error("an id that is none: nil, want an error")
	}

	var d report.Relay
	r.eventually("the sink's picture, committed", func(report.Status) bool {
		var err error
		if d, err = r.m.Relay("home"); err != nil {
			t.Fatal(err)
		}
		return len(d.Parked) > 0
	})
	if d.Info == nil || d.Info.Limits["max_message_length"] != 9000 || len(d.Info.Wants) != 1 || len(d.Notices) != 1 || d.Notices[0].Text != "welcome" ||
		d.BadFrames["not JSON"]+d.BadFrames["not an array"] != 1 || len(d.Parked) != 1 || d.Parked[0].Reason != "error" || d.Sent != 6 || d.Sessions != 1 {
		t.Errorf("the sink's picture: %+v, %+v", d, d.Info)
	}
	if d, err := r.m.Relay(a.URL); err != nil || len(d.Samples) == 0 || d.Samples[0].Raw != forged {
		t.Errorf("the source's picture: %+v, %v; want the samples", d, err)
	}

	list := func(name string, limit int) (rows []report.Rejected) {
		t.Helper()
		if err := r.m.Rejected(t.Context(), name, limit, func(row report.Rejected) error { rows = append(rows, row); return nil }); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	if rows := list("", 10); len(rows) != 2 || rows[0].Time.After(rows[1].Time) || rows[0].Kind == nil || *rows[0].Kind != 1 || rows[0].Sink != sink.URL {
		t.Errorf("refused: %+v, want two, newest last, with kinds", rows)
	}
	if rows := list("home", 1); len(rows) != 1 || rows[0].Kind == nil {
		t.Errorf("the last one refused: %+v", rows)
	}
	if rows := list(sink.URL, 0); len(rows) != 2 || rows[0].Kind != nil || !strings.HasPrefix(rows[0].Note, "note1") {
		t.Errorf("all refused: %+v, want two without kinds", rows)
	}
	refusedAs(t, r.m.Rejected(t.Context(), "wss://nobody.example", 1, nil), report.Absent, sink.URL)
	refusedAs(t, r.m.Rejected(t.Context(), "", maxRejected+1, nil), report.Malformed, "at most")

	_, err = r.m.Forget(sink.URL)
	refusedAs(t, err, report.Conflict, "is a sink of the running config: remove it first (reload)")
	_, err = r.m.Retry(t.Context(), "wss://nobody.example", "", "")
	refusedAs(t, err, report.Absent, "these are: "+sink.URL)
	_, err = r.m.Retry(t.Context(), sink.URL, "", ids[4])
	refusedAs(t, err, report.Conflict, "was not refused")
	_, err = r.m.Retry(t.Context(), sink.URL, "", relaytest.ID(forged))
	refusedAs(t, err, report.Absent, "is not archived")

	open.Store(true)
	done, err := r.m.Retry(t.Context(), sink.URL, "Blocked: not", "")
	if err != nil || done.Offered["blocked"] != 1 || done.Kept != 1 || done.Note != "" {
		t.Errorf("retry of blocked: %+v, %v", done, err)
	}
	done, err = r.m.Retry(t.Context(), "home", "", ids[2])
	if err != nil || done.Due != 1 {
		t.Errorf("retry of the parked one: %+v, %v", done, err)
	}
	r.eventually("five of six", func(s report.Status) bool { return s.Sinks[0].Delivered == 5 && s.Sinks[0].Parked == 0 })
	r.stop()

	// The same without a daemon.
	open.Store(false)
	r = prepare(t, cfg, Options{})
	if s, err := r.m.Explain(t.Context(), ids[1]); err != nil || s.Sinks[0].Fate != "rejected" {
		t.Errorf("not running: %+v, %v", s, err)
	}
	if s, err := r.m.Explain(t.Context(), ids[0]); err != nil || s.Sinks[0].Fate != "delivered" || s.Sinks[0].At.IsZero() {
		t.Errorf("not running: %+v, %v", s, err)
	}
	_, err = r.m.Forget(sink.URL)
	refusedAs(t, err, report.Conflict, "is a sink of the config: remove it there first")
	if done, err := r.m.Retry(t.Context(), sink.URL, "pow", ""); err != nil || done.Kept != 1 || len(done.Offered) != 0 || done.Note != "" {
		t.Errorf("retry for a reason that nothing was refused for: %+v, %v", done, err)
	}
	done, err = r.m.Retry(t.Context(), sink.URL, "", ids[1])
	if err != nil || done.Offered["invalid"] != 1 || done.Note != "the next run sends them" {
		t.Errorf("retry without a daemon: %+v, %v", done, err)
	}
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	open.Store(true)
	r = begin(t, cfg, Options{})
	r.eventually("all six", func(s report.Status) bool { return len(s.Sinks) == 1 && s.Sinks[0].Delivered == 6 })
	// Out of the config it keeps its ledger until it is forgotten; then it starts anew.
	without := *cfg
	without.Sinks = nil
	if err := r.m.Apply(&without); err != nil {
		t.Fatal(err)
	}
	if s, err := r.m.Explain(t.Context(), ids[0]); err != nil || len(s.Sinks) != 1 || s.Sinks[0].Configured || s.Sinks[0].Fate != "settled" {
		t.Errorf("a sink that left: %+v, %v", s.Sinks, err)
	}
	f, err := r.m.Forget(sink.URL)
	if err != nil || f.Delivered != 6 || f.Pending != 0 {
		t.Errorf("forget: %+v, %v", f, err)
	}
	_, err = r.m.Forget(sink.URL)
	refusedAs(t, err, report.Absent, "it has none")
	before := len(sink.Got("EVENT"))
	if err := r.m.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	r.eventually("all six again", func(s report.Status) bool { return len(s.Sinks) == 1 && s.Sinks[0].Delivered == 6 })
	if n := len(sink.Got("EVENT")) - before; n != 6 {
		t.Errorf("%d events were sent after forget, want all 6", n)
	}
	r.stop()
}

// A stop does not wait for a retry that lasts.
func TestRetryEndsWithTheMirror(t *testing.T) {
	sink := relaytest.New(t, relaytest.Script{})
	r := begin(t, testConfig(t, nil, []*relaytest.Relay{sink}), Options{})
	r.eventually("it runs", func(s report.Status) bool { return len(s.Sinks) == 1 })
	r.stop()
	if _, err := r.m.Retry(context.Background(), sink.URL, "", ""); err == nil {
		t.Error("a retry after the stop: nil, want an error")
	}
}

// Whoever asks at the end of a stop gets a refusal, and the index no blame: a lookup after its Close would call it damaged,
// and the next start would make it anew.
func TestAskedAfterTheStop(t *testing.T) {
	events := notes(1, 3)
	a, sink := relaytest.New(t, relaytest.Script{Events: events}), relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	r := begin(t, cfg, Options{})
	r.eventually("all three", func(s report.Status) bool { return s.Archive.Lines == 3 && settled(s) })
	r.stop()
	for name, ask := range map[string]func() error{
		"explain":  func() error { _, err := r.m.Explain(t.Context(), idsOf(events)[0]); return err },
		"relay":    func() error { _, err := r.m.Relay(sink.URL); return err },
		"rejected": func() error { return r.m.Rejected(t.Context(), "", 5, nil) },
		"retry":    func() error { _, err := r.m.Retry(t.Context(), sink.URL, "", ""); return err },
		"pause":    func() error { _, err := r.m.Pause(sink.URL); return err },
		"resume":   func() error { _, err := r.m.Resume(sink.URL); return err },
		"forget":   func() error { _, err := r.m.Forget(sink.URL); return err },
	} {
		t.Run(name, func(t *testing.T) { refusedAs(t, ask(), report.NotReady, "has just stopped") })
	}
	if _, err := os.Stat(filepath.Join(cfg.Archive.Dir, indexDir, "DAMAGED")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the index's mark of damage: %v, want none", err)
	}
}

// A list of refused events whose reader does not take it holds up no stop, and ends with it.
func TestStopDoesNotWaitForAReader(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{Events: notes(1, 3)})
	sink := relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Reject("blocked: no") }})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	r := begin(t, cfg, Options{})
	r.eventually("three refused", func(s report.Status) bool { return len(s.Sinks) == 1 && s.Sinks[0].Rejected == 3 })
	for limit := range 2 { // in the order of the archive, and sorted
		r.eventually("they are committed", func(report.Status) bool {
			n := 0
			err := r.m.Rejected(t.Context(), "", 0, func(report.Rejected) error { n++; return nil })
			return err == nil && n == 3
		})
		first, takes, ended := make(chan bool, 9), make(chan bool), make(chan error, 1)
		go func() {
			ended <- r.m.Rejected(context.Background(), "", 3*limit, func(report.Rejected) error {
				first <- true
				<-takes
				return nil
			})
		}()
		<-first
		r.stop()
		close(takes)
		refusedAs(t, <-ended, report.NotReady, "has just stopped")
		r = begin(t, cfg, Options{})
	}
	r.stop()
}

func mustKey(t *testing.T, n int) (key [32]byte) {
	t.Helper()
	k, _, err := config.ParseAuthor(relaytest.Pub(relaytest.Key(n)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}
