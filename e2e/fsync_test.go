package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"rebroadcastr/e2e/child"
	"rebroadcastr/relaytest"
)

// fsyncGate lets the fsyncs of a child's segments through, or holds them until it is opened again.
type fsyncGate struct {
	path  string
	ln    net.Listener
	held  chan string // files whose fsync began to hang
	ended sync.WaitGroup

	mu     sync.Mutex
	shut   bool
	asking []net.Conn
}

func newGate(t testing.TB) *fsyncGate {
	t.Helper()
	g := &fsyncGate{path: filepath.Join(tempDir(t), "gate"), held: make(chan string, 64)}
	var err error
	if g.ln, err = net.Listen("unix", g.path); err != nil {
		t.Fatal(err)
	}
	g.ended.Go(g.serve)
	t.Cleanup(func() {
		g.ln.Close() //nolint:errcheck // serve ends by it
		g.open()
		g.ended.Wait()
	})
	return g
}

func (g *fsyncGate) serve() {
	for {
		c, err := g.ln.Accept()
		if err != nil {
			return
		}
		file, _ := bufio.NewReader(c).ReadString('\n')
		g.mu.Lock()
		if g.shut {
			g.asking = append(g.asking, c)
			g.held <- filepath.Base(strings.TrimSpace(file))
		} else {
			c.Close() //nolint:errcheck // that is the answer
		}
		g.mu.Unlock()
	}
}

// close has fsyncs hang from now on.
func (g *fsyncGate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = true
}

// open ends that, also for those that hang.
func (g *fsyncGate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = false
	for _, c := range g.asking {
		c.Close() //nolint:errcheck // that is the answer
	}
	g.asking = nil
}

// askGate is the child's side: it returns when the fsync may go on.
func askGate(gate, file string) error {
	c, err := net.Dial("unix", gate)
	if err != nil {
		return nil // the test has ended
	}
	if _, err := fmt.Fprintln(c, file); err != nil {
		return errors.Join(err, c.Close())
	}
	_, err = io.Copy(io.Discard, c)
	return errors.Join(err, c.Close())
}

// TestFsyncHangs: while an fsync of the log hangs, what comes from a source reaches the sink, and nothing counts as durable: the
// events are told as unsynced, an import does not end, and a power cut may take them. Once the disk answers all is made good.
func TestFsyncHangs(t *testing.T) {
	alice := someone(t, "alice")
	from, to := relaytest.New(t, relaytest.Script{}), relaytest.New(t, relaytest.Script{})
	gate := newGate(t)
	home := tempDir(t)
	clock := filepath.Join(home, "clock")
	if err := os.WriteFile(clock, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(home, "a")
	env := []string{clockVariable + "=" + clock, gateVariable + "=" + gate.path}
	d := runWith(t, dir, child.Options{
		Binary: self, Env: env, Args: []string{"--author", alice.npub(t), "--source", from.URL, "--sink", to.URL},
	})
	liveOn(t, from)
	notes := alice.notes(t, time.Now().Unix()-600, 102)
	sent := func(n int) {
		t.Helper()
		to.Wait(fmt.Sprintf("the sink has %d events", n), func() bool { return len(to.Stored()) >= n })
	}
	from.Publish(notes[0].String()) // the segment is made, with fsyncs of its own
	sent(1)
	d.settled()
	synced := func() error {
		s, err := d.ask()
		if err == nil && s.Archive.Unsynced > 0 {
			return fmt.Errorf("%d events are unsynced", s.Archive.Unsynced)
		}
		return err
	}
	eventually(t, "the log is synced", synced)

	gate.close()
	from.Publish(notes[1].String())
	file := <-gate.held // after the line was written: nothing else has it fsynced
	if !strings.HasPrefix(file, "events_") {
		t.Fatalf("the fsync of %s hangs, want one of a segment's files", file)
	}
	for _, e := range notes[2:101] {
		from.Publish(e.String())
	}
	sent(101)
	last := filepath.Join(home, "last.jsonl")
	if err := os.WriteFile(last, []byte(notes[101].String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	imports := start(t, child.Options{Args: []string{"import", "--archive", dir, "--no-progress", last}})
	sent(102)
	s, err := d.ask()
	if err != nil {
		t.Fatal(err)
	}
	if s.Archive.Lines != 102 || s.Archive.Unsynced != 101 {
		t.Errorf("%d events archived, %d of them unsynced; want 102, and all but the first", s.Archive.Lines, s.Archive.Unsynced)
	}
	select {
	case <-imports.Done():
		t.Errorf("the import ended (exit %d) while nothing of it is durable", imports.exit())
	default:
	}

	gate.open()
	if code := imports.exit(); code != 0 {
		t.Errorf("import: exit %d, want 0", code)
	}
	eventually(t, "the log is synced", synced)
	d.settled()
	d.stop()
	wantSet(t, "archive", archived(t, dir), setOf(notes))
	wantSet(t, "sink", sentTo(t, to), setOf(notes))
}
