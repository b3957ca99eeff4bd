package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rs/zerolog"
	"pgregory.net/rapid"
)

// In this file time is synctest's: nothing waits, and every figure is exact.

type roleFunc func(ctx context.Context, s *Session) error

func (f roleFunc) Serve(ctx context.Context, s *Session) error { return f(ctx, s) }

var idle = roleFunc(func(ctx context.Context, s *Session) error { <-ctx.Done(); return nil })

// nobody is a network without anyone on it; it notes when it was asked.
func nobody(asked *[]time.Duration) DialFunc {
	start := time.Now()
	return func(context.Context, string, string) (net.Conn, error) {
		*asked = append(*asked, time.Since(start))
		return nil, errors.New("connection refused")
	}
}

func TestBackoffGrowsWithFullJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Duration
		s := DefaultSettings()
		s.Backoff = Backoff{Initial: time.Second, Max: 10 * time.Second, Multiplier: 2}
		l := NewLink(LinkOptions{URL: "ws://r.invalid", Settings: s, Dial: nobody(&asked), Random: func() float64 { return 0.5 }})
		l.Add("source", idle)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
		// Half of 1, 2, 4, 8, 10, 10 s after each other.
		if got, want := fmt.Sprint(asked), "[0s 500ms 1.5s 3.5s 7.5s 12.5s 17.5s]"; got != want {
			t.Errorf("dialled at %s, want %s", got, want)
		}
	})
}

func TestBackoffStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := backoff{random: rand.Float64, Backoff: Backoff{
			Initial:    time.Duration(rapid.Int64Range(1, int64(time.Hour)).Draw(t, "initial")),
			Max:        time.Duration(rapid.Int64Range(1, int64(24*time.Hour)).Draw(t, "max")),
			Multiplier: rapid.Float64Range(1, 100).Draw(t, "multiplier"),
		}}
		for range rapid.IntRange(1, 5000).Draw(t, "failures") {
			if d := b.next(); d < 0 || d > b.Max {
				t.Fatalf("after %d failures the wait is %s, outside 0 to %s", b.failures, d, b.Max)
			}
		}
	})
}

func TestGiveUpAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Duration
		l := NewLink(LinkOptions{URL: "ws://r.invalid", Dial: nobody(&asked), Random: func() float64 { return 0.99 }, GiveUpAfter: 5 * time.Minute})
		l.Add("sink", idle)
		var gave *GaveUp
		if err := l.Run(t.Context()); !errors.As(err, &gave) || gave.After != 5*time.Minute {
			t.Errorf("Run returned %v, want that it gave up after 5 minutes", err)
		}
		if last := asked[len(asked)-1]; last != 5*time.Minute {
			t.Errorf("the last try was at %s, want one at the very end", last)
		}
	})
}

func TestASteadyFailureIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		var asked []time.Duration
		s := DefaultSettings()
		s.Backoff = Backoff{Initial: 2 * time.Second, Max: 2 * time.Second, Multiplier: 1}
		l := NewLink(LinkOptions{URL: "ws://r.invalid", Settings: s, Dial: nobody(&asked), Random: func() float64 { return 0.5 }, Log: zerolog.New(&out)})
		l.Add("source", idle)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		_ = l.Run(ctx)
		lines := strings.Count(out.String(), "\n")
		if len(asked) < 500 || lines < 19 || lines > 21 {
			t.Errorf("%d failures in 10 minutes are %d lines, want one per 30 s\n%s", len(asked), lines, out.String())
		}
	})
}

// pipes is a network of net.Pipe behind which an HTTP server sits.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }
func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// upgrading serves websockets on pipes; each is handed to f and closed when f returns.
func upgrading(t *testing.T, f func(n int, ws *websocket.Conn)) *pipes {
	p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	var n int
	var wg sync.WaitGroup
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !websocket.IsWebSocketUpgrade(r) {
			http.NotFound(w, r)
			return
		}
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		wg.Add(1)
		defer wg.Done()
		n++
		f(n, ws)
		ws.Close()
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(p) }()
	t.Cleanup(func() { server.Close(); <-served; wg.Wait() })
	return p
}

// listen reads until the websocket ends.
func listen(_ int, ws *websocket.Conn) {
	for {
		if _, _, err := ws.ReadMessage(); err != nil {
			return
		}
	}
}

func TestOnlyProgressResetsTheBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		p := upgrading(t, func(n int, ws *websocket.Conn) { at = append(at, time.Since(start)); listen(n, ws) })
		var n int
		l := NewLink(LinkOptions{URL: "ws://r.invalid", Dial: p.dial, Random: func() float64 { return 0.5 }})
		l.Add("source", roleFunc(func(ctx context.Context, s *Session) error {
			if n++; n == 4 {
				s.Progress()
			}
			if n == 7 {
				return nil
			}
			return errors.New("no EOSE")
		}))
		if err := l.Run(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		// Connects alone: 0.5, 1, 2 s between; after the fourth, which brought an event: 0.5, 1, 2 s again.
		if got, want := fmt.Sprint(at), "[0s 500ms 1.5s 3.5s 4s 5s 7s]"; got != want {
			t.Errorf("connected at %s, want %s", got, want)
		}
	})
}

func TestRequestsKeepThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := upgrading(t, listen)
		s := DefaultSettings()
		s.Pace = 2
		l := NewLink(LinkOptions{URL: "ws://r.invalid", Settings: s, Dial: p.dial})
		var took time.Duration
		l.Add("source", roleFunc(func(ctx context.Context, s *Session) error {
			start := time.Now()
			for range 12 {
				if err := s.Request(ctx, []byte(`["REQ","page-1",{}]`)); err != nil {
					return err
				}
			}
			took = time.Since(start)
			return nil
		}))
		if err := l.Run(t.Context()); err != nil {
			t.Error(err)
		}
		if took != 5*time.Second {
			t.Errorf("12 requests at 2 a second took %s, want 5 s: two at once, then one each half second", took)
		}
	})
}

func TestKeepaliveByTheDefaults(t *testing.T) {
	for size, want := range map[int]time.Duration{
		0:        45 * time.Second,
		80 << 10: 55 * time.Second, // at 8 KiB/s it may be on its way for 10 s, and the ping behind it
	} {
		synctest.Test(t, func(t *testing.T) {
			var pings []time.Duration
			p := upgrading(t, func(n int, ws *websocket.Conn) {
				start := time.Now()
				ws.SetPingHandler(func(string) error { pings = append(pings, time.Since(start).Truncate(time.Second)); return nil })
				listen(n, ws)
			})
			l := NewLink(LinkOptions{URL: "ws://r.invalid", Dial: p.dial, MaxTries: 1})
			var ended time.Duration
			l.Add("sink", roleFunc(func(ctx context.Context, s *Session) error {
				start := time.Now()
				if size > 0 {
					if err := s.Send(ctx, make([]byte, size)); err != nil {
						t.Error(err)
					}
				}
				<-ctx.Done()
				ended = time.Since(start).Truncate(time.Second)
				return nil
			}))
			err := l.Run(t.Context())
			synctest.Wait() // the relay's goroutine is done with pings
			var end *End
			if !errors.As(err, &end) || end.Reason != Idle || ended != want || fmt.Sprint(pings) != "[30s]" {
				t.Errorf("a relay that answers no pings, sent %d bytes: pinged at %v, left after %s with %v; want a ping at 30 s, idle at %s",
					size, pings, ended, err, want)
			}
		})
	}
}

// While our reader waits in a handler, a relay may rightly stop reading: the write deadline stands still.
func TestTheWriteDeadlineStandsStillWhileAHandlerWaits(t *testing.T) {
	for _, waiting := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			gone, ready := make(chan struct{}), make(chan struct{})
			p := upgrading(t, func(_ int, ws *websocket.Conn) {
				if <-ready; waiting {
					_ = ws.WriteMessage(websocket.TextMessage, []byte(`["EVENT","live-0",{}]`))
				}
				<-gone // reads nothing
			})
			s := DefaultSettings()
			s.Write = 10 * time.Second
			s.Stall = 40 * time.Second
			s.PingEvery, s.PingTimeout = time.Hour, time.Hour
			l := NewLink(LinkOptions{URL: "ws://r.invalid", Settings: s, Dial: p.dial, MaxTries: 1})
			var ended time.Duration
			l.Add("source", roleFunc(func(ctx context.Context, s *Session) error {
				remove := s.Handle(&Handler{Event: func([]byte) {
					select { // lets go after 30 s
					case <-time.After(30 * time.Second):
					case <-ctx.Done():
					}
				}})
				defer remove()
				close(ready)
				synctest.Wait()
				start := time.Now()
				_ = s.Send(ctx, []byte(`["REQ","live-0",{}]`)) // a pipe has no buffer: this write blocks
				<-ctx.Done()
				ended = time.Since(start)
				return nil
			}))
			err := l.Run(t.Context())
			close(gone)
			var end *End
			want := 10 * time.Second
			if waiting {
				want = 40 * time.Second
			}
			if !errors.As(err, &end) || end.Reason != WriteBlocked || ended < want || ended > want+3*time.Second {
				t.Errorf("handler waits 30 s: %v: ended after %s with %v; want write blocked after %s", waiting, ended, err, want)
			}
		})
	}
}

func TestInfoIsFetchedDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var fetched []time.Duration
		p := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		var wg sync.WaitGroup
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !websocket.IsWebSocketUpgrade(r) {
				fetched = append(fetched, time.Since(start).Truncate(time.Minute))
				if len(fetched) == 1 {
					http.NotFound(w, r) // at first it has none: tried again in an hour
					return
				}
				_, _ = fmt.Fprintf(w, `{"name":"n"}`)
				return
			}
			ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
			if err == nil {
				wg.Add(1)
				defer wg.Done()
				listen(1, ws)
				ws.Close()
			}
		})}
		served := make(chan struct{})
		go func() { defer close(served); _ = server.Serve(p) }()
		l := NewLink(LinkOptions{URL: "ws://r.invalid", Dial: p.dial})
		l.Add("source", idle)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Hour)
		defer cancel()
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
		server.Close()
		<-served
		wg.Wait()
		if got, want := fmt.Sprint(fetched), "[0s 1h0m0s 25h0m0s 49h0m0s]"; got != want || l.Status().Sessions != 1 {
			t.Errorf("fetched at %s over %d sessions, want %s over one", got, l.Status().Sessions, want)
		}
	})
}
