package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// dryRun is a backfill's dry run with its result.
func dryRun(t *testing.T, code int, args ...string) (d report.DryRun) {
	t.Helper()
	got, text, log := command(t.Context(), append([]string{"backfill", "--dry-run", "--json"}, args...)...)
	if got != code {
		t.Errorf("exit %d, want %d\n%s%s", got, code, text, log)
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("%v in %q\n%s", err, text, log)
	}
	return d
}

// TestDryRun: it says what would be asked and sent, and changes nothing anywhere, in an archive that is there or is not; a relay
// that is not there is exit 3.
func TestDryRun(t *testing.T) {
	var events []string
	for i := range 700 {
		events = append(events, relaytest.Sign(relaytest.Key(1), 1, 1_700_000_000+int64(i), nil, fmt.Sprint("note ", i)))
	}
	source := relaytest.New(t, relaytest.Script{Events: events, Info: `{"limitation":{"max_limit":100,"max_subscriptions":7,"payment_required":true}}`,
		Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
			var q []json.RawMessage
			if m.Label != "COUNT" || json.Unmarshal([]byte(m.Raw), &q) != nil {
				return false
			}
			c.Send(`["COUNT",` + string(q[1]) + `,{"count":700}]`)
			return true
		}})
	sink := relaytest.New(t, relaytest.Script{})
	dir := filepath.Join(t.TempDir(), "a")
	args := []string{"--author", relaytest.Pub(relaytest.Key(1)), "--source", source.URL, "--sink", sink.URL, "--archive", dir}

	d := dryRun(t, exitOK, args...)
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s was made", dir)
	}
	if len(d.Sources) != 1 || len(d.Sources[0].Parts) != 1 || len(d.Sinks) != 1 || d.Sinks[0].Pending != 0 || !d.Sinks[0].Fresh {
		t.Fatalf("%+v, want a source with one part, and a new sink", d)
	}
	if p := d.Sources[0].Parts[0]; p.Events != 700 || !p.Known || p.Requests != 7 || len(p.Windows) != 1 || p.Windows[0].From != 0 {
		t.Errorf("%+v, want 700 events in 7 requests of all time", p)
	}
	code, text, _ := command(t.Context(), append([]string{"backfill", "--dry-run"}, args...)...)
	for _, says := range []string{source.URL + " 700 7 1s npub1", "… all", "at most 100 events a request at most 7 subscriptions WANTS payment", sink.URL + " 0 0 new: it has no ledger yet",
		"nothing was fetched, archived or sent. A backfill makes at least 7 requests, 1s at the set pace, for 700 events"} {
		if line := strings.Join(strings.Fields(text), " "); code != exitOK || !strings.Contains(line, says) {
			t.Errorf("exit %d, and %q is missing in\n%s", code, says, text)
		}
	}
	if d := dryRun(t, exitOK, append(args, "--limit", "150")...); len(d.Sources) != 1 || d.Limit != 150 {
		t.Errorf("%+v", d)
	}

	want(t, exitOK, "", append([]string{"backfill", "--no-deliver", "--limit", "50"}, args...)...)
	file := filepath.Join(t.TempDir(), "more.jsonl")
	if err := os.WriteFile(file, []byte(strings.Join(events[:600], "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, exitOK, "", "import", "--archive", dir, file)
	before := treeOf(t, dir)
	asked, sent := len(source.Got("REQ")), len(sink.Got(""))
	if d = dryRun(t, exitOK, args...); d.Sinks[0].Pending != 650 || d.Sources[0].Parts[0].Events != 700 {
		t.Errorf("%+v, want 650 pending, and all to be asked for: a limit proves nothing", d)
	}
	d = dryRun(t, exitIncomplete, append(args, "--source", "ws://127.0.0.1:1")...)
	if len(d.Sources) != 2 || !strings.Contains(d.Sources[1].Unreached, "3 tries") || len(d.Sources[1].Parts) != 1 {
		t.Errorf("%+v, want one that is not reached, with what it would be asked for", d.Sources)
	}
	want(t, exitIncomplete, "NOT REACHED: 3 tries", append([]string{"backfill", "--dry-run", "--source", "ws://127.0.0.1:1"}, args...)...)
	if after := treeOf(t, dir); after != before {
		t.Errorf("the archive was\n%s\nand is\n%s", before, after)
	}
	if len(source.Got("REQ")) != asked || len(sink.Got("")) != sent || len(sink.Got("EVENT")) != 0 {
		t.Error("something was asked for, or sent")
	}

	busy := mirroring(t, `"message":"stopped"`)
	want(t, exitInUse, "archive "+busy+" is in use by pid", "backfill", "--dry-run", "--all", "--source", source.URL, "--archive", busy)
	want(t, exitUsage, "--dry-run is a flag of backfill and reload, not of run", "run", "--dry-run")
	if err := os.WriteFile(filepath.Join(dir, "state.db"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, exitFailed, "read state", append([]string{"backfill", "--dry-run"}, args...)...)
}
