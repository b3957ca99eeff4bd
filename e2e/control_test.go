package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip19"

	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// asks runs a command with --json on an archive, wants an exit code, and decodes its answer.
func asks[T any](t testing.TB, code int, args ...string) (v T) {
	t.Helper()
	p := wantExit(t, code, append(args, "--json")...)
	if err := json.Unmarshal([]byte(p.Stdout()), &v); err != nil {
		t.Fatalf("%s: no JSON: %v\n%s", p.what, err, p.Stdout())
	}
	return v
}

// says runs a command and wants words in its answer.
func says(t testing.TB, code int, args []string, words ...string) {
	t.Helper()
	p := wantExit(t, code, args...)
	t.Logf("$ rebroadcastr %s\n%s%s", strings.Join(args, " "), p.Stdout(), p.Stderr())
	for _, w := range words {
		if !strings.Contains(p.Stdout()+p.Stderr(), w) {
			t.Errorf("%s does not say %q:\n%s%s", p.what, w, p.Stdout(), p.Stderr())
		}
	}
}

// A sink that refuses some events: explain tells each one's story, status --rejected lists them, and once the relay takes
// them retry brings them there, beside a daemon and without.
func TestExplainAndRetry(t *testing.T) {
	real := events(t)
	from := relay(t, localrelay.Options{KeepAll: true}, real...)
	var open atomic.Bool
	to := relay(t, localrelay.Options{KeepAll: true, Refuse: func(e *nostr.Event) string {
		switch {
		case open.Load():
			return ""
		case e.Kind == 7:
			return "blocked: no reactions here"
		case e.Kind == 1 && e.ID[0] < '2':
			return "invalid: its id begins too low"
		}
		return ""
	}})
	dir := filepath.Join(tempDir(t), "a")
	relays := []string{"--all", "--source", from.URL(), "--sink", to.URL()}
	d := run(t, dir, relays...)
	var k report.Sink
	eventually(t, "everything is answered", func() error {
		s, err := d.ask()
		if err != nil {
			return err
		}
		if err := s.idle(); err != nil {
			return err
		}
		if k = s.sink(t, to.URL()); s.Archive.Lines < 500 || k.Rejected == 0 {
			return fmt.Errorf("%d archived, %d refused", s.Archive.Lines, k.Rejected)
		}
		return nil
	})
	blocked, invalid := k.RejectedBy["blocked"], k.RejectedBy["invalid"]
	if blocked == 0 || invalid == 0 {
		t.Fatalf("refused: %v, want some of each", k.RejectedBy)
	}
	if k.Rejected != blocked+invalid {
		t.Fatalf("refused: %v, want these two reasons and no other", k.RejectedBy)
	}
	of := func(f func(*nostr.Event) bool) *nostr.Event {
		t.Helper()
		for _, e := range real {
			if f(e) {
				return e
			}
		}
		t.Fatal("the corpus has no such event")
		return nil
	}
	like, low := of(kinds(7)), of(func(e *nostr.Event) bool { return e.Kind == 1 && e.ID[0] < '2' })
	fine := of(func(e *nostr.Event) bool { return e.Kind == 1 && e.ID[0] >= '2' })
	note, err := nip19.EncodeNote(like.ID)
	if err != nil {
		t.Fatal(err)
	}
	nevent, err := nip19.EncodeEvent(low.ID, []string{from.URL()}, low.PubKey)
	if err != nil {
		t.Fatal(err)
	}
	npub, err := nip19.EncodePublicKey(like.PubKey)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "what was refused is committed", func() error {
		p := wantExit(t, 0, "status", "--rejected", "--limit", "0", "--archive", dir, "--json")
		if n := strings.Count(p.Stdout(), "\n"); int64(n) != blocked+invalid {
			return fmt.Errorf("%d lines, want %d + %d", n, blocked, invalid)
		}
		return nil
	})

	stories := func() {
		t.Helper()
		says(t, 0, []string{"explain", note, "--archive", dir}, note, like.ID, "kind 7 by "+npub, "archived: "+dir+"/events_",
			"came first from "+from.URL(), "blocked: no reactions here", "rebroadcastr retry --sink "+to.URL()+" --id "+like.ID)
		says(t, 0, []string{"explain", "--archive", dir, "nostr:" + nevent}, low.ID, "invalid: its id begins too low")
		says(t, 0, []string{"explain", fine.ID, "--archive", dir}, "delivered, or it had it: answered before ")
		s := asks[report.Story](t, 0, "explain", strings.ToUpper(like.ID), "--archive", dir)
		if !s.Archived || len(s.Sinks) != 1 || s.Sinks[0].Fate != "rejected" || s.Sinks[0].At.IsZero() || s.Origin.Relay != from.URL() || s.Event.Kind != 7 {
			t.Errorf("explain --json: %+v", s)
		}
		text, err := os.ReadFile(filepath.Join(dir, s.Line.File))
		if err != nil || !strings.HasPrefix(string(text[s.Line.Offset:]), `{"id":"`+like.ID) {
			t.Errorf("%s at byte %d: %v, want the event's line", s.Line.File, s.Line.Offset, err)
		}
		nothing := strings.Repeat("0", 64)
		says(t, 3, []string{"explain", nothing, "--archive", dir}, "not archived in "+dir)
		if s := asks[report.Story](t, 3, "explain", nothing, "--archive", dir); s.Archived {
			t.Errorf("explain of an event that is not archived: %+v", s)
		}
		says(t, 0, []string{"status", "--rejected", "--limit", "3", "--archive", dir}, to.URL(), "note1", "kind ")
	}
	stories()
	says(t, 0, []string{"status", to.URL(), "--archive", dir}, "1 session", "NIP-11", "NIPs 1 11", "no notices", "events sent")
	for args, answer := range map[string]string{
		"explain npub1sg6plzptd64u62a878hep2kev88swjh3tw00gjsfl8f237lmu63q0uf63m": "that is a person, not an event",
		"explain abc":                          "has 3 hex digits, not 64",
		"explain":                              "name an event",
		"explain " + note + " " + note:         "explain takes one event",
		"explain " + note[:20]:                 "has 20 characters, notes have 63",
		"retry":                                "--sink URL",
		"retry --sink " + to.URL() + " --id z": "not a note, an nevent or 64 hex digits",
		"retry --sink " + to.URL() + " --reason x --id " + like.ID: "not both",
		"retry --sink wss://other.example":                         "is no sink of this archive; these are: " + to.URL(),
		"retry --sink " + to.URL() + " --id " + fine.ID:            "was not refused by",
		"forget --sink " + to.URL():                                "is a sink of the running config: remove it first (reload)",
		"pause wss://other.example":                                "there is no relay wss://other.example here",
		"pause":                                                    "name a relay",
		"resume " + from.URL() + " b":                              "unexpected argument b",
		"status --limit 5":                                         "--limit goes with --rejected",
	} {
		says(t, 2, append(strings.Fields(args), "--archive", dir), answer)
	}

	open.Store(true)
	r := asks[report.Retried](t, 0, "retry", "--sink", to.URL(), "--reason", "blocked:", "--archive", dir)
	if int64(r.Offered["blocked"]) != blocked || int64(r.Kept) != invalid {
		t.Errorf("retry of blocked: %+v, want %d of them and %d kept", r, blocked, invalid)
	}
	eventually(t, "the blocked ones arrive", func() error {
		s, err := d.ask()
		if err != nil {
			return err
		}
		if k = s.sink(t, to.URL()); k.Rejected != invalid || k.Parked != 0 {
			return fmt.Errorf("%d refused, %d parked", k.Rejected, k.Parked)
		}
		return nil
	})
	d.settled()
	d.stop()

	// Without a daemon.
	open.Store(false)
	says(t, 0, []string{"explain", low.ID, "--archive", dir}, "invalid: its id begins too low")
	says(t, 0, []string{"explain", like.ID, "--archive", dir}, "no sink of the config", "settled before")
	says(t, 0, []string{"retry", "--sink", to.URL(), "--id", low.ID, "--archive", dir}, "1 refused event is offered again: 1 invalid", "no sink of the config")
	says(t, 0, []string{"retry", "--sink", to.URL(), "--archive", dir}, "offered again")
	open.Store(true)
	d = run(t, dir, relays...)
	eventually(t, "everything arrives", func() error {
		s, err := d.ask()
		if err != nil {
			return err
		}
		if k, err = s.findSink(to.URL()); err != nil || k.Rejected+k.Parked+k.Pending != 0 {
			return fmt.Errorf("%d refused, %d parked, %d pending, %v", k.Rejected, k.Parked, k.Pending, err)
		}
		return nil
	})
	d.settled()
	d.stop()
	if k.Delivered+k.Skipped != int64(k.Issued) {
		t.Errorf("%d delivered and %d kept back, want all %d", k.Delivered, k.Skipped, k.Issued)
	}
}

// pause stops both roles of a relay with CLOSE and a close frame and holds over a restart; resume brings what was missed.
func TestPauseAndResume(t *testing.T) {
	now := time.Now().Unix()
	alice, bob := someone(t, "alice"), someone(t, "bob")
	both := relaytest.New(t, relaytest.Script{})
	other := relay(t, localrelay.Options{})
	config := filepath.Join(tempDir(t), "c.yaml")
	dir := filepath.Join(tempDir(t), "a")
	if err := os.WriteFile(config, []byte(fmt.Sprintf("all: true\nsources: [{url: %q, name: mine}, %q]\nsinks: [%q, %q]\n", both.URL, other.URL(), both.URL, other.URL())), 0o600); err != nil {
		t.Fatal(err)
	}
	d := run(t, dir, "-c", config)
	subscribed(t, other)
	both.Wait("a live subscription", func() bool { return len(both.Got("REQ")) > 0 })
	all := func(es ...*nostr.Event) (s set) { return setOf(es) }
	first := alice.notes(t, now, 3)
	for _, e := range first {
		both.Publish(line(t, e))
	}
	eventually(t, "three everywhere", func() error {
		if n := len(stored(t, other)); n != 3 {
			return fmt.Errorf("%d there", n)
		}
		return nil
	})
	on := []string{"-c", config, "--archive", dir}
	says(t, 0, append([]string{"pause", "mine"}, on...), both.URL+": paused", "rebroadcastr resume "+both.URL)
	both.Wait("the close frame", func() bool {
		return len(both.Closes()) == 1 && both.Closes()[0].Code == 1000 && len(both.Got("CLOSE")) > 0
	})
	says(t, 0, append([]string{"pause", both.URL}, on...), "it is paused already, since ")
	says(t, 0, append([]string{"status"}, on...), "PAUSED", "paused by the operator since", "no problems")

	mine, theirs := alice.notes(t, now+10, 3), bob.notes(t, now+20, 3)
	for _, e := range mine {
		both.Publish(line(t, e))
	}
	for _, e := range theirs {
		if err := other.Publish(e); err != nil {
			t.Fatal(err)
		}
	}
	pending := func() {
		t.Helper()
		eventually(t, "theirs wait for the paused sink", func() error {
			s, err := d.ask()
			if err != nil {
				return err
			}
			if k, err := s.findSink(both.URL); err != nil || k.Pending != 3 || s.Archive.Lines != 6 {
				return fmt.Errorf("%d pending, %d archived, %v", k.Pending, s.Archive.Lines, err)
			}
			return nil
		})
	}
	pending()
	d.stop()
	// A one-shot command leaves it out, says so, and ends.
	p := wantExit(t, 3, append([]string{"backfill", "--no-progress"}, on...)...)
	if !strings.Contains(p.Stdout(), "left out: paused by the operator") {
		t.Errorf("backfill with a paused relay:\n%s", p.Stdout())
	}
	d = run(t, dir, "-c", config)
	pending()
	if n := both.Dials(); n != 1 {
		t.Errorf("the paused relay was dialled %d times, want the once before", n)
	}
	says(t, 0, append([]string{"resume", "mine"}, on...), "resumed; it was paused since ")
	both.Wait("theirs", func() bool { return len(both.Stored()) == 9 })
	eventually(t, "mine", func() error {
		if n := len(stored(t, other)); n != 9 {
			return fmt.Errorf("%d there", n)
		}
		return nil
	})
	d.settled()
	says(t, 0, append([]string{"resume", both.URL}, on...), "it was neither paused nor waiting")
	d.stop()
	want := all(append(append(first, mine...), theirs...)...)
	wantSet(t, "archive", archived(t, dir), want)
	wantSet(t, "other", stored(t, other), want)

	// Without a daemon: a pause that nobody has to be told of.
	says(t, 0, append([]string{"pause", both.URL}, on...), "paused: nothing is asked of it")
	says(t, 0, append([]string{"resume", both.URL}, on...), "resumed; it was paused since ")
}

// forget removes the ledger of a sink that left the config; as a sink again it gets everything anew.
func TestForget(t *testing.T) {
	alice := someone(t, "alice")
	es := alice.notes(t, 1_700_000_000, 5)
	from := relay(t, localrelay.Options{}, es...)
	to := relaytest.New(t, relaytest.Script{})
	dir := filepath.Join(tempDir(t), "a")
	with := []string{"--all", "--source", from.URL(), "--sink", to.URL}
	oneShot(t, 0, "backfill", append(with, "--archive", dir)...)
	d := run(t, dir, "--all", "--source", from.URL())
	says(t, 2, []string{"forget", "--sink", "wss://other.example", "--archive", dir}, "these are: "+to.URL)
	f := asks[report.Forgotten](t, 0, "forget", "--sink", to.URL, "--archive", dir)
	if f.Delivered != 5 || f.Pending != 0 || f.Sink != to.URL {
		t.Errorf("forget: %+v, want 5 delivered", f)
	}
	d.stop()
	before := len(to.Got("EVENT"))
	s := oneShot(t, 0, "backfill", append(with, "--archive", dir)...)
	if k := s.sink(t, to.URL); k.Delivered != 5 || len(to.Got("EVENT"))-before != 5 {
		t.Errorf("after forget: %d delivered, %d sent, want all 5", k.Delivered, len(to.Got("EVENT"))-before)
	}
	says(t, 0, []string{"forget", "--sink", to.URL, "--archive", dir}, "ledger forgotten: 5 delivered, 0 refused, 0 parked, 0 pending. As a sink again it starts anew")
}

// What a relay says is shown: its last notices, what was not understood, what was refused, how the last session ended.
func TestRelayPicture(t *testing.T) {
	bad := relaytest.BadSig(relaytest.Sign(relaytest.Key(1), 1, 1_700_000_000, nil, "hello"))
	var hello []string
	for i := range 25 {
		hello = append(hello, fmt.Sprintf(`["NOTICE","notice %d"]`, i))
	}
	r := relaytest.New(t, relaytest.Script{
		Hello: append(hello, "garbage"), First: []string{bad},
		Info: `{"name":"odd","software":"x","limitation":{"max_limit":77,"auth_required":true}}`,
	})
	dir := filepath.Join(tempDir(t), "a")
	d := run(t, dir, "--all", "--source", r.URL)
	eventually(t, "a second session", func() error {
		if r.Accepted() == 1 {
			r.Drop()
		}
		var s report.Status
		answer := command(t, "status", r.URL, "--archive", dir, "--json") // exit 3 while it is not connected
		if err := json.Unmarshal([]byte(answer.Stdout()), &s); err != nil {
			return fmt.Errorf("%w: %s", err, answer.Stderr())
		}
		p := s.Relay
		switch {
		case p == nil || p.Sessions < 2 || len(s.Problems) > 0 || len(p.Notices) != 20 || p.BadFrames["not JSON"] < 2 || len(p.Samples) == 0:
			return fmt.Errorf("%+v", p)
		case p.Notices[19].Text != "notice 24" || p.Notices[0].Text != "notice 5" || p.LastEnd == "" || p.Info.Limits["max_limit"] != 77 || p.Samples[0].Raw != bad:
			t.Fatalf("the relay's picture: %+v", p)
		}
		return nil
	})
	says(t, 0, []string{"status", r.URL, "--archive", dir}, "notice 24", "frames not understood: ", "max_limit 77", "wants auth", "the last end, ", "refused 20", ": signature, ")
	// What is known of an event that did not get in.
	says(t, 3, []string{"explain", relaytest.ID(bad), "--archive", dir}, "not archived", r.URL+" sent something with this id", "signature")
	d.stop()
}

func line(t testing.TB, e *nostr.Event) string {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
