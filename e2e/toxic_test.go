package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/report"
)

// nervous makes a daemon notice a dead peer within three seconds and try again at once.
const nervous = `
relay_settings: {default: {pace: 1000/s, backoff: {initial: 20ms, max: 200ms}, ping: {every: 1s, timeout: 2s}, timeouts: {connect: 2s, ok: 2s}}}
`

// mirrored is a daemon with one source and one sink, each behind a proxy of its own.
type mirrored struct {
	*daemon
	alice    person
	from, to *localrelay.Relay
	source   *toxicProxy // before from
	sink     *toxicProxy // before to
	want     set         // what from was given
	made     int64
}

// side is one of a daemon's two links under a toxic.
type side struct {
	name string
	of   func(*mirrored) *toxicProxy
	row  func(*mirrored, status) (state, note string, err error)
}

var sourceSide = side{"source",
	func(m *mirrored) *toxicProxy { return m.source },
	func(m *mirrored, s status) (string, string, error) {
		r, err := s.findSource(m.source.url())
		return r.State, r.Note, err
	},
}

var sinkSide = side{"sink",
	func(m *mirrored) *toxicProxy { return m.sink },
	func(m *mirrored, s status) (string, string, error) {
		r, err := s.findSink(m.sink.url())
		return r.State, r.Note, err
	},
}

// notes are n small ones and a large one of that many bytes, a second apart from a time on.
func (m *mirrored) notes(from int64, n, large int) []*nostr.Event {
	m.t.Helper()
	out := make([]*nostr.Event, 0, n+1)
	next := func(content string) {
		m.made++
		e := m.alice.sign(m.t, from+m.made, 1, content)
		m.want[e.ID] = e
		out = append(out, e)
	}
	for range n {
		next(fmt.Sprintf("note %d", m.made))
	}
	if large > 0 {
		next(strings.Repeat("a large note ", large/13))
	}
	return out
}

// load stores notes of two days ago at the source.
func (m *mirrored) load(n, large int) {
	m.t.Helper()
	if err := m.from.Load(m.notes(time.Now().Unix()-2*86400, n, large)...); err != nil {
		m.t.Fatal(err)
	}
}

// publish publishes notes of some minutes ago at the source. Who misses them finds them by a catch-up.
func (m *mirrored) publish(n int) {
	m.t.Helper()
	for _, e := range m.notes(time.Now().Unix()-900, n, 0) {
		if err := m.from.Publish(e); err != nil {
			m.t.Fatal(err)
		}
	}
}

// start starts the daemon.
func (m *mirrored) start() {
	m.t.Helper()
	cfg := configFile(m.t, fmt.Sprintf("authors: [%s]\nsources: [%q]\nsinks: [%q]\n%s", m.alice.npub(m.t), m.source.url(), m.sink.url(), nervous))
	m.daemon = run(m.t, filepath.Join(tempDir(m.t), "a"), "-c", cfg)
}

// delivered waits until the sink's relay holds everything.
func (m *mirrored) delivered() {
	m.t.Helper()
	eventually(m.t, "the sink holds all", func() error {
		if n := len(setOf(m.to.Received())); n < len(m.want) {
			s, err := m.ask()
			return fmt.Errorf("%d of %d; %v %+v %+v", n, len(m.want), err, s.Sources, s.Sinks)
		}
		return nil
	})
}

// settledAll waits until the sink has answered everything.
func (m *mirrored) settledAll() {
	m.t.Helper()
	m.delivered()
	m.settled()
}

// says waits until the status shows that a side's link is up, with an empty note, or that it is down, with a note (a pattern) that tells why.
func (m *mirrored) says(on side, up bool, note string) {
	m.t.Helper()
	eventually(m.t, fmt.Sprintf("the %s is up: %t, note: %s", on.name, up, note), func() error {
		s, err := m.ask()
		if err != nil {
			return err
		}
		state, got, err := on.row(m, s)
		if err == nil && ((state == report.Connected) != up || !regexp.MustCompile(note).MatchString(got) || up && got != "") {
			err = fmt.Errorf("it is %s: %q", state, got)
		}
		return err
	})
}

// fault is what a network does to one side of a mirror.
type fault struct {
	name          string
	on            []side
	stored, large int
	first         []toxic // in place before the daemon starts
	then          func(m *mirrored, p *toxicProxy, on side)
	once          bool // the daemon needs no second connection
}

var bothSides = []side{sourceSide, sinkSide}

var faults = []fault{
	{
		name: "latency of 300 ms with jitter", on: bothSides, stored: 60, once: true,
		first: []toxic{up("latency", "latency", 150, "jitter", 50), down("latency", "latency", 150, "jitter", 50)},
		then:  func(m *mirrored, _ *toxicProxy, _ side) { m.publish(20) },
	},
	{
		// The large event alone takes longer than a ping and than an OK may.
		name: "10 KB a second and a large event", on: bothSides, stored: 10, large: 60_000, once: true,
		first: []toxic{up("bandwidth", "rate", 10), down("bandwidth", "rate", 10)},
		then:  func(m *mirrored, _ *toxicProxy, _ side) { m.publish(3) },
	},
	{
		name: "slices of one byte", on: bothSides, stored: 10, once: true,
		first: []toxic{up("slicer", "average_size", 1, "size_variation", 0), down("slicer", "average_size", 1, "size_variation", 0)},
		then:  func(m *mirrored, _ *toxicProxy, _ side) { m.publish(5) },
	},
	{
		name: "resets", on: bothSides, stored: 60,
		then: func(m *mirrored, p *toxicProxy, on side) {
			m.settledAll()
			p.add(down("reset_peer", "timeout", 0), up("reset_peer", "timeout", 0))
			m.publish(20)
			m.says(on, false, "reset")
			m.publish(20)
			p.heal()
		},
	},
	{
		name: "a reset in the middle of everything", on: bothSides, stored: 300,
		first: []toxic{up("bandwidth", "rate", 60), down("bandwidth", "rate", 60)},
		then: func(m *mirrored, p *toxicProxy, on side) {
			eventually(m.t, "some have arrived", func() error {
				if n := len(m.to.Received()); n < 20 {
					return fmt.Errorf("%d", n)
				}
				return nil
			})
			p.Stop()
			m.publish(20)
			p.back()
		},
	},
	{
		name: "a half-open link", on: bothSides, stored: 60,
		then: func(m *mirrored, p *toxicProxy, on side) {
			m.settledAll()
			p.add(down("timeout", "timeout", 0), up("timeout", "timeout", 0))
			m.publish(20)
			m.says(on, false, "idle: nothing came, not even an answer to a ping|no OK for anything sent")
			m.publish(20)
			p.heal()
		},
	},
	{
		// The relay has every event, and none of its answers comes back: the ledger must not believe its own sending.
		name: "the answers are swallowed", on: []side{sinkSide}, stored: 60,
		first: []toxic{up("latency", "latency", 1), down("latency", "latency", 1)},
		then: func(m *mirrored, p *toxicProxy, on side) {
			m.settledAll()
			p.add(down("timeout", "timeout", 0))
			m.publish(20)
			m.delivered()
			if s, err := m.ask(); err != nil || s.sink(m.t, p.url()).Delivered != 60 {
				m.t.Errorf("%v, %+v: want 60 delivered while the answers to the other 20 are out", err, s.Sinks)
			}
			m.says(on, false, "idle: nothing came|no OK for anything sent")
			p.heal()
			eventually(m.t, "the 20 were sent again", func() error {
				if n := len(m.to.Received()); n < 100 {
					return fmt.Errorf("%d of 100 sent", n)
				}
				return nil
			})
		},
	},
	{
		name: "the relay is away for a time", on: bothSides, stored: 60,
		then: func(m *mirrored, p *toxicProxy, on side) {
			m.delivered()
			p.Stop()
			m.publish(20)
			m.says(on, false, "connection refused")
			m.publish(20)
			p.back()
		},
	},
	{
		name: "a close that takes its time", on: bothSides, stored: 60,
		first: []toxic{up("slow_close", "delay", 300), down("slow_close", "delay", 300)},
		then: func(m *mirrored, p *toxicProxy, on side) {
			m.delivered()
			m.from.Drop()
			m.to.Drop()
			m.publish(20)
		},
	},
	{
		name: "cut after each 25 KB from the relay", on: []side{sourceSide}, stored: 400,
		first: []toxic{down("limit_data", "bytes", 25_000)},
		then:  func(m *mirrored, _ *toxicProxy, _ side) { m.publish(20) },
	},
	{
		name: "cut after each 20 KB to the relay", on: []side{sinkSide}, stored: 400,
		first: []toxic{up("limit_data", "bytes", 20_000)},
		then:  func(m *mirrored, _ *toxicProxy, _ side) { m.publish(20) },
	},
}

// TestToxic: whatever a network does to the link with a source or a sink, the archive and the sink end up with every event,
// the archive once.
func TestToxic(t *testing.T) {
	t.Parallel()
	var list []subtest
	for _, f := range faults {
		for _, on := range f.on {
			list = append(list, subtest{on.name + ": " + f.name, func(t *testing.T) { f.test(t, on) }})
		}
	}
	sideBySide(t, 4, list)
}

func (f fault) test(t *testing.T, on side) {
	m := newMirrored(t)
	p := on.of(m)
	m.load(f.stored, f.large)
	p.add(f.first...)
	m.start()
	f.then(m, p, on)
	m.delivered()
	m.says(on, true, "")
	s := m.settled()
	m.stop()
	wantSet(t, "archive", archived(t, m.dir), m.want)
	wantSet(t, "sink", setOf(m.to.Received()), m.want)
	if got := s.Archive.Lines; got != uint64(len(m.want)) {
		t.Errorf("the archive has %d lines, want %d", got, len(m.want))
	}
	if k := s.sink(t, m.sink.url()); k.Delivered != int64(len(m.want)) || k.Rejected+k.Parked+k.Skipped != 0 {
		t.Errorf("delivered %d, rejected %v, parked %d, skipped %v; want %d and nothing else", k.Delivered, k.RejectedBy, k.Parked, k.SkippedBy, len(m.want))
	}
	from, to := m.from.Connections(), m.to.Connections()
	if harmed := map[string]int{sourceSide.name: from, sinkSide.name: to}[on.name]; f.once && harmed != 2 { // one is for the NIP-11 document
		t.Errorf("the %s was connected to %d times, want twice", on.name, harmed)
	}
	t.Logf("source: %d connections, %d requests; sink: %d connections, %d of %d sent again",
		from, len(m.from.Requests()), to, len(m.to.Received())-len(m.want), len(m.want))
}

func newMirrored(t testing.TB) *mirrored {
	m := &mirrored{daemon: &daemon{process: &process{t: t}}, alice: someone(t, "alice"), want: set{}}
	m.from, m.source = throughProxy(t, localrelay.Options{KeepAll: true})
	m.to, m.sink = throughProxy(t, localrelay.Options{KeepAll: true})
	return m
}
