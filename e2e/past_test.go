package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/relaytest"
)

// TestPast: profiles are replaced and notes deleted while two sinks are down. Each gets the newest, the request, and nothing
// that it covers; so do sinks that come new to an index that was made anew, which answers as the one before.
func TestPast(t *testing.T) {
	alice, bob := someone(t, "alice"), someone(t, "bob")
	now := time.Now().Unix()
	from := relay(t, localrelay.Options{KeepAll: true})
	down := deadURL(t)
	scripted := relaytest.New(t, relaytest.Script{Status: 503})
	dir := filepath.Join(tempDir(t), "a")
	args := []string{"-c", configFile(t, fmt.Sprintf("all: true\nsources: [%q]\nsinks: [%q, %q]\narchive: {dir: %q}\n%s",
		from.URL(), down, scripted.URL, dir, quick))}
	d := run(t, dir, args...)
	subscribed(t, from)

	notes := alice.notes(t, now-1000, 30)
	var request nostr.Tags
	for _, e := range notes[:10] {
		request = append(request, nostr.Tag{"e", e.ID})
	}
	article := func(at int64) *nostr.Event {
		return alice.sign(t, at, 30023, fmt.Sprint("article of ", at), nostr.Tag{"d", "one"})
	}
	request = append(request, nostr.Tag{"a", "30023:" + notes[0].PubKey + ":one"})
	want := setOf(notes[10:]).with(setOf([]*nostr.Event{
		alice.sign(t, now, 5, "gone", request...),
		alice.sign(t, now-1, 0, "profile, second"),
		article(now + 1), // later than the request
		bob.sign(t, now, 5, "not mine", nostr.Tag{"e", notes[20].ID}),
		bob.sign(t, now, 62, "leaves", nostr.Tag{"relay", "ALL_RELAYS"}),
		bob.sign(t, now+1, 1, "is back"),
	}))
	all := want.with(setOf(notes[:10]), setOf([]*nostr.Event{
		alice.sign(t, now-2, 0, "profile, first"), article(now - 1), bob.sign(t, now-1, 1, "before bob left"),
	}))
	for _, e := range all { // in any order
		if err := from.Publish(e); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all is archived", func() error {
		s, err := d.ask()
		if err == nil && s.Archive.Lines != uint64(len(all)) {
			err = fmt.Errorf("%d of %d", s.Archive.Lines, len(all))
		}
		return err
	})
	real, err := localrelay.StartAt(strings.TrimPrefix(down, "ws://"), localrelay.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close() //nolint:errcheck // the test is over
	scripted.Update(func(s *relaytest.Script) { s.Status = 0 })
	holds := func(r *localrelay.Relay) {
		t.Helper()
		// khatru answers some requests to delete before the relay sees them.
		wantSet(t, "the real sink, requests aside", stored(t, r).where(not(kinds(5))), want.where(not(kinds(5))))
	}
	s := d.settled()
	wantSet(t, "the scripted sink", sentTo(t, scripted), want)
	holds(real)
	if got := s.sink(t, scripted.URL).SkippedBy; got["deleted"] != 12 || got["superseded"] != 1 || len(got) != 2 {
		t.Errorf("skipped by %v, want 12 deleted (ten notes, an article, one of before bob left) and 1 superseded", got)
	}
	d.stop()

	wantExit(t, 0, "reindex", "--archive", dir)
	second, other := relay(t, localrelay.Options{}), relaytest.New(t, relaytest.Script{})
	d = run(t, dir, "-c", configFile(t, fmt.Sprintf("all: true\nsources: [%q]\nsinks: [%q, %q]\narchive: {dir: %q}\n%s",
		from.URL(), second.URL(), other.URL, dir, quick)))
	subscribed(t, from)
	s = d.settled()
	wantSet(t, "the scripted sink after reindex", sentTo(t, other), want)
	holds(second)
	if got := s.Archive.Lines; got != uint64(len(all)) {
		t.Errorf("%d lines after reindex, want %d: nothing is archived twice", got, len(all))
	}
	d.stop()
	wantSet(t, "archive", archived(t, dir), all)
}
