package pipeline

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// row is one row of the crash table.
type row struct {
	name string
	// leave makes c.dir what the crash leaves.
	leave func(c *crash)
	// sent is what the sink must be sent by the lives after the crash; what it got before is the rest. nil: only the
	// whole is said, for a row that loses events on their way.
	sent func(c *crash) []string
}

// Which events the sink is sent after the crash.
var (
	nothing   = func(*crash) []string { return []string{} }
	theSecond = func(c *crash) []string { return c.second }
	all       = func(c *crash) []string { return slices.Concat(c.first, c.second) }
)

// crashTable has the rows in which a process dies and another starts on what it left. The rows of the disk that goes on
// under a running process are TestCrashTableRunning; any page of a tail, alone and in pairs, is TestPagesLost in
// package archive, and a torn commit of a ledger TestTornCommit in package sinks.
var crashTable = []row{
	{"after the lines' write", func(c *crash) { c.mix(c.late, c.early, c.early) }, theSecond},
	{"in the middle of a line", func(c *crash) {
		c.mix(c.late, c.early, c.early)
		c.damage(c.last(".jsonl"), func(b []byte) []byte { return b[:len(b)-100] })
	}, theSecond},
	{"in the middle of the first line after the last fsync", func(c *crash) {
		c.mix(c.late, c.early, c.early)
		early, err := filepath.Glob(filepath.Join(c.early, "events_*.jsonl"))
		if err != nil {
			c.t.Fatal(err)
		}
		slices.Sort(early)
		for _, name := range c.files(".jsonl")[len(early):] { // segments of the second moment alone
			remove(c.t, name, strings.TrimSuffix(name, ".jsonl")+".origin")
		}
		durable := len(mustRead(c.t, early[len(early)-1]))
		c.damage(c.last(".jsonl"), func(b []byte) []byte { return b[:min(durable+37, len(b))] })
	}, theSecond},
	{"after the fsync, before the index batch", func(c *crash) { c.mix(c.late, c.early, c.late) }, nothing},
	{"after the index, before a sink woke", func(c *crash) { c.mix(c.late, c.late, c.early) }, theSecond},
	{"OK received, ledger not committed", func(c *crash) { c.mix(c.late, c.late, c.early) }, theSecond},
	{"new segment before DIR's fsync: its name is gone", func(c *crash) { c.mix(c.early, c.early, c.early) }, theSecond},
	{"new segment before DIR's fsync: both files empty", func(c *crash) {
		c.mix(c.early, c.early, c.early)
		c.nextSegment(".origin", nil)
		c.nextSegment(".jsonl", nil)
	}, theSecond},
	{"new segment before DIR's fsync: only its origins", func(c *crash) {
		c.mix(c.early, c.early, c.early)
		c.nextSegment(".origin", mustRead(c.t, c.last(".origin"))[:10])
	}, theSecond},
	{"new segment before DIR's fsync: only its text", func(c *crash) {
		c.mix(c.early, c.early, c.early)
		c.nextSegment(".jsonl", nil)
	}, theSecond},
	{"roll before the old fsync: the old segment's end is gone", func(c *crash) {
		// The order of writes makes it impossible; a disk that lies does it all the same.
		c.mix(c.late, c.early, c.early)
		texts := c.files(".jsonl")
		old := len(texts) - 1
		if old > 0 && c.fresh(texts[old-1]) > 500 { // nobody vouches for what is cut off
			old--
		}
		cut := min(500, c.fresh(texts[old]))
		c.damage(texts[old], func(b []byte) []byte { return b[:len(b)-cut] })
	}, theSecond},
	{".zst renamed, .jsonl not unlinked", func(c *crash) {
		c.mix(c.late, c.late, c.late)
		c.seal(c.files(".jsonl")[0], 1)
	}, nothing},
	{".zst renamed and torn, .jsonl not unlinked", func(c *crash) {
		c.mix(c.late, c.late, c.late)
		c.seal(c.files(".jsonl")[0], 0.5)
	}, nothing},
	{"origins ahead", func(c *crash) {
		c.mix(c.late, c.early, c.early)
		c.damage(c.last(".jsonl"), func(b []byte) []byte {
			lines := bytes.SplitAfter(b, []byte("\n"))
			return bytes.Join(lines[:len(lines)*3/4], nil)
		})
	}, theSecond},
	{"origins behind", func(c *crash) {
		c.mix(c.late, c.early, c.early)
		c.damage(c.last(".origin"), func(b []byte) []byte { return b[:len(b)*2/3] })
	}, theSecond},
	{"a page cut out of the tail and of its origins, ledger ahead", func(c *crash) {
		// The ordinals of the lines behind it are not known any more: they get new ones, and the ledger goes back to them.
		c.mix(c.late, c.early, c.late)
		c.oldMark()
		tail := c.tail()
		text := c.last(".jsonl")
		hole := len(mustRead(c.t, text)) - len(strings.Join(tail, ""))
		c.damage(text, func(b []byte) []byte { clear(b[hole:][:len(tail[0])]); return b })
		origins := c.last(".origin")
		c.damage(origins, func(b []byte) []byte { return b[:max(len(b)-c.fresh(origins), 32)] })
	}, func(c *crash) []string { return c.tail() }},
	{"origins gone", func(c *crash) {
		c.mix(c.late, c.late, c.early)
		remove(c.t, c.last(".origin"))
	}, theSecond},
	{"state deleted", func(c *crash) {
		c.mix(c.late, c.late, c.late)
		remove(c.t, filepath.Join(c.dir, "state.db"))
	}, all},
	{"state cut", func(c *crash) {
		c.mix(c.late, c.late, c.late)
		c.damage(filepath.Join(c.dir, "state.db"), func(b []byte) []byte { return b[:len(b)/3] })
	}, all},
	{"state of zeros", func(c *crash) {
		c.mix(c.late, c.late, c.late)
		c.damage(filepath.Join(c.dir, "state.db"), func(b []byte) []byte { clear(b); return b })
	}, all},
	{"index deleted", func(c *crash) {
		c.mix(c.late, c.late, c.late)
		if err := os.RemoveAll(filepath.Join(c.dir, indexDir)); err != nil {
			c.t.Fatal(err)
		}
	}, nothing},
	{"index older", func(c *crash) { c.mix(c.late, c.early, c.late) }, nothing},
	{"index newer", func(c *crash) { c.mix(c.early, c.late, c.early) }, theSecond},
	{"index and state newer", func(c *crash) {
		// A log that was put back from an older copy: what it lacks is recent here, so catch-up brings it. The ledger
		// says that it was delivered, and it was; its new ordinals are sent again.
		c.mix(c.early, c.late, c.late)
	}, theSecond},
	{"clock back a day", func(c *crash) {
		c.mix(c.late, c.early, c.early)
		c.now = func() time.Time { return time.Now().Add(-24 * time.Hour) }
	}, theSecond},
	{"clock ahead a day, then back", func(c *crash) {
		c.mix(c.early, c.early, c.early)
		c.now = func() time.Time { return time.Now().Add(24 * time.Hour) }
		c.live(Options{})
		c.now = time.Now
	}, nil},
}

// check runs the lives after a crash: a daemon, which has to come to the whole set by itself, and a backfill that asks
// for everything again, which has to find nothing new.
func (c *crash) check(r row) {
	c.t.Helper()
	before := len(c.sink.Got("EVENT"))
	r.leave(c)
	c.live(Options{})
	want := idsOf(all(c))
	sameSet(c.t, "archive", archived(c.t, c.dir), want)
	sent := sentIDs(c.sink.Got("EVENT")[before:])
	if r.sent != nil {
		sameSet(c.t, "sent to the sink after the crash", sent, idsOf(r.sent(c)))
	}
	sameSet(c.t, "the sink", c.sink.Stored(), want)

	s, err := begin(c.t, c.config(), Options{Once: true, Again: true, GiveUp: 10 * time.Second, Now: c.now}).end()
	if err != nil {
		c.t.Fatal(err)
	}
	if src := s.Sources[0]; src.New != 0 || src.Copies < int64(len(want)) {
		c.t.Errorf("asked for everything again: %d new and %d copies, want 0 and %d or more: the index does not agree with the archive", src.New, src.Copies, len(want))
	}
	if n := len(c.sink.Got("EVENT")) - before - len(sent); n != 0 {
		c.t.Errorf("the sink was sent %d events by a run that had nothing new", n)
	}
	sameSet(c.t, "archive at the end", archived(c.t, c.dir), want)
}

// The crash table: whatever a crash leaves, the whole set comes out, no line is there twice, the index agrees with the
// log, and the sink is sent what its ledger cannot vouch for and nothing else.
func TestCrashTable(t *testing.T) {
	for name, segment := range map[string]int64{"one segment": 1 << 20, "many segments": 10_000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it mostly waits: for commits, and for relays
			c := newCrash(t, segment)
			for _, r := range crashTable {
				t.Run(r.name, func(t *testing.T) {
					c := *c
					c.t, c.now = t, time.Now
					c.check(r)
				})
			}
		})
	}
}

// A batch of the index that was half written: Badger's write-ahead log cut or zeroed anywhere in what the second
// moment added.
func TestIndexBatchHalfWritten(t *testing.T) {
	t.Parallel()
	c := newCrash(t, 1<<20)
	random := rand.New(rand.NewPCG(1, 2))
	name, from, to := c.added(".mem")
	for range 8 {
		at := from + random.IntN(to-from)
		t.Run(fmt.Sprintf("zeros from byte %d on", at-from), func(t *testing.T) {
			c := *c
			c.t, c.now = t, time.Now
			c.check(row{"", func(c *crash) {
				c.mix(c.late, c.late, c.early)
				c.damage(filepath.Join(c.dir, indexDir, name), func(b []byte) []byte { clear(b[at:]); return b })
			}, theSecond})
		})
	}
}
