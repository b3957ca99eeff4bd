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

// A relay that loses one role keeps its connection for the other; one that leaves hears CLOSE and a close frame.
func TestApplyTakesARoleAway(t *testing.T) {
	both := relaytest.New(t, relaytest.Script{})
	other := relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{both, other}, []*relaytest.Relay{both})
	r := begin(t, cfg, Options{})
	both.Wait("a live subscription", func() bool { return slices.ContainsFunc(both.Got("REQ"), asks("live-0")) })
	apply := func(cfg *config.Config) {
		t.Helper()
		if err := r.m.Apply(cfg); err != nil {
			t.Fatal(err)
		}
	}
	sinkOnly := *cfg
	sinkOnly.Sources = []config.Source{{URL: other.URL, Name: "the other", Enabled: true}}
	apply(&sinkOnly)
	both.Wait("its subscription closed", func() bool { return slices.ContainsFunc(both.Got("CLOSE"), asks("live-0")) })
	if s := r.m.Status(); len(s.Sources) != 1 || s.Sources[0].Name != "the other" {
		t.Errorf("sources %+v, want one with its new name", s.Sources)
	}
	other.Publish(notes(1, 5)...)
	both.Wait("five events", func() bool { return len(both.Stored()) == 5 })
	apply(cfg)
	both.Publish(notes(2, 5)...)
	r.eventually("the source role again", func(s report.Status) bool { return s.Archive.Lines == 10 })
	if n := both.Accepted(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
	gone := *cfg
	gone.Sources, gone.Sinks = sinkOnly.Sources, nil
	apply(&gone)
	both.Wait("its leave", func() bool { return len(both.Closes()) == 1 })
	closes := both.Got("CLOSE") // a page's, where one was open, comes after or before
	live := slices.DeleteFunc(slices.Clone(closes), func(m relaytest.Message) bool { return !asks("live-0")(m) })
	if c := both.Closes()[0]; c.Code != 1000 || len(live) != 2 {
		t.Errorf("left with %+v after %v, want CLOSE for both live subscriptions and code 1000", c, closes)
	}
	r.stop()
}

// Filters change fifty times while events come: each is archived and delivered, over one connection each.
func TestApplyFiftyTimes(t *testing.T) {
	a, sink := relaytest.New(t, relaytest.Script{}), relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	cfg.Want = []event.Filter{{Kinds: []int{1}}}
	r := begin(t, cfg, Options{})
	a.Wait("a live subscription", func() bool { return slices.ContainsFunc(a.Got("REQ"), asks("live-0")) })
	events := notes(1, 1000)
	published := make(chan struct{})
	go func() {
		defer close(published)
		for _, e := range events {
			a.Publish(e)
		}
	}()
	for i := range 50 {
		next := *cfg
		next.Want = []event.Filter{{Kinds: []int{1, 1000 + i}}}
		next.Except = []event.Filter{{Kinds: []int{2000 + i%2}}}
		if i%10 == 9 {
			next.Default.Window, next.Default.Pace = 10+i, float64(500+i)
		}
		if err := r.m.Apply(&next); err != nil {
			t.Fatal(err)
		}
	}
	<-published
	sink.Wait("all of them", func() bool { return len(sink.Stored()) == len(events) })
	s := r.stop()
	sameSet(t, "archive", archived(t, cfg.Archive.Dir), idsOf(events))
	if a.Accepted() != 1 || sink.Accepted() != 1 {
		t.Errorf("%d connections to the source, %d to the sink, want 1 each", a.Accepted(), sink.Accepted())
	}
	if s.Sources[0].Unasked != 0 {
		t.Errorf("%d events unasked, want 0", s.Sources[0].Unasked)
	}
}

// What the door refuses though it is asked for has a name, so that its end is noticed.
func TestNarrowing(t *testing.T) {
	tag := func(values ...string) []event.Filter {
		return []event.Filter{{Tags: map[string][]string{"t": values}}}
	}
	cfg := &config.Config{Want: tag("x"), Except: []event.Filter{{Kinds: []int{4}}}}
	for what, c := range map[string]struct {
		only, except []event.Filter
		want         int
	}{
		"the stream's except":                 {nil, nil, 1},
		"the relay's too":                     {nil, []event.Filter{{Kinds: []int{7}}}, 2},
		"an only that the request can say":    {[]event.Filter{{Kinds: []int{1}}}, nil, 1},
		"the same tag, with the same values":  {tag("x"), nil, 1},
		"the same tag, which no request says": {tag("y"), nil, 2},
	} {
		if got := narrowing(cfg, c.only, c.except); len(got) != c.want {
			t.Errorf("%s: %q, want %d names", what, got, c.want)
		}
	}
}
