package pipeline

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// A sink that comes back when the segments that its ledger stands in, holds back from and waits for are gone, or end
// before its place, goes on with the next one there is: every event that the archive still has and it has not, once.
func TestSegmentsOfALedgerAreGone(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, text, origin string){
		"gone": func(t *testing.T, text, origin string) {
			for _, path := range []string{text, origin} {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		},
		"empty": func(t *testing.T, text, _ string) {
			if err := os.Truncate(text, 0); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			// Twenty likes that the first filter holds back, then notes of which only ten are answered.
			var likes []string
			for i := range 20 {
				likes = append(likes, relaytest.Sign(relaytest.Key(3), 7, 1_700_100_000-int64(i), nil, "+"))
			}
			first, second := notes(1, 30), notes(2, 100)
			slices.Reverse(first) // as the source serves them
			var sink *relaytest.Relay
			sink = relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer {
				return relaytest.Answer{Accepted: true, None: len(sink.Got("EVENT")) > 10}
			}})
			a := relaytest.New(t, relaytest.Script{Events: slices.Concat(likes, first)})
			cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
			cfg.Sinks[0].Only = []event.Filter{{Kinds: []int{1}}}
			r := begin(t, cfg, Options{})
			sink.Wait("every note", func() bool { return len(sink.Got("EVENT")) == 30 })
			r.eventually("ten answers", func(s report.Status) bool {
				return s.Archive.Lines == 50 && s.Sinks[0].Delivered == 10 && s.Sinks[0].Pending == 20 && s.Sinks[0].Skipped == 20
			})
			without := *cfg
			without.Sinks = nil
			if err := r.m.Apply(&without); err != nil { // the grace has no time to end: see TestStopWhileASinkLeaves
				t.Fatal(err)
			}
			r.stop()
			files := segments(t, cfg)

			// More, in segments of their own: every start opens one.
			b := relaytest.New(t, relaytest.Script{Events: second})
			without.Sources = []config.Source{{URL: b.URL, Enabled: true}}
			r = begin(t, &without, Options{Once: true})
			if _, err := r.end(); err != nil {
				t.Fatal(err)
			}
			for _, text := range files {
				spoil(t, text, text[:len(text)-len(".jsonl")]+".origin")
			}

			sink.Update(func(s *relaytest.Script) { s.OK = nil })
			before := len(sink.Got("EVENT"))
			with := *cfg
			with.Sources, with.Sinks = nil, []config.Sink{{URL: sink.URL, Enabled: true}} // a wider filter too
			r = begin(t, &with, Options{})
			r.eventually("all is settled", func(s report.Status) bool { return settled(s) && s.Sinks[0].Recheck == 0 })
			k := r.stop().Sinks[0]
			var got []string
			for _, m := range sink.Got("EVENT")[before:] {
				got = append(got, relaytest.ID(m.Raw[len(`["EVENT",`):len(m.Raw)-1]))
			}
			sameSet(t, "sent after the loss", got, idsOf(second))
			if k.Delivered != 110 || k.SkippedBy["withdrawn"] != 20 || k.SkippedBy["filter"] != 20 {
				t.Errorf("%d delivered, skipped %v; want 110, and 20 each that stand nowhere any more", k.Delivered, k.SkippedBy)
			}
		})
	}
}

// segments are the open segments' files.
func segments(t *testing.T, cfg *config.Config) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(cfg.Archive.Dir, "events_*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no segments: %v", err)
	}
	return files
}
