package pipeline

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/archive"
	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/policy"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// TestPastWhileASinkIsDown: notes are deleted and profiles replaced while a sink is down. It gets what is left, and so does a sink
// that comes new to an index that was made anew.
func TestPastWhileASinkIsDown(t *testing.T) {
	const day = 1_700_000_000
	alice, bob := relaytest.Key(1), relaytest.Key(2)
	from := relaytest.New(t, relaytest.Script{})
	sink := relaytest.New(t, relaytest.Script{Status: 503})
	kept, gone := notes(1, 20), notes(3, 10)
	var targets [][]string
	for _, e := range gone {
		targets = append(targets, []string{"e", relaytest.ID(e)})
	}
	var profiles []string
	for i := range 5 {
		profiles = append(profiles, relaytest.Sign(alice, 0, day+int64(i), nil, fmt.Sprint("profile ", i)))
	}
	article := func(at int64) string {
		return relaytest.Sign(alice, 30023, at, [][]string{{"d", "one"}}, fmt.Sprint("article ", at))
	}
	left := relaytest.Sign(bob, 1, day, nil, "before bob left")
	requests := []string{
		relaytest.Sign(relaytest.Key(3), 5, day+500, targets, "all mine"),
		relaytest.Sign(relaytest.Key(1), 5, day+500, [][]string{{"a", "30023:" + relaytest.Pub(alice) + ":one"}, {"e", relaytest.ID(left)}}, "not all mine"),
		relaytest.Sign(bob, 62, day+1, [][]string{{"relay", "ALL_RELAYS"}}, ""),
	}
	articles := []string{article(day), article(day + 501)} // the second is of after the request
	all := slices.Concat(kept, gone, profiles, articles, []string{left}, requests)
	want := slices.Concat(kept, profiles[4:], articles[1:], requests)

	cfg := testConfig(t, []*relaytest.Relay{from}, []*relaytest.Relay{sink})
	r := begin(t, cfg, Options{})
	from.Wait("a live subscription", func() bool {
		return slices.ContainsFunc(from.Got("REQ"), func(m relaytest.Message) bool { return strings.Contains(m.Raw, "live-0") })
	})
	from.Publish(all...)
	r.eventually("all archived", func(s report.Status) bool { return s.Archive.Lines == uint64(len(all)) })
	if n := len(sink.Got("EVENT")); n != 0 {
		t.Fatalf("the sink that is down was sent %d events", n)
	}
	sink.Update(func(s *relaytest.Script) { s.Status = 0 })
	r.eventually("all settled", settled)
	sameSet(t, "the sink", idsOf(sentEvents(sink)), idsOf(want))
	skips := map[string]int64{policy.Deleted: int64(len(gone) + 2), policy.Superseded: int64(len(profiles) - 1)} // 2: an article, bob's note
	if k := r.stop().Sinks[0]; fmt.Sprint(k.SkippedBy) != fmt.Sprint(skips) {
		t.Errorf("skipped %v, want %v", k.SkippedBy, skips)
	}

	n, err := Reindex(t.Context(), archive.OS{}, cfg, zerolog.Nop(), time.Now, func(string) {})
	if err != nil || n != len(all) {
		t.Fatalf("reindex: %d events, %v; want %d", n, err, len(all))
	}
	second := relaytest.New(t, relaytest.Script{})
	cfg = testConfig(t, nil, []*relaytest.Relay{second})
	cfg.Archive.Dir = r.cfg.Archive.Dir
	r = begin(t, cfg, Options{})
	r.eventually("all settled at the new sink", settled)
	r.stop()
	sameSet(t, "the new sink", idsOf(sentEvents(second)), idsOf(want))
	sameSet(t, "archive", archived(t, cfg.Archive.Dir), idsOf(all))
}

// TestManyVersions: a sink that is behind by many versions of few profiles gets the newest of each, and the heap stays as it was.
func TestManyVersions(t *testing.T) {
	n := 20_000
	if raceDetector {
		n /= 10
	}
	const authors = 2
	var heap heap
	sink := newCounter(t, n, func(int64) {})
	cfg := testConfig(t, nil, nil)
	r := begin(t, cfg, Options{})
	for i := range n {
		var e event.Event
		line := bytes.Replace(numbered(t, i).Line, []byte(`"kind":1,`), []byte(`"kind":0,`), 1)
		line = bytes.Replace(line, fmt.Appendf(nil, `"pubkey":"%064x"`, i%100), fmt.Appendf(nil, `"pubkey":"%064x"`, i%authors), 1)
		if err := event.Parse(line, &e); err != nil {
			t.Fatal(err)
		}
		if err := r.store.Archive.Append(t.Context(), e, record.Origin{}); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("all archived", func(s report.Status) bool { return s.Archive.Lines == uint64(n) })
	with := *cfg
	with.Sinks = []config.Sink{{URL: sink.url, Enabled: true}}
	heap.look()
	begun := time.Now()
	if err := r.m.Apply(&with); err != nil {
		t.Fatal(err)
	}
	r.eventually("all settled", func(s report.Status) bool { heap.look(); return settled(s) })
	t.Logf("passed: %.0f versions/s", float64(n)/time.Since(begun).Seconds())
	heap.flat(t, 32<<20)
	k := r.stop().Sinks[0]
	if k.Delivered != authors || k.SkippedBy[policy.Superseded] != int64(n-authors) {
		t.Errorf("%d delivered, skipped %v; want %d, and %d superseded", k.Delivered, k.SkippedBy, authors, n-authors)
	}
	for i := range authors {
		if sink.got[n-1-i].Load() != 1 {
			t.Errorf("version %d, the newest of its author, was not sent", n-1-i)
		}
	}
}

// sentEvents are what a relay was sent, in order.
func sentEvents(r *relaytest.Relay) (events []string) {
	for _, m := range r.Got("EVENT") {
		events = append(events, strings.TrimSuffix(strings.TrimPrefix(m.Raw, `["EVENT",`), "]"))
	}
	return events
}
