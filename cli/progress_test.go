package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rebroadcastr/config"
	"rebroadcastr/report"
)

// paper is a terminal as far as the program moves its cursor; it wraps lines anew when its width changes, as most do.
type paper struct {
	t     *testing.T
	mu    sync.Mutex
	width int
	high  int
	lines [][]rune // as they were written; the cursor is at the end of the last one, but for up
	up    int      // rows above that, at the row's beginning
}

func (p *paper) size() (int, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.width, p.high
}

func (p *paper) resize(width, high int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.width, p.high = width, high
}

func (p *paper) rows(line []rune) int { return 1 + max(0, len(line)-1)/p.width }

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lines) == 0 {
		p.lines = [][]rune{nil}
	}
	begun := false // the cursor is at the beginning of its row
	for text := string(b); text != ""; {
		switch {
		case strings.HasPrefix(text, "\r"):
			text, begun = text[1:], true
		case strings.HasPrefix(text, "\x1b["):
			end := strings.IndexAny(text, "AJ")
			if end < 0 {
				p.t.Errorf("a control sequence that is none: %q", text)
				return len(b), nil
			}
			if text[end] == 'A' {
				n, err := strconv.Atoi(text[2:end])
				if err != nil {
					p.t.Error(err)
				}
				p.up = min(n, p.high-1)
			} else {
				p.wipe(begun)
			}
			text = text[end+1:]
		case strings.HasPrefix(text, "\n"):
			p.lines, text = append(p.lines, nil), text[1:]
		default:
			end := strings.IndexAny(text, "\r\n\x1b")
			if end < 0 {
				end = len(text)
			}
			last := &p.lines[len(p.lines)-1]
			*last = append(*last, []rune(text[:end])...)
			text = text[end:]
		}
	}
	return len(b), nil
}

// wipe removes everything from the cursor on.
func (p *paper) wipe(begun bool) {
	if !begun {
		p.t.Error("wiped in the middle of a line")
	}
	left := p.up + 1
	for left > 0 && len(p.lines) > 0 {
		last := len(p.lines) - 1
		n := p.rows(p.lines[last])
		if n > left { // the rest of a line that is wrapped
			p.lines[last], left = p.lines[last][:(n-left)*p.width], 0
			break
		}
		left -= n
		p.lines = p.lines[:last]
	}
	p.lines, p.up = append(p.lines, nil), 0
}

func (p *paper) shown() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, line := range p.lines {
		out = append(out, string(line))
	}
	return out
}

// many are so many relays, asked since a time.
type many struct {
	n     int
	since time.Time
}

func (m many) Status() report.Status {
	s := report.Status{Now: time.Now(), Since: m.since}
	for i := range m.n {
		s.Sources = append(s.Sources, report.Source{URL: fmt.Sprintf("wss://relay-%d.example.com", i), State: report.Connected, Phase: "history",
			Received: 100 * int64(time.Since(m.since)/time.Second), Note: "a note that is long enough for every terminal"})
	}
	return s
}

// TestLinesAreNotTorn: log lines of many goroutines above progress that is redrawn, on a terminal that changes its size: every log
// line is there, whole and in order, and below them the progress, once. What a terminal that shrinks has scrolled away cannot be
// wiped any more.
func TestLinesAreNotTorn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &paper{t: t, width: 100, high: 24}
		out := &screen{w: p, size: p.size}
		logs := newLogs(out, true, config.Log{Level: "info", Format: "json"})
		ctx, cancel := context.WithCancel(t.Context())
		shown := spawn("progress", func() error { return showProgress(ctx, out, many{64, time.Now()}) })
		const writers, each = 4, 200
		var writing []*task
		for w := range writers {
			writing = append(writing, spawn("log", func() error {
				log := logs.logger()
				random := rand.New(rand.NewPCG(uint64(w), 1))
				for i := range each {
					time.Sleep(time.Duration(random.IntN(50)) * time.Millisecond)
					log.Info().Int("writer", w).Int("n", i).Msg(strings.Repeat("x", random.IntN(150)))
				}
				return nil
			}))
		}
		sizes := spawn("resize", func() error {
			for _, size := range [][2]int{{100, 24}, {60, 24}, {30, 10}, {200, 50}, {20, 3}, {80, 24}} {
				time.Sleep(700 * time.Millisecond)
				p.resize(size[0], size[1])
			}
			return nil
		})
		for _, w := range append(writing, sizes) {
			if err := w.wait(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second) // drawn once more, by the fake clock
		lines := p.shown()
		if n := len(lines); n < 23 || !strings.HasPrefix(lines[n-1], "and 42 more: ") || !strings.HasPrefix(lines[n-23], "wss://relay-0.example.com ") {
			t.Errorf("below the log stands\n%s\nwant 22 of 64 relays, and that there are more", strings.Join(lines[max(0, n-24):], "\n"))
		}
		cancel()
		if err := shown.wait(); err != nil {
			t.Error(err)
		}
		next, stale := [writers]int{}, 0
		for _, line := range p.shown() {
			if line == "" {
				continue
			}
			if !strings.HasPrefix(line, "{") {
				stale++
				continue
			}
			var w, n int
			if _, err := fmt.Sscanf(line, `{"level":"info","writer":%d,"n":%d,`, &w, &n); err != nil || !strings.HasSuffix(line, `"}`) {
				t.Fatalf("a line of the log is torn: %q", line)
			}
			if n != next[w] {
				t.Fatalf("line %d of writer %d follows %d", n, w, next[w]-1)
			}
			next[w]++
		}
		const pictures = 2 * 3 // two for each time that it shrinks: one may be under way
		if stale > pictures*24 {
			t.Errorf("%d lines of progress have stayed, want at most those of %d pictures", stale, pictures)
		}
		for w, n := range next {
			if n != each {
				t.Errorf("writer %d: %d lines are left of %d", w, n, each)
			}
		}
	})
}

// TestBlockAMinute: where nobody can redraw, progress is a block of whole lines once a minute.
func TestBlockAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute+30*time.Second)
		defer cancel()
		if err := showProgress(ctx, &screen{w: &text}, many{2, time.Now()}); err != nil {
			t.Error(err)
		}
		const want = `after 1m00s:
  wss://relay-0.example.com  asking    6,000   0 new   100/s, asked again: a note that is long enough for every terminal
  wss://relay-1.example.com  asking    6,000   0 new   100/s, asked again: a note that is long enough for every terminal
after 2m00s:
  wss://relay-0.example.com  asking    12,000   0 new   100/s, asked again: a note that is long enough for every terminal
  wss://relay-1.example.com  asking    12,000   0 new   100/s, asked again: a note that is long enough for every terminal
`
		if got := text.String(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}

// TestScreen: bars are for terminals whose cursor can be moved.
func TestScreen(t *testing.T) {
	env := func(name string) func(string) (string, bool) {
		return func(key string) (string, bool) { return name, key == "TERM" && name != "" }
	}
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() //nolint:errcheck // nothing is written
	for name, w := range map[string]io.Writer{"a file": file, "a buffer": new(bytes.Buffer)} {
		if newScreen(w, env("xterm")).size != nil {
			t.Errorf("%s is taken for a terminal", name)
		}
	}
	if !dumb(env("dumb")) || dumb(env("xterm")) || dumb(env("")) {
		t.Error("TERM=dumb is no terminal for bars, others are")
	}
	s := &screen{w: failing{}, size: func() (int, int) { return 80, 24 }}
	if err := s.show([]string{"x"}, 80, 24); err == nil {
		t.Error("an error of the terminal is not told")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("gone") }
