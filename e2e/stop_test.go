package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/relaytest"
)

// flood publishes events from a goroutine, as fast as the relay's sockets take them, and returns when all are stored or
// ctx has ended. stop waits for it.
func flood(ctx context.Context, r *relaytest.Relay, events []*nostr.Event) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, e := range events {
			if ctx.Err() != nil {
				return
			}
			r.Publish(e.String())
		}
	})
	return func() { cancel(); wg.Wait() }
}

// deaf is a source that goes on sending whatever it is told: it hears no CLOSE.
var deaf = relaytest.Script{Handle: func(_ *relaytest.Conn, m relaytest.Message) bool { return m.Label == "CLOSE" }}

// left waits until the dead child's connections are gone, so that what it sent has been counted.
func left(relays ...*relaytest.Relay) {
	for _, r := range relays {
		r.Wait("the child's connections are gone", func() bool { return len(r.Conns()) == 0 })
	}
}

// TestStopUnderLoad: a stop while sources flood and a slow sink owes answers ends within the grace, and the next start sends
// nothing a second time.
func TestStopUnderLoad(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			alice, bob := someone(t, "alice"), someone(t, "bob")
			live, past := alice.notes(t, time.Now().Unix()-1200, 1200), bob.notes(t, 1_600_000_000, 300)
			from, history := relaytest.New(t, deaf), relaytest.New(t, relaytest.Script{Cap: 100})
			for _, e := range past {
				history.Publish(e.String())
			}
			fast := relaytest.New(t, relaytest.Script{})
			slow := relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer {
				time.Sleep(time.Millisecond)
				return relaytest.Accept()
			}})
			dir := filepath.Join(tempDir(t), "a")
			cfg := configFile(t, fmt.Sprintf("all: true\nsources: [%q, %q]\nsinks: [%q, %q]\narchive: {segment: 64KiB}\n"+
				"relay_settings: {default: {window: 100, backoff: {initial: 50ms, max: 500ms}}}\nshutdown_grace: 5m\n", from.URL, history.URL, fast.URL, slow.URL))
			d := run(t, dir, "-c", cfg)
			liveOn(t, from)
			stop := flood(t.Context(), from, live)
			eventually(t, "both sinks are at work", func() error {
				if f, s := len(fast.Got("EVENT")), len(slow.Got("EVENT")); f < 300 || s < 150 {
					return fmt.Errorf("%d and %d events sent", f, s)
				}
				return nil
			})
			if err := d.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if code := d.exit(); code != 0 {
				t.Fatalf("exit %d after %s, want 0", code, sig)
			}
			left(from, history, fast, slow)
			before := len(slow.Got("EVENT"))
			slow.Update(func(s *relaytest.Script) { s.OK = nil })
			stop()
			for _, e := range live { // what the flood did not come to
				from.Publish(e.String())
			}

			d = run(t, dir, "-c", cfg)
			eventually(t, "all is archived", func() error {
				s, err := d.ask()
				if err == nil && s.Archive.Lines != uint64(len(live)+len(past)) {
					err = fmt.Errorf("%d of %d", s.Archive.Lines, len(live)+len(past))
				}
				return err
			})
			d.settled()
			d.stop()
			left(fast, slow)
			want := setOf(live).with(setOf(past))
			wantSet(t, "archive", archived(t, dir), want)
			wantSet(t, "fast sink", sentTo(t, fast), want) // each once
			wantSet(t, "slow sink", sentTo(t, slow), want)
			t.Logf("the slow sink had %d of %d at the stop", before, len(want))
		})
	}
}

// TestSecondSignalUnderLoad: the second signal ends the program at once, although a sink never answers, the source hears no
// CLOSE and floods on, and the grace is long; nothing is lost by it.
func TestSecondSignalUnderLoad(t *testing.T) {
	for _, sig := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			live := someone(t, "alice").notes(t, time.Now().Unix()-2000, 2000)
			from := relaytest.New(t, deaf)
			never := relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Answer{None: true} }})
			good := relaytest.New(t, relaytest.Script{})
			dir := filepath.Join(tempDir(t), "a")
			cfg := configFile(t, fmt.Sprintf("all: true\nsources: [%q]\nsinks: [%q, %q]\nshutdown_grace: 10m\n"+
				"relay_settings: {default: {backoff: {initial: 50ms, max: 500ms}}}\n", from.URL, never.URL, good.URL))
			d := run(t, dir, "-c", cfg)
			liveOn(t, from)
			stop := flood(t.Context(), from, live)
			eventually(t, "a window is out", func() error {
				if n, g := len(never.Got("EVENT")), len(good.Got("EVENT")); n < 500 || g < 500 {
					return fmt.Errorf("%d and %d events sent", n, g)
				}
				return nil
			})
			if err := d.Signal(sig); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it stops", func() error {
				if !strings.Contains(d.Stderr(), "a second signal cuts it short") {
					return errors.New("nothing is logged")
				}
				return nil
			})
			if err := d.Signal(sig); err != nil {
				t.Fatal(err)
			}
			code := d.exit()
			if code == -1 && strings.Contains(d.Stderr(), `"message":"stopped"`) {
				code = 0 // all was done, and signals were the system's again
			}
			if code != 0 {
				t.Fatalf("exit %d after two %s, want 0", code, sig)
			}
			left(from, never, good)
			stop()
			for _, e := range live {
				from.Publish(e.String())
			}

			never.Update(func(s *relaytest.Script) { s.OK = nil })
			d = run(t, dir, "-c", cfg)
			eventually(t, "all is archived", func() error {
				s, err := d.ask()
				if err == nil && s.Archive.Lines < uint64(len(live)) {
					err = fmt.Errorf("%d of %d", s.Archive.Lines, len(live))
				}
				return err
			})
			d.settled()
			d.stop()
			left(never, good)
			wantSet(t, "archive", archived(t, dir), setOf(live))
			for name, r := range map[string]*relaytest.Relay{"the sink that answers": good, "the sink that never answered": never} {
				sent := map[string]bool{}
				got := r.Got("EVENT")
				for _, m := range got {
					sent[idOf(m.Raw)] = true
				}
				if again := len(got) - len(sent); len(sent) != len(live) || again > 500 {
					t.Errorf("%s was sent %d different events and %d of them again, want all %d, and at most a window of 500 again", name, len(sent), again, len(live))
				}
			}
		})
	}
}
