package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/report"
)

// reloading is a daemon on a config file.
type reloading struct {
	*daemon
	file string
}

func reloadable(t testing.TB, o child.Options, text string) *reloading {
	t.Helper()
	dir := filepath.Join(tempDir(t), "a")
	file := configFile(t, withDir(text, dir))
	o.Args = append([]string{"-c", file}, o.Args...)
	return &reloading{runWith(t, dir, o), file}
}

func withDir(text, dir string) string { return text + quick + fmt.Sprintf("archive: {dir: %q}\n", dir) }

// write puts another file in the place of the config, as editors do.
func (d *reloading) write(text string) {
	d.t.Helper()
	next := d.file + ".new"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(next, d.file); err != nil {
		d.t.Fatal(err)
	}
}

// refused waits until the status says why the config was not taken up.
func (d *reloading) refused(part string) {
	d.t.Helper()
	eventually(d.t, "the status says that the config was refused", func() error {
		s, err := d.ask()
		if err == nil && !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "was refused") && strings.Contains(p, part) }) {
			err = fmt.Errorf("problems %q, want a refusal for %q", s.Problems, part)
		}
		return err
	})
}

// taken waits until the daemon has that many sources and sinks, and no refusal.
func (d *reloading) taken(sources, sinks int) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("%d sources, %d sinks", sources, sinks), func() error {
		s, err := d.ask()
		if err == nil && (len(s.Sources) != sources || len(s.Sinks) != sinks) {
			err = fmt.Errorf("%d and %d", len(s.Sources), len(s.Sinks))
		}
		if err == nil && slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "refused") }) {
			err = fmt.Errorf("problems %q", s.Problems)
		}
		return err
	})
}

// TestReload: while events flow, SIGHUP brings a source and a sink, a file with mistakes changes nothing, and a source goes.
// What stays keeps its connection, and every event arrives.
func TestReload(t *testing.T) {
	keep := localrelay.Options{KeepAll: true}
	a, b, first, second := relay(t, keep), relay(t, keep), relay(t, keep), relay(t, keep)
	alice := someone(t, "alice")
	m := newManager(t)
	text := fmt.Sprintf("authors: [%s]\nsources: [%q]\nsinks: [%q]\n", alice.npub(t), a.URL(), first.URL())
	d := reloadable(t, child.Options{Env: m.env()}, text)
	subscribed(t, a)
	started, err := d.ask()
	if err != nil {
		t.Fatal(err)
	}
	// a publishes all the time.
	published, stop, done := set{}, make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			e := alice.sign(t, time.Now().Unix(), 1, fmt.Sprintf("note %d", i))
			published[e.ID] = e
			if err := a.Publish(e); err != nil {
				done <- err
				return
			}
		}
	}()
	eventually(t, "events flow", func() error {
		if n := len(first.Received()); n < 50 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	connected := []int{a.Connections(), first.Connections()}

	bob := someone(t, "bob")
	wider := fmt.Sprintf("authors: [%s, %s]\nsources: [%q, {url: %q, name: other}]\nsinks: [%q, %q]\n",
		alice.npub(t), bob.npub(t), a.URL(), b.URL(), first.URL(), second.URL())
	d.write(withDir(wider, d.dir))
	ready := m.count("READY=1")
	if err := d.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.taken(2, 2)
	m.hears(t, "RELOADING=1", 1)
	m.hears(t, "MONOTONIC_USEC=", 1)
	m.hears(t, "READY=1", ready+1)
	subscribed(t, a, b)
	eventually(t, "both authors are asked for on a", func() error {
		for _, r := range a.Requests() {
			if r.Filter.LimitZero && len(r.Filter.Authors) == 2 {
				return nil
			}
		}
		return fmt.Errorf("%v", a.Requests())
	})
	fromB := bob.sign(t, time.Now().Unix(), 1, "from b")
	if err := b.Publish(fromB); err != nil {
		t.Fatal(err)
	}
	fromA := bob.sign(t, time.Now().Unix(), 1, "bob on a")
	if err := a.Publish(fromA); err != nil {
		t.Fatal(err)
	}

	broken := strings.Replace(wider, "sinks:", "sink:", 1)
	d.write(withDir(broken, d.dir))
	if err := d.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.refused("sink: unknown key")
	said := wantExit(t, 2, "config", "check", d.file).Stderr()
	if got := wantExit(t, 2, "reload", "-c", d.file).Stderr(); got != said {
		t.Errorf("a refused reload says\n%s\nwant what config check says\n%s", got, said)
	}
	if p := wantExit(t, 3, "status", "-c", d.file); !strings.Contains(p.Stdout(), "was refused") || !strings.Contains(p.Stdout(), "config of 20") {
		t.Errorf("status with a broken file:\n%s", p.Stdout())
	}
	// A private key is refused, and repeated nowhere.
	const key = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
	d.write(withDir(wider, d.dir) + "# " + key + "\n")
	if err := d.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.refused("holds a private key")

	// b goes again, and a's events go on.
	narrower := fmt.Sprintf("authors: [%s, %s]\nsources: [%q]\nsinks: [%q, %q]\n", alice.npub(t), bob.npub(t), a.URL(), first.URL(), second.URL())
	d.write(withDir(narrower, d.dir))
	p := wantExit(t, 0, "reload", "-c", d.file)
	if want := "- source " + b.URL() + "\n"; p.Stdout() != want {
		t.Errorf("reload says %q, want %q", p.Stdout(), want)
	}
	d.taken(1, 2)
	if p := wantExit(t, 0, "reload", "-c", d.file); p.Stdout() != "nothing changed\n" {
		t.Errorf("a second reload says %q", p.Stdout())
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want := published.with(set{fromA.ID: fromA, fromB.ID: fromB})
	eventually(t, "everything is with both sinks", func() error {
		for _, r := range []*localrelay.Relay{first, second} {
			if n := len(r.Received()); n < len(want) {
				return fmt.Errorf("%s has %d of %d", r.URL(), n, len(want))
			}
		}
		return nil
	})
	if got := []int{a.Connections(), first.Connections()}; !slices.Equal(got, connected) {
		t.Errorf("connections to what stayed: %d, want %d", got, connected)
	}
	s := d.settled()
	if !s.ConfigOf.After(started.ConfigOf) {
		t.Errorf("config of %s after the reloads, %s before", s.ConfigOf, started.ConfigOf)
	}
	d.stop()
	if strings.Contains(d.Stderr()+d.Stdout(), key[5:20]) {
		t.Error("the log repeats a private key")
	}
	t.Logf("%d events while the config changed", len(want))
}

// TestReloadDryRun: what would change is listed, and nothing does.
func TestReloadDryRun(t *testing.T) {
	a, b := relay(t, localrelay.Options{}), relay(t, localrelay.Options{})
	text := fmt.Sprintf("all: true\nsources: [%q]\n", a.URL())
	d := reloadable(t, child.Options{}, text)
	next := fmt.Sprintf("all: true\nsources: [%q, %q]\nsinks: [%q]\nshutdown_grace: 3s\ndedup: {lru: 5000}\n", a.URL(), b.URL(), b.URL())
	d.write(withDir(strings.Replace(next, "shutdown", "log: {level: debug}\nshutdown", 1), d.dir))
	want := []string{"+ source " + b.URL(), "+ sink " + b.URL(), "! dedup.lru: needs a restart", "~ shutdown_grace 10s → 3s"}
	for _, args := range [][]string{{"reload", "--dry-run", "-c", d.file}, {"reload", "--dry-run", "--archive", d.dir, "--json"}} {
		p := wantExit(t, 0, args...)
		got := strings.Split(strings.TrimSpace(p.Stdout()), "\n")
		if slices.Contains(args, "--json") {
			var r report.Reloaded
			if err := json.Unmarshal([]byte(p.Stdout()), &r); err != nil || !r.DryRun {
				t.Errorf("%s: %v", p.Stdout(), err)
			}
			got = r.Changes
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s lists\n%q\nwant\n%q", strings.Join(args, " "), got, want)
		}
	}
	s, err := d.ask()
	if err != nil || len(s.Sources) != 1 || len(s.Sinks) != 0 || b.Connections() != 0 {
		t.Errorf("after a dry run: %d sources, %d sinks, %d connections to the new one (%v); want 1, 0, 0", len(s.Sources), len(s.Sinks), b.Connections(), err)
	}
	d.write("all: true\nsources: [oops\n")
	wantExit(t, 2, "reload", "--dry-run", "--archive", d.dir)
	if s, err := d.ask(); err != nil || len(s.Problems) > 0 {
		t.Errorf("a dry run of a broken file leaves problems %q (%v), want none", s.Problems, err)
	}
	d.stop()
	wantExit(t, 3, "reload", "--archive", d.dir)
}

// TestReloadWatch: with --watch a file that is renamed over the config is taken up by itself, a broken one is not and does no
// harm, and watch: false ends it.
func TestReloadWatch(t *testing.T) {
	a, b := relay(t, localrelay.Options{}), relay(t, localrelay.Options{})
	one := fmt.Sprintf("all: true\nsources: [%q]\n", a.URL())
	both := fmt.Sprintf("all: true\nsources: [%q, %q]\n", a.URL(), b.URL())
	d := reloadable(t, child.Options{}, one+"watch: true\n")
	d.write(withDir(both+"watch: true\n", d.dir))
	d.taken(2, 0)
	d.write("all: tr")
	d.refused("rebroadcastr.yaml")
	d.write(withDir(one+"watch: true\n", d.dir))
	d.taken(1, 0)
	d.write(withDir(one, d.dir))
	eventually(t, "the watch ends", func() error {
		if !strings.Contains(d.Stderr(), "watch true → false") {
			return fmt.Errorf("%s", tail(d.Stderr(), 300))
		}
		return nil
	})
	d.stop()

	// --watch goes before the file, which says no.
	d = &reloading{runWith(t, d.dir, child.Options{Args: []string{"-c", d.file, "--watch"}}), d.file}
	d.write(withDir(both, d.dir))
	d.taken(2, 0)
	d.stop()
	wantExit(t, 2, "run", "--all", "--source", a.URL(), "--watch", "--archive", d.dir)
}
