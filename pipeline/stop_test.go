package pipeline

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// panics is an archive that ends its shard.
type panics struct{}

func (panics) Append(context.Context, event.Event, record.Origin) error { panic("boom") }
func (panics) Barrier(context.Context, chan<- error) error              { return nil }

// One shard dies with its queues full while sources, an import and a sink are at work: the stop is in order and does not
// wait for the grace.
func TestDeadShard(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{Events: notes(1, 2000)})
	sink := relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	cfg.Grace = time.Hour
	r := prepare(t, cfg, Options{})
	r.m.intake.shards[0].archive = panics{}
	r.run()
	_, err := r.end()
	if err == nil || !strings.Contains(err.Error(), "shard 0: panic: boom") {
		t.Errorf("Run = %v, want the shard's panic", err)
	}
	r = begin(t, cfg, Options{})
	sink.Wait("every event", func() bool { return len(sink.Stored()) == 2000 })
	r.stop()
	sameSet(t, "archive", archived(t, cfg.Archive.Dir), idsOf(notes(1, 2000)))
}

// The archive ends under the sources: Run ends with an error, and the next one brings what is missing.
func TestArchiveGone(t *testing.T) {
	events := notes(1, 1500)
	a := relaytest.New(t, relaytest.Script{Events: events})
	cfg := testConfig(t, []*relaytest.Relay{a}, nil)
	cfg.Grace = time.Hour
	r := begin(t, cfg, Options{})
	r.eventually("some events", func(s report.Status) bool { return s.Archive.Lines > 10 })
	r.store.Archive.Drain()
	if _, err := r.end(); err == nil {
		t.Error("Run = nil, want that the archive is closed")
	}
	r = begin(t, cfg, Options{})
	r.eventually("every event", func(s report.Status) bool { return s.Archive.Lines == 1500 })
	r.stop()
	sameSet(t, "archive", archived(t, cfg.Archive.Dir), idsOf(events))
}

// A one-shot command ends although a sink never settles anything, whatever it says; nothing is lost.
func TestOneShotEndsWithoutItsSink(t *testing.T) {
	for name, answer := range map[string]relaytest.Answer{
		"rate-limited for ever": {Text: "rate-limited: slow down"},
		"wants a login":         {Text: "auth-required: who are you"},
		"errors for ever":       {Text: "error: try later"},
		"never answers":         {None: true},
	} {
		t.Run(name, func(t *testing.T) {
			events := notes(1, 30)
			a := relaytest.New(t, relaytest.Script{Events: events})
			bad := relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return answer }})
			good := relaytest.New(t, relaytest.Script{})
			// The bad one is a source too: its websocket lives on its own.
			cfg := testConfig(t, []*relaytest.Relay{a, bad}, []*relaytest.Relay{bad, good})
			cfg.Default.OK = 200 * time.Millisecond
			r := begin(t, cfg, Options{Once: true, GiveUp: time.Second})
			s, err := r.end()
			if err != nil {
				t.Fatal(err)
			}
			sameSet(t, "good sink", good.Stored(), idsOf(events))
			for _, k := range s.Sinks {
				if k.URL == bad.URL && (k.Delivered != 0 || k.Pending+k.Parked+k.Skipped != 30) {
					t.Errorf("the bad sink: %+v, want all pending or parked", k)
				}
			}
			bad.Update(func(s *relaytest.Script) { s.OK = nil })
			r = begin(t, cfg, Options{})
			r.eventually("the bad sink has what was pending", settled)
			r.stop()
		})
	}
}
