package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"go.uber.org/goleak"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/corpus"
	"rebroadcastr/e2e/localrelay"
)

// patience is how long a test waits for something that takes milliseconds: long, because two cores may be shared by the
// race detector, several relays and other packages' tests.
const patience = 60 * time.Second

const sigterm = syscall.SIGTERM

var showLogs = flag.Bool("logs", false, "print what the children say also when the test passes")

// builds is where the children's binaries lie.
var builds string

func TestMain(m *testing.M) {
	if file := os.Getenv(clockVariable); file != "" {
		os.Exit(beTheProgram(file))
	}
	if file := os.Getenv(relayVariable); file != "" {
		os.Exit(beTheRelay(file))
	}
	dir, err := os.MkdirTemp("", "rebroadcastr-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// The children of one test run as another user; they must reach the binary.
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	builds = dir
	goleak.VerifyTestMain(m,
		// khatru starts it with a context that nobody can end.
		goleak.IgnoreTopFunction("github.com/fiatjaf/khatru.(*expirationManager).start"),
		goleak.IgnoreAnyFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		// toxiproxy leaves them behind where one end of a connection has gone and the other still had something to say.
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"),
		goleak.Cleanup(func(code int) {
			if err := os.RemoveAll(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			os.Exit(code)
		}),
	)
}

var (
	buildRaced = sync.OnceValues(func() (string, error) { return build("raced", true) })
	buildPlain = sync.OnceValues(func() (string, error) { return build("plain", false) })
)

func build(name string, race bool) (string, error) {
	file := filepath.Join(builds, name, "rebroadcastr")
	return file, child.Build("..", file, race)
}

// binary is the child built with the race detector, as all tests but the figures use it.
func binary(t testing.TB) string {
	t.Helper()
	return built(t, buildRaced)
}

func built(t testing.TB, f func() (string, error)) string {
	t.Helper()
	file, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// tempDir is like t.TempDir with a short name: the path of a unix socket ends at 107 bytes.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the test's folder: %v", err)
		}
	})
	return dir
}

// process is a child under a test: whatever it does, no race, no panic, and its output is shown when the test fails.
type process struct {
	*child.Process
	t    testing.TB
	what string
}

func start(t testing.TB, o child.Options) *process {
	t.Helper()
	if o.Binary == "" {
		o.Binary = binary(t)
	}
	if o.Dir == "" {
		o.Dir = tempDir(t)
	}
	c, err := child.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Process: c, t: t, what: "rebroadcastr " + strings.Join(o.Args, " ")}
	t.Cleanup(func() {
		select {
		case <-p.Done():
		default:
			if err := p.Kill(); err != nil {
				t.Errorf("kill %s: %v", p.what, err)
			}
		}
		for _, bad := range []string{"DATA RACE", "panic:", "goroutine 1 ["} {
			if strings.Contains(p.Stderr(), bad) {
				t.Errorf("%s: %q on stderr", p.what, bad)
			}
		}
		if t.Failed() || *showLogs {
			t.Logf("%s\n--- stdout\n%s--- stderr\n%s---", p.what, tail(p.Stdout(), 6000), tail(p.Stderr(), 20000))
		}
	})
	return p
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// exit waits for the child's end.
func (p *process) exit() int {
	p.t.Helper()
	code, err := p.Wait(2 * patience)
	if err != nil {
		p.t.Fatalf("%s: %v", p.what, err)
	}
	return code
}

// stop sends SIGTERM and wants exit code 0.
func (p *process) stop() {
	p.t.Helper()
	code, err := p.Stop(patience)
	if err != nil || code != 0 {
		p.t.Fatalf("%s, stopped by SIGTERM: exit %d, %v; want 0", p.what, code, err)
	}
}

// command runs the program to its end.
func command(t testing.TB, args ...string) *process {
	t.Helper()
	return commandWith(t, child.Options{Args: args})
}

func commandWith(t testing.TB, o child.Options) *process {
	t.Helper()
	p := start(t, o)
	p.exit()
	return p
}

// wantExit runs the program to its end and wants an exit code.
func wantExit(t testing.TB, code int, args ...string) *process {
	t.Helper()
	p := command(t, args...)
	if got := p.exit(); got != code {
		t.Fatalf("%s: exit %d, want %d\n%s", p.what, got, code, tail(p.Stderr(), 2000))
	}
	return p
}

// oneShot runs a one-shot command with --json, wants an exit code and figures that balance.
func oneShot(t testing.TB, code int, command string, args ...string) status {
	t.Helper()
	p := wantExit(t, code, append([]string{command, "--json", "--no-progress"}, args...)...)
	return parseStatus(t, p.Stdout())
}

func parseStatus(t testing.TB, text string) status {
	t.Helper()
	var s status
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatalf("the summary is not JSON: %v\n%s", err, text)
	}
	s.balance(t)
	return s
}

// daemon is a child that runs `run`.
type daemon struct {
	*process
	dir string
}

// run starts `run` on an archive folder and waits until it answers on its control socket.
func run(t testing.TB, dir string, args ...string) *daemon {
	t.Helper()
	return runWith(t, dir, child.Options{Args: args})
}

func runWith(t testing.TB, dir string, o child.Options) *daemon {
	t.Helper()
	args := []string{"run", "--archive", dir, "--log-level", "debug", "--log-format", "json", "--no-progress"}
	if !slices.Contains(o.Args, "--listen") {
		args = append(args, "--listen", "")
	}
	o.Args = append(args, o.Args...)
	d := &daemon{process: start(t, o), dir: dir}
	eventually(t, "the control socket answers", func() error {
		select {
		case <-d.Done():
			t.Fatalf("%s: ended with exit %d at its start\n%s", d.what, d.exit(), tail(d.Stderr(), 2000))
		default:
		}
		s, err := d.ask()
		if err == nil && (s.State != "running" || len(s.Sources)+len(s.Sinks) == 0) {
			return fmt.Errorf("state %q, %d sources, %d sinks", s.State, len(s.Sources), len(s.Sinks))
		}
		return err
	})
	return d
}

func (d *daemon) ask() (s status, err error) {
	err = statusOf(d.dir, &s)
	return s, err
}

// settled waits until every sink has an answer for everything that was archived, and no source has anything on its way.
func (d *daemon) settled() status {
	d.t.Helper()
	var s status
	eventually(d.t, "all is archived and answered", func() error {
		var err error
		if s, err = d.ask(); err != nil {
			return err
		}
		return s.idle()
	})
	s.balance(d.t)
	return s
}

// eventually waits until f returns nil.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("within %s: %s: %v", patience, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// relay starts a local relay that holds events.
func relay(t testing.TB, o localrelay.Options, events ...*nostr.Event) *localrelay.Relay {
	t.Helper()
	r, err := localrelay.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close a local relay: %v", err)
		}
	})
	if err := r.Load(events...); err != nil {
		t.Fatal(err)
	}
	return r
}

// subscribed waits until the daemon's live subscription stands on every one of the relays.
func subscribed(t testing.TB, relays ...*localrelay.Relay) {
	t.Helper()
	eventually(t, "every source has its live subscription", func() error {
		for _, r := range relays {
			if !r.Subscribed() {
				return errors.New(r.URL() + " has none")
			}
		}
		return nil
	})
}

var realEvents = sync.OnceValues(func() ([]*nostr.Event, error) { return corpus.Load(corpus.File) })

// events are the 532 real ones.
func events(t testing.TB) []*nostr.Event {
	t.Helper()
	es, err := realEvents()
	if err != nil {
		t.Fatal(err)
	}
	if len(es) != 532 {
		t.Fatalf("%s holds %d events, want the 532 that this test knows", corpus.File, len(es))
	}
	return es
}

// statusOf asks the writer of an archive once.
func statusOf(dir string, s *status) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return child.Status(ctx, dir, s)
}

// subtest is one row of a table.
type subtest struct {
	name string
	f    func(t *testing.T)
}

// sideBySide runs subtests, n at a time whatever -parallel says: most of their time is waiting.
func sideBySide(t *testing.T, n int, list []subtest) {
	places := make(chan struct{}, n)
	var running sync.WaitGroup
	defer running.Wait()
	for _, s := range list {
		places <- struct{}{}
		running.Go(func() {
			defer func() { <-places }()
			t.Run(s.name, s.f)
		})
	}
}
