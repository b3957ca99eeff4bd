package sinks

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

// TestRestartSendsOnlyWhatWasUnanswered, in the middle of a window.
func TestRestartSendsOnlyWhatWasUnanswered(t *testing.T) {
	var answering atomic.Bool
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		var n int
		if _, err := fmt.Sscanf(m.Raw[strings.Index(m.Raw, `"note `):], `"note %d"`, &n); err != nil {
			return false
		}
		return n%3 == 0 && n < 300 && !answering.Load() // every third is not answered
	}})
	r.o.Settings.OK = time.Minute
	lines := notes(600)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.await("500 answers", func(st Status) bool { return st.Counters.Delivered == 500 })
	if st := r.sink.Status(); st.Cursor != 0 || st.Open != 100 {
		t.Fatalf("cursor %d, open %d; want 0 and 100: only the contiguous prefix is passed", st.Cursor, st.Open)
	}
	r.reopen(false)
	answering.Store(true)
	before := len(r.relay.Got("EVENT"))
	r.start()
	r.settled()
	r.has(lines)
	if n := len(r.relay.Got("EVENT")) - before; n != 100 {
		t.Fatalf("%d sends after the restart, want the 100 that were unanswered", n)
	}
}

// TestKill: the state is reopened as it was on disk at a moment in full flight. What had been sent by then is sent again
// at most as often as it was not committed: 1,000 answers, those that came during one commit, and a window.
func TestKill(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lines := bare(8000)
	r.log.add(t, record.Origin{}, lines...)
	sent := map[string]bool{} // before the last kill
	from := 0
	check := func() {
		again := 0
		for _, m := range r.relay.Got("EVENT")[from:] {
			if sent[m.Raw] {
				again++
			}
		}
		t.Logf("%d of %d sent again", again, len(sent))
		if most := commitMost + r.o.Settings.Window; again > most {
			t.Errorf("%d events were sent again after a kill, want at most %d", again, most)
		}
	}
	for range 3 {
		r.start()
		r.await("some progress", func(st Status) bool { return st.Session.Sent > 1500 || st.Pending == 0 })
		before := r.relay.Got("EVENT")
		r.reopen(true)
		check()
		from = len(r.relay.Got("EVENT"))
		clear(sent)
		for _, m := range before {
			sent[m.Raw] = true
		}
	}
	r.start()
	r.settled()
	check()
	r.has(lines)
}

// TestSlowCommit: while a commit hangs, events are sent and answered on, until commitMost answers wait for it. Nothing counts as
// committed before it is.
func TestSlowCommit(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	disk := &hanging{DB: r.db, hangs: make(chan struct{}, 1)}
	r.o.State = disk
	r.start()
	release := disk.hang()
	defer release()
	r.log.add(t, record.Origin{}, bare(1)...)
	<-disk.hangs
	lines := bare(2*commitMost + 1)
	r.log.add(t, record.Origin{}, lines[1:]...)
	r.await("the stop at commitMost", func(st Status) bool { return st.InFlight == 0 && st.Counters.Delivered >= commitMost })
	if st := r.sink.Status(); st.Counters.Delivered > uint64(commitMost+r.o.Settings.Window) || st.Failing != "" {
		t.Fatalf("delivered %d uncommitted (%q), want at most %d and a window", st.Counters.Delivered, st.Failing, commitMost)
	}
	if at, _, _ := r.sink.ledger.Committed(); at.Ordinal != 0 {
		t.Fatalf("the cursor is at %d while nothing is committed", at.Ordinal)
	}
	release()
	r.settled()
	r.has(lines)
	if n := len(r.relay.Got("EVENT")); n != len(lines) {
		t.Fatalf("%d sends, want %d: a slow commit without a crash costs nothing", n, len(lines))
	}
}

// TestFullDisk: answers that cannot be committed are kept, sends wait at 1,000 of them, and all goes on when there is room.
func TestFullDisk(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	disk := &failing{DB: r.db}
	r.o.State = disk
	lines := bare(3000)
	r.start()
	disk.set(true)
	r.log.add(t, record.Origin{}, lines...)
	r.await("the stop at 1,000", func(st Status) bool { return st.InFlight == 0 && st.Counters.Delivered >= commitAfter })
	if st := r.sink.Status(); st.Counters.Delivered > commitAfter+500 || st.Failing == "" {
		t.Fatalf("delivered %d uncommitted (%q), want at most 1,000 and a window", st.Counters.Delivered, st.Failing)
	}
	disk.set(false)
	r.settled()
	r.has(lines)
	if n := len(r.relay.Got("EVENT")); n != 3000 {
		t.Fatalf("%d sends, want 3000: a failed commit without a crash costs nothing", n)
	}
	if n := r.out.count("answers are kept in memory"); n != 1 {
		t.Fatalf("the failure was logged %d times, want once", n)
	}
}
