package relay_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// countedConn counts the writes of a socket.
type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func counting(writes *atomic.Int64) relay.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return countedConn{conn, writes}, err
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
			var writes atomic.Int64
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
			if err := runWith(t, relay.LinkOptions{URL: r.URL, Settings: s, Dial: counting(&writes)}, role).wait(t); err != nil {
				t.Fatal(err)
			}
			for i, m := range r.Got("EVENT") {
				if string(m.Raw) != want[i] {
					t.Fatalf("message %d of %d bytes came as one of %d, want all whole and in order", i, len(want[i]), len(m.Raw))
				}
			}
		})
	}
}
