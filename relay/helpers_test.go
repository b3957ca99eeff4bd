package relay_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen; it only runs out when a test fails.
const patience = time.Minute

// quick settings: reconnects within milliseconds, timeouts as by default.
func quick() relay.Settings {
	s := relay.DefaultSettings()
	s.Backoff.Initial, s.Backoff.Max = time.Millisecond, 5*time.Millisecond
	s.Pace = 1000
	return s
}

type roleFunc func(ctx context.Context, s *relay.Session) error

func (f roleFunc) Serve(ctx context.Context, s *relay.Session) error { return f(ctx, s) }

// running is a link at work.
type running struct {
	*relay.Link
	stop context.CancelFunc
	done chan struct{}
	err  error
}

// run runs a link with one role, "source", until the end of the test.
func run(t *testing.T, url string, s relay.Settings, role relay.Role) *running {
	t.Helper()
	return runWith(t, relay.LinkOptions{URL: url, Settings: s}, role)
}

func runWith(t *testing.T, o relay.LinkOptions, role relay.Role) *running {
	t.Helper()
	o.Log = zerolog.Nop()
	r := &running{Link: relay.NewLink(o), done: make(chan struct{})}
	if role != nil {
		r.Add("source", role)
	}
	r.start(t)
	return r
}

func (r *running) start(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go func() {
		defer close(r.done)
		r.err = r.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-r.done })
}

// wait returns Run's error.
func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case <-r.done:
		return r.err
	case <-time.After(patience):
		t.Fatalf("Run has not returned; status %+v", r.Status())
		return nil
	}
}

// until waits for a status.
func (r *running) until(t *testing.T, what string, cond func(s relay.LinkStatus) bool) relay.LinkStatus {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s := r.Status()
		if cond(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("status never said %s; it says %+v", what, s)
		}
	}
}

// recv takes one value, or fails the test.
func recv[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("not reached")
	}
}

// ends is a role that hands out how each session ended.
func ends(c chan<- error) relay.Role {
	return roleFunc(func(ctx context.Context, s *relay.Session) error {
		<-ctx.Done()
		offerEnd(c, s)
		return nil
	})
}

func wantEnd(t *testing.T, err error, want relay.Reason) *relay.End {
	t.Helper()
	var e *relay.End
	if !errors.As(err, &e) || e.Reason != want {
		t.Fatalf("the end is %v (%T), want reason %q", err, err, want)
	}
	return e
}

// log is a list that grows from several goroutines.
type list struct {
	mu    sync.Mutex
	items []string
	grown chan struct{}
}

func newList() *list { return &list{grown: make(chan struct{}, 1)} }

func (l *list) add(s string) {
	l.mu.Lock()
	l.items = append(l.items, s)
	l.mu.Unlock()
	select {
	case l.grown <- struct{}{}:
	default:
	}
}

func (l *list) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.items...)
}

// first waits for n items and returns them.
func (l *list) first(t *testing.T, n int) []string {
	t.Helper()
	end := time.After(patience)
	for {
		if all := l.all(); len(all) >= n {
			return all[:n]
		}
		select {
		case <-l.grown:
		case <-end:
			t.Fatalf("waited for %d items, got %q", n, l.all())
		}
	}
}

// answers is a relay that answers each REQ with the given frames.
func answers(frames ...string) relaytest.Script {
	return relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "REQ" {
			for _, f := range frames {
				c.Send(f)
			}
		}
		return true
	}}
}

// asks is a role that registers a handler, sends a REQ and waits for its end.
func asks(h func(ctx context.Context, s *relay.Session) *relay.Handler) relay.Role {
	return roleFunc(func(ctx context.Context, s *relay.Session) error {
		s.Handle(h(ctx, s))
		if err := s.Send(ctx, []byte(`["REQ","live-0",{}]`)); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
}

// offerEnd offers a session's end, if it has come.
func offerEnd(c chan<- error, s *relay.Session) {
	if err := s.Err(); err != nil {
		offer(c, err)
	}
}

// offer hands a value to a test that may have seen enough: a link goes on until the test's end.
func offer[T any](c chan<- T, v T) {
	select {
	case c <- v:
	default:
	}
}
