package relay_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

func TestBothRolesShareOneWebsocket(t *testing.T) {
	old := relaytest.Sign(relaytest.Key(1), 1, 1700000000, nil, "old")
	fresh := relaytest.Sign(relaytest.Key(1), 1, 1700000001, nil, "new")
	r := relaytest.New(t, relaytest.Script{Events: []string{old}})
	events, oks, asked := newList(), make(chan string, 1), make(chan struct{})
	source := roleFunc(func(ctx context.Context, s *relay.Session) error {
		s.Handle(&relay.Handler{
			Event: func(frame []byte) { s.Progress(); events.add(string(frame)) },
			EOSE:  func(sub, hint string) { events.add("EOSE " + sub); close(asked) },
		})
		if err := s.Request(ctx, []byte(`["REQ","page-1",{"kinds":[1]}]`)); err != nil {
			return err
		}
		<-ctx.Done()
		return s.Send(context.WithoutCancel(ctx), []byte(`["CLOSE","page-1"]`))
	})
	sink := roleFunc(func(ctx context.Context, s *relay.Session) error {
		recv(t, "the source's EOSE", asked)
		s.Handle(&relay.Handler{OK: func(id event.ID, ok bool, text string) { oks <- fmt.Sprint(id, ok, text) }})
		if err := s.Send(ctx, []byte(`["EVENT",`+fresh+`]`)); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	l := run(t, r.URL, quick(), source)
	l.Add("sink", sink)
	if got := events.first(t, 2); got[0] != `["EVENT","page-1",`+old+`]` || got[1] != "EOSE page-1" {
		t.Errorf("the source got %q", got)
	}
	if got := recv(t, "an OK", oks); got != relaytest.ID(fresh)+" true" {
		t.Errorf("the sink got OK %q", got)
	}
	if n := r.Accepted(); n != 1 {
		t.Errorf("two roles took %d websockets, want 1", n)
	}
	l.stop()
	if err := l.wait(t); err != nil {
		t.Errorf("a link that was stopped returned %v, want nil", err)
	}
	r.Wait("the end of the websocket", func() bool { return len(r.Closes()) == 1 })
	if got := r.Got("CLOSE"); len(got) != 1 || got[0].Raw != `["CLOSE","page-1"]` {
		t.Errorf("the relay got CLOSE %v, want the source's", got)
	}
	if got := r.Closes()[0]; got.Code != 1000 {
		t.Errorf("the relay got close frame %+v, want code 1000", got)
	}
	if s := l.Status(); s.State != relay.StateEnded {
		t.Errorf("the status after the end is %q", s.State)
	}
}

func TestRoleThatFinishesIsDroppedAndTheLastOneEndsTheLink(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	finish := make(chan struct{})
	served, both := make(chan string, 10), make(chan struct{})
	l := run(t, r.URL, quick(), roleFunc(func(context.Context, *relay.Session) error { served <- "source"; <-both; return nil }))
	l.Add("sink", roleFunc(func(ctx context.Context, s *relay.Session) error {
		served <- "sink"
		select {
		case <-finish:
		case <-ctx.Done():
		}
		return nil
	}))
	close(both)
	recv(t, "a role", served)
	l.until(t, "that only the sink is left", func(s relay.LinkStatus) bool {
		return len(s.Roles) == 1 && s.Roles[0].Name == "sink" && s.Roles[0].Serving
	})
	close(finish)
	if err := l.wait(t); err != nil {
		t.Errorf("a link whose roles have finished returned %v", err)
	}
	r.Wait("the close", func() bool { return len(r.Closes()) == r.Accepted() })
	for _, c := range r.Closes() {
		if c.Code != 1000 {
			t.Errorf("left with %+v, want code 1000", c)
		}
	}
}

func TestNilAtTheEndOfASessionDoesNotFinishTheRole(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	served := make(chan int, 10)
	var n atomic.Int32
	l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		offer(served, int(n.Add(1)))
		<-ctx.Done()
		return nil
	}))
	recv(t, "the first session", served)
	r.Drop()
	if got := recv(t, "the second session", served); got != 2 {
		t.Errorf("served %d times, want 2", got)
	}
	l.stop()
	if err := l.wait(t); err != nil {
		t.Error(err)
	}
}

func TestPauseKeepsTheSocketForTheOtherRole(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	served := make(chan *relay.Session, 10)
	source := roleFunc(func(ctx context.Context, s *relay.Session) error {
		served <- s
		if len(served) > 1 {
			<-ctx.Done()
			return nil
		}
		return &relay.Pause{For: 30 * time.Millisecond, Reason: "mostly garbage"}
	})
	idle := roleFunc(func(ctx context.Context, s *relay.Session) error { <-ctx.Done(); return nil })
	l := runWith(t, relay.LinkOptions{URL: r.URL, Settings: quick()}, nil)
	if err := l.wait(t); err != nil {
		t.Fatalf("a link without roles returned %v", err)
	}
	l = &running{Link: relay.NewLink(relay.LinkOptions{URL: r.URL, Settings: quick()}), done: make(chan struct{})}
	l.Add("sink", idle)
	l.Add("source", source)
	l.start(t)
	recv(t, "the first service", served)
	l.until(t, "the pause", func(s relay.LinkStatus) bool {
		return s.State == relay.StateConnected && len(s.Roles) == 2 && s.Roles[1].Reason == "mostly garbage"
	})
	recv(t, "the second service", served)
	if n := r.Accepted(); n != 1 {
		t.Errorf("a pause of one role took %d websockets, want 1", n)
	}
}

func TestPauseOfTheOnlyRoleLeavesTheSocket(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	var n atomic.Int32
	l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		if n.Add(1) == 1 {
			return fmt.Errorf("wrapped: %w", &relay.Pause{For: 50 * time.Millisecond, Reason: "auth-required"})
		}
		return nil
	}))
	s := l.until(t, "a pause", func(s relay.LinkStatus) bool { return s.State == relay.StatePaused })
	if s.LastError != "auth-required" || s.Next.IsZero() {
		t.Errorf("the pause shows as %q until %v", s.LastError, s.Next)
	}
	if err := l.wait(t); err != nil {
		t.Error(err)
	}
	if r.Accepted() != 2 || n.Load() != 2 {
		t.Errorf("%d websockets, served %d times; want 2 and 2", r.Accepted(), n.Load())
	}
}

func TestRemoveReturnsAfterServeAndHandlersHaveEnded(t *testing.T) {
	r := relaytest.New(t, answers(`["EVENT","live-0",{}]`))
	inHandler := make(chan struct{})
	var serving, handling atomic.Bool
	l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		serving.Store(true)
		defer serving.Store(false)
		s.Handle(&relay.Handler{Event: func([]byte) {
			handling.Store(true)
			close(inHandler)
			<-ctx.Done()
			time.Sleep(20 * time.Millisecond) // longer than Serve takes
			handling.Store(false)
		}})
		if err := s.Send(ctx, []byte(`["REQ","live-0",{}]`)); err != nil {
			return err
		}
		<-ctx.Done()
		return errors.New("not of interest")
	}))
	recv(t, "the handler", inHandler)
	l.Remove("source")
	if serving.Load() || handling.Load() {
		t.Errorf("after Remove: Serve runs: %v, handler runs: %v", serving.Load(), handling.Load())
	}
	l.Remove("source") // gone already: returns at once
	if err := l.wait(t); err != nil {
		t.Errorf("a link without roles returned %v", err)
	}
}

func TestAddReplacesOnTheSameSocketAndNeverServesBoth(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	var serving atomic.Int32
	served := make(chan string, 10)
	role := func(name string) relay.Role {
		return roleFunc(func(ctx context.Context, s *relay.Session) error {
			if serving.Add(1) != 1 {
				t.Error("two roles of one name are served at once")
			}
			served <- name
			<-ctx.Done()
			serving.Add(-1)
			return nil
		})
	}
	l := run(t, r.URL, quick(), role("a"))
	recv(t, "a", served)
	for _, name := range []string{"b", "c", "d"} {
		l.Add("source", role(name))
		if got := recv(t, name, served); got != name {
			t.Errorf("served is %s, want %s", got, name)
		}
	}
	if n := r.Accepted(); n != 1 {
		t.Errorf("replacing roles took %d websockets, want 1", n)
	}
}

func TestPanics(t *testing.T) {
	for name, role := range map[string]relay.Role{
		"in a role": roleFunc(func(context.Context, *relay.Session) error { panic("broken invariant") }),
		"in a handler": asks(func(context.Context, *relay.Session) *relay.Handler {
			return &relay.Handler{Event: func([]byte) { panic("broken invariant") }}
		}),
	} {
		r := relaytest.New(t, answers(`["EVENT","live-0",{}]`))
		l := run(t, r.URL, quick(), role)
		left := make(chan struct{})
		l.Add("sink", roleFunc(func(ctx context.Context, s *relay.Session) error {
			<-ctx.Done()
			close(left)
			return nil
		}))
		err := l.wait(t)
		var p *relay.PanicError
		if !errors.As(err, &p) || p.Value != "broken invariant" || !strings.Contains(string(p.Stack), "roles_test.go") {
			t.Errorf("a panic %s: Run returned %v, want a *PanicError with the stack", name, err)
		}
		select {
		case <-left:
		default:
			// The sink may not have been served at all before the panic.
			if slices.ContainsFunc(l.Status().Roles, func(r relay.RoleStatus) bool { return r.Serving }) {
				t.Errorf("a panic %s: a role is still served", name)
			}
		}
	}
}

func TestErrorOfARoleEndsTheSessionAndTheOtherRoleIsServedAgain(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	var n atomic.Int32
	served := make(chan struct{}, 10)
	l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		if n.Add(1) == 1 {
			<-served
			served <- struct{}{}
			return errors.New("page-1: no EOSE within 30 s")
		}
		<-ctx.Done()
		return nil
	}))
	ended := make(chan error, 10)
	l.Add("sink", roleFunc(func(ctx context.Context, s *relay.Session) error {
		offer(served, struct{}{})
		<-ctx.Done()
		offer(ended, context.Cause(ctx))
		return nil
	}))
	recv(t, "the sink's end", ended)
	s := l.until(t, "the second session", func(s relay.LinkStatus) bool { return s.Sessions == 2 })
	if s.Reason != relay.RoleFailed || s.LastError != "page-1: no EOSE within 30 s" {
		t.Errorf("the status shows reason %q, %q", s.Reason, s.LastError)
	}
	l.until(t, "both roles at work", func(s relay.LinkStatus) bool {
		return len(s.Roles) == 2 && s.Roles[0].Serving && s.Roles[1].Serving
	})
}
