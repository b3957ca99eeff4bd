package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/localrelay"
)

// manager hears what a unit of Type=notify tells systemd.
type manager struct {
	path string

	mu   sync.Mutex
	told []string // lines, in order
}

func newManager(t testing.TB) *manager {
	t.Helper()
	m := &manager{path: filepath.Join(tempDir(t), "notify")}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.told = append(m.told, strings.Split(string(buf[:n]), "\n")...)
			m.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return m
}

// env is what systemd would set, with a watchdog of half a second.
func (m *manager) env() []string {
	return []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=500000"}
}

// count tells how often a line that begins with prefix came.
func (m *manager) count(prefix string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, line := range m.told {
		if strings.HasPrefix(line, prefix) {
			n++
		}
	}
	return n
}

func (m *manager) hears(t testing.TB, prefix string, times int) {
	t.Helper()
	eventually(t, "systemd is told "+prefix, func() error {
		if n := m.count(prefix); n < times {
			m.mu.Lock()
			defer m.mu.Unlock()
			return fmt.Errorf("%d times, want %d; it was told %q", n, times, m.told)
		}
		return nil
	})
}

// TestNotify: ready once health is served, more time for a long start, the watchdog, and the stop.
func TestNotify(t *testing.T) {
	from := relay(t, localrelay.Options{}, events(t)[:20]...)
	m := newManager(t)
	dir := filepath.Join(tempDir(t), "a")
	addr := strings.TrimPrefix(deadURL(t), "ws://")
	d := runWith(t, dir, child.Options{Args: []string{"--all", "--source", from.URL(), "--listen", addr}, Env: m.env()})
	m.hears(t, "READY=1", 1)
	if m.count("EXTEND_TIMEOUT_USEC=") == 0 {
		t.Error("systemd was not asked for time while the archive was opened")
	}
	if code, body := httpDo(t, "GET", "http://"+addr+"/healthz"); code != 200 {
		t.Errorf("health once ready: %d %s", code, body)
	}
	m.hears(t, "WATCHDOG=1", 3)
	m.hears(t, "STATUS=", 2)
	d.stop()
	if m.count("STOPPING=1") != 1 {
		t.Errorf("systemd was told %q, want STOPPING=1 once", m.told)
	}
}

// TestNoRoomAtStart: below archive.min_free the index is not opened. run serves health and waits, with the watchdog
// beating; a one-shot command says what to do and exits 1.
func TestNoRoomAtStart(t *testing.T) {
	from := relay(t, localrelay.Options{}, events(t)[:20]...)
	dir := filepath.Join(tempDir(t), "a")
	cfg := configFile(t, fmt.Sprintf("all: true\nsources: [%q]\narchive: {dir: %q, min_free: 900000GiB}\n", from.URL(), dir))
	p := wantExit(t, 1, "backfill", "-c", cfg)
	for _, want := range []string{dir, "min_free", "free"} {
		if !strings.Contains(p.Stderr(), want) {
			t.Errorf("the answer lacks %q: %s", want, p.Stderr())
		}
	}

	m := newManager(t)
	addr := strings.TrimPrefix(deadURL(t), "ws://")
	waiting := start(t, child.Options{Args: []string{"run", "-c", cfg, "--listen", addr}, Env: m.env()})
	m.hears(t, "READY=1", 1)
	m.hears(t, "WATCHDOG=1", 3)
	m.hears(t, "STATUS=waiting for room", 1)
	if code, body := httpDo(t, "GET", "http://"+addr+"/healthz"); code != 503 || !strings.Contains(body, "waiting for room") {
		t.Errorf("health without room: %d %s; want 503 and the reason", code, body)
	}
	if _, err := os.Stat(filepath.Join(dir, "index")); !os.IsNotExist(err) {
		t.Errorf("the index was touched without room: %v", err)
	}
	waiting.stop()
}
