package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// badSink is a daemon with a source, a sink that misbehaves and one that does not.
type badSink struct {
	*daemon
	cfg             string
	alice, bob      person
	from, bad, good *relaytest.Relay
	made            int
	all             set

	mu    sync.Mutex
	times map[string]int // an event was offered to the bad sink
}

// badSinkCase is one way to misbehave.
type badSinkCase struct {
	name   string
	script func(b *badSink, s *relaytest.Script)
	lasts  func(b *badSink) // until the relay is well again; nil: it never is
	repeat bool             // an event may have to be sent again
	// takes says what the sink has in the end; nil: everything.
	takes func(b *badSink, e *nostr.Event) bool
	then  func(b *badSink, k report.Sink)
}

// offered counts and numbers the offers of one event, from 1.
func (b *badSink) offered(id string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.times[id]++
	return b.times[id]
}

// answers makes the n-th offer (from 1) of those events that f names be answered in another way.
func answers(f func(e *nostr.Event, n int) *relaytest.Answer) func(*badSink, *relaytest.Script) {
	return func(b *badSink, s *relaytest.Script) {
		s.OK = func(e nostr.Event) relaytest.Answer {
			if a := f(&e, b.offered(e.ID)); a != nil {
				return *a
			}
			return relaytest.Accept()
		}
	}
}

// every holds for each n-th of the events that a test has made.
func every(n int, e *nostr.Event) bool {
	var i int
	if _, err := fmt.Sscanf(e.Content, "note %d", &i); err != nil {
		return false
	}
	return i%n == 0
}

// parked lasts until so many events wait on their own. They are offered again half a minute later.
func parked(n int64) func(*badSink) {
	return func(b *badSink) {
		eventually(b.t, fmt.Sprintf("%d events are parked", n), func() error {
			k, err := b.row()
			if err == nil && (k.Parked != n || k.Pending != 0) {
				err = fmt.Errorf("parked %d, pending %d", k.Parked, k.Pending)
			}
			return err
		})
	}
}

var badSinks = []badSinkCase{
	{
		name: "dies of one event", repeat: true,
		script: func(_ *badSink, s *relaytest.Script) {
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				e := eventOf(m)
				if e == nil || e.Content != deadly {
					return false
				}
				c.Drop()
				return true
			}
		},
		takes: func(_ *badSink, e *nostr.Event) bool { return e.Content != deadly },
		then: func(b *badSink, k report.Sink) {
			if k.Rejected != 1 || k.RejectedBy["poison"] != 1 {
				b.t.Errorf("rejected %v, want one for poison", k.RejectedBy)
			}
		},
	},
	{
		name: "a NOTICE in the place of OK, for some", repeat: true,
		script: answers(func(e *nostr.Event, n int) *relaytest.Answer {
			if !every(10, e) || n > 1 {
				return nil
			}
			return &relaytest.Answer{Raw: `["NOTICE","ERROR: bad msg: could not parse"]`}
		}),
		lasts: parked(3),
	},
	{
		name: "error:, for some and for a while", repeat: true,
		script: answers(func(e *nostr.Event, n int) *relaytest.Answer {
			return rejectIf(every(10, e) && n == 1, "error: could not store it just now")
		}),
		lasts: parked(3),
	},
	{
		name: "invalid: created_at too late, for a while", repeat: true,
		script: answers(func(e *nostr.Event, n int) *relaytest.Answer {
			return rejectIf(every(10, e) && n == 1, "invalid: created_at too late")
		}),
		lasts: parked(3),
	},
	{
		name: "an OK after the OK timeout", repeat: true,
		script: func(b *badSink, s *relaytest.Script) {
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				e := eventOf(m)
				if e == nil || !every(10, e) || b.offered(e.ID) > 1 {
					return false
				}
				time.AfterFunc(okTime*5/2, func() { c.Send(okFor(e.ID)) }) // the relay goes on meanwhile
				return true
			}
		},
		takes: func(_ *badSink, e *nostr.Event) bool { return !every(10, e) }, // a relay that says OK and keeps nothing
	},
	{
		name: "each OK twice",
		script: func(b *badSink, s *relaytest.Script) {
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				if e := eventOf(m); e != nil {
					c.Send(okFor(e.ID))
				}
				return false
			}
		},
	},
	{
		name: "an OK for an id that was never sent",
		script: func(b *badSink, s *relaytest.Script) {
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				if e := eventOf(m); e != nil {
					c.Send(okFor(strings.Repeat("ab", 32)))
					c.Send(`["OK","",true,""]`)
					c.Send(`["OK"]`)
				}
				return false
			}
		},
	},
	{
		name: "OKs of three elements",
		script: answers(func(e *nostr.Event, _ int) *relaytest.Answer {
			return &relaytest.Answer{Accepted: true, Raw: `["OK","` + e.ID + `",true]`}
		}),
	},
	{
		name: "rate-limited:, for a while", repeat: true,
		script: answers(func(e *nostr.Event, n int) *relaytest.Answer {
			return rejectIf(every(10, e) && n == 1, "rate-limited: slow down there, chief")
		}),
		lasts: func(b *badSink) {
			b.says(report.Connected, `told to go slower \d+ times; pace now [\d.]+/s`)
		},
		then: func(b *badSink, k report.Sink) {
			if k.Pace == "" {
				b.t.Errorf("no pace in %+v, want one that was lowered", k)
			}
		},
	},
	{
		name: "auth-required:", repeat: true,
		script: answers(func(e *nostr.Event, _ int) *relaytest.Answer {
			return rejectIf(true, "auth-required: members only")
		}),
		lasts: func(b *badSink) {
			b.says(report.Paused, "auth-required: members only.*no key.*Queue kept: 30")
			b.bad.Update(func(s *relaytest.Script) { s.OK = nil })
			wantExit(b.t, 0, "resume", b.bad.URL, "--archive", b.dir)
		},
	},
	{
		name: "auth-required:, allowed while we are away", repeat: true,
		script: answers(func(e *nostr.Event, _ int) *relaytest.Answer {
			return rejectIf(true, "auth-required: members only")
		}),
		lasts: func(b *badSink) {
			b.says(report.Paused, "auth-required: members only")
			b.stop()
			b.bad.Update(func(s *relaytest.Script) { s.OK = nil })
			b.daemon = run(b.t, b.dir, "-c", b.cfg)
		},
	},
	{
		name: "blocked:, for one author",
		script: func(b *badSink, s *relaytest.Script) {
			answers(func(e *nostr.Event, _ int) *relaytest.Answer {
				return rejectIf(e.PubKey == b.bob.pubkey, "blocked: this author is not welcome")
			})(b, s)
		},
		takes: func(b *badSink, e *nostr.Event) bool { return e.PubKey != b.bob.pubkey },
		then: func(b *badSink, k report.Sink) {
			if want := int64(len(b.all.where(func(e *nostr.Event) bool { return e.PubKey == b.bob.pubkey }))); k.RejectedBy["blocked"] != want {
				b.t.Errorf("rejected %v, want %d blocked", k.RejectedBy, want)
			}
		},
	},
	{
		name: "closes after each OK", repeat: true,
		script: func(b *badSink, s *relaytest.Script) {
			s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
				e := eventOf(m)
				if e == nil {
					return false
				}
				b.bad.Keep(m)
				c.Send(okFor(e.ID))
				c.Shut()
				return true
			}
		},
	},
	{
		name: "accepts the websocket and reads nothing", repeat: true,
		script: func(_ *badSink, s *relaytest.Script) { s.StopReading = true },
		lasts: func(b *badSink) {
			b.says("(waiting|connecting)", "no OK for anything sent within")
			b.bad.Update(func(s *relaytest.Script) { s.StopReading = false })
			b.bad.Drop()
		},
	},
	{
		name: "drops the connection at each fifth event, without an OK", repeat: true,
		script: func(_ *badSink, s *relaytest.Script) { s.DropBeforeOK = 5 },
	},
}

// deadly is the content of the event that one relay dies of.
const deadly = "note 17"

const okTime = 700 * time.Millisecond

func rejectIf(yes bool, text string) *relaytest.Answer {
	if !yes {
		return nil
	}
	a := relaytest.Reject(text)
	return &a
}

func okFor(id string) string { return `["OK","` + id + `",true,""]` }

// eventOf is the event of an EVENT message, or nil.
func eventOf(m relaytest.Message) *nostr.Event {
	var parts []json.RawMessage
	e := new(nostr.Event)
	if m.Label != "EVENT" || json.Unmarshal([]byte(m.Raw), &parts) != nil || len(parts) != 2 || json.Unmarshal(parts[1], e) != nil {
		return nil
	}
	return e
}

// TestBadSink: whatever one sink answers, the archive and the other sink get everything at once, and the one that misbehaves
// gets all that it takes; its ledger accounts for every event.
func TestBadSink(t *testing.T) {
	t.Parallel()
	var list []subtest
	for _, c := range badSinks {
		list = append(list, subtest{c.name, c.test})
	}
	sideBySide(t, 6, list) // four wait for half a minute
}

func (c badSinkCase) test(t *testing.T) {
	b := &badSink{alice: someone(t, "alice"), bob: someone(t, "bob"), all: set{}, times: map[string]int{}}
	b.daemon = &daemon{process: &process{t: t}}
	var script relaytest.Script
	c.script(b, &script)
	b.from, b.good = relaytest.New(t, relaytest.Script{Events: b.notes(30)}), relaytest.New(t, relaytest.Script{})
	b.bad = relaytest.New(t, script)
	b.cfg = configFile(t, fmt.Sprintf("authors: [%s, %s]\nsources: [%q]\nsinks: [%q, %q]\n"+
		"relay_settings: {default: {pace: 1000/s, backoff: {initial: 20ms, max: 200ms}, timeouts: {ok: %s}}}\n",
		b.alice.npub(t), b.bob.npub(t), b.from.URL, b.bad.URL, b.good.URL, okTime))
	b.daemon = run(t, filepath.Join(tempDir(t), "a"), "-c", b.cfg)
	eventually(t, "the good sink has all", func() error {
		if n := len(b.good.Stored()); n < len(b.all) {
			return fmt.Errorf("%d of %d", n, len(b.all))
		}
		return nil
	})
	if c.lasts != nil {
		c.lasts(b)
	}
	liveOn(t, b.from)
	b.from.Publish(b.notes(5)...)

	want := b.all
	if c.takes != nil {
		want = b.all.where(func(e *nostr.Event) bool { return c.takes(b, e) })
	}
	eventually(t, "the bad sink has all that it takes", func() error {
		k, err := b.row()
		if n := len(b.bad.Stored()); err == nil && (n < len(want) || k.Parked+k.Pending > 0) {
			err = fmt.Errorf("%d of %d; %+v", n, len(want), k)
		}
		return err
	})
	s := b.settled()
	b.stop()
	wantSet(t, "archive", archived(t, b.dir), b.all)
	wantSet(t, "good sink", sentTo(t, b.good), b.all)
	has := set{}
	for _, id := range b.bad.Stored() {
		has[id] = b.all[id]
	}
	wantSet(t, "bad sink", has, want)
	if !c.repeat {
		wantSet(t, "what the bad sink was sent", sentTo(t, b.bad), b.all)
	}
	k := s.sink(t, b.bad.URL)
	if c.takes == nil && k.Delivered != int64(len(b.all)) {
		t.Errorf("delivered %d, want %d; rejected %v, skipped %v", k.Delivered, len(b.all), k.RejectedBy, k.SkippedBy)
	}
	if c.then != nil {
		c.then(b, k)
	}
}

// notes are n more, of two authors.
func (b *badSink) notes(n int) (out []string) {
	b.t.Helper()
	for range n {
		b.made++
		p := b.alice
		if b.made%2 == 0 {
			p = b.bob
		}
		e := p.sign(b.t, time.Now().Unix()-900+int64(b.made), 1, fmt.Sprintf("note %d", b.made))
		b.all[e.ID] = e
		out = append(out, canonical(e))
	}
	return out
}

// row is the bad sink's in the status.
func (b *badSink) row() (report.Sink, error) {
	s, err := b.ask()
	if err != nil {
		return report.Sink{}, err
	}
	return s.findSink(b.bad.URL)
}

// says waits until the status tells of the bad sink what it should: patterns of its state and its note.
func (b *badSink) says(state, note string) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("the status says %s: %s", state, note), func() error {
		k, err := b.row()
		if err == nil && (!regexp.MustCompile(state).MatchString(k.State) || !regexp.MustCompile(note).MatchString(k.Note)) {
			err = fmt.Errorf("it is %s: %s", k.State, k.Note)
		}
		return err
	})
}
