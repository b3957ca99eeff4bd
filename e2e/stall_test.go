package e2e

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"rebroadcastr/relaytest"
)

// TestOwnStall: the daemon itself stands still for longer than a relay waits for a pong, and than it waits for one. Relays
// that have dropped it meanwhile are found again, the others are kept or found again, and what was published is not missed.
func TestOwnStall(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		ping time.Duration // the relays'
	}{
		{"relays that drop who answers no ping", 200 * time.Millisecond},
		{"relays that wait", 0},
	}
	var list []subtest
	for _, c := range cases {
		list = append(list, subtest{c.name, func(t *testing.T) {
			alice := someone(t, "alice")
			from, to := relaytest.New(t, relaytest.Script{PingEvery: c.ping}), relaytest.New(t, relaytest.Script{PingEvery: c.ping})
			dir := filepath.Join(tempDir(t), "a")
			cfg := configFile(t, fmt.Sprintf("authors: [%s]\nsources: [%q]\nsinks: [%q]\n%s", alice.npub(t), from.URL, to.URL, nervous))
			d := run(t, dir, "-c", cfg)
			liveOn(t, from)
			notes := alice.notes(t, time.Now().Unix()-600, 60)
			for i, e := range notes {
				switch i {
				case 20:
					if err := d.Signal(syscall.SIGSTOP); err != nil {
						t.Fatal(err)
					}
				case 40:
					if c.ping > 0 {
						from.Wait("the source drops us", func() bool { return len(from.Conns()) == 0 })
						to.Wait("the sink drops us", func() bool { return len(to.Conns()) == 0 })
					} else {
						time.Sleep(4 * time.Second) // longer than our own ping and its timeout
					}
					if err := d.Signal(syscall.SIGCONT); err != nil {
						t.Fatal(err)
					}
				}
				from.Publish(e.String())
			}
			eventually(t, "the sink has all", func() error {
				if n := len(to.Stored()); n < len(notes) {
					return fmt.Errorf("%d of %d", n, len(notes))
				}
				return nil
			})
			d.settled()
			d.stop()
			wantSet(t, "archive", archived(t, dir), setOf(notes))
			t.Logf("connections: source %d, sink %d", from.Accepted(), to.Accepted())
		}})
	}
	sideBySide(t, 2, list)
}
