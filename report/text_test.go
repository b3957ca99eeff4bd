package report

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func written(t *testing.T, s Status) string {
	t.Helper()
	var b strings.Builder
	if err := s.WriteStatus(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestStatusText: what an operator reads. Each row says why, and nothing is said twice.
func TestStatusText(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	long := "auth-required: members only"
	s := Status{
		State: Running, PID: 7, Since: now.Add(-time.Minute), Now: now, Archive: Archive{Dir: "d", Lines: 4},
		Sources: []Source{
			{URL: "wss://a.example", Name: "first", State: Connected, Since: now, Complete: Yes, Unasked: 2, UnaskedBy: map[string]int64{"ephemeral": 2}},
			{URL: "wss://b.example", State: Connected, Since: now, Complete: No},
			{URL: "wss://c.example", State: Connected, Since: now, Complete: Yes, ProvenBack: time.Unix(1_600_000_000, 0)},
		},
		Sinks: []Sink{
			{URL: "wss://d.example", State: Paused, Since: now, Note: long},
			{URL: "wss://e.example", State: Connected, Since: now, Rejected: 3, RejectedBy: map[string]int64{"blocked": 3}},
		},
		Problems: []string{"sink wss://d.example: " + long, "archive: something else"},
	}
	text := written(t, s)
	for _, want := range []string{
		"wss://a.example (first)", " all ", "2020-09-13", "  unasked: 2 ephemeral\n", "PAUSED", "  refused: 3 blocked\n", "  archive: something else\n", "2 problems\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if n := strings.Count(text, long); n != 1 {
		t.Errorf("the sink's problem is told %d times, want once:\n%s", n, text)
	}
}

// TestStatusOfAStart: nothing is counted yet, so no zeros and no empty tables; why it is not running is said.
func TestStatusOfAStart(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	text := written(t, Status{State: Starting, Reason: "opening the archive", PID: 7, Since: now, Now: now, Archive: Archive{Dir: "d"}})
	if want := "starting 0s, pid 7 · d\n  opening the archive\nno problems\n"; text != want {
		t.Errorf("says\n%s\nwant\n%s", text, want)
	}
	waiting := "waiting for room"
	text = written(t, Status{State: Starting, PID: 7, Since: now, Now: now, Archive: Archive{Dir: "d", Waiting: waiting}, Problems: []string{"archive: " + waiting}})
	if want := "starting 0s, pid 7 · d\n  waiting for room\n1 problem\n"; text != want {
		t.Errorf("says\n%s\nwant\n%s", text, want)
	}
}

// TestInterrupted: the summary of a command that was cut short says so, whatever its relays had proven by then.
func TestInterrupted(t *testing.T) {
	for _, c := range []struct {
		s    Status
		want string
	}{
		{Status{Interrupt: true}, "interrupted. The same command asks only for what is missing.\n"},
		{Status{Interrupt: true, Sinks: []Sink{{URL: "ws://x", Pending: 1}}}, "interrupted; incomplete: 1 of 1 sinks. The same command asks only for what is missing.\n"},
		{Status{}, "0s\n"},
	} {
		var b strings.Builder
		if err := c.s.WriteSummary(&b); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(b.String(), c.want) {
			t.Errorf("ends otherwise than with %q:\n%s", c.want, b.String())
		}
	}
}

// TestEmptyLists: programs iterate over them.
func TestEmptyLists(t *testing.T) {
	b, err := json.Marshal(Status{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"sources":[]`, `"sinks":[]`, `"problems":[]`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
}

// TestOnly: of one relay, its rows and problems; a relay at another port of the same host is another one.
func TestOnly(t *testing.T) {
	const u = "wss://a.example"
	s := Status{
		Sources:  []Source{{URL: u}, {URL: u + ":8080"}},
		Sinks:    []Sink{{URL: u + ":8080"}, {URL: u}},
		Problems: []string{"source " + u + ": x", "sink " + u + ": y", "sink " + u + ":8080: z", "archive: full"},
	}
	only := s.Only(u)
	if len(only.Sources) != 1 || len(only.Sinks) != 1 || only.Sources[0].URL != u || only.Sinks[0].URL != u || len(only.Problems) != 2 {
		t.Errorf("of %s: %+v", u, only)
	}
	if len(s.Sources) != 2 || len(s.Problems) != 4 || s.Problems[3] != "archive: full" {
		t.Errorf("the whole is changed: %+v", s)
	}
}

// TestStoryLists: empty ones are no null.
func TestStoryLists(t *testing.T) {
	text, err := json.Marshal(Story{})
	if err != nil || !strings.Contains(string(text), `"sources":[],"sinks":[]`) {
		t.Errorf("%s, %v", text, err)
	}
}
