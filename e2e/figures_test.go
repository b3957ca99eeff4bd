package e2e

import (
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/child"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// TestFigures measures what an event costs, by the processor time of a child that was built without the race detector:
// N events from one source, and the same from four sources, three of which come when all is known. The figures are
// only shown, because no test depends on how busy a machine is.
func TestFigures(t *testing.T) {
	n := 20_000
	if testing.Short() {
		n = 2_000
	}
	notes := someone(t, "busy").notes(t, 1_600_000_000, n)
	bin := built(t, buildPlain)

	idle := backfillCPU(t, bin, nil, 1)
	once := backfillCPU(t, bin, notes, 1)
	fourfold := backfillCPU(t, bin, notes, 4)
	per := func(d time.Duration, events int) string {
		return fmt.Sprintf("%.2f µs", float64(d.Nanoseconds())/float64(events)/1000)
	}
	t.Logf("start and end: %s CPU", idle)
	t.Logf("new event, all stages, archived: %s CPU (%d events, %s)", per(once-idle, n), n, once)
	t.Logf("copy of a known event: %s CPU (%d copies)", per(fourfold-once, 3*n), 3*n)
}

// backfillCPU runs a backfill of events from some sources and tells its processor time.
func backfillCPU(t *testing.T, bin string, events []*nostr.Event, sources int) time.Duration {
	t.Helper()
	frames := make([]string, len(events))
	for i, e := range events {
		frames[len(events)-1-i] = e.String() // newest first
	}
	dir := filepath.Join(tempDir(t), "a")
	args := []string{"backfill", "--all", "--archive", dir, "--json", "--no-progress"}
	known := make(chan struct{})
	var urls []string
	for i := range sources {
		var asked atomic.Bool
		r := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
			sub, filters := parseREQ(m)
			if len(filters) == 0 || live(filters[0]) || asked.Swap(true) {
				return false
			}
			if i > 0 {
				<-known
			}
			for _, f := range frames {
				c.Send(`["EVENT","` + sub + `",` + f + `]`)
			}
			c.Send(`["EOSE","` + sub + `"]`)
			return true
		}})
		urls = append(urls, r.URL)
		args = append(args, "--source", r.URL)
	}
	p := start(t, child.Options{Binary: bin, Args: args})
	eventually(t, "the first source's events are archived", func() error {
		select {
		case <-p.Done():
			return nil
		default:
		}
		var s status
		if err := statusOf(dir, &s); err != nil {
			return err
		}
		if s.Archive.Lines < uint64(len(events)) {
			return fmt.Errorf("%d of %d", s.Archive.Lines, len(events))
		}
		return nil
	})
	close(known)
	if code := p.exit(); code != 0 {
		t.Fatalf("exit %d, want 0", code)
	}
	s := parseStatus(t, p.Stdout())
	if got := s.total(func(src report.Source) int64 { return src.New }); got != int64(len(events)) {
		t.Errorf("new: %d, want %d", got, len(events))
	}
	if got := s.total(func(src report.Source) int64 { return src.Copies }); got != int64(len(events)*(sources-1)) {
		t.Errorf("copies from %v: %d, want %d", urls, got, len(events)*(sources-1))
	}
	return p.CPU()
}
