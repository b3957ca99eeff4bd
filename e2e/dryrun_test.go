package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/report"
)

// TestDryRun: what a dry run says of a real relay that counts, compares, does both or neither is what a backfill then finds; and it
// leaves no trace.
func TestDryRun(t *testing.T) {
	alice, bob := someone(t, "alice"), someone(t, "bob")
	all := append(alice.notes(t, 1_700_000_000, 1500), bob.notes(t, 1_690_000_000, 200)...)
	var text strings.Builder
	var lacked []*nostr.Event
	for i, e := range all {
		if i%10 == 3 {
			lacked = append(lacked, e)
		} else {
			text.WriteString(canonical(e) + "\n")
		}
	}
	file := filepath.Join(tempDir(t), "had.jsonl")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, with := range []struct {
		name            string
		counts, compare bool
	}{{"COUNT", true, false}, {"NIP-77", false, true}, {"both", true, true}, {"neither", false, false}} {
		t.Run(with.name, func(t *testing.T) {
			r := relay(t, localrelay.Options{KeepAll: true, Negentropy: with.compare, Counts: with.counts}, all...)
			sink := relay(t, localrelay.Options{KeepAll: true})
			dir := filepath.Join(tempDir(t), "archive")
			args := []string{"--archive", dir, "--author", alice.npub(t), "--author", bob.npub(t), "--source", r.URL(), "--sink", sink.URL()}

			d := dryRun(t, 0, args...)
			if _, err := os.Stat(dir); err == nil {
				t.Error("the archive was made")
			}
			if p := onlyPart(t, d); p.Known != with.counts || with.counts && (p.Events != int64(len(all)) || p.Requests != 4) {
				t.Errorf("before anything is archived: %+v", p)
			}
			wantExit(t, 0, "import", "--archive", dir, file)
			before := fingerprint(t, dir)
			d = dryRun(t, 0, args...)
			p := onlyPart(t, d)
			switch {
			case with.compare && (!p.Known || p.Events != int64(len(lacked)) || p.Lacking != p.Events || p.Had != int64(len(all)-len(lacked))):
				t.Errorf("compared: %+v, want the %d that are lacking", p, len(lacked))
			case !with.compare && with.counts && (!p.Known || p.Events != int64(len(all))):
				t.Errorf("counted: %+v, want all %d", p, len(all))
			case !with.compare && !with.counts && (p.Known || d.Sources[0].NoCount == ""):
				t.Errorf("%+v, and why not: %q", p, d.Sources[0].NoCount)
			}
			if len(d.Sinks) != 1 || d.Sinks[0].Pending != int64(len(all)-len(lacked)) {
				t.Errorf("sinks: %+v, want all that is archived to be pending", d.Sinks)
			}
			if after := fingerprint(t, dir); after != before {
				t.Errorf("the archive was\n%s\nand is\n%s", before, after)
			}
			if asked := r.Requests(); len(asked) != 0 || len(sink.Received()) != 0 {
				t.Errorf("asked for %v, sent %d", asked, len(sink.Received()))
			}

			s := oneShot(t, 0, "backfill", args...)
			if src := s.source(t, r.URL()); src.New != int64(len(lacked)) || with.compare && src.Received != p.Events || !with.compare && with.counts && src.Received < p.Events {
				t.Errorf("the backfill: %d received, %d new; the dry run said %d", src.Received, src.New, p.Events)
			}
			before = fingerprint(t, dir)
			d = dryRun(t, 0, args...)
			if p := onlyPart(t, d); with.counts && p.Events != 0 || p.Windows[0].From < 1_700_000_000 || d.Sinks[0].Pending != 0 {
				t.Errorf("after the backfill: %+v, sinks %+v", p, d.Sinks)
			}
			if after := fingerprint(t, dir); after != before {
				t.Errorf("the archive was\n%s\nand is\n%s", before, after)
			}
			gaps := wantExit(t, 0, "status", "--gaps", "--archive", dir)
			if !strings.Contains(gaps.Stdout(), r.URL()) || !strings.Contains(gaps.Stdout(), "2 authors") {
				t.Errorf("status --gaps says %q", gaps.Stdout())
			}
		})
	}
}

func dryRun(t *testing.T, exit int, args ...string) (d report.DryRun) {
	t.Helper()
	p := wantExit(t, exit, append([]string{"backfill", "--dry-run", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(p.Stdout()), &d); err != nil {
		t.Fatalf("%v in %q", err, p.Stdout())
	}
	return d
}

// onlyPart is what one source is asked for in one stretch.
func onlyPart(t *testing.T, d report.DryRun) report.Prospect {
	t.Helper()
	if len(d.Sources) != 1 || len(d.Sources[0].Parts) != 1 {
		t.Fatalf("%+v, want one source with one part", d)
	}
	return d.Sources[0].Parts[0]
}

// fingerprint is every file below dir with its mode, time and content.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Mode(), info.ModTime())
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "  %x\n", sha256.Sum256(content))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
