package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// TestMistakes: the mistakes that a command line or a file can hold, and their answers. Each row must end
// by itself and dial nobody.
func TestMistakes(t *testing.T) {
	alice := someone(t, "alice")
	npub := alice.npub(t)
	mistyped := npub[:20] + other(npub[20]) + npub[21:]
	from := relay(t, localrelay.Options{})
	dir := filepath.Join(tempDir(t), "a")
	for name, c := range map[string]struct {
		args  []string
		file  string
		code  int
		parts []string
	}{
		"an npub as a source": {
			[]string{"backfill", "--source", npub, "--author", npub}, "", 2,
			[]string{"--source " + npub[:8], "that is a person, not a relay", "--author?"},
		},
		"a mistyped npub": {
			nil, "sources: [" + from.URL() + "]\nauthors:\n  - " + npub + "\n  - " + mistyped + "\n", 2,
			[]string{"authors[1]", "4", "checksum wrong", "mistyped"},
		},
		"nothing selected": {
			[]string{"backfill", "--source", from.URL()}, "", 2,
			[]string{"no --author, --tag or --id", "everyone on 1 relay", "--all"},
		},
		"a second URL": {
			[]string{"backfill", "--all", "--source", from.URL(), "ws://127.0.0.1:2"}, "", 2,
			[]string{"unexpected argument ws://127.0.0.1:2", "--source takes one URL, repeat it"},
		},
		"an unknown key": {
			nil, "all: true\nsources: [" + from.URL() + "]\nsinks:\n  - ws://127.0.0.1:2\n  - url: ws://127.0.0.1:3\n    filter: {kinds: [1]}\n", 2,
			[]string{":6", "sinks[1].filter", "unknown key", `did you mean "only"?`},
		},
		"an author that is a flag":      {[]string{"backfill", "--author", "--all", "--source", from.URL()}, "", 2, []string{"--author"}},
		"a flag after an argument":      {[]string{"status", from.URL(), "--json", "--archive", dir}, "", 3, nil},
		"an unknown flag":               {[]string{"backfill", "--al", "--source", from.URL()}, "", 2, []string{"--al"}},
		"an unknown command":            {[]string{"mirror"}, "", 2, []string{"mirror"}},
		"M for months":                  {[]string{"backfill", "--all", "--source", from.URL(), "--since", "3M"}, "", 2, []string{"m is minutes", "30d"}},
		"no source":                     {[]string{"backfill", "--all"}, "", 2, []string{"source"}},
		"a source over https":           {[]string{"backfill", "--all", "--source", "https://relay.example.com"}, "", 2, []string{"ws or wss"}},
		"a password in a URL":           {[]string{"backfill", "--all", "--source", "wss://me:hunter2@relay.example.com"}, "", 2, []string{"--source"}},
		"a config file that is missing": {[]string{"run", "-c", "/nonexistent/rebroadcastr.yaml"}, "", 2, []string{"/nonexistent/rebroadcastr.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := c.args
			if c.file != "" {
				args = []string{"run", "-c", configFile(t, c.file)}
			}
			if args[0] == "backfill" || args[0] == "run" {
				args = append(args[:1:1], append([]string{"--archive", dir}, args[1:]...)...)
			}
			p := wantExit(t, c.code, args...)
			for _, part := range c.parts {
				if !strings.Contains(p.Stderr(), part) {
					t.Errorf("the answer does not say %q:\n%s", part, p.Stderr())
				}
			}
			if strings.Contains(p.Stderr()+p.Stdout(), "hunter2") {
				t.Error("the answer repeats a password")
			}
			if strings.Count(p.Stderr(), "\n") > 12 {
				t.Errorf("an answer is a line or a few, not:\n%s", p.Stderr())
			}
		})
	}
	if n := from.Connections(); n != 0 {
		t.Errorf("the relay was connected to %d times by commands that could not start, want never", n)
	}
}

func other(c byte) string {
	if c == 'q' {
		return "p"
	}
	return "q"
}

// TestArchiveInUse: one writer at a time; who reads works beside it.
func TestArchiveInUse(t *testing.T) {
	from := relay(t, localrelay.Options{}, someone(t, "alice").notes(t, 1_700_000_000, 5)...)
	dir := filepath.Join(tempDir(t), "a")
	d := run(t, dir, "--all", "--source", from.URL())
	for _, args := range [][]string{
		{"run", "--all", "--source", from.URL(), "--listen", ""},
		{"backfill", "--all", "--source", from.URL()},
		{"reindex"},
	} {
		p := wantExit(t, 4, append([]string{args[0], "--archive", dir}, args[1:]...)...)
		for _, part := range []string{"archive " + dir + " is in use by pid " + fmt.Sprint(d.PID()), "(run, "} {
			if !strings.Contains(p.Stderr(), part) {
				t.Errorf("%s does not say %q: %s", p.what, part, p.Stderr())
			}
		}
	}
	wantExit(t, 0, "export", "--archive", dir)
	wantExit(t, 0, "status", "--archive", dir)
	d.settled()
	d.stop()
	wantExit(t, 0, "reindex", "--archive", dir)
}

// TestUnusableArchive: a folder that is missing is created; one that cannot be used is one clear line.
func TestUnusableArchive(t *testing.T) {
	from := relay(t, localrelay.Options{})
	args := func(dir string) []string {
		return []string{"backfill", "--archive", dir, "--all", "--source", from.URL()}
	}
	oneLine := func(t *testing.T, p *process, parts ...string) {
		t.Helper()
		if n := strings.Count(strings.TrimSpace(p.Stderr()), "\n"); n > 1 {
			t.Errorf("want one clear line, got %d:\n%s", n+1, p.Stderr())
		}
		for _, part := range parts {
			if !strings.Contains(p.Stderr(), part) {
				t.Errorf("the answer does not say %q: %s", part, p.Stderr())
			}
		}
	}
	t.Run("no directory", func(t *testing.T) {
		file := filepath.Join(tempDir(t), "a")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		oneLine(t, wantExit(t, 1, args(file)...), file, "director")
	})
	t.Run("below a file", func(t *testing.T) {
		file := filepath.Join(tempDir(t), "a")
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		oneLine(t, wantExit(t, 1, args(filepath.Join(file, "b"))...), file)
	})
	t.Run("not writable", func(t *testing.T) {
		dir := tempDir(t)
		o := child.Options{Args: args(dir)}
		if os.Getuid() == 0 { // root may write anywhere: somebody else tries
			o.UID = 65534
			o.Dir = os.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Chmod(dir, 0o555); err != nil {
			t.Fatal(err)
		}
		p := commandWith(t, o)
		if code := p.exit(); code != 1 {
			t.Errorf("exit %d, want 1", code)
		}
		want := []string{dir, "--archive"}
		if os.Getuid() == 0 {
			want = append(want, "belongs to uid 0")
		}
		oneLine(t, p, want...)
	})
}

// TestSinkWantsLogin: a sink that asks for a login or money is paused with its queue kept, and said once.
func TestSinkWantsLogin(t *testing.T) {
	alice := someone(t, "alice")
	from := relay(t, localrelay.Options{}, alice.notes(t, 1_700_000_000, 20)...)
	closed := relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Reject("auth-required: we only take members") }})
	open := relay(t, localrelay.Options{})
	dir := filepath.Join(tempDir(t), "a")
	d := run(t, dir, "--all", "--source", from.URL(), "--sink", closed.URL, "--sink", open.URL())
	eventually(t, "the sink is paused and the other served", func() error {
		s, err := d.ask()
		if err != nil {
			return err
		}
		k, err := s.findSink(closed.URL)
		if err != nil {
			return err
		}
		if k.State != report.Paused {
			return fmt.Errorf("%s is %s", k.URL, k.State)
		}
		if n := len(open.Received()); n < 20 {
			return fmt.Errorf("the open sink has %d of 20", n)
		}
		return nil
	})
	s, err := d.ask()
	if err != nil {
		t.Fatal(err)
	}
	s.balance(t)
	k := s.sink(t, closed.URL)
	if k.Pending != 20 || k.Rejected != 0 || !strings.Contains(k.Note, "auth-required") {
		t.Errorf("the paused sink: %d pending, %d rejected, note %q; want its queue of 20 kept and the reason said", k.Pending, k.Rejected, k.Note)
	}
	wantExit(t, 3, "status", "--archive", dir) // there is a problem
	d.stop()
	if n := strings.Count(d.Stderr(), "auth-required"); n == 0 || n > 3 {
		t.Errorf("the log says auth-required %d times, want it said once", n)
	}
}
