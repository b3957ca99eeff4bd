package e2e

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rebroadcastr/e2e/child"
	"rebroadcastr/relaytest"
)

var soakTime = flag.Duration("soak", 25*time.Second, "how long TestSoak goes on")

// figures of a child at one moment.
type figures struct {
	reconnects int
	goroutines int
	files      int   // open descriptors
	anonymous  int64 // bytes of RssAnon
	index      int64 // bytes on disk
}

func (f figures) String() string {
	return fmt.Sprintf("%d reconnects: %d goroutines, %d descriptors, %.1f MiB anonymous, index %.1f MiB",
		f.reconnects, f.goroutines, f.files, float64(f.anonymous)/(1<<20), float64(f.index)/(1<<20))
}

// TestSoak: over thousands of reconnects goroutines, descriptors, memory and the index stay flat, and nothing is missing.
// A minute's worth of a bad month: each source closes after a few dozen events, each sink too, or is cut, or refuses a while.
func TestSoak(t *testing.T) {
	const relays = 4
	var sources, sinks []*relaytest.Relay
	for i := range relays {
		sources = append(sources, relaytest.New(t, relaytest.Script{CloseAfter: 20 + i}))
		sinks = append(sinks, relaytest.New(t, relaytest.Script{DropBeforeOK: 15 + i, Forget: true}))
	}
	all := append(sources[:relays:relays], sinks...)
	dir := filepath.Join(tempDir(t), "a")
	addr := strings.TrimPrefix(deadURL(t), "ws://")
	cfg := configFile(t, fmt.Sprintf(`
all: true
history: none
sources: [%s]
sinks: [%s]
archive: {dir: %q}
listen: {addr: %q}
relay_settings: {default: {backoff: {initial: 10ms, max: 30ms}, pace: 1000/s}}
`, urls(sources), urls(sinks), dir, addr))
	d := &daemon{process: start(t, child.Options{Binary: built(t, buildPlain), Args: []string{"run", "-c", cfg, "--log-level", "warn", "--no-progress"}}), dir: dir}
	eventually(t, "the sources are there", func() error {
		for _, r := range sources {
			if r.Accepted() == 0 {
				return fmt.Errorf("%s is not connected to", r.URL)
			}
		}
		return nil
	})

	alice := someone(t, "alice")
	begin := time.Now()
	published := 0
	var first figures
	const step = 25 * time.Millisecond
	trouble := time.NewTicker(step)
	defer trouble.Stop()
	rare := max(1, int(*soakTime/step)/2000) // at most 2,000 events: the relays look through all of them at each REQ
	for n := 0; time.Since(begin) < *soakTime; n++ {
		<-trouble.C
		all[n%len(all)].Drop()
		if n%40 == 0 { // another one refuses for a second
			all[n/40%len(all)].Update(func(s *relaytest.Script) { s.Status = 0 })
			all[(n/40+1)%len(all)].Update(func(s *relaytest.Script) { s.Status = http.StatusServiceUnavailable })
		}
		if first.reconnects == 0 && time.Since(begin) > *soakTime/3 {
			first = measure(t, d, addr, all)
			t.Logf("after a third: %s", first)
		}
		if n%rare != 0 {
			continue
		}
		e := alice.sign(t, time.Now().Unix(), 1, fmt.Sprintf("soak %d", n))
		published++
		// At two sources, so that most survive one's death; what both lose is caught up.
		sources[n%relays].Publish(e.String())
		sources[(n+1)%relays].Publish(e.String())
	}
	last := measure(t, d, addr, all)
	t.Logf("at the end:    %s", last)
	if last.reconnects < 300 {
		t.Errorf("%d reconnects in %s: too few to say anything", last.reconnects, *soakTime)
	}
	for _, c := range []struct {
		what        string
		first, last int64
		slack       int64
	}{
		// Twice covers who is connected at the moment; a leak of one in each reconnect is far more.
		{"goroutines", int64(first.goroutines), int64(last.goroutines), 40},
		{"descriptors", int64(first.files), int64(last.files), 20},
		{"anonymous memory", first.anonymous, last.anonymous, 32 << 20},
		{"the index", first.index, last.index, 8 << 20},
	} {
		if c.last > 3*c.first/2+c.slack {
			t.Errorf("%s grew from %d to %d while there were %d reconnects, want at most half as much again and %d", c.what, c.first, c.last, last.reconnects-first.reconnects, c.slack)
		}
	}

	// When all is quiet, everything is there.
	for _, r := range all {
		r.Update(func(s *relaytest.Script) { s.Status, s.CloseAfter, s.DropBeforeOK = 0, 0, 0 })
	}
	eventually(t, "all is archived", func() error {
		s, err := d.ask()
		if err == nil && s.Archive.Lines != uint64(published) {
			err = fmt.Errorf("%d of %d; %s", s.Archive.Lines, published, asJSON(s.Sources))
		}
		return err
	})
	d.settled()
	d.stop()
	left(sinks...)
	if n := len(archived(t, dir)); n != published {
		t.Errorf("archive: %d events, want %d", n, published)
	}
	for _, r := range sinks {
		sent := map[string]bool{}
		for _, m := range r.Got("EVENT") {
			sent[idOf(m.Raw)] = true
		}
		if len(sent) != published {
			t.Errorf("sink %s was sent %d different events, want %d", r.URL, len(sent), published)
		}
	}
	t.Logf("%s: %d events, %d reconnects", time.Since(begin).Round(time.Second), published, last.reconnects)
}

// asJSON is v for a message.
func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func urls(relays []*relaytest.Relay) string {
	var quoted []string
	for _, r := range relays {
		quoted = append(quoted, strconv.Quote(r.URL))
	}
	return strings.Join(quoted, ", ")
}

// measure takes the least of some looks: what comes and goes is not what grows.
func measure(t testing.TB, d *daemon, addr string, all []*relaytest.Relay) figures {
	t.Helper()
	var least figures
	for range 5 {
		f := figures{}
		for _, r := range all {
			f.reconnects += r.Accepted() - 1
		}
		_, metrics := httpDo(t, "GET", "http://"+addr+"/metrics")
		f.goroutines = int(metric(t, metrics, "go_goroutines"))
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.PID()))
		if err != nil {
			t.Fatal(err)
		}
		f.files = len(fds)
		f.anonymous = rssAnon(t, d.PID())
		f.index = size(t, filepath.Join(d.dir, "index"))
		if least.goroutines == 0 {
			least = f
		}
		least.goroutines, least.files = min(least.goroutines, f.goroutines), min(least.files, f.files)
		least.anonymous, least.index = min(least.anonymous, f.anonymous), min(least.index, f.index)
		time.Sleep(50 * time.Millisecond)
	}
	return least
}

func metric(t testing.TB, metrics, name string) float64 {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(metrics)
	if m == nil {
		t.Fatalf("no metric %s", name)
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// size is what a folder takes on disk: Badger's files have holes.
func size(t testing.TB, dir string) (bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return gone(err)
		}
		info, err := e.Info()
		if err != nil {
			return gone(err)
		}
		bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// gone is nil for a file that was removed meanwhile.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// rssAnon is a process's memory that no file stands behind, in bytes.
func rssAnon(t testing.TB, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^RssAnon:\s+(\d+) kB$`).FindSubmatch(b)
	if m == nil {
		t.Fatalf("no RssAnon in %s", b)
	}
	kB, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kB << 10
}
