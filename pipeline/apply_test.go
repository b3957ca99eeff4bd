package pipeline

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

func asks(what string) func(relaytest.Message) bool {
	return func(m relaytest.Message) bool { return strings.Contains(m.Raw, what) }
}

// A relay that was a source and becomes a sink, and back, is one at every moment: no link is left without an owner.
func TestApplySwapsTheRole(t *testing.T) {
	one := relaytest.New(t, relaytest.Script{Events: notes(1, 5)})
	other := relaytest.New(t, relaytest.Script{Events: notes(2, 5)})
	cfg := testConfig(t, []*relaytest.Relay{one}, []*relaytest.Relay{other})
	r := begin(t, cfg, Options{})
	r.eventually("it runs", func(s report.Status) bool { return len(s.Sources) == 1 && len(s.Sinks) == 1 })
	back := *cfg
	back.Sources = []config.Source{{URL: other.URL, Enabled: true}}
	back.Sinks = []config.Sink{{URL: one.URL, Enabled: true}}
	for range 20 {
		if err := r.m.Apply(&back); err != nil {
			t.Fatal(err)
		}
		if err := r.m.Apply(cfg); err != nil {
			t.Fatal(err)
		}
	}
	other.Wait("the events of one", func() bool { return len(other.Stored()) == 10 })
	if err := r.m.Apply(&back); err != nil {
		t.Fatal(err)
	}
	one.Wait("the events of other", func() bool { return len(one.Stored()) == 10 })
	r.eventually("nothing is pending", settled)
	r.stop()
}

// A wider filter is asked for, on the websocket that is there.
func TestApplyAsksForMore(t *testing.T) {
	like := relaytest.Sign(relaytest.Key(3), 7, 1_700_000_000, nil, "+")
	a := relaytest.New(t, relaytest.Script{Events: append(notes(1, 3), like)})
	cfg := testConfig(t, []*relaytest.Relay{a}, nil)
	cfg.Want = []event.Filter{{Kinds: []int{1}}}
	r := begin(t, cfg, Options{})
	r.eventually("the notes", func(s report.Status) bool { return s.Archive.Lines == 3 })
	wider := *cfg
	wider.Want = []event.Filter{{Kinds: []int{1, 7}}}
	if err := r.m.Apply(&wider); err != nil {
		t.Fatal(err)
	}
	r.eventually("the like, from history", func(s report.Status) bool { return s.Archive.Lines == 4 })
	a.Wait("a live subscription for likes", func() bool { return slices.ContainsFunc(a.Got("REQ"), asks("[1,7]")) })
	if err := r.m.Apply(&wider); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if n := a.Accepted(); n != 1 {
		t.Errorf("the source was dialled %d times, want once", n)
	}
}

// A link that gave up comes back with the next Apply. One whose settings change stays, unless its connection is made of them.
func TestApplyRevives(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{Events: notes(1, 3), Status: 500})
	cfg := testConfig(t, []*relaytest.Relay{a}, nil)
	cfg.Default.Backoff.MaxRetries = -1
	r := begin(t, cfg, Options{})
	r.eventually("it gives up", func(s report.Status) bool { return len(s.Sources) == 1 && s.Sources[0].State == report.Ended })
	a.Update(func(s *relaytest.Script) { s.Status = 0 })
	if err := r.m.Apply(cfg); err != nil {
		t.Fatal(err)
	}
	r.eventually("the notes", func(s report.Status) bool { return s.Archive.Lines == 3 })
	other := *cfg
	other.Default.OK, other.Default.Window, other.Default.Pace, other.Default.MaxFrame = time.Minute, 7, 20, 1<<20
	if err := r.m.Apply(&other); err != nil {
		t.Fatal(err)
	}
	live := relaytest.Sign(relaytest.Key(1), 1, 1_700_000_100, nil, "after the change")
	a.Publish(live)
	r.eventually("the live note", func(s report.Status) bool { return s.Archive.Lines == 4 })
	if n := a.Accepted(); n != 1 {
		t.Errorf("%d connections after a change of what a connection takes up, want 1", n)
	}
	again := other
	again.Default.Compression = true
	if err := r.m.Apply(&again); err != nil {
		t.Fatal(err)
	}
	a.Wait("a second connection", func() bool { return a.Accepted() == 2 })
	r.stop()
}

// What is let through to a sink may change too, on the connection that is there, and what is archived goes out as well.
func TestApplySend(t *testing.T) {
	dm := relaytest.Sign(relaytest.Key(1), 4, 1_700_000_000, nil, "?iv=")
	dm2 := relaytest.Sign(relaytest.Key(1), 4, 1_700_000_001, nil, "?iv=")
	a := relaytest.New(t, relaytest.Script{Events: []string{dm}})
	sink := relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	r := begin(t, cfg, Options{})
	r.eventually("it is kept back", func(s report.Status) bool { return settled(s) && s.Sinks[0].Skipped == 1 })
	open := *cfg
	open.Sinks = []config.Sink{{URL: sink.URL, Enabled: true, Send: []string{"dm"}}}
	if err := r.m.Apply(&open); err != nil {
		t.Fatal(err)
	}
	a.Publish(dm2)
	sink.Wait("both", func() bool { return len(sink.Stored()) == 2 })
	r.eventually("nothing is kept back", func(s report.Status) bool { return settled(s) && s.Sinks[0].Skipped == 0 })
	if k := r.stop().Sinks[0]; k.Run.Imbalance() != 0 || k.Run.Delivered != 2 || k.Run.Skipped != 0 {
		t.Errorf("the share of this run: %+v; want 2 delivered, nothing skipped", k.Run)
	}
	if n := sink.Accepted(); n != 1 {
		t.Errorf("the sink was dialled %d times, want once", n)
	}
}

// An Apply before the start or after the stop has begun changes nothing and starts nothing.
func TestApplyOutOfTime(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, nil, nil)
	late := *cfg
	late.Sources = []config.Source{{URL: a.URL, Enabled: true}}
	r := prepare(t, cfg, Options{})
	if err := r.m.Apply(&late); !errors.Is(err, errNotRunning) {
		t.Errorf("before the start: %v, want %v", err, errNotRunning)
	}
	r.run()
	r.stop()
	if err := r.m.Apply(&late); !errors.Is(err, errNotRunning) {
		t.Errorf("after the stop: %v, want %v", err, errNotRunning)
	}
	if a.Dials() != 0 {
		t.Errorf("the relay was dialled %d times, want never", a.Dials())
	}
}
