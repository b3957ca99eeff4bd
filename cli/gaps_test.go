package cli

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// treeOf is every file below dir with its content and mode: two equal ones, and nothing was written.
func treeOf(t *testing.T, dir string) string {
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
		fmt.Fprintln(&b, path, info.Mode())
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "  %d %x %s\n", len(content), sha256.Sum256(content), info.ModTime())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestGaps: after a one-shot command, which leaves no daemon and no config, its archive tells what is proven and what could not be
// got, by words, and telling writes nothing; a daemon tells the same.
func TestGaps(t *testing.T) {
	const busy = 1_700_000_000
	var events []string
	for i := range 30 {
		events = append(events, relaytest.Sign(relaytest.Key(1), 1, busy, nil, fmt.Sprint("one of many ", i)),
			relaytest.Sign(relaytest.Key(1), 1, busy+1000+int64(i)*3600, nil, fmt.Sprint("one alone ", i)))
	}
	good := relaytest.New(t, relaytest.Script{Events: events})
	dense := relaytest.New(t, relaytest.Script{Events: events, Cap: 8})
	dir := filepath.Join(t.TempDir(), "a")
	author := relaytest.Pub(relaytest.Key(1))

	want(t, exitFailed, "there is no archive at "+dir, "status", "--gaps", "--archive", dir)
	want(t, exitIncomplete, "", "backfill", "--author", author, "--source", good.URL, "--source", dense.URL, "--archive", dir)
	before := treeOf(t, dir)
	const npub, gap = "npub1", "2023-11-14T22:13:20Z"
	code, text, _ := command(t.Context(), "status", "--gaps", "--archive", dir)
	if code != exitIncomplete {
		t.Errorf("exit %d, want %d: something is missing", code, exitIncomplete)
	}
	for _, says := range []string{good.URL + " proven up to 20", dense.URL + " proven up to 2023-11-14T22:13:19Z npub10xlxvlhem… proven 2023-11-14T22:13:21Z to 20", "gap " + gap + " " + npub,
		": more than 8 events in one second, found 20"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), says) {
			t.Errorf("%q is missing in\n%s", says, text)
		}
	}
	want(t, exitOK, good.URL, "status", "--gaps", good.URL, "--archive", dir)
	for command, otherwise := range map[string]string{"status": noStatus, "reload": noReload, "reconcile": noReconcile} {
		want(t, exitIncomplete, "no daemon runs on this archive: "+dir+" ("+otherwise+")", command, "--archive", dir)
	}
	want(t, exitUsage, "wss://nos.lol is no source of this archive", "status", "--gaps", "nos.lol", "--archive", dir)
	want(t, exitUsage, `"mine" is no relay's name or address`, "status", "--gaps", "mine", "--archive", dir)
	want(t, exitUsage, "not both", "status", "--gaps", "--rejected", "--archive", dir)
	asJSON := func(dir string) (c report.Coverage) {
		t.Helper()
		_, text, _ := command(t.Context(), "status", "--gaps", "--json", "--archive", dir)
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		return c
	}
	c := asJSON(dir)
	if len(c.Sources) != 2 || c.Dir != dir {
		t.Fatalf("%+v, want two sources of %s", c, dir)
	}
	if after := treeOf(t, dir); after != before {
		t.Errorf("asking has changed the archive from\n%s\nto\n%s", before, after)
	}
	row := c.Only(dense.URL).Sources[0]
	if len(row.Gaps) != 1 || row.Gaps[0].From != busy || row.Gaps[0].To != busy || len(row.Parts) != 1 || len(row.Parts[0].Missing) != 1 || row.Parts[0].Atoms != 1 {
		t.Errorf("%+v, want one second missing and in a gap", row)
	}

	running := mirroring(t, `"message":"stopped"`, "--source", dense.URL)
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if c = asJSON(running).Only(dense.URL); len(c.Sources) == 1 && len(c.Sources[0].Gaps) > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the daemon knows of no gap: %+v", c)
		}
	}
	want(t, exitIncomplete, gap, "status", "--gaps", "--archive", running)
	want(t, exitUsage, "is no source of this archive", "status", "--gaps", "nos.lol", "--archive", running)
}
