package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rebroadcastr/e2e/child"
	"rebroadcastr/relaytest"
)

// TestThirtyThousand: two sources that close every 7,000 events of 30,000, and a sink that closes at every 5,000th without
// answering it. All is archived once and delivered, whenever it is dated: what is younger than a catch-up reaches back is never
// proven, so no such session may begin where the one before began.
func TestThirtyThousand(t *testing.T) {
	const n = 30_000
	dates := map[string]func(i int) int64{
		"of the last days":    func(i int) int64 { return time.Now().Unix() - 7*86400 + int64(i)*10 },
		"of the last minutes": func(i int) int64 { return time.Now().Unix() - 900 + int64(i)/40 },
	}
	var list []subtest
	for name, date := range dates {
		list = append(list, subtest{name, func(t *testing.T) {
			alice := someone(t, "alice")
			lines := make([]string, n)
			for i := range lines {
				lines[i] = canonical(alice.sign(t, date(i), 1, fmt.Sprintf("note %d", i)))
			}
			sources := []*relaytest.Relay{
				relaytest.New(t, relaytest.Script{Events: lines, CloseAfter: 7_000}),
				relaytest.New(t, relaytest.Script{Events: lines, CloseAfter: 7_000}),
			}
			to := relaytest.New(t, relaytest.Script{DropBeforeOK: 5_000})
			dir := filepath.Join(tempDir(t), "a")
			cfg := configFile(t, fmt.Sprintf("authors: [%s]\nsources: [%q, %q]\nsinks: [%q]\n%s", alice.npub(t), sources[0].URL, sources[1].URL, to.URL, quick))
			d := runWith(t, dir, child.Options{Binary: built(t, buildPlain), Args: []string{"-c", cfg}})
			eventually(t, "the sink has answered all", func() error {
				s, err := d.ask()
				if err == nil && (s.Archive.Lines < n || s.idle() != nil) {
					err = fmt.Errorf("%d of %d archived: %w; %+v", s.Archive.Lines, n, errors.Join(s.idle()), s.Sources)
				}
				return err
			})
			s := d.settled()
			d.stop()
			wantLines(t, dir, lines)
			if got := len(to.Stored()); got != n {
				t.Errorf("the sink holds %d events, want %d", got, n)
			}
			if k := s.sink(t, to.URL); k.Delivered != n || k.Issued != n {
				t.Errorf("the sink was delivered %d of %d archived, want %d of %d; rejected %v, parked %d", k.Delivered, k.Issued, n, n, k.RejectedBy, k.Parked)
			}
			if got := to.Accepted(); got < n/5_000 {
				t.Errorf("the sink was connected to %d times: it did not close as it should", got)
			}
			for _, r := range sources {
				if got := r.Accepted(); got < 2 {
					t.Errorf("a source was connected to %d times: it did not close as it should", got)
				}
			}
			t.Logf("connections: sources %d and %d, sink %d; %d sent again", sources[0].Accepted(), sources[1].Accepted(), to.Accepted(), len(to.Got("EVENT"))-n)
		}})
	}
	sideBySide(t, 1, list)
}

// wantLines wants an archive to hold exactly these lines, in any order.
func wantLines(t *testing.T, dir string, want []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "events_*_*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	missing := make(map[string]bool, len(want))
	for _, l := range want {
		missing[l] = true
	}
	n := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			n++
			l := strings.TrimSuffix(string(line), "\n")
			if !missing[l] {
				t.Errorf("%s: a line that is not wanted, or stands twice: %.200s", f, l)
			}
			delete(missing, l)
		}
	}
	if n != len(want) || len(missing) > 0 {
		t.Errorf("the archive has %d lines, want %d; %d are missing", n, len(want), len(missing))
	}
}
