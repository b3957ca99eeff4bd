package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// command runs one command in this process and returns its exit code and what it printed.
func command(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, log bytes.Buffer
	code = Main(ctx, Process{
		Args: append([]string{"rebroadcastr"}, args...), LookupEnv: func(string) (string, bool) { return "", false },
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &log,
	})
	return code, out.String(), log.String()
}

// want runs one command that must end with code and say a part of its message.
func want(t *testing.T, code int, part string, args ...string) {
	t.Helper()
	got, stdout, stderr := command(t.Context(), args...)
	if got != code || !strings.Contains(stdout+stderr, part) {
		t.Errorf("%s\n  exit %d, want %d, and %q in\n%s%s", strings.Join(args, " "), got, code, part, stdout, stderr)
	}
}

// TestSlips: a slip of the hand makes no archive and destroys no file.
func TestSlips(t *testing.T) {
	dir := t.TempDir()
	missing, archive, kept := filepath.Join(dir, "missing"), filepath.Join(dir, "archive"), filepath.Join(dir, "kept.jsonl")
	if err := os.Mkdir(archive, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, []byte("precious\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, exitFailed, "there is no archive at "+missing, "reindex", "--archive", missing)
	want(t, exitFailed, "there is no archive at "+missing, "export", "--archive", missing, "-o", kept)
	want(t, exitFailed, "not a directory", "export", "--archive", kept)
	want(t, exitUsage, "is in the archive itself", "export", "--archive", archive, "-o", filepath.Join(archive, "events.jsonl"))
	want(t, exitUsage, "would overwrite what is to be imported", "import", "--archive", missing, kept, "--rejects", kept)
	want(t, exitUsage, "name a FILE", "config", "check")
	if _, err := os.Stat(missing); err == nil {
		t.Errorf("%s was made", missing)
	}
	if b, err := os.ReadFile(kept); err != nil || string(b) != "precious\n" {
		t.Errorf("%s now holds %q, %v", kept, b, err)
	}
}

// asProgram makes the test's own binary the program: urfave/cli shares its help flag within a process, so that a daemon
// and a command beside it cannot live in one.
const asProgram = "CLI_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	switch how := os.Getenv(asProgram); how {
	case "":
	case asPanicking, asHanging:
		os.Exit(stopChild(how))
	default:
		os.Exit(Main(context.Background(), Process{
			Args: os.Args, LookupEnv: os.LookupEnv, Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		}))
	}
	os.Exit(m.Run())
}

// mirroring starts a daemon on a new archive, waits for its first status and returns the directory. At the end of the
// test it is stopped, and its log must say so with a last line that has the words last; where it had begun, with a summary.
func mirroring(t *testing.T, last string, args ...string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "a")
	d := exec.Command(os.Args[0], append([]string{"run", "--archive", dir, "--listen", "", "--all", "--source", "ws://127.0.0.1:1"}, args...)...)
	d.Env = append(os.Environ(), asProgram+"=1")
	var log, summary bytes.Buffer
	d.Stderr, d.Stdout = &log, &summary
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := d.Wait(); err != nil {
			t.Errorf("the daemon: %v, want exit 0", err)
		}
		if lines := strings.Split(strings.TrimSpace(log.String()), "\n"); !strings.Contains(lines[len(lines)-1], last) {
			t.Errorf("the log does not end with %q:\n%s", last, log.String())
		}
		if begun := strings.Contains(last, "stopped"); begun != strings.Contains(summary.String(), "\narchive "+dir+": ") {
			t.Errorf("it had begun: %v, but its summary is %q", begun, summary.String())
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if _, stdout, _ := command(t.Context(), "status", "--archive", dir); strings.HasPrefix(stdout, "running") || strings.Contains(stdout, "waiting") {
			return dir
		}
		if time.Now().After(end) {
			t.Fatal("the daemon does not answer")
		}
	}
}

// TestImportSelection: flags that a running daemon would not see are refused, not dropped.
func TestImportSelection(t *testing.T) {
	dir := mirroring(t, `"message":"stopped"`)
	file := filepath.Join(t.TempDir(), "x.jsonl")
	if err := os.WriteFile(file, []byte("no event\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, exitUsage, "--kind does not reach the daemon", "import", "--archive", dir, "--kind", "1", file)
	want(t, exitOK, "through the running daemon", "import", "--archive", dir, "--all", file)
}

// TestWaitingForRoom: a daemon that could not start for want of room is a problem that status tells.
func TestWaitingForRoom(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.yaml")
	if err := os.WriteFile(file, []byte("archive: {min_free: 1048576GiB}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := mirroring(t, "waiting for room", "-c", file)
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		code, stdout, _ := command(t.Context(), "status", "--archive", dir)
		if code == exitIncomplete && strings.Contains(stdout, "waiting for room: "+dir) && strings.Contains(stdout, "1 problem\n") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("status: exit %d, want %d and why it waits:\n%s", code, exitIncomplete, stdout)
		}
	}
}

// TestGiveBack: what root makes in the service's archive belongs to the service afterwards.
func TestGiveBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make files for another user")
	}
	dir, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const service = 65534
	if err := errors.Join(os.Chown(dir, service, service), os.Symlink(filepath.Dir(outside), filepath.Join(dir, "link")), os.Link(outside, filepath.Join(dir, "hard"))); err != nil {
		t.Fatal(err)
	}
	want(t, exitOK, "indexed 0 events", "reindex", "--archive", dir)
	uid := func(name string) uint32 {
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Uid
	}
	for _, name := range []string{"LOCK", "state.db", "index", "index/MANIFEST"} {
		if got := uid(filepath.Join(dir, name)); got != service {
			t.Errorf("%s belongs to uid %d, want %d", name, got, service)
		}
	}
	if got := uid(outside); got != 0 {
		t.Errorf("a file outside of the archive belongs to uid %d now", got)
	}
}

// TestInterruptedAtStart: a one-shot command that is interrupted before it has begun says so.
func TestInterruptedAtStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "archive")
	want(t, exitOK, "530 events", "import", "--archive", dir, "../testdata/relay-messages.jsonl")
	if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil { // so that the start has something to do
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code, stdout, stderr := command(ctx, "backfill", "--archive", dir, "--all", "--source", "ws://127.0.0.1:1")
	if code != exitInterrupted || !strings.Contains(stdout, "interrupted") {
		t.Errorf("exit %d, want %d and a summary that says so:\n%s%s", code, exitInterrupted, stdout, stderr)
	}
}
