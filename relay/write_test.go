package relay_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// countedConn counts the writes of a socket, of which only one runs at a time.
type countedConn struct {
	net.Conn
	writes, longest *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	c.longest.Store(max(c.longest.Load(), int64(len(p))))
	return c.Conn.Write(p)
}

func counting(writes, longest *atomic.Int64) relay.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return countedConn{conn, writes, longest}, err
	}
}

// TestMessagesThatAreThereAtOnceAreWrittenTogether: each is a message of its own for the relay, whole and in order, also those
// that are longer than what is written at once; the socket is written to once for many.
func TestMessagesThatAreThereAtOnceAreWrittenTogether(t *testing.T) {
	for name, tls := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			var want []string
			for i := range 200 {
				size := []int{10, 700, 5_000, 0}[i%4]
				if i == 100 {
					size = 300_000
				}
				want = append(want, fmt.Sprintf(`["EVENT",{"n":%d,"content":"%s"}]`, i, strings.Repeat("x", size)))
			}
			r := relaytest.New(t, relaytest.Script{TLS: tls, Handle: func(*relaytest.Conn, relaytest.Message) bool { return true }})
			var writes, longest atomic.Int64
			role := roleFunc(func(ctx context.Context, s *relay.Session) error {
				before := writes.Load()
				for part := range slices.Chunk(want, 40) {
					msgs := [][]byte{}
					for _, text := range part {
						msgs = append(msgs, []byte(text))
					}
					if err := s.SendAll(ctx, msgs); err != nil {
						return err
					}
				}
				r.Wait("all messages", func() bool { return len(r.Got("EVENT")) == len(want) })
				if n := writes.Load() - before; n > 40 {
					t.Errorf("%d messages of %d KiB were written in %d pieces, want one for each 64 KiB or so", len(want), 600, n)
				}
				return nil
			})
			s := quick()
			s.TLS.InsecureSkipVerify = true
			if err := runWith(t, relay.LinkOptions{URL: r.URL, Settings: s, Dial: counting(&writes, &longest)}, role).wait(t); err != nil {
				t.Fatal(err)
			}
			if n := longest.Load(); n > 64<<10 {
				t.Errorf("%d bytes were written at once, want 64 KiB at most: that is what the time of one write is for", n)
			}
			for i, m := range r.Got("EVENT") {
				if string(m.Raw) != want[i] {
					t.Fatalf("message %d of %d bytes came as one of %d, want all whole and in order", i, len(want[i]), len(m.Raw))
				}
			}
		})
	}
}

// A ping does not wait until a role has nothing to send: that may be hours.
func TestPingsGoOutBesideAFlood(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Handle: func(*relaytest.Conn, relaytest.Message) bool { return true }})
	s := quick()
	s.PingEvery = 4 * time.Millisecond
	msgs := slices.Repeat([][]byte{[]byte(`["EVENT",{"content":"` + strings.Repeat("x", 1000) + `"}]`)}, 100) // takes longer to write than to queue
	run(t, r.URL, s, roleFunc(func(ctx context.Context, s *relay.Session) error {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for s.SendAll(ctx, msgs) == nil {
				}
			})
		}
		wg.Wait()
		return nil
	}))
	r.Wait("pings", func() bool { return r.Pings() >= 3 })
}
