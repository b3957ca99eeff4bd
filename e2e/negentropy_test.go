package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/report"
)

// TestNegentropy: against a real relay's NIP-77, what the archive has is not sent again, by whichever filter it is asked for, and
// each event that it lacks comes; from the same relay without NIP-77 everything is paged.
func TestNegentropy(t *testing.T) {
	alice, bob := someone(t, "alice"), someone(t, "bob")
	all := alice.notes(t, 1_700_000_000, 3000)
	for i := range 300 { // all of one second
		all = append(all, bob.sign(t, 1_700_001_000, 1, strings.Repeat("x", i)))
	}
	for i := range 400 { // late ones
		all = append(all, bob.sign(t, 1_650_000_000+int64(i)*86_000, 7, "+", nostr.Tag{"p", alice.pubkey}))
	}
	var lacked []*nostr.Event
	var text strings.Builder
	for i, e := range all {
		if i%17 == 5 {
			lacked = append(lacked, e)
		} else {
			text.WriteString(canonical(e) + "\n")
		}
	}
	for name, asks := range map[string][]string{
		"authors":  {"--author", alice.npub(t), "--author", bob.npub(t)},
		"mentions": {"--author", alice.npub(t), "--mentions"},
		"all":      {"--all"},
	} {
		for _, negentropy := range []bool{true, false} {
			if !negentropy && name != "all" {
				continue
			}
			with, most := name, 100
			if !negentropy {
				with += ", without NIP-77"
				most = 500 // or the second that holds 300 could not be paged
			}
			t.Run(with, func(t *testing.T) {
				r := relay(t, localrelay.Options{KeepAll: true, Negentropy: negentropy, MaxLimit: most}, all...)
				dir := filepath.Join(tempDir(t), "archive")
				file := filepath.Join(tempDir(t), "had.jsonl")
				if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
					t.Fatal(err)
				}
				wantExit(t, 0, "import", "--archive", dir, file)
				begun := time.Now()
				s := oneShot(t, 0, "backfill", append([]string{"--archive", dir, "--source", r.URL()}, asks...)...)
				t.Logf("%d received in %s by %d REQs, %d reconciliations", s.source(t, r.URL()).Received, time.Since(begun), len(r.Requests()), r.Reconciliations())
				takes := func(e *nostr.Event) bool {
					return name != "mentions" || e.PubKey == alice.pubkey || mentions(e, []string{alice.pubkey})
				}
				wantSet(t, "archive", archived(t, dir).where(takes), setOf(all).where(takes))
				missing := int64(len(setOf(lacked).where(takes)))
				src := s.source(t, r.URL())
				if negentropy && (src.Received != missing || src.New != missing) {
					t.Errorf("%d events came, %d of them new; want the %d that were missing", src.Received, src.New, missing)
				}
				if asked := r.Reconciliations(); negentropy != (asked > 0) {
					t.Errorf("%d reconciliations by a relay that does them: %t", asked, negentropy)
				}
			})
		}
	}
}

// TestReconcileCommand: what a relay got late, dated back and by a way that nobody was told of, comes when it is asked for.
func TestReconcileCommand(t *testing.T) {
	alice := someone(t, "alice")
	all := alice.notes(t, 1_700_000_000, 400)
	late := alice.notes(t, 1_600_000_000, 30)
	for _, negentropy := range []bool{true, false} {
		t.Run(fmt.Sprintf("NIP-77 %t", negentropy), func(t *testing.T) {
			r := relay(t, localrelay.Options{KeepAll: true, Negentropy: negentropy}, all...)
			dir := filepath.Join(tempDir(t), "archive")
			d := run(t, dir, "--author", alice.npub(t), "--source", r.URL())
			subscribed(t, r)
			var before int64
			eventually(t, "the source is live", func() error {
				s, err := d.ask()
				src := s.source(t, r.URL())
				if err == nil && (src.New != int64(len(all)) || src.Complete != report.Yes) {
					err = fmt.Errorf("%d new, complete: %s", src.New, src.Complete)
				}
				before = src.Received
				return err
			})
			if err := r.Load(late...); err != nil {
				t.Fatal(err)
			}
			if p := wantExit(t, 0, "reconcile", "--archive", dir); !strings.Contains(p.Stdout(), r.URL()) {
				t.Errorf("reconcile says %q, want the source", p.Stdout())
			}
			eventually(t, "the late events are archived", func() error {
				s, err := d.ask()
				if err == nil && s.source(t, r.URL()).New != int64(len(all)+len(late)) {
					err = fmt.Errorf("%d are new", s.source(t, r.URL()).New)
				}
				return err
			})
			eventually(t, "status tells of it", func() error {
				// khatru drops a comparison now and then; until it is made again, that is a problem and exit 3.
				if p := command(t, "status", "--archive", dir, r.URL()); p.exit() != 0 || !strings.Contains(p.Stdout(), "compared with the archive") {
					return errors.New(p.Stdout())
				}
				return nil
			})
			if p := command(t, "reconcile", "--archive", dir, "wss://nobody.example.com"); p.exit() == 0 {
				t.Error("reconcile of a relay that is none of ours: exit 0")
			}
			if got := d.settled().source(t, r.URL()).Received; negentropy && got-before != int64(len(late)) {
				t.Errorf("%d events came, want the %d late ones", got-before, len(late))
			}
			d.stop()
			wantSet(t, "archive", archived(t, dir), setOf(append(slices.Clone(all), late...)))
		})
	}
	if p := command(t, "reconcile", "--archive", filepath.Join(tempDir(t), "none")); p.exit() != 3 {
		t.Errorf("reconcile without a daemon: exit %d, want 3", p.exit())
	}
}
