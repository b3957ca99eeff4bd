package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/report"
)

// terminal is a pseudo-terminal, and what was written to it so far.
type terminal struct {
	t      testing.TB
	master *os.File
	slave  *os.File
	mu     sync.Mutex
	text   strings.Builder
	read   chan struct{} // closed when all was read
}

func newTerminal(t testing.TB, width, height uint16) *terminal {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	must(err)
	must(unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	must(err)
	p := &terminal{t: t, master: master, slave: slave, read: make(chan struct{})}
	p.resize(width, height)
	go func() {
		defer close(p.read)
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			p.mu.Lock()
			p.text.Write(b[:n])
			p.mu.Unlock()
			if err != nil { // EIO: nobody has it open any more
				return
			}
		}
	}()
	t.Cleanup(func() {
		p.end()
		if err := master.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *terminal) resize(width, height uint16) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		p.t.Fatal(err)
	}
}

// end waits for the last that was written; whoever writes has ended.
func (p *terminal) end() {
	p.slave.Close() //nolint:errcheck // perhaps closed already
	<-p.read
}

func (p *terminal) shown() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.ReplaceAll(p.text.String(), "\r\n", "\n")
}

// latest is the last picture of progress: what follows the last control sequence that wipes the one before.
func (p *terminal) latest() string {
	text := p.shown()
	return text[strings.LastIndex(text, "\x1b[J")+1:]
}

func (p *terminal) until(what string) {
	p.t.Helper()
	pattern := regexp.MustCompile(what)
	eventually(p.t, "the terminal shows "+what, func() error {
		if text := p.latest(); !pattern.MatchString(text) {
			return fmt.Errorf("it shows\n%s", text)
		}
		return nil
	})
}

// TestProgressOnATerminal: a row for each relay, drawn anew and gone in the end; the summary and the exit code say what is missing.
func TestProgressOnATerminal(t *testing.T) {
	real := events(t)
	from := relay(t, localrelay.Options{KeepAll: true}, real...)
	to := relay(t, localrelay.Options{KeepAll: true})
	dead := deadURL(t)
	dir := filepath.Join(tempDir(t), "a")
	args := []string{"backfill", "--all", "--source", from.URL(), "--source", dead, "--sink", to.URL(), "--archive", dir}
	run := func(tty *terminal, env string, args ...string) *process {
		t.Helper()
		return start(t, child.Options{Args: args, Env: []string{env}, Tee: tty.slave, Raw: true})
	}

	from.Hold()
	tty := newTerminal(t, 150, 24)
	p := run(tty, "TERM=xterm-256color", args...)
	tty.until(regexp.QuoteMeta(from.URL()) + ` +asking +0 +0 new\n` + regexp.QuoteMeta(dead) + ` +NO: 3 tries: .*connection refused`)
	tty.until(`→ ` + regexp.QuoteMeta(to.URL()) + ` +all sent +0 +0 pending`)
	tty.resize(42, 24)
	tty.until(regexp.QuoteMeta(dead) + ` +NO: 3 tries: d[^\n]{0,20}…\n`)
	tty.resize(150, 2)
	tty.until(`and 3 more: 1 complete, 1 incomplete, 1 under way`)
	from.Open()
	if code := p.exit(); code != 3 {
		t.Errorf("exit %d, want 3", code)
	}
	tty.end()
	end := tty.latest()
	for _, want := range []string{"source ", from.URL(), "NO: 3 tries: ", "sink ", "incomplete: 1 of 2 sources. The same command asks only for what is missing.\n"} {
		if !strings.Contains(end, want) {
			t.Errorf("the end does not say %q:\n%s", want, end)
		}
	}
	if strings.Contains(end, "more:") || strings.Contains(end, "asking ") {
		t.Errorf("progress has stayed:\n%s", end)
	}

	for _, c := range []struct {
		name, env string
		args      []string
	}{{"a terminal that cannot move its cursor", "TERM=dumb", nil}, {"--no-progress", "TERM=xterm", []string{"--no-progress"}}, {"without colours", "NO_COLOR=1", nil}} {
		tty := newTerminal(t, 150, 24)
		if code := run(tty, c.env, append(args[:len(args):len(args)], c.args...)...).exit(); code != 3 {
			t.Errorf("%s: exit %d, want 3", c.name, code)
		}
		tty.end()
		text := tty.shown()
		moves, colours := strings.Contains(text, "\x1b[J"), regexp.MustCompile(`\x1b\[\d*m`).MatchString(text)
		if wantMoves := c.name == "without colours"; moves != wantMoves {
			t.Errorf("%s: the cursor is moved: %v, want %v:\n%q", c.name, moves, wantMoves, text)
		}
		if wantColours := c.name == "--no-progress"; colours != wantColours {
			t.Errorf("%s: colours: %v, want %v:\n%q", c.name, colours, wantColours, text)
		}
	}

	// For programs: the same, and nothing but JSON.
	s := oneShot(t, 3, "backfill", args[1:]...)
	if src := s.source(t, from.URL()); src.Complete != report.Yes || src.Phase != "done" {
		t.Errorf("complete %s, phase %s; want yes, done", src.Complete, src.Phase)
	}
}
