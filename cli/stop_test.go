package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/pipeline"
	"rebroadcastr/relaytest"
)

// A child of these tests is the test's own binary, as the program without its command line: so a stage can be given a
// clock that panics, or a part that never ends, through the options that the pipeline has anyway.
const (
	asPanicking = "panicking" // from the moment the file "boom" stands beside the archive, the reader's clock panics
	asHanging   = "hanging"   // a one-shot command whose feed never returns
)

// stopChild is what TestMain runs for them: DIR SINK SOURCE… are the arguments.
func stopChild(how string) int {
	dir := os.Args[1]
	cfg := config.Defaults()
	cfg.Want, cfg.All, cfg.Archive.Dir, cfg.Archive.MinFree, cfg.Listen.Addr = []event.Filter{{}}, true, dir, 1<<20, ""
	cfg.Default.Backoff.Initial = 20 * time.Millisecond
	cfg.Sinks = []config.Sink{{URL: os.Args[2], Enabled: true}}
	for _, url := range os.Args[3:] {
		cfg.Sources = append(cfg.Sources, config.Source{URL: url, Enabled: true})
	}
	p := &program{ctx: context.Background(), stdout: os.Stdout, stderr: os.Stderr, version: "test", now: func() time.Time {
		if _, err := os.Stat(filepath.Join(dir, "boom")); err == nil && calledBy("intake") {
			panic("boom")
		}
		return time.Now()
	}}
	command, o := "run", pipeline.Options{}
	if how == asHanging {
		command, o = "import", pipeline.Options{Once: true, Feed: func(context.Context, *pipeline.Mirror) error {
			fmt.Println("feeding")
			select {}
		}}
	}
	_, err := p.writing(cfg, command, o, false)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return exitCode(err)
}

func calledBy(part string) bool {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.Contains(f.Function, part) {
			return true
		}
		if !more {
			return false
		}
	}
}

// stopping is a child and what it says.
type stopping struct {
	*exec.Cmd
	t        *testing.T
	out, err bytes.Buffer
}

func startChild(t *testing.T, how string, args ...string) *stopping {
	t.Helper()
	c := &stopping{t: t, Cmd: exec.Command(os.Args[0], args...)}
	c.Env = append(os.Environ(), asProgram+"="+how)
	c.Stdout, c.Stderr = &c.out, &c.err
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.ProcessState == nil {
			_ = c.Process.Kill() // the test has failed
			_ = c.Wait()
		}
		if t.Failed() {
			t.Logf("%s\n%s", how, c.err.String())
		}
	})
	return c
}

// ends waits for the exit code.
func (c *stopping) ends(want int) {
	c.t.Helper()
	if err := c.Wait(); c.ProcessState.ExitCode() != want {
		c.t.Fatalf("exit %d (%v), want %d", c.ProcessState.ExitCode(), err, want)
	}
}

// TestPanicInAStage: a reader panics in the middle of its work. The program leaves every other relay in good form, keeps
// what was answered, ends with exit 1 and says what it was; the next start sends nothing again and brings what was missed.
func TestPanicInAStage(t *testing.T) {
	var events []string
	for i := range 60 {
		events = append(events, relaytest.Sign(relaytest.Key(1), 1, time.Now().Unix()-60+int64(i), nil, fmt.Sprint("note ", i)))
	}
	from := relaytest.New(t, relaytest.Script{Events: events[:30]})
	other := relaytest.New(t, relaytest.Script{})
	to := relaytest.New(t, relaytest.Script{})
	dir := filepath.Join(t.TempDir(), "a")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c := startChild(t, asPanicking, dir, to.URL, from.URL, other.URL)
	to.Wait("the sink has the first 30", func() bool { return len(to.Stored()) == 30 })
	other.Wait("the other source is asked", func() bool { return len(other.Got("REQ")) > 0 })
	if err := os.WriteFile(filepath.Join(dir, "boom"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, e := range events[30:] {
		from.Publish(e)
	}
	c.ends(exitFailed)
	if log := c.err.String(); !strings.Contains(log, "boom") || !strings.Contains(log, "pipeline.(*intake).Offer") {
		t.Errorf("the log does not tell of the panic, with its stack:\n%s", log)
	}
	for _, r := range []*relaytest.Relay{other, to} {
		r.Wait("the connection is closed", func() bool { return len(r.Closes()) == 1 })
		if r.Closes()[0].Code == 0 {
			t.Errorf("the connection to %s was cut, want a close frame", r.URL)
		}
	}
	if len(other.Got("CLOSE")) == 0 {
		t.Error("the other source was sent no CLOSE")
	}

	if err := os.Remove(filepath.Join(dir, "boom")); err != nil {
		t.Fatal(err)
	}
	c = startChild(t, asPanicking, dir, to.URL, from.URL, other.URL)
	to.Wait("the sink has all", func() bool { return len(to.Stored()) == len(events) })
	if err := c.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.ends(exitOK)
	if n := len(to.Got("EVENT")); n != len(events) {
		t.Errorf("the sink was sent %d events in two runs, want each of the %d once", n, len(events))
	}
}

// TestSecondSignalWhilePartHangs: a part that never returns does not keep the process: after a second signal it ends,
// with exit 1, and what is archived is there.
func TestSecondSignalWhilePartHangs(t *testing.T) {
	from, to := relaytest.New(t, relaytest.Script{}), relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Answer{None: true} }})
	dir := filepath.Join(t.TempDir(), "a")
	c := startChild(t, asHanging, dir, to.URL, from.URL)
	from.Wait("it runs", func() bool { return from.Accepted() > 0 })
	for range 2 {
		if err := c.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		from.Wait("the source is left", func() bool { return len(from.Closes()) > 0 })
	}
	c.ends(exitFailed)
	if !strings.Contains(c.err.String(), "does not answer") {
		t.Errorf("the log does not say why it ended:\n%s", c.err.String())
	}
	want(t, exitOK, "", "reindex", "--archive", dir) // the lock is free
}
