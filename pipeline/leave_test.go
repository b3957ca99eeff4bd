package pipeline

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// A sink that is removed with events on their way hears the answers; nobody waits for it meanwhile. When it comes back it
// goes on where it was: nothing is sent twice, and what came meanwhile is sent.
func TestRemovedSinkReturns(t *testing.T) {
	for _, how := range []string{"its link closes", "the source on its link stays"} {
		t.Run(how, func(t *testing.T) {
			late := &lateAnswers{}
			slow := relaytest.New(t, relaytest.Script{Handle: late.handle})
			a, other := relaytest.New(t, relaytest.Script{Events: notes(1, 50)}), relaytest.New(t, relaytest.Script{})
			with := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{slow})
			if how != "its link closes" {
				with.Sources = append(with.Sources, config.Source{URL: slow.URL, Enabled: true})
			}
			without := *with
			without.Sinks = []config.Sink{{URL: other.URL, Enabled: true}}
			r := begin(t, with, Options{})
			slow.Wait("fifty events", func() bool { return len(slow.Got("EVENT")) == 50 })
			if err := r.m.Apply(&without); err != nil {
				t.Fatal(err)
			}
			a.Publish(notes(2, 10)...)
			other.Wait("the other sink, while the first still waits for its answers", func() bool { return len(other.Stored()) == 60 })
			if r.m.waitingToLeave() != 1 {
				t.Fatal("the sink has left before it was answered")
			}
			late.answer()
			both := *with
			both.Sinks = append(without.Sinks, with.Sinks...)
			if err := r.m.Apply(&both); err != nil {
				t.Fatal(err)
			}
			slow.Wait("what came meanwhile", func() bool { return len(slow.Got("EVENT")) >= 60 })
			r.eventually("nothing is pending", settled)
			r.stop()
			if n := len(slow.Got("EVENT")); n != 60 {
				t.Errorf("the sink was sent %d events, want each of the 60 once", n)
			}
		})
	}
}

// Once a reload without a sink is answered, nothing is begun to be sent to it.
func TestRemovedSinkIsSentNothingMore(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{Events: notes(1, 1500), Cap: 500})
	sink := relaytest.New(t, relaytest.Script{})
	with := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	without := *with
	without.Sinks = nil
	r := begin(t, with, Options{})
	for range 10 {
		before := len(sink.Got("EVENT"))
		sink.Wait("some more", func() bool { return len(sink.Got("EVENT")) >= min(before+30, 1500) })
		_, leaves := r.m.link(sink.URL).roles()
		if err := r.m.Apply(&without); err != nil {
			t.Fatal(err)
		}
		answered := leaves.Status().Session.Sent
		r.eventually("the sink has left", func(report.Status) bool { return r.m.waitingToLeave() == 0 })
		if n := leaves.Status().Session.Sent; n != answered {
			t.Fatalf("%d events were sent after the answer", n-answered)
		}
		if err := r.m.Apply(with); err != nil {
			t.Fatal(err)
		}
	}
	r.eventually("nothing is pending", settled)
	r.stop()
	if n := len(sink.Stored()); n != 1500 {
		t.Errorf("the sink has %d events, want all 1,500", n)
	}
}

// lateAnswers holds back what a relay has to say to EVENT, until answer.
type lateAnswers struct {
	mu   sync.Mutex
	over bool
	held []func()
}

func (l *lateAnswers) handle(c *relaytest.Conn, m relaytest.Message) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || m.Label != "EVENT" {
		return false
	}
	id := relaytest.ID(m.Raw[len(`["EVENT",`) : len(m.Raw)-1])
	l.held = append(l.held, func() { c.Send(`["OK","` + id + `",true,""]`) })
	return true
}

// answer says OK to all.
func (l *lateAnswers) answer() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	for _, serve := range l.held {
		serve()
	}
}

func (m *Mirror) waitingToLeave() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.left)
}

// A stop does not wait for a sink that is leaving and answers nothing.
func TestStopWhileASinkLeaves(t *testing.T) {
	mute := relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Answer{None: true} }})
	a := relaytest.New(t, relaytest.Script{Events: notes(1, 5)})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{mute})
	r := begin(t, cfg, Options{})
	mute.Wait("five events", func() bool { return len(mute.Got("EVENT")) == 5 })
	without := *cfg
	without.Sinks = nil
	if err := r.m.Apply(&without); err != nil {
		t.Fatal(err)
	}
	r.stop()
	if r.m.waitingToLeave() != 0 {
		t.Error("the run has ended, and a sink is still leaving")
	}
}

// A sink that comes back with a wider filter gets what it was not sent, also what came before it left.
func TestReturnedSinkWithAnotherFilter(t *testing.T) {
	like := relaytest.Sign(relaytest.Key(3), 7, 1_700_000_000, nil, "+")
	a := relaytest.New(t, relaytest.Script{Events: append(notes(1, 20), like)})
	sink := relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{a}, []*relaytest.Relay{sink})
	cfg.Sinks[0].Only = []event.Filter{{Kinds: []int{7}}}
	r := begin(t, cfg, Options{})
	r.eventually("the like", func(s report.Status) bool { return settled(s) && s.Archive.Lines == 21 && s.Sinks[0].Skipped == 20 })
	r.stop()

	without := *cfg
	without.Sinks = nil
	r = begin(t, &without, Options{})
	a.Wait("a second live subscription", func() bool {
		return len(slices.DeleteFunc(a.Got("REQ"), func(m relaytest.Message) bool { return !strings.Contains(m.Raw, "live-0") })) == 2
	})
	a.Publish(notes(2, 10)...)
	r.eventually("ten more", func(s report.Status) bool { return s.Archive.Lines == 31 })
	r.stop()

	wider := *cfg
	wider.Sinks = []config.Sink{{URL: sink.URL, Enabled: true}}
	r = begin(t, &wider, Options{Once: true, GiveUp: 0})
	s, err := r.end()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(sink.Stored()); n != 31 || len(sink.Got("EVENT")) != 31 {
		t.Errorf("the sink has %d events of %d sent, want each of the 31 once", n, len(sink.Got("EVENT")))
	}
	k := s.Sinks[0]
	if k.Skipped != 0 || k.Recheck != 0 || k.Run.Delivered != 30 || k.Run.Skipped != 0 || k.Run.Imbalance() != 0 {
		t.Errorf("the one-shot's sink: %+v, run %+v; want nothing skipped and 30 delivered by this run", k, k.Run)
	}
}
