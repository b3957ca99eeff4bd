package pipeline

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/archive"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// tampered is the operating system's filesystem with what a disk does to a running process.
type tampered struct {
	archive.OS

	mu   sync.Mutex
	sync func(name string) // before each fsync; nil: nothing
	free int64             // what is free; negative: what is
}

func (d *tampered) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

func (d *tampered) Create(name string, mode fs.FileMode) (archive.File, error) {
	f, err := d.OS.Create(name, mode)
	if err != nil {
		return nil, err
	}
	return tamperedFile{f, name, d}, nil
}

func (d *tampered) Free(dir string) (free, total int64, err error) {
	free, total, err = d.OS.Free(dir)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.free >= 0 {
		free = d.free
	}
	return free, total, err
}

type tamperedFile struct {
	archive.File
	name string
	disk *tampered
}

func (f tamperedFile) Sync() error {
	f.disk.mu.Lock()
	before := f.disk.sync
	f.disk.mu.Unlock()
	if before != nil {
		before(f.name)
	}
	return f.File.Sync()
}

// EOSE before the barrier's fsync: what a page brought is written and not durable when the power goes. The state must not
// say that it was asked for: the next life asks again.
func TestPowerCutBehindEOSE(t *testing.T) {
	events := notes(1, 100)
	source := relaytest.New(t, relaytest.Script{Events: events})
	cfg := testConfig(t, []*relaytest.Relay{source}, nil)
	gate, entered := make(chan struct{}), make(chan struct{}, 100)
	made := false // a segment is made durable before it takes a line
	disk := &tampered{free: -1}
	disk.sync = func(name string) {
		if !strings.HasSuffix(name, ".jsonl") {
			return
		}
		first := false
		disk.set(func() { first, made = !made, true })
		if !first {
			entered <- struct{}{}
			<-gate
		}
	}
	r := prepareOn(t, disk, cfg, Options{})
	r.run()
	<-entered // the fsync has begun, and does not end
	r.eventually("a whole page, closed", func(s report.Status) bool {
		return s.Archive.Lines == uint64(len(events)) && len(source.Got("CLOSE")) > 0
	})
	left := *cfg
	left.Archive.Dir = t.TempDir()
	copyFiles(t, cfg.Archive.Dir, left.Archive.Dir, "state.db")
	copyFiles(t, cfg.Archive.Dir, left.Archive.Dir, "events_*.jsonl")
	lines, err := filepath.Glob(filepath.Join(left.Archive.Dir, "events_*.jsonl"))
	if err != nil || len(lines) != 1 {
		t.Fatalf("segments %v: %v", lines, err)
	}
	if err := os.Truncate(lines[0], 0); err != nil {
		t.Fatal(err)
	}
	close(gate)
	r.stop()

	if _, err := begin(t, &left, Options{Once: true}).end(); err != nil {
		t.Fatal(err)
	}
	sameSet(t, "archive after the power cut", archived(t, left.Archive.Dir), idsOf(events))
}

// An fsync that takes long holds up no delivery: each one here ends only after ten more events have reached the sink.
func TestSlowFsync(t *testing.T) {
	source, sink := relaytest.New(t, relaytest.Script{}), relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{source}, []*relaytest.Relay{sink})
	const slow, meanwhile = 3, 10
	seen := make(chan struct{}, 1000) // deliveries; read by the fsync under way, one at a time
	var done atomic.Int64
	disk := &tampered{free: -1}
	r := prepareOn(t, disk, cfg, Options{})
	r.run()
	source.Wait("a live subscription", live(source))
	var events []string
	publish := func() {
		e := relaytest.Sign(relaytest.Key(1), 1, time.Now().Unix(), nil, fmt.Sprintf("note %d", len(events)))
		events = append(events, e)
		source.Publish(e)
		sink.Wait("this one", func() bool { return slices.Contains(sink.Stored(), relaytest.ID(e)) })
	}
	publish() // makes the segment, which is durable before it takes a line
	disk.set(func() {
		disk.sync = func(name string) {
			if !strings.HasSuffix(name, ".jsonl") || done.Load() >= slow {
				return
			}
			for range meanwhile {
				<-seen
			}
			done.Add(1)
		}
	})
	for done.Load() < slow {
		publish()
		select {
		case seen <- struct{}{}:
		default:
		}
	}
	r.eventually("nothing pending", settled)
	r.stop()
	sameSet(t, "archive", archived(t, cfg.Archive.Dir), idsOf(events))
	sameSet(t, "sink", sink.Stored(), idsOf(events))
}

// A disk that fills up under load and one that is full at start: sources wait, sinks go on, status says why, nothing is
// lost, and it goes on by itself when there is room again.
func TestFullDisk(t *testing.T) {
	for _, when := range []string{"under load", "at start"} {
		t.Run(when, func(t *testing.T) {
			const before, after = 200, 200
			events := notes(1, before+after)
			source := relaytest.New(t, relaytest.Script{Events: events[:before]})
			hold := make(chan struct{})
			sink := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
				if m.Label == "EVENT" {
					<-hold
				}
				return false
			}})
			cfg := testConfig(t, []*relaytest.Relay{source}, []*relaytest.Relay{sink})
			disk := &tampered{free: -1}
			if when == "at start" {
				// A start with something archived and not delivered yet, and no room.
				r := prepareOn(t, disk, cfg, Options{})
				r.run()
				r.eventually("the first archived", func(s report.Status) bool { return s.Archive.Lines == before })
				r.hurry()
				r.cancel()
				if _, err := r.end(); err != nil {
					t.Fatal(err)
				}
				disk.set(func() { disk.free = 0 })
			}
			r := prepareOn(t, disk, cfg, Options{})
			r.run()
			r.eventually("the first archived", func(s report.Status) bool { return s.Archive.Lines == before })
			disk.set(func() { disk.free = 0 })
			source.Wait("a live subscription", live(source))
			r.eventually("status says why", func(s report.Status) bool { return s.Archive.Waiting != "" && len(s.Problems) > 0 })
			source.Publish(events[before:]...)
			close(hold)
			sink.Wait("the sink goes on meanwhile", func() bool { return len(sink.Stored()) == before })
			if n := len(archived(t, cfg.Archive.Dir)); n != before {
				t.Errorf("%d events archived below min_free, want the %d from before", n, before)
			}
			disk.set(func() { disk.free = -1 })
			r.eventually("it goes on by itself", func(s report.Status) bool {
				return s.Archive.Lines == before+after && s.Archive.Waiting == "" && settled(s)
			})
			r.stop()
			sameSet(t, "archive", archived(t, cfg.Archive.Dir), idsOf(events))
			sameSet(t, "sink", sink.Stored(), idsOf(events))
		})
	}
}

// live says that the relay has a live subscription on a connection that stands.
func live(r *relaytest.Relay) func() bool {
	return func() bool {
		return slices.ContainsFunc(r.Conns(), func(c *relaytest.Conn) bool {
			return slices.ContainsFunc(c.Subscriptions(), func(sub string) bool { return strings.HasPrefix(sub, "live-") })
		})
	}
}
