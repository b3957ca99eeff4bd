package pipeline

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"rebroadcastr/config"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// TestReconcileSinks: a relay that is source and sink is asked both ways, only a sink is one, and what a sink has lost comes back
// to it; what it gets beside that is what every sink gets. The status adds up, of the ledger and of this process.
func TestReconcileSinks(t *testing.T) {
	events := notes(1, 60)
	source, sink := relaytest.New(t, relaytest.Script{Events: events}), relaytest.New(t, relaytest.Script{Negentropy: true})
	cfg := testConfig(t, []*relaytest.Relay{source}, []*relaytest.Relay{sink})
	r := begin(t, cfg, Options{})
	full := func(n int) {
		t.Helper()
		r.eventually(fmt.Sprint("the sink has ", n), func(s report.Status) bool {
			return settled(s) && s.Sinks[0].Parked == 0 && len(sink.Stored()) == n && s.Sinks[0].Delivered == int64(n)
		})
	}
	full(len(events))
	before := r.m.Status().Sinks[0]
	sink.Lose(func(id string) bool { return slices.Contains(idsOf(events[:20]), id) })
	asked, err := r.m.Reconcile(sink.URL)
	if err != nil || len(asked.Asked) != 1 || asked.Asked[0].Role != "sink" || asked.Asked[0].Note != "" {
		t.Fatalf("asked %+v, %v; want the sink", asked, err)
	}
	full(len(events))
	relay := func() report.Relay {
		t.Helper()
		got, err := r.m.Relay(sink.URL)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	r.eventually("the comparison is told of", func(report.Status) bool { return relay().Lacks != nil })
	if l := relay().Lacks; l.Listed != 60 || l.Lacked != 20 || l.Offered != 20 || l.Taken != 20 || l.Text != "" {
		t.Errorf("%+v; want 20 of 60 lacked, offered and taken", l)
	}
	after := r.m.Status().Sinks[0]
	if after.Run.Delivered != before.Run.Delivered || after.Run.Imbalance() != 0 {
		t.Errorf("of this process %+v, want %d delivered as before", after.Run, before.Run.Delivered)
	}

	// A reload has it done by itself; one takes it back.
	with := *r.m.config()
	with.Sinks = []config.Sink{with.Sinks[0]}
	with.Sinks[0].Reconcile = config.Reconcile{Every: time.Hour}
	if err := r.m.Apply(&with); err != nil {
		t.Fatal(err)
	}
	more := notes(2, 5)
	source.Publish(more...)
	full(len(events) + len(more))
	if asked, err := r.m.Reconcile(""); err != nil || len(asked.Asked) != 2 {
		t.Errorf("asked %+v, %v; want a source and a sink", asked, err)
	}
	r.stop()

	r = begin(t, &with, Options{})
	<-r.m.Started()
	l := relay().Lacks
	if l == nil || l.Taken != 20 {
		t.Errorf("after a restart: %+v, want what came of the last comparison", l)
	}
	sink.Lose(func(string) bool { return true })
	if _, err := r.m.Reconcile(sink.URL); err != nil {
		t.Fatal(err)
	}
	full(len(events) + len(more))
	if k := r.m.Status().Sinks[0]; k.Run.Delivered != int64(len(events)+len(more)) || k.Run.Imbalance() != 0 {
		t.Errorf("of the process that sent everything again: %+v", k.Run)
	}
	r.stop()
}
