package archive_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rebroadcastr/archive"
)

func lock(t *testing.T, dir string) *archive.LockFile {
	t.Helper()
	l, err := archive.Lock(dir, "run")
	if err != nil {
		t.Fatalf("lock %s: %v", dir, err)
	}
	return l
}

func TestLockKeepsOthersOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	l := lock(t, dir)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("the directory that was made: %v (%v), want 0750", info.Mode(), err)
	}
	_, err := archive.Lock(dir, "reindex")
	inUse, ok := errors.AsType[*archive.InUse](err)
	if !ok {
		t.Fatalf("a second lock: %v, want *InUse", err)
	}
	if inUse.Holder.PID != os.Getpid() || inUse.Holder.Command != "run" || inUse.Dir != dir {
		t.Errorf("holder %+v of %s, want this process", inUse.Holder, inUse.Dir)
	}
	want := fmt.Sprintf("archive %s is in use by pid %d (run, 0 s). export, verify, import, status work beside it; stop it for reindex", dir, os.Getpid())
	if err.Error() != want {
		t.Errorf("message\n%s, want\n%s", err, want)
	}
	if err := l.SetAddresses("127.0.0.1:9797", filepath.Join(dir, "control.sock")); err != nil {
		t.Fatal(err)
	}
	h, err := archive.ReadLock(dir)
	if err != nil || len(h.Addresses) != 2 || h.Addresses[0] != "127.0.0.1:9797" || time.Since(h.Since) > time.Minute {
		t.Errorf("LOCK says %+v (%v), want the addresses", h, err)
	}
	if err := l.SetAddresses("x"); err != nil {
		t.Fatal(err)
	}
	if h, err := archive.ReadLock(dir); err != nil || len(h.Addresses) != 1 {
		t.Errorf("after fewer addresses LOCK says %+v (%v)", h, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "LOCK")); err != nil {
		t.Errorf("LOCK after the end: %v, want it to stay", err)
	}
	if err := lock(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestInUseMessages(t *testing.T) {
	for want, e := range map[string]archive.InUse{
		"archive /srv/nostr is in use by pid 812 (run, 9 d). export, verify, import, status work beside it; stop it for reindex": {
			Dir: "/srv/nostr", Holder: archive.Holder{PID: 812, Command: "run"}, Age: 9*24*time.Hour + time.Hour},
		"archive /srv/nostr is in use by pid 812 (backfill, 5 m). export, verify, import, status work beside it; stop it for reindex": {
			Dir: "/srv/nostr", Holder: archive.Holder{PID: 812, Command: "backfill"}, Age: 5*time.Minute + 59*time.Second},
		"archive /srv/nostr is in use by another process. export, verify, import, status work beside it; stop it for reindex": {Dir: "/srv/nostr"},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

// The kernel gives the lock up when its holder is killed.
func TestLockOfAKilledProcess(t *testing.T) {
	if dir := os.Getenv("ARCHIVE_TEST_LOCK"); dir != "" {
		if _, err := archive.Lock(dir, "run"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		time.Sleep(time.Minute)
	}
	dir := t.TempDir()
	child := exec.Command(os.Args[0], "-test.run=^TestLockOfAKilledProcess$")
	child.Env = append(os.Environ(), "ARCHIVE_TEST_LOCK="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "locked\n" {
		t.Fatalf("the child says %q (%v)", line, err)
	}
	_, err = archive.Lock(dir, "run")
	if inUse, ok := errors.AsType[*archive.InUse](err); !ok || inUse.Holder.PID != child.Process.Pid {
		t.Errorf("beside the child: %v, want in use by pid %d", err, child.Process.Pid)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if err := lock(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestUnusableDirectories(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "")
	tests := map[string]struct{ dir, want string }{
		"a file":       {file, "archive " + file + ": not a directory: use another --archive"},
		"below a file": {file + "/x", "archive " + file + "/x: not a directory: use another --archive"},
	}
	for name, tt := range tests {
		_, err := archive.Lock(tt.dir, "run")
		if _, ok := errors.AsType[*archive.Unusable](err); !ok || err.Error() != tt.want {
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		}
	}
}

// The checks of another user's rights run on a thread of their own that has given root's up.
func TestDirectoriesOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make directories of other users")
	}
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		owner int
		mode  os.FileMode
		sub   string
		want  string
	}{
		"service":       {61184, 0o750, "", "%s belongs to uid 61184 (the service): use sudo, or --archive elsewhere"},
		"a person":      {1000, 0o755, "", "%s belongs to uid 1000: use sudo, or --archive elsewhere"},
		"not there yet": {1000, 0o755, "/deep/er", "archive %[1]s/deep/er cannot be made: %[1]s belongs to uid 1000: use sudo, or --archive elsewhere"},
	} {
		at := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := errors.Join(os.Mkdir(at, tt.mode), os.Chown(at, tt.owner, tt.owner)); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
			if err := unix.Setfsuid(65534); err != nil {
				got <- err
				return
			}
			_, err := archive.Lock(at+tt.sub, "run")
			got <- err
		}()
		err := <-got
		if _, ok := errors.AsType[*archive.Unusable](err); !ok || err.Error() != fmt.Sprintf(tt.want, at) || !errors.Is(err, syscall.EACCES) {
			t.Errorf("%s: %v\nwant %s", name, err, fmt.Sprintf(tt.want, at))
		}
	}
}
