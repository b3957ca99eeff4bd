package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// badSource is a daemon with a source that misbehaves, one that does not, and a sink.
type badSource struct {
	*daemon
	alice, bob, mallory person
	bad, good, to       *relaytest.Relay
	want                set
	made                int64
}

// badSourceCase is one way to misbehave. While it lasts the good source's events arrive; in the end all of the bad one's have.
type badSourceCase struct {
	name   string
	script func(b *badSource, s *relaytest.Script)
	lasts  func(b *badSource) // until the relay is well again; nil: it never is
	then   func(b *badSource, s status)
}

// first makes a CLOSED instead of an answer, n times.
func first(n int64, text string) func(*badSource, *relaytest.Script) {
	var said atomic.Int64
	return func(_ *badSource, s *relaytest.Script) {
		s.Closed = func(string, []nostr.Filter) string {
			if said.Add(1) <= n {
				return text
			}
			return ""
		}
	}
}

// refusing lasts until the status tells of a pause and how an operator ends it, who then does.
func refusing(text string) func(*badSource) {
	return func(b *badSource) {
		b.says(report.Paused, regexp.QuoteMeta(text)+".*rebroadcastr resume "+b.bad.URL)
		b.bad.Update(func(s *relaytest.Script) { s.Closed, s.Status = nil, 0 })
		wantExit(b.t, 0, "resume", b.bad.URL, "--archive", b.dir)
	}
}

func always(text string) func(*badSource, *relaytest.Script) {
	return func(_ *badSource, s *relaytest.Script) {
		s.Closed = func(string, []nostr.Filter) string { return text }
	}
}

var badSources = []badSourceCase{
	{
		name: "closes each subscription after EOSE",
		script: func(_ *badSource, s *relaytest.Script) {
			s.ClosedAfter = "error: this subscription was idle for too long"
		},
		lasts: func(b *badSource) {
			b.says(report.Connected, "live subscription closed: error: this subscription was idle")
		},
	},
	{
		name:   "never says EOSE",
		script: func(_ *badSource, s *relaytest.Script) { s.NoEOSE = true },
	},
	{name: "CLOSED rate-limited, for a while", script: first(6, "rate-limited: slow down")},
	{name: "CLOSED error, for a while", script: first(6, "error: could not reach the database")},
	{
		name: "CLOSED auth-required", script: always("auth-required: members only"),
		lasts: refusing("auth-required: members only"),
	},
	{
		name: "CLOSED restricted", script: always("restricted: not on the list"),
		lasts: refusing("restricted: not on the list"),
	},
	{
		name: "CLOSED unsupported, for more than one author",
		script: func(_ *badSource, s *relaytest.Script) {
			s.Closed = func(_ string, fs []nostr.Filter) string {
				if len(fs[0].Authors) > 1 {
					return "unsupported: filter contains too many authors"
				}
				return ""
			}
		},
	},
	{
		name: "a NOTICE in the place of EOSE, for a while",
		script: func(_ *badSource, s *relaytest.Script) {
			var said atomic.Int64
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				if m.Label != "REQ" || said.Add(1) > 2 {
					return false
				}
				c.Send(`["NOTICE","ERROR: bad req: try again"]`)
				return true
			}
		},
	},
	{
		name: "forged copies first",
		script: func(b *badSource, s *relaytest.Script) {
			for _, e := range s.Events {
				s.First = append(s.First, relaytest.BadSig(e), relaytest.Forged(e), relaytest.BadID(e))
			}
			s.First = s.First[:20]
		},
		then: func(b *badSource, s status) {
			if src := s.source(b.t, b.bad.URL); src.Invalid < 20 || src.InvalidBy["signature"] == 0 || src.InvalidBy["id"] == 0 {
				b.t.Errorf("invalid %d, by reason %v; want all forged copies counted", src.Invalid, src.InvalidBy)
			}
		},
	},
	{
		name: "events that nobody asked for",
		script: func(b *badSource, s *relaytest.Script) {
			for _, e := range b.mallory.notes(b.t, time.Now().Unix()-100, 10) {
				s.First = append(s.First, e.String())
			}
		},
		then: func(b *badSource, s status) {
			if src := s.source(b.t, b.bad.URL); src.Unasked < 10 {
				b.t.Errorf("unasked %d, want at least 10", src.Unasked)
			}
		},
	},
	{
		name: "events after EOSE",
		script: func(_ *badSource, s *relaytest.Script) {
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				if sub, filters := parseREQ(m); len(filters) > 0 && !live(filters[0]) {
					c.Send(`["EOSE","` + sub + `"]`)
				}
				return false
			}
		},
	},
	{
		name:   "answers nothing",
		script: func(_ *badSource, s *relaytest.Script) { s.Silent = true },
		lasts: func(b *badSource) {
			b.bad.Wait("a request", func() bool { return len(b.bad.Got("REQ")) > 0 })
			b.bad.Update(func(s *relaytest.Script) { s.Silent = false })
			b.bad.Drop()
		},
	},
	{
		name:   "every second frame is garbage",
		script: func(_ *badSource, s *relaytest.Script) { s.Between = []string{`{"this is": "no message"`} },
		lasts: func(b *badSource) {
			b.bad.Update(func(s *relaytest.Script) { s.Between = nil })
		},
		then: func(b *badSource, s status) {
			if src := s.source(b.t, b.bad.URL); sum(src.BadFrames) == 0 {
				b.t.Error("no bad frames are counted")
			}
			b.once()
		},
	},
	{
		name: "frames that are binary, huge, unterminated, deep",
		script: func(_ *badSource, s *relaytest.Script) {
			s.Hello = []string{
				`["NOTICE","` + strings.Repeat("x", 5<<20) + `"]`,
				`["EVENT","live-0",{"id":"`,
				strings.Repeat("[", 100_000),
				`["EVENT","live-0",` + strings.Repeat(`{"a":`, 20_000) + strings.Repeat(`}`, 20_000) + `]`,
				`["EOSE"]`, `["CLOSED"]`, `["EOSE",7]`, `["OK"]`, `[[]]`, `null`, ``,
			}
		},
		lasts: func(b *badSource) {
			for _, c := range b.bad.Conns() {
				c.SendBinary([]byte{0, 1, 2, 255})
			}
		},
		then: func(b *badSource, s status) {
			if src := s.source(b.t, b.bad.URL); src.BadFrames["too big"] != 1 || src.BadFrames["binary frame"] != 1 {
				b.t.Errorf("bad frames %v; want one that is too big and one that is binary among them", src.BadFrames)
			}
			b.once()
		},
	},
	{
		name:   "HTTP 429 with Retry-After",
		script: func(_ *badSource, s *relaytest.Script) { s.Status, s.RetryAfter = 429, "1" },
		lasts:  unavailable("429 Too Many Requests"),
	},
	{
		name:   "HTTP 503",
		script: func(_ *badSource, s *relaytest.Script) { s.Status = 503 },
		lasts:  unavailable("503 Service Unavailable"),
	},
	{
		name:   "HTTP 401",
		script: func(_ *badSource, s *relaytest.Script) { s.Status = 401 },
		lasts:  refusing("401 Unauthorized"),
	},
	{
		name:   "HTTP 404",
		script: func(_ *badSource, s *relaytest.Script) { s.Status = 404 },
		lasts:  refusing("404 Not Found"),
	},
}

func unavailable(text string) func(*badSource) {
	return func(b *badSource) {
		b.says("(waiting|connecting)", text)
		b.bad.Update(func(s *relaytest.Script) { s.Status = 0 })
	}
}

// TestBadSource: whatever one source does, the events of the others arrive meanwhile, and its own in the end: in the archive
// and at the sink, each once, and nothing else.
func TestBadSource(t *testing.T) {
	t.Parallel()
	var list []subtest
	for _, c := range badSources {
		list = append(list, subtest{c.name, c.test})
	}
	sideBySide(t, 4, list)
}

func (c badSourceCase) test(t *testing.T) {
	b := &badSource{alice: someone(t, "alice"), bob: someone(t, "bob"), mallory: someone(t, "mallory"), want: set{}}
	b.daemon = &daemon{process: &process{t: t}}
	script := relaytest.Script{Events: b.notes(b.alice, 30)}
	c.script(b, &script)
	b.bad, b.good, b.to = relaytest.New(t, script), relaytest.New(t, relaytest.Script{}), relaytest.New(t, relaytest.Script{})
	cfg := configFile(t, fmt.Sprintf("authors: [%s, %s]\nsources: [%q, %q]\nsinks: [%q]\n%s",
		b.alice.npub(t), b.bob.npub(t), b.bad.URL, b.good.URL, b.to.URL, quick))
	b.daemon = run(t, filepath.Join(tempDir(t), "a"), "-c", cfg)

	liveOn(t, b.good)
	others := b.notes(b.bob, 3)
	b.good.Publish(others...)
	b.arrived("the good source's", others)
	if c.lasts != nil {
		c.lasts(b)
	}
	b.bad.Publish(b.notes(b.alice, 5)...)
	eventually(t, "the bad source's events are at the sink", func() error {
		if n := len(b.to.Stored()); n < len(b.want) {
			return fmt.Errorf("%d of %d", n, len(b.want))
		}
		return nil
	})
	s := b.settled()
	if c.then != nil {
		c.then(b, s)
	}
	b.stop()
	wantSet(t, "archive", archived(t, b.dir), b.want)
	wantSet(t, "sink", sentTo(t, b.to), b.want)
	if got := b.good.Accepted(); got != 1 {
		t.Errorf("the good source was connected to %d times, want once", got)
	}
}

// notes are n of the last minutes, which a catch-up finds.
func (b *badSource) notes(p person, n int) (out []string) {
	b.t.Helper()
	for range n {
		b.made++
		e := p.sign(b.t, time.Now().Unix()-900+b.made, 1, fmt.Sprintf("note %d", b.made))
		b.want[e.ID] = e
		out = append(out, canonical(e))
	}
	return out
}

func (b *badSource) arrived(what string, events []string) {
	b.t.Helper()
	eventually(b.t, what+" events are at the sink", func() error {
		has := map[string]bool{}
		for _, id := range b.to.Stored() {
			has[id] = true
		}
		for _, e := range events {
			if !has[relaytest.ID(e)] {
				return fmt.Errorf("%s is missing", e)
			}
		}
		return nil
	})
}

// says waits until the status tells of the bad source what it should: patterns of its state and its note.
func (b *badSource) says(state, note string) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("the status says %s: %s", state, note), func() error {
		s, err := b.ask()
		if err != nil {
			return err
		}
		src, err := s.findSource(b.bad.URL)
		if err == nil && (!regexp.MustCompile(state).MatchString(src.State) || !regexp.MustCompile(note).MatchString(src.Note)) {
			err = fmt.Errorf("it is %s: %s", src.State, src.Note)
		}
		return err
	})
}

// once wants one connection: nothing of this ends it.
func (b *badSource) once() {
	b.t.Helper()
	if got := b.bad.Accepted(); got != 1 {
		b.t.Errorf("the bad source was connected to %d times, want once", got)
	}
}
