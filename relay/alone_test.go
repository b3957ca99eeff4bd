package relay_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// A role that asks to be alone gets a connection on which nothing else was done, also one after the other; the other role
// is left in order, waits, and comes back by itself.
func TestAlone(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	ask := make(chan error)          // what the sink's Serve returns
	served := make(chan bool, 10)    // the sink's, and whether it was alone
	source := make(chan struct{}, 9) // served
	l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		source <- struct{}{}
		if err := s.Send(ctx, []byte(`["REQ","live-0",{}]`)); err != nil {
			return err
		}
		<-ctx.Done()
		return s.Send(context.WithoutCancel(ctx), []byte(`["CLOSE","live-0"]`))
	}))
	l.Add("sink", roleFunc(func(ctx context.Context, s *relay.Session) error {
		served <- s.Alone()
		if err := s.Send(ctx, []byte(`["EVENT","sink"]`)); err != nil {
			return err
		}
		select {
		case err := <-ask:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}))
	recv(t, "the source", source)
	if recv(t, "the sink", served) {
		t.Fatal("the sink was alone before it asked for it")
	}
	r.Wait("both", func() bool { return len(r.Got("REQ")) == 1 && len(r.Got("EVENT")) == 1 })

	for n := 2; n <= 3; n++ {
		ask <- &relay.Pause{Reason: "an event is tried", Alone: true}
		if !recv(t, "the sink alone", served) {
			t.Fatal("the sink asked to be alone and was not")
		}
		r.Wait("the new connection", func() bool { return r.Accepted() == n })
		l.until(t, "the source's reason", func(s relay.LinkStatus) bool {
			return s.Roles[1].Name == "source" && !s.Roles[1].Serving && s.Roles[1].Reason == "an event is tried"
		})
		if n == 2 && len(r.Got("CLOSE")) != 1 {
			t.Errorf("the source left with %d CLOSE, want 1", len(r.Got("CLOSE")))
		}
	}
	// Dropped while alone: the wish is for the role to repeat, and here it does not.
	r.Drop()
	recv(t, "the source", source)
	if recv(t, "the sink", served) {
		t.Error("the sink was alone after a Serve that did not ask for it")
	}
	for _, m := range r.Got("") {
		if (m.Conn == 2 || m.Conn == 3) && m.Label != "EVENT" {
			t.Errorf("connection %d got %s: nothing but the lone role's is sent there", m.Conn, m.Raw)
		}
	}
	// The end of being alone on a session that lives: the other joins it.
	ask <- &relay.Pause{Alone: true}
	if !recv(t, "the sink alone", served) {
		t.Fatal("the sink asked to be alone and was not")
	}
	before := r.Accepted()
	ask <- &relay.Pause{}
	recv(t, "the source again", source)
	if recv(t, "the sink", served) || r.Accepted() != before {
		t.Errorf("alone for ever, or %d websockets instead of the one there was", r.Accepted()-before)
	}
}

// A role that is alone and fails, or is removed, does not keep the others out.
func TestAloneEnds(t *testing.T) {
	for name, end := range map[string]func(l *running, ask chan<- error){
		"fails":   func(_ *running, ask chan<- error) { ask <- errors.New("no") },
		"removed": func(l *running, _ chan<- error) { l.Remove("sink") },
		"replaced": func(l *running, _ chan<- error) {
			l.Add("sink", roleFunc(func(ctx context.Context, s *relay.Session) error { <-ctx.Done(); return ctx.Err() }))
		},
		"held": func(l *running, _ chan<- error) { l.Pause(time.Now()); l.Resume() },
	} {
		t.Run(name, func(t *testing.T) {
			r := relaytest.New(t, relaytest.Script{})
			ask, source := make(chan error), make(chan struct{}, 10)
			l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
				source <- struct{}{}
				<-ctx.Done()
				return ctx.Err()
			}))
			alone := make(chan struct{}, 10)
			l.Add("sink", roleFunc(func(ctx context.Context, s *relay.Session) error {
				if s.Alone() {
					alone <- struct{}{}
				}
				select {
				case err := <-ask:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			}))
			recv(t, "the source", source)
			ask <- &relay.Pause{Alone: true}
			recv(t, "the sink alone", alone)
			end(l, ask)
			recv(t, "the source again", source)
		})
	}
}
