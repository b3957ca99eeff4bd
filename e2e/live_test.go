package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// quick makes a daemon try again at once, so that tests need not wait for the backoff of real life.
const quick = `
relay_settings: {default: {backoff: {initial: 50ms, max: 500ms}}}
`

// TestLive: what is published while the daemon runs reaches the archive and both sinks, from whichever source it comes.
func TestLive(t *testing.T) {
	real := events(t)
	a := relay(t, localrelay.Options{KeepAll: true}, real...)
	b := relay(t, localrelay.Options{KeepAll: true}, third(real)...)
	first := relay(t, localrelay.Options{KeepAll: true})
	second := relay(t, localrelay.Options{KeepAll: true})
	dir := filepath.Join(tempDir(t), "a")
	d := run(t, dir, "--all", "--source", a.URL(), "--source", b.URL(), "--sink", first.URL(), "--sink", second.URL())
	subscribed(t, a, b)

	alice, bob := someone(t, "alice"), someone(t, "bob")
	now := time.Now().Unix()
	fresh := set{}
	for i := range 60 {
		e := alice.sign(t, now+int64(i), 1, fmt.Sprintf("live %d", i))
		if i%10 == 0 { // a late arrival, dated back: a since on the live subscription would hide it
			e = bob.sign(t, now-86400*300-int64(i), 1, fmt.Sprintf("from long ago %d", i))
		}
		fresh[e.ID] = e
		for j, r := range []*localrelay.Relay{a, b} {
			if i%3 == 2 || i%3 == j {
				if err := r.Publish(e); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	want := setOf(real).where(archivable).with(fresh)
	takes := rules{nip40: true}.takes
	away := departed(want, want.where(takes))
	toSinks := want.where(func(e *nostr.Event) bool { return takes(e) && !away[e.ID] })
	eventually(t, "both sinks hold all", func() error {
		for _, r := range []*localrelay.Relay{first, second} {
			if left := describe(toSinks, setOf(r.Received())); len(left) > 0 {
				return fmt.Errorf("%s was sent all but %d of %d", r.URL(), len(left), len(toSinks))
			}
		}
		return nil
	})
	s := d.settled()
	wantSet(t, "archive", archived(t, dir), want)
	wantSent(t, "first sink", received(t, first), want, takes)
	wantSent(t, "second sink", received(t, second), want, takes)
	if got := s.total(func(src report.Source) int64 { return src.New }); got != int64(len(want)) {
		t.Errorf("new at all sources: %d, want %d", got, len(want))
	}
	d.stop()
	wantSet(t, "archive after the stop", archived(t, dir), want)
}

// never-rows and rows that a config lets through, each with events that it holds.
func heldEvents(t *testing.T, p person) map[string][]*nostr.Event {
	t.Helper()
	now := time.Now().Unix()
	tag := func(elements ...string) nostr.Tag { return elements }
	in := func(d time.Duration) string { return fmt.Sprint(now + int64(d.Seconds())) }
	var n int64
	make := func(kind int, tags ...nostr.Tag) *nostr.Event {
		n++
		return p.sign(t, now-1000+n, kind, fmt.Sprintf("held %d", n), tags...)
	}
	d := func() nostr.Tag { return tag("d", fmt.Sprint(n)) }
	many := func(kinds ...int) (out []*nostr.Event) {
		for _, k := range kinds {
			out = append(out, make(k, d()))
		}
		return out
	}
	secret := make(1, tag("-"))
	return map[string][]*nostr.Event{
		"dm":           many(4, 13, 14, 15, 1059, 21059),
		"wallet":       many(7374, 7375, 7376, 17375),
		"drafts":       many(1234, 31234),
		"mls":          many(443, 444, 445),
		"groups":       append(many(9000, 9030, 39000, 39009), make(9, tag("h", "group")), make(1, tag("h", "group"))),
		"zap_requests": many(9734),
		"expiring":     {make(1, tag("expiration", in(time.Hour))), make(30023, d(), tag("expiration", in(48*time.Hour)))},
		"expired":      {make(1, tag("expiration", in(-time.Hour))), make(1, tag("expiration", in(-time.Minute)), tag("expiration", in(time.Hour)))},
		"protected":    {secret, make(1, tag("t", "x"), tag("-")), p.sign(t, now, 6, secret.String(), tag("e", secret.ID))},
		"ephemeral":    many(20000, 20001, 22456, 29999),
		"relay-scoped": many(8000, 8001, 13534, 33534),
	}
}

// TestNeverToASink: each row of the table is archived (ephemeral events excepted) and held; it yields where send names it,
// if it is one that can.
func TestNeverToASink(t *testing.T) {
	alice := someone(t, "alice")
	held := heldEvents(t, alice)
	from := relay(t, localrelay.Options{KeepAll: true})
	plain := relaytest.New(t, relaytest.Script{Info: `{"supported_nips":[1,11]}`})
	forty := relaytest.New(t, relaytest.Script{Info: `{"supported_nips":[1,"40"]}`})
	// One sink per row that can yield, so that each is shown alone.
	yields := map[string]*relaytest.Relay{}
	var sinks strings.Builder
	for _, row := range rows {
		r := relaytest.New(t, relaytest.Script{Info: `{"supported_nips":[1,11]}`})
		yields[row.name] = r
		fmt.Fprintf(&sinks, "  - {url: %q, send: [%s]}\n", r.URL, row.name)
	}
	dir := filepath.Join(tempDir(t), "a")
	cfg := configFile(t, fmt.Sprintf("authors: [%s]\nsources: [%q]\nsinks:\n  - %q\n  - %q\n%s%s",
		alice.npub(t), from.URL(), plain.URL, forty.URL, sinks.String(), quick))
	d := run(t, dir, "-c", cfg)
	subscribed(t, from)

	all := set{}
	for _, list := range held {
		for _, e := range list {
			all[e.ID] = e
			if err := from.Publish(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Sent last, archived last: where it has arrived, all before it has been decided.
	last := alice.sign(t, time.Now().Unix(), 1, "the last one")
	all[last.ID] = last
	if err := from.Publish(last); err != nil {
		t.Fatal(err)
	}
	want := all.where(archivable)
	eventually(t, "the last event is everywhere", func() error {
		for _, r := range yields {
			if n := len(r.Got("EVENT")); n == 0 {
				return errors.New(r.URL + " was sent nothing")
			}
		}
		return nil
	})
	s := d.settled()
	wantSet(t, "archive", archived(t, dir), want)
	wantSet(t, "sink without send", sentTo(t, plain), want.where(rules{}.takes))
	wantSet(t, "sink that names NIP-40", sentTo(t, forty), want.where(rules{nip40: true}.takes))
	for row, r := range yields {
		wantSet(t, "sink with send: ["+row+"]", sentTo(t, r), want.where(rules{send: []string{row}}.takes))
	}
	for row, list := range held {
		if row == "ephemeral" || row == "expiring" { // not archived; parked or kept back, as the sink's document says
			continue
		}
		if got := s.sink(t, plain.URL).Skipped; got < int64(len(list)) {
			t.Errorf("row %s: %d skipped at all, want its %d among them", row, got, len(list))
		}
	}
	t.Logf("kept back by row: %v", s.sink(t, plain.URL).SkippedBy)
	d.stop()
}

// TestRestart: a daemon that was stopped goes on where it was: nothing that was answered is sent again, and what was
// published meanwhile is caught up.
func TestRestart(t *testing.T) {
	real := events(t)
	alice := someone(t, "alice")
	from := relay(t, localrelay.Options{KeepAll: true}, real...)
	to := relay(t, localrelay.Options{KeepAll: true})
	slow := relaytest.New(t, relaytest.Script{})
	dir := filepath.Join(tempDir(t), "a")
	args := []string{"--all", "--source", from.URL(), "--sink", to.URL(), "--sink", slow.URL}

	d := run(t, dir, args...)
	subscribed(t, from)
	eventually(t, "some events have arrived", func() error {
		if n := len(to.Received()); n < 50 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	d.stop() // in the middle of its work

	offline := alice.notes(t, time.Now().Unix()-20, 20)
	if err := from.Load(offline...); err != nil {
		t.Fatal(err)
	}
	d = run(t, dir, args...)
	want := setOf(real).where(archivable).with(setOf(offline))
	eventually(t, "all is archived", func() error {
		s, err := d.ask()
		if err == nil && s.Archive.Lines != uint64(len(want)) {
			err = fmt.Errorf("%d of %d", s.Archive.Lines, len(want))
		}
		return err
	})
	d.settled()
	d.stop()
	wantSet(t, "archive", archived(t, dir), want)
	takes := rules{nip40: true}.takes
	wantSent(t, "sink", received(t, to), want, takes)
	wantSent(t, "scripted sink", sentTo(t, slow), want, rules{}.takes)

	// Started once more it has nothing to do.
	d = run(t, dir, args...)
	subscribed(t, from)
	d.settled()
	d.stop()
	wantSet(t, "archive after the third start", archived(t, dir), want)
	wantSent(t, "sink after the third start", received(t, to), want, takes)
}

// TestStop: SIGTERM closes subscriptions and connections in good form and loses no answer that is on its way.
func TestStop(t *testing.T) {
	alice := someone(t, "alice")
	from := relaytest.New(t, relaytest.Script{})
	for _, e := range alice.notes(t, 1_700_000_000, 100) {
		from.Publish(e.String())
	}
	answer := make(chan struct{})
	to := relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer {
		<-answer
		return relaytest.Accept()
	}})
	dir := filepath.Join(tempDir(t), "a")
	d := run(t, dir, "--author", alice.npub(t), "--source", from.URL, "--sink", to.URL)
	eventually(t, "the sink owes answers", func() error {
		if len(to.Got("EVENT")) == 0 {
			return errors.New("nothing was sent yet")
		}
		return nil
	})
	if err := d.Signal(sigterm); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the source is left in good form", func() error {
		if len(from.Closes()) == 0 || len(from.Got("CLOSE")) == 0 {
			return fmt.Errorf("CLOSE messages %v, ends %v", from.Got("CLOSE"), from.Closes())
		}
		return nil
	})
	for _, c := range from.Closes() {
		if c.Code == 0 {
			t.Errorf("connection %d was cut, want a close frame", c.Conn)
		}
	}
	close(answer)
	if code := d.exit(); code != 0 {
		t.Fatalf("exit %d after SIGTERM, want 0", code)
	}
	sent := sentTo(t, to)

	// Whatever was answered within the grace is not sent again.
	d = run(t, dir, "--author", alice.npub(t), "--source", from.URL, "--sink", to.URL)
	s := d.settled()
	d.stop()
	if got := sentTo(t, to); len(got) != 100 {
		t.Errorf("the sink was sent %d different events (%d before the stop), want 100", len(got), len(sent))
	}
	if k := s.sink(t, to.URL); k.Delivered != 100 {
		t.Errorf("delivered %d, want 100", k.Delivered)
	}
}

// TestSecondSignal: the second signal cuts the stop short, and nothing is lost by it.
func TestSecondSignal(t *testing.T) {
	alice := someone(t, "alice")
	from := relay(t, localrelay.Options{}, alice.notes(t, 1_700_000_000, 50)...)
	never := relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Answer{None: true} }})
	dir := filepath.Join(tempDir(t), "a")
	cfg := configFile(t, fmt.Sprintf("authors: [%s]\nsources: [%q]\nsinks: [%q]\nshutdown_grace: 10m\n", alice.npub(t), from.URL(), never.URL))
	d := run(t, dir, "-c", cfg)
	eventually(t, "all is archived and sent", func() error {
		if n := len(never.Got("EVENT")); n < 50 {
			return fmt.Errorf("%d of 50 sent", n)
		}
		return nil
	})
	if err := d.Signal(sigterm); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the source is left", func() error {
		if from.Subscribed() {
			return errors.New("still subscribed")
		}
		return nil
	})
	if err := d.Signal(sigterm); err != nil {
		t.Fatal(err)
	}
	if code := d.exit(); code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
	never.Update(func(s *relaytest.Script) { s.OK = nil })
	d = runWith(t, dir, child.Options{Args: []string{"-c", cfg}})
	s := d.settled()
	d.stop()
	if k := s.sink(t, never.URL); k.Delivered != 50 {
		t.Errorf("delivered %d after the second start, want 50", k.Delivered)
	}
}

// TestSourceComesBack: a source that drops the connection, or was not there at the start, is found again.
func TestSourceComesBack(t *testing.T) {
	alice := someone(t, "alice")
	late := deadURL(t)
	here := relay(t, localrelay.Options{})
	to := relay(t, localrelay.Options{})
	dir := filepath.Join(tempDir(t), "a")
	cfg := configFile(t, fmt.Sprintf("authors: [%s]\nsources: [%q, %q]\nsinks: [%q]\n%s", alice.npub(t), late, here.URL(), to.URL(), quick))
	d := run(t, dir, "-c", cfg)
	subscribed(t, here)
	notes := alice.notes(t, time.Now().Unix()-60, 30)
	if err := here.Publish(notes[0]); err != nil {
		t.Fatal(err)
	}
	there, err := localrelay.StartAt(strings.TrimPrefix(late, "ws://"), localrelay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := there.Close(); err != nil {
			t.Error(err)
		}
	})
	subscribed(t, there)
	for i, e := range notes[1:] {
		if i%5 == 0 {
			here.Drop()
			there.Drop()
		}
		// Loaded, not published: while nobody is connected only a catch-up can find it.
		if err := []*localrelay.Relay{here, there}[i%2].Load(e); err != nil {
			t.Fatal(err)
		}
		if i%5 == 4 {
			subscribed(t, here, there)
		}
	}
	here.Drop()
	there.Drop()
	eventually(t, "all notes are at the sink", func() error {
		if n := len(to.Received()); n < len(notes) {
			return fmt.Errorf("%d of %d", n, len(notes))
		}
		return nil
	})
	d.settled()
	d.stop()
	wantSet(t, "archive", archived(t, dir), setOf(notes))
	wantSet(t, "sink", received(t, to), setOf(notes))
}
