package report

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var morning = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

func date(text string) time.Time {
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		panic(err)
	}
	return t
}

// underWay is a backfill of everything that can happen, so many seconds after a morning.
func underWay(seconds int) Status {
	now := morning.Add(time.Duration(seconds) * time.Second)
	n := int64(seconds)
	return Status{Now: now, Since: morning, Sources: []Source{
		{URL: "wss://relay.damus.io", State: Ended, Phase: "done", Complete: Yes, Received: 18_204, New: 4_912, Oldest: date("2020-12-14"), Negentropy: true, Share: 1},
		{URL: "wss://nos.lol", State: Connected, Phase: "history", Complete: Unclear, Received: 820 * n, New: 301, ProvenBack: date("2023-05-02"), Share: 0.011 * float64(n)},
		{URL: "wss://relay.snort.social", State: Connected, Phase: "history", Complete: Unclear, Waits: now.Add(12 * time.Second), Note: "CLOSED rate-limited: slow down", Slowed: 2, Pace: "2/s"},
		{URL: "wss://relay.example.com", State: Waiting, Phase: "idle", Next: now.Add(4 * time.Second), Tries: 2, Note: "dial: lookup relay.example.com: no such host"},
		{URL: "wss://gone.example.com", State: Ended, Phase: "idle", Complete: No, CompleteNote: "3 tries: connection refused"},
		{URL: "wss://small.example.com", State: Ended, Phase: "done", Complete: No, CompleteNote: "more than 50 events in one second", Received: 700, ProvenBack: date("2024-02-29"), Share: 0.99},
		{URL: "wss://new.example.com", State: Connecting, Phase: "idle"},
		{URL: "wss://all.example.com", State: Connected, Phase: "history", Complete: Unclear, Received: 9},
		{URL: "wss://mute.example.com", State: Connected, Phase: "history", Complete: Unclear, Note: "CLOSED error: not now"},
		{URL: "wss://rude.example.com", State: Connected, Phase: "done", Complete: Unclear, CompleteNote: "the relay\x1b[2J sends \u202ewhat", Received: 1},
	}, Sinks: []Sink{
		{URL: "ws://127.0.0.1:7777", State: Connected, Delivered: 9_000, Pending: 926, Run: &Sink{Delivered: 9_000 - 900 + 30*n, Pending: 926}},
		{URL: "wss://paid.example.com", State: Paused, Pending: 9_926, Note: "restricted: not an active member"},
	}}
}

// TestProgressLines: what is seen of a backfill under way, on a terminal and in a log.
func TestProgressLines(t *testing.T) {
	const wide = `
wss://relay.damus.io      ━━━━━━━━━━━━━━━━  complete  18,204   4,912 new   back to 2020-12-14   negentropy
wss://nos.lol             ━━━━━━━━━━╸       66 %      49,200     301 new   back to 2023-05-02   820/s, 31 s left
wss://relay.snort.social  waits 12 s: rate-limited: slow down, second time, pace now 2/s
wss://relay.example.com   waits 4 s: dial: lookup relay.example.com: no such host, second time
wss://gone.example.com    NO: 3 tries: connection refused
wss://small.example.com                     NO           700       0 new   back to 2024-02-29   more than 50 events in one second
wss://new.example.com     connecting
wss://all.example.com                       asking         9       0 new
wss://mute.example.com                      asking         0       0 new                        asked again: error: not now
wss://rude.example.com                      unknown        1       0 new                        the relay·[2J sends ·what
→ ws://127.0.0.1:7777                       sending    9,900     926 pending                    30/s
→ wss://paid.example.com  9,926 pending, restricted: not an active member
`
	const narrow = `
wss://relay.damus.io      complete  18,204   4,912 new
wss://nos.lol             66 %      49,200     301 new
wss://relay.snort.social  waits 12 s: rate-limited: slow do…
`
	const narrower = `
wss://relay.damus.io      complete  18,204
wss://nos.lol             66 %      49,200
wss://relay.snort.social  waits 12 s: rate-limi…
`
	for _, c := range []struct {
		name string
		o    Layout
		want string
	}{
		{"wide", Layout{Width: 140, Bars: true}, wide},
		{"as wide as it takes", Layout{Bars: true}, wide},
		{"a log", Layout{}, strings.NewReplacer("  ━━━━━━━━━━━━━━━━  ", "  ", "  ━━━━━━━━━━╸       ", "  ", "                    NO", "  NO").Replace(wide)},
		{"narrow", Layout{Width: 60, Bars: true}, narrow},
		{"narrower", Layout{Width: 48, Bars: true}, narrower},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p Progress
			var lines []string
			for seconds := 0; seconds <= 60; seconds += 5 {
				lines = p.Lines(underWay(seconds), c.o)
			}
			if len(p.past) > 8 {
				t.Errorf("%d samples are kept, want those of half a minute", len(p.past))
			}
			for i, want := range strings.Split(strings.Trim(c.want, "\n"), "\n") {
				if c.name == "a log" && i > 1 { // the columns are told by the first lines
					break
				}
				if lines[i] != want {
					t.Errorf("line %d:\n%q, want\n%q", i, lines[i], want)
				}
			}
		})
	}
}

// Lines are never wider or more than there is room for, however narrow the terminal.
func TestProgressFits(t *testing.T) {
	s := underWay(40)
	for i := range 64 {
		s.Sources = append(s.Sources, Source{URL: fmt.Sprintf("wss://relay-%d.example.com", i), State: Connected, Phase: "history", Note: strings.Repeat("語", i)})
		if i%2 == 0 {
			s.Sources = append(s.Sources, Source{URL: fmt.Sprintf("wss://done-%d.example.com", i), State: Ended, Phase: "done", Complete: Yes})
		}
	}
	for width := range 200 {
		for _, height := range []int{1, 2, 5, 23, 60} {
			var p Progress
			lines := p.Lines(s, Layout{Width: width, Height: height, Bars: true})
			if len(lines) > height {
				t.Fatalf("%d lines of %d columns, want at most %d", len(lines), width, height)
			}
			for _, line := range lines {
				if width > 0 && cells(line) > width {
					t.Fatalf("%q takes %d columns, want at most %d", line, cells(line), width)
				}
			}
		}
	}
	var p Progress
	lines := p.Lines(s, Layout{Width: 120, Height: 23})
	if want := "and 86 more: 33 complete, 3 incomplete, 46 under way, 4 waiting"; lines[22] != want {
		t.Errorf("the last line is %q, want %q", lines[22], want)
	}
}

// TestNoLeftFromNothing: a share that has just become known, or does not grow, foretells nothing; a clock that is set back is lived with.
func TestNoLeftFromNothing(t *testing.T) {
	at := func(seconds int, share float64) Status {
		return Status{Now: morning.Add(time.Duration(seconds) * time.Second), Sources: []Source{{URL: "u", State: Connected, Phase: "history", Share: share, Received: 100}}}
	}
	var p Progress
	for i, c := range []struct {
		s    Status
		want string
	}{
		{at(0, 0), "u  asking    100   0 new"}, {at(10, 0.6), "u  60 %      100   0 new"}, {at(20, 0.7), "u  70 %      100   0 new   30 s left"},
		{at(50, 0.7), "u  70 %      100   0 new"}, {at(60, 0.7), "u  70 %      100   0 new"}, {at(5, 0.9999), "u  99 %      100   0 new"},
		{at(7, 0.9999), "u  99 %      100   0 new"},
	} {
		if got := strings.Join(p.Lines(c.s, Layout{}), "\n"); got != c.want {
			t.Errorf("%d: %q, want %q", i, got, c.want)
		}
	}
}

func TestNth(t *testing.T) {
	for n, want := range map[int]string{1: "first", 2: "second", 3: "third", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 21: "21st", 22: "22nd", 23: "23rd", 111: "111th"} {
		if got := nth(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestCut(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{{"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"語語", 4, "語語"}, {"語語", 3, "語…"}, {"a", 0, ""}, {"ab", 1, "…"}} {
		if got := cut(c.text, c.width); got != c.want {
			t.Errorf("%q in %d: %q, want %q", c.text, c.width, got, c.want)
		}
	}
}
