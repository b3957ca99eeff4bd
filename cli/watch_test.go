package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/config"
	"rebroadcastr/report"
)

// TestFileWatch: whatever way a config file is changed in, it is told of; what happens beside it is not.
func TestFileWatch(t *testing.T) {
	write := func(t *testing.T, name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rename := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	link := func(t *testing.T, to, name string) {
		t.Helper()
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		setup func(t *testing.T, dir string) (file string)
		steps []func(t *testing.T, dir string)
	}{
		{"written, renamed over, removed and made anew", func(t *testing.T, dir string) string {
			write(t, filepath.Join(dir, "c.yaml"), "a")
			return filepath.Join(dir, "c.yaml")
		}, []func(t *testing.T, dir string){
			func(t *testing.T, dir string) { write(t, filepath.Join(dir, "c.yaml"), "b") },
			func(t *testing.T, dir string) {
				write(t, filepath.Join(dir, ".c.yaml.swp"), "c")
				rename(t, filepath.Join(dir, ".c.yaml.swp"), filepath.Join(dir, "c.yaml"))
			},
			func(t *testing.T, dir string) { write(t, filepath.Join(dir, "c.yaml"), "d") },
			func(t *testing.T, dir string) {
				if err := os.Remove(filepath.Join(dir, "c.yaml")); err != nil {
					t.Fatal(err)
				}
			},
			func(t *testing.T, dir string) { write(t, filepath.Join(dir, "c.yaml"), "e") },
		}},
		{"a link in its place, to another directory", func(t *testing.T, dir string) string {
			if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "real", "r.yaml"), "a")
			link(t, filepath.Join("real", "r.yaml"), filepath.Join(dir, "c.yaml"))
			return filepath.Join(dir, "c.yaml")
		}, []func(t *testing.T, dir string){
			func(t *testing.T, dir string) {
				write(t, filepath.Join(dir, "real", "new"), "b")
				rename(t, filepath.Join(dir, "real", "new"), filepath.Join(dir, "real", "r.yaml"))
			},
		}},
		{"Kubernetes swaps ..data", func(t *testing.T, dir string) string {
			for _, version := range []string{"..1", "..2", "..3"} {
				if err := os.Mkdir(filepath.Join(dir, version), 0o700); err != nil {
					t.Fatal(err)
				}
				write(t, filepath.Join(dir, version, "c.yaml"), version)
			}
			link(t, "..1", filepath.Join(dir, "..data"))
			link(t, filepath.Join("..data", "c.yaml"), filepath.Join(dir, "c.yaml"))
			return filepath.Join(dir, "c.yaml")
		}, []func(t *testing.T, dir string){
			func(t *testing.T, dir string) {
				link(t, "..2", filepath.Join(dir, "..data_tmp"))
				rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
			},
			func(t *testing.T, dir string) {
				link(t, "..3", filepath.Join(dir, "..data_tmp"))
				rename(t, filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
			},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := c.setup(t, dir)
			write(t, filepath.Join(dir, "neighbour"), "")
			changed := make(chan struct{}, 1)
			w := &fileWatch{path: file, changed: changed, log: zerolog.Nop()}
			ctx, cancel := context.WithCancel(context.Background())
			watching := spawn("watch", func() error { return w.run(ctx) })
			defer func() {
				cancel()
				if err := watching.wait(); err != nil {
					t.Error(err)
				}
			}()
			told := func(step int) {
				t.Helper()
				select {
				case <-changed:
				case <-time.After(time.Minute):
					t.Fatalf("step %d: not told within a minute", step)
				}
			}
			told(0) // what changed before the watch
			for i, step := range c.steps {
				step(t, dir)
				told(i + 1)
			}
			for range 10 {
				write(t, filepath.Join(dir, "neighbour"), "busy")
			}
			select {
			case <-changed:
				t.Error("told of a neighbour's writes")
			case <-time.After(3 * watchQuiet):
			}
		})
	}
}

// TestWatchedRefusals: a file that stays wrong is logged once, however often its neighbours change; who asks is always told.
func TestWatchedRefusals(t *testing.T) {
	var log bytes.Buffer
	cfg := config.Defaults()
	r := newHost(cfg, newLogs(&log, false, cfg.Log), "test", time.Now).reloader
	for _, c := range []struct {
		why, text string
		logged    int
	}{{watched, "gone", 1}, {watched, "gone", 1}, {"SIGHUP", "gone", 2}, {watched, "wrong", 3}, {watched, "gone", 4}} {
		r.refuse(c.why, errors.New(c.text))
		if n := strings.Count(log.String(), "config refused"); n != c.logged {
			t.Errorf("%s: %s: logged %d times so far, want %d", c.why, c.text, n, c.logged)
		}
		var s report.Status
		if r.report(&s); len(s.Problems) != 1 || !strings.HasSuffix(s.Problems[0], c.text) {
			t.Errorf("problems: %q, want that it is refused: %s", s.Problems, c.text)
		}
	}
}

// TestHangupUnderNohup: a process that was started with SIGHUP ignored reloads at one all the same.
func TestHangupUnderNohup(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	cfg := config.Defaults()
	r := newHost(cfg, newLogs(io.Discard, false, cfg.Log), "test", time.Now).reloader
	stop := r.listen()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.hup:
	case <-time.After(time.Minute):
		t.Error("no reload within a minute of a SIGHUP")
	}
	stop()
}
