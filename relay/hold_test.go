package relay_test

import (
	"context"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// An operator's pause leaves both roles, says CLOSE and sends a close frame; nothing is dialled until Resume.
func TestHold(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	served := make(chan string, 10)
	role := func(name string) relay.Role {
		return roleFunc(func(ctx context.Context, s *relay.Session) error {
			served <- name
			<-ctx.Done()
			return s.Send(context.WithoutCancel(ctx), []byte(`["CLOSE","`+name+`"]`))
		})
	}
	l := run(t, r.URL, quick(), role("one"))
	l.Add("two", role("two"))
	recv(t, "a role", served)
	recv(t, "the other role", served)
	since := time.Now()
	l.Pause(since)
	r.Wait("the close frame", func() bool { return len(r.Closes()) == 1 })
	if got := len(r.Got("CLOSE")); got != 2 || r.Closes()[0].Code != 1000 {
		t.Errorf("%d CLOSE messages and close frame %+v, want 2 and code 1000", got, r.Closes()[0])
	}
	s := l.until(t, "that the link is paused", func(s relay.LinkStatus) bool { return s.State == relay.StatePaused })
	if !s.Held.Equal(since) || s.LastError != "" || !s.Next.IsZero() {
		t.Errorf("a link on hold: held since %s, last error %q, next try %s; want %s, none, never", s.Held, s.LastError, s.Next, since)
	}
	// A role that joins waits with the others.
	l.Add("three", role("three"))
	l.Resume()
	for range 3 {
		recv(t, "a role after Resume", served)
	}
	if n := r.Accepted(); n != 2 {
		t.Errorf("%d websockets, want one before and one after the pause", n)
	}
	if s := l.Status(); !s.Held.IsZero() {
		t.Errorf("resumed, and still held since %s", s.Held)
	}
}

// A link that is paused before its Run dials nobody.
func TestHoldBeforeRun(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	served := make(chan string, 1)
	l := &running{Link: relay.NewLink(relay.LinkOptions{URL: r.URL, Settings: quick(), Log: zerolog.Nop()}), done: make(chan struct{})}
	l.Add("role", roleFunc(func(ctx context.Context, s *relay.Session) error { served <- "served"; <-ctx.Done(); return nil }))
	l.Pause(time.Now())
	l.start(t)
	l.until(t, "that the link is paused", func(s relay.LinkStatus) bool { return s.State == relay.StatePaused })
	if n := r.Dials(); n != 0 {
		t.Errorf("%d dials while on hold, want none", n)
	}
	l.Resume()
	recv(t, "the role", served)
}

// Resume ends whatever a link waits for.
func TestResumeEndsWaits(t *testing.T) {
	long := quick()
	long.Backoff = relay.Backoff{Initial: time.Hour, Max: time.Hour, Multiplier: 1}
	t.Run("a backoff", func(t *testing.T) {
		r := relaytest.New(t, relaytest.Script{Status: 500})
		served := make(chan string, 1)
		l := runWith(t, relay.LinkOptions{URL: r.URL, Settings: long, Random: func() float64 { return 0.9 }},
			roleFunc(func(ctx context.Context, s *relay.Session) error { served <- "served"; <-ctx.Done(); return nil }))
		s := l.until(t, "a backoff", func(s relay.LinkStatus) bool { return s.State == relay.StateWaiting })
		if s.LastEnd == "" || s.LastEndAt.IsZero() {
			t.Errorf("how the last attempt ended: %q at %s, want both", s.LastEnd, s.LastEndAt)
		}
		r.Update(func(s *relaytest.Script) { s.Status = 0 })
		l.Resume()
		recv(t, "the role", served)
	})
	t.Run("a probe", func(t *testing.T) {
		r := relaytest.New(t, relaytest.Script{Status: 403})
		served := make(chan string, 1)
		l := runWith(t, relay.LinkOptions{URL: r.URL, Settings: long},
			roleFunc(func(ctx context.Context, s *relay.Session) error { served <- "served"; <-ctx.Done(); return nil }))
		l.until(t, "a pause until the next probe", func(s relay.LinkStatus) bool { return s.State == relay.StatePaused })
		r.Update(func(s *relaytest.Script) { s.Status = 0 })
		l.Resume()
		recv(t, "the role", served)
	})
	t.Run("a role's own pause", func(t *testing.T) {
		r := relaytest.New(t, relaytest.Script{})
		served := make(chan string, 2)
		l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
			offer(served, "served")
			return &relay.Pause{For: time.Hour, Reason: "auth-required: who are you"}
		}))
		recv(t, "the role", served)
		l.until(t, "the pause", func(s relay.LinkStatus) bool { return s.State == relay.StatePaused })
		l.Resume()
		recv(t, "the role again", served)
	})
}

// A role that is on its way out of Serve with a pause when Resume comes is not left alone all the same.
func TestResumeMeetsAPauseUnderWay(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	served, leave := make(chan string, 2), make(chan struct{})
	l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		offer(served, "served")
		<-leave
		return &relay.Pause{For: time.Hour, Reason: "auth-required: who are you"}
	}))
	recv(t, "the role", served)
	l.Resume()
	close(leave)
	recv(t, "the role again", served)
	l.until(t, "the second pause", func(s relay.LinkStatus) bool { return s.State == relay.StatePaused })
}
