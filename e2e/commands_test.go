package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/report"
)

// archiveOf makes an archive of all real events by a backfill.
func archiveOf(t *testing.T) (dir string, held set) {
	t.Helper()
	real := events(t)
	from := relay(t, localrelay.Options{KeepAll: true}, real...)
	dir = filepath.Join(tempDir(t), "a")
	oneShot(t, 0, "backfill", "--all", "--source", from.URL(), "--archive", dir)
	return dir, setOf(real).where(archivable)
}

// TestExport: what comes out is the archive, or the part that was asked for.
func TestExport(t *testing.T) {
	dir, all := archiveOf(t)
	real := events(t)
	who := mostActive(real, 1)[0]
	const middle = 1_741_372_700
	for name, c := range map[string]struct {
		args []string
		want func(*nostr.Event) bool
	}{
		"everything": {nil, func(*nostr.Event) bool { return true }},
		"author":     {[]string{"--author", who}, func(e *nostr.Event) bool { return e.PubKey == who }},
		"mentions":   {[]string{"--author", who, "--mentions"}, func(e *nostr.Event) bool { return e.PubKey == who || mentions(e, []string{who}) }},
		"kind":       {[]string{"--kind", "7", "--kind", "1"}, kinds(1, 7)},
		"tag":        {[]string{"--tag", "k=1"}, func(e *nostr.Event) bool { return e.Tags.ContainsAny("k", []string{"1"}) }},
		"id":         {[]string{"--id", real[3].ID}, func(e *nostr.Event) bool { return e.ID == real[3].ID }},
		"since":      {[]string{"--since", fmt.Sprint(middle)}, func(e *nostr.Event) bool { return e.CreatedAt >= middle }},
		"until":      {[]string{"--until", fmt.Sprint(middle)}, func(e *nostr.Event) bool { return e.CreatedAt <= middle }},
		"until a day, which belongs to it": {[]string{"--until", "2025-03-07"}, func(e *nostr.Event) bool {
			return e.CreatedAt < nostr.Timestamp(time.Date(2025, 3, 8, 0, 0, 0, 0, time.UTC).Unix())
		}},
		"all of these": {[]string{"--author", who, "--kind", "1", "--since", "2020-01-01"}, func(e *nostr.Event) bool { return e.PubKey == who && e.Kind == 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			p := wantExit(t, 0, append([]string{"export", "--archive", dir}, c.args...)...)
			want := all.where(c.want)
			if len(want) == 0 {
				t.Fatal("the case selects nothing")
			}
			wantSet(t, "export", jsonl(t, "export", []byte(p.Stdout())), want)
		})
	}

	t.Run("to a file", func(t *testing.T) {
		file := filepath.Join(tempDir(t), "out.jsonl")
		p := wantExit(t, 0, "export", "--archive", dir, "-o", file)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		wantSet(t, "export -o", jsonl(t, file, text), all)
		if p.Stdout() != "" {
			t.Errorf("stdout holds %d bytes beside the file, want none", len(p.Stdout()))
		}
	})

	t.Run("into a closed pipe", func(t *testing.T) {
		p := commandWith(t, child.Options{Binary: "/bin/sh", Args: []string{
			"-c", `"$0" export --archive "$1" | head -n 1 >/dev/null; exit 0`, binary(t), dir,
		}})
		if strings.Contains(p.Stderr(), "broken pipe") {
			t.Errorf("a reader who has enough is no error, but it says: %s", p.Stderr())
		}
	})
}

// TestImport: the same stages as an event from a relay; bad lines are reported and passed over.
func TestImport(t *testing.T) {
	real := events(t)
	all := setOf(real).where(archivable)
	lines := func(events []*nostr.Event) string {
		var b strings.Builder
		for _, e := range events {
			b.WriteString(e.String() + "\n")
		}
		return b.String()
	}
	file := func(name, text string) string {
		f := filepath.Join(tempDir(t), name)
		if err := os.WriteFile(f, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return f
	}

	t.Run("files, with bad lines", func(t *testing.T) {
		dir := filepath.Join(tempDir(t), "a")
		bad := lines(real[:200]) +
			"not JSON\n\n" +
			strings.Replace(real[300].String(), `"content":"`, `"content":"forged `, 1) + "\n" +
			`{"id":"00"}` + "\n" +
			strings.Repeat(" ", 200_000) + "\n" + // a long line that is blank
			strings.TrimSuffix(lines(real[190:400]), "\n") // overlaps, and ends without a newline
		p := wantExit(t, 0, "import", "--json", "--archive", dir, file("one.jsonl", bad), file("two.jsonl", lines(real[400:])))
		s := parseStatus(t, p.Stdout())
		wantSet(t, "archive", archived(t, dir), all)
		if got := s.total(func(src report.Source) int64 { return src.New }); got != int64(len(all)) {
			t.Errorf("new: %d, want %d", got, len(all))
		}
		if got := s.total(func(src report.Source) int64 { return src.Invalid }); got != 3 {
			t.Errorf("invalid: %d, want the 3 bad lines", got)
		}
	})

	t.Run("stdin", func(t *testing.T) {
		dir := filepath.Join(tempDir(t), "a")
		p := commandWith(t, child.Options{Args: []string{"import", "--archive", dir, "-"}, Stdin: strings.NewReader(lines(real))})
		if code := p.exit(); code != 0 {
			t.Fatalf("exit %d, want 0", code)
		}
		wantSet(t, "archive", archived(t, dir), all)
	})

	t.Run("selected", func(t *testing.T) {
		dir := filepath.Join(tempDir(t), "a")
		wantExit(t, 0, "import", "--archive", dir, "--kind", "1", file("one.jsonl", lines(real)))
		wantSet(t, "archive", archived(t, dir), all.where(kinds(1)))
	})

	t.Run("what export wrote", func(t *testing.T) {
		dir := filepath.Join(tempDir(t), "a")
		wantExit(t, 0, "import", "--archive", dir, file("one.jsonl", lines(real)))
		out := wantExit(t, 0, "export", "--archive", dir).Stdout()
		copied := filepath.Join(tempDir(t), "b")
		wantExit(t, 0, "import", "--archive", copied, file("out.jsonl", out))
		wantSet(t, "archive of an import of an export", archived(t, copied), all)
	})

	t.Run("beside a daemon, through its control socket", func(t *testing.T) {
		from, to := relay(t, localrelay.Options{}), relay(t, localrelay.Options{KeepAll: true})
		dir := filepath.Join(tempDir(t), "a")
		d := run(t, dir, "--all", "--source", from.URL(), "--sink", to.URL())
		wantExit(t, 0, "import", "--archive", dir, file("one.jsonl", lines(real)))
		wantSet(t, "archive, when import has returned", archived(t, dir), all)
		d.settled()
		wantSet(t, "export beside the daemon", jsonl(t, "export", []byte(wantExit(t, 0, "export", "--archive", dir).Stdout())), all)
		d.stop()
		wantSent(t, "sink", received(t, to), all, rules{nip40: true}.takes)
	})
}

// TestReindex: the index can be thrown away and made anew, by the command or by itself.
func TestReindex(t *testing.T) {
	real := events(t)
	from := relay(t, localrelay.Options{KeepAll: true}, real...)
	dir := filepath.Join(tempDir(t), "a")
	args := []string{"--all", "--source", from.URL(), "--archive", dir}
	oneShot(t, 0, "backfill", args...)
	want := setOf(real).where(archivable)
	for _, how := range []string{"reindex", "lost"} {
		t.Run(how, func(t *testing.T) {
			if how == "reindex" {
				wantExit(t, 0, "reindex", "--archive", dir)
			} else if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
				t.Fatal(err)
			}
			s := oneShot(t, 0, "backfill", append(args, "--again")...)
			if src := s.source(t, from.URL()); src.New != 0 || src.Copies < int64(len(want)) {
				t.Errorf("after it %d of the archived events are new and %d copies, want 0 and at least %d", src.New, src.Copies, len(want))
			}
			wantSet(t, "archive", archived(t, dir), want)
		})
	}
}

// TestStatus: what a daemon says of itself, in each of its forms.
func TestStatus(t *testing.T) {
	real := events(t)
	from := relay(t, localrelay.Options{KeepAll: true}, real...)
	to := relay(t, localrelay.Options{KeepAll: true})
	dir := filepath.Join(tempDir(t), "a")
	wantExit(t, 3, "status", "--archive", dir) // nobody is there

	d := run(t, dir, "--all", "--source", from.URL(), "--sink", to.URL())
	subscribed(t, from)
	d.settled()

	p := wantExit(t, 0, "status", "--json", "--archive", dir)
	s := parseStatus(t, p.Stdout())
	if s.State != "running" || s.PID != d.PID() || s.Archive.Dir != dir {
		t.Errorf("status: state %q, pid %d, archive %q; want running, %d, %q", s.State, s.PID, s.Archive.Dir, d.PID(), dir)
	}
	if src := s.source(t, from.URL()); src.State != report.Connected {
		t.Errorf("the source's state is %q, want %q", src.State, report.Connected)
	}
	text := wantExit(t, 0, "status", "--archive", dir).Stdout()
	for _, part := range []string{"running", fmt.Sprintf("pid %d", d.PID()), from.URL(), to.URL(), dir} {
		if !strings.Contains(text, part) {
			t.Errorf("status does not say %q:\n%s", part, text)
		}
	}
	one := wantExit(t, 0, "status", "--archive", dir, to.URL()).Stdout()
	if !strings.Contains(one, to.URL()) || strings.Contains(one, from.URL()) {
		t.Errorf("status of one relay says:\n%s", one)
	}
	for path, part := range map[string]string{
		"/metrics": "rebroadcastr_", "/healthz": "", "/api/status": `"sources"`,
	} {
		body, err := child.Get(t.Context(), dir, path)
		if err != nil || !bytes.Contains(body, []byte(part)) {
			t.Errorf("GET %s on the control socket: %v, want %q in\n%s", path, err, part, tail(string(body), 500))
		}
	}
	d.stop()
	wantExit(t, 3, "status", "--archive", dir)
}

// TestListen: the read-only mux on TCP, when it is asked for.
func TestListen(t *testing.T) {
	from := relay(t, localrelay.Options{})
	dir := filepath.Join(tempDir(t), "a")
	addr := strings.TrimPrefix(deadURL(t), "ws://")
	d := run(t, dir, "--all", "--source", from.URL(), "--listen", addr)
	for _, path := range []string{"/healthz", "/metrics", "/api/status"} {
		if code, body := httpDo(t, "GET", "http://"+addr+path); code != 200 {
			t.Errorf("GET %s: %d\n%s", path, code, body)
		}
	}
	for _, path := range []string{"/healthz", "/api/status", "/import", "/api/import", "/control"} {
		if code, _ := httpDo(t, "POST", "http://"+addr+path); code < 400 {
			t.Errorf("POST %s on TCP: %d, want it refused", path, code)
		}
	}

	// A port that somebody has: an address named by the user is an error that says so.
	other := filepath.Join(tempDir(t), "a")
	p := wantExit(t, 1, "run", "--archive", other, "--all", "--source", from.URL(), "--listen", addr)
	if !strings.Contains(p.Stderr(), addr) {
		t.Errorf("the answer to a taken port does not name %s: %s", addr, p.Stderr())
	}
	d.stop()
}

// TestVersion names the verifier behind the binary.
func TestVersion(t *testing.T) {
	for name, c := range map[string]struct {
		binary   func() (string, error)
		verifier string
	}{
		"as make builds it": {buildPlain, "libsecp256k1, in batches"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := built(t, c.binary)
			p := commandWith(t, child.Options{Binary: bin, Args: []string{"version"}})
			if !strings.Contains(p.Stdout(), c.verifier) {
				t.Errorf("version says %q, want %q in it", p.Stdout(), c.verifier)
			}
			p = commandWith(t, child.Options{Binary: bin, Args: []string{"version", "--json"}})
			var v map[string]any
			if err := json.Unmarshal([]byte(p.Stdout()), &v); err != nil || !strings.Contains(fmt.Sprint(v), c.verifier) {
				t.Errorf("version --json: %v: %s", err, p.Stdout())
			}
		})
	}
}

// TestConfigCommands: the example passes the check, and the check finds every problem at once.
func TestConfigCommands(t *testing.T) {
	example := wantExit(t, 0, "config", "example").Stdout()
	file := configFile(t, example)
	wantExit(t, 0, "config", "check", file)
	shown := wantExit(t, 0, "config", "show", "-c", file).Stdout()
	wantExit(t, 0, "config", "check", configFile(t, shown))

	alice := someone(t, "alice")
	bad := configFile(t, fmt.Sprintf(`authors: [%s, npub1alptdev3srcmh0csw4wfpwpsprhhazqxmxd0wdp69cw06muplruqxkn3yz]
sources: [https://relay.example.com, %s]
sinks:
  - {url: "ws://127.0.0.1:1", filter: {kinds: [1]}}
archive: {dir: /tmp/x, sync: fast}
`, alice.npub(t), alice.npub(t)))
	p := wantExit(t, 2, "config", "check", bad)
	for _, part := range []string{"authors[1]", "sources[0]", "https", "sources[1]", "a person, not a relay", `did you mean "only"`, "archive.sync"} {
		if !strings.Contains(p.Stderr()+p.Stdout(), part) {
			t.Errorf("config check does not say %q:\n%s%s", part, p.Stdout(), p.Stderr())
		}
	}
}

// TestLaterCommands: what is promised for later says so and is no crash.
func TestLaterCommands(t *testing.T) {
	for _, args := range [][]string{{"audit"}, {"verify"}, {"backup"}} {
		p := command(t, args...)
		if code := p.exit(); code == 0 || strings.TrimSpace(p.Stderr()) == "" {
			t.Errorf("%s: exit %d, stderr %q; want an answer and another exit code", p.what, code, p.Stderr())
		}
	}
}

// TestEnvironment: a variable stands for a flag, and a flag wins.
func TestEnvironment(t *testing.T) {
	real := events(t)
	from := relay(t, localrelay.Options{KeepAll: true}, real...)
	who := mostActive(real, 2)
	dir := filepath.Join(tempDir(t), "a")
	p := commandWith(t, child.Options{
		Args: []string{"backfill", "--kind", "1"},
		Env: []string{
			"REBROADCASTR_SOURCE=" + from.URL(), "REBROADCASTR_AUTHOR=" + who[0] + " " + who[1],
			"REBROADCASTR_KIND=7", "REBROADCASTR_ARCHIVE=" + dir,
		},
	})
	if code := p.exit(); code != 0 {
		t.Fatalf("exit %d, want 0: %s", code, p.Stderr())
	}
	wantSet(t, "archive", archived(t, dir), setOf(real).where(func(e *nostr.Event) bool { return e.Kind == 1 && slices.Contains(who, e.PubKey) }))

	// Under systemd the archive is the unit's state directory.
	state := tempDir(t)
	commandWith(t, child.Options{
		Args: []string{"backfill", "--all", "--kind", "1", "--source", from.URL()},
		Env:  []string{"STATE_DIRECTORY=" + state},
	})
	wantSet(t, "archive in $STATE_DIRECTORY", archived(t, state), setOf(real).where(kinds(1)))
}
