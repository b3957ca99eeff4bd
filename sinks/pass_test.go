package sinks

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"pgregory.net/rapid"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/policy"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

// kinds is a filter by kind, with its key.
func kinds(list ...int) (*event.Matcher, string) {
	return event.Selection{All: [][]event.Filter{{{Kinds: list}}}}.Compile(), fmt.Sprint(list)
}

// of is a signed event of a kind by the first key.
func of(kind, n int, tags ...[]string) string {
	return relaytest.Sign(relaytest.Key(1), kind, day+int64(n), tags, fmt.Sprintf("%d of kind %d", n, kind))
}

// mixed are n events each of kinds, in turn.
func mixed(n int, kinds ...int) (lines []string, by map[int][]string) {
	by = make(map[int][]string)
	for i := range n {
		for _, k := range kinds {
			line := of(k, i)
			lines, by[k] = append(lines, line), append(by[k], line)
		}
	}
	return lines, by
}

// once fails if the relay was sent anything twice.
func (r *rig) once() {
	r.t.Helper()
	times := map[string]int{}
	for _, m := range r.relay.Got("EVENT") {
		if times[m.Raw]++; times[m.Raw] > 1 {
			r.t.Fatalf("sent twice: %s", m.Raw)
		}
	}
}

// TestWiderFilter: what the filter held back is sent when another one takes it, after a restart and while running;
// nothing is sent twice, and it no longer counts as held back.
func TestWiderFilter(t *testing.T) {
	for _, how := range []string{"restart", "running"} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t, relaytest.Script{})
			lines, by := mixed(50, 1, 6, 7)
			r.log.add(t, record.Origin{}, lines...)
			change := func(list ...int) {
				if how == "restart" {
					r.reopen(false)
					r.o.Want, r.o.FilterKey = kinds(list...)
					r.start()
				} else {
					want, key := kinds(list...)
					r.sink.SetRules(want, key, policy.Allow{})
				}
				r.settled()
			}
			r.o.Want, r.o.FilterKey = kinds(1)
			r.start()
			r.settled()
			r.has(by[1])
			change(1, 7)
			r.has(slices.Concat(by[1], by[7]))
			if st := r.sink.Status(); st.Counters.Skipped[SkipFilter] != 50 || st.Counters.Delivered != 100 || st.Recheck != 0 {
				t.Fatalf("%+v; want 100 delivered, 50 held back, nothing to recheck", st)
			}
			change(6) // narrower for the others: what was sent stays sent
			r.has(lines)
			change(1, 6, 7)
			r.has(lines)
			if c := r.sink.Status().Counters; c.SkippedTotal() != 0 || c.Delivered != 150 {
				t.Fatalf("%+v; want 150 delivered and nothing held back", c)
			}
			r.once()
		})
	}
}

// TestSendLetsThroughWhatIsArchived: `send: [dm]` is for what is in the archive too, and only for that row.
func TestSendLetsThroughWhatIsArchived(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lines, by := mixed(5, 1, 4, 1059, 30078, 17375)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	if got := r.sink.Status().Counters.Skipped[policy.DM]; got != 10 {
		t.Fatalf("%d held back as dm, want 10", got)
	}
	allow, err := policy.NewAllow([]string{policy.DM})
	if err != nil {
		t.Fatal(err)
	}
	r.sink.SetRules(nil, "", allow)
	r.settled()
	r.has(slices.Concat(by[1], by[30078], by[4], by[1059]))
	if c := r.sink.Status().Counters; fmt.Sprint(c.Skipped) != "map[wallet:5]" {
		t.Fatalf("skipped %v, want the 5 of wallet", c.Skipped)
	}
	r.once()
}

// TestPassJudgesAnew: what other reasons than the filter keep back is not sent by a second pass, and counted as that.
func TestPassJudgesAnew(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	now := time.Unix(day, 0)
	r.o.Now = func() time.Time { return now }
	r.o.Start = Start{Since: day}
	wanted := of(7, 1)
	r.log.add(t, record.Origin{}, of(1, 0), wanted, of(7, -1), of(7, 2, []string{"-"}), of(7, 3, []string{"expiration", "1699999999"}), of(4, 4))
	r.log.add(t, record.Origin{Relay: r.relay.URL}, of(7, 5))
	r.log.blank()
	r.log.add(t, record.Origin{NoDeliver: true}, of(7, 6))
	r.o.Want, r.o.FilterKey = kinds(30023)
	r.start()
	r.settled()
	want, key := kinds(4, 7)
	r.sink.SetRules(want, key, policy.Allow{})
	r.settled()
	r.has([]string{wanted})
	skipped := map[string]uint64{SkipFilter: 1, SkipBeforeStart: 1, policy.Protected: 1, policy.Expired: 1, policy.DM: 1, SkipEcho: 1, SkipNoDeliver: 1, SkipWithdrawn: 1}
	if got := r.sink.Status().Counters.Skipped; fmt.Sprint(got) != fmt.Sprint(skipped) {
		t.Fatalf("skipped %v, want %v", got, skipped)
	}
}

// TestPassAfterStartNow: what was archived before the sink's start is none of a second pass's business.
func TestPassAfterStartNow(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lines, by := mixed(20, 1, 7)
	r.log.add(t, record.Origin{}, lines[:20]...)
	r.o.Start = Start{Now: true}
	r.o.Want, r.o.FilterKey = kinds(1)
	if _, err := New(r.o); err != nil {
		t.Fatal(err)
	}
	r.log.add(t, record.Origin{}, lines[20:]...)
	r.start()
	r.settled()
	want, key := kinds(1, 7)
	r.sink.SetRules(want, key, policy.Allow{})
	r.settled()
	r.has(slices.Concat(by[1][10:], by[7][10:]))
}

// TestNarrowerFilterHoldsForTheParked: an event that waits is judged by the rules of the moment it is sent, and is sent
// when they want it again.
func TestNarrowerFilterHoldsForTheParked(t *testing.T) {
	var open atomic.Bool
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		if e.Kind == 7 && !open.Load() {
			return relaytest.Reject("error: not now")
		}
		return relaytest.Accept()
	}})
	var clock atomic.Int64
	clock.Store(day)
	r.o.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	r.o.Retry = time.Minute
	lines, by := mixed(8, 1, 7)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.await("eight parked", func(st Status) bool { return st.Counters.Parked == 8 && st.Pending == 0 })
	want, key := kinds(1)
	r.sink.SetRules(want, key, policy.Allow{})
	open.Store(true)
	clock.Add(3600)
	r.sink.nudge()
	r.await("none parked", func(st Status) bool { return st.Counters.Parked == 0 })
	r.settled()
	r.has(by[1])
	if c := r.sink.Status().Counters; c.Skipped[SkipFilter] != 8 {
		t.Fatalf("skipped %v, want the 8 that were parked", c.Skipped)
	}
	r.sink.SetRules(nil, "", policy.Allow{})
	r.settled()
	r.has(lines)
}

// TestTailGoesBeforeThePass: with room for one event at a time, what is new does not wait for the second pass.
func TestTailGoesBeforeThePass(t *testing.T) {
	step := make(chan struct{})
	var slow atomic.Bool
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer {
		if slow.Load() {
			<-step
		}
		return relaytest.Accept()
	}})
	r.o.Settings.Window, r.o.Settings.OK = 1, time.Minute
	r.o.Want, r.o.FilterKey = kinds(1)
	old, by := mixed(30, 1, 7)
	r.log.add(t, record.Origin{}, old...)
	r.start()
	r.settled()
	slow.Store(true)
	r.sink.SetRules(nil, "", policy.Allow{})
	r.await("the pass", func(st Status) bool { return st.InFlight == 1 })
	if st := r.sink.Status(); st.Recheck == 0 || st.Of != 60 || st.Counters.Skipped[SkipFilter] != 29 || st.Pending != 1 {
		t.Fatalf("in the middle of a second pass: %+v; want 29 held back, 1 pending, and how far it is of 60", st)
	}
	var fresh []string
	for i := range 10 {
		fresh = append(fresh, of(1, 1000+i))
	}
	r.log.add(t, record.Origin{}, fresh...)
	close(step)
	r.settled()
	r.has(slices.Concat(by[1], by[7], fresh))
	var order []string
	for _, m := range r.relay.Got("EVENT")[30:] {
		order = append(order, fmt.Sprint(slices.ContainsFunc(fresh, func(l string) bool { return strings.Contains(m.Raw, l) })))
	}
	// One event of the pass was out, and one more may have been chosen before the reader woke.
	if first := slices.Index(order, "true"); first > 2 || slices.Contains(order[first:first+10], "false") {
		t.Fatalf("sent, as to whether it is new: %v; want the ten new ones together, after at most two", order)
	}
}

// TestRulesChangeInTheMiddleOfAPass: any number of times, and with a restart; in the end what the last rules take is there.
func TestRulesChangeInTheMiddleOfAPass(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	r.o.Settings.Window = 5
	lines, by := mixed(300, 1, 6, 7)
	r.log.add(t, record.Origin{}, lines...)
	r.o.Want, r.o.FilterKey = kinds(1)
	r.start()
	r.settled()
	for i, list := range [][]int{{7}, {6}, {1}, {6, 7}, {1}, {7}} {
		before := r.sink.Status().Session.Sent
		want, key := kinds(list...)
		r.sink.SetRules(want, key, policy.Allow{})
		if i != 2 && i != 4 { // everything of kind 1 is there
			r.await("some more", func(st Status) bool { return st.Session.Sent >= before+20 || st.Recheck == 0 })
		}
		r.balanced()
		if i == 3 {
			if err := r.sink.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.reopen(false)
			r.o.Want, r.o.FilterKey = want, key
			r.start()
		}
	}
	r.settled()
	r.once()
	stored := r.relay.Stored()
	for _, id := range ids(slices.Concat(by[1], by[7])) {
		if !slices.Contains(stored, id) {
			t.Fatalf("%s is missing: the first or the last rules took it", id)
		}
	}
}

// TestPassEndsWithoutALine: held ordinals whose lines are gone do not keep a pass from its end.
func TestPassEndsWithoutALine(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lines, by := mixed(6000, 7, 1) // of more than one span
	r.log.add(t, record.Origin{}, lines...)
	r.o.Want, r.o.FilterKey = kinds(1)
	r.start()
	r.settled()
	r.reopen(false)
	r.log.mu.Lock()
	r.log.recs = slices.Concat(r.log.recs[6000:6100], r.log.recs[11000:11100])
	r.log.mu.Unlock()
	r.o.Want, r.o.FilterKey = nil, ""
	r.start()
	r.settled()
	r.has(slices.Concat(by[1], by[7][3000:3050], by[7][5500:5550]))
	if st := r.sink.Status(); st.Recheck != 0 || st.Counters.Skipped[SkipFilter] != 5900 {
		t.Fatalf("%+v; want the pass at its end, and 5,900 still held back", st)
	}
}

// TestHeldRows: any set of ordinals is read as it was written, and a row is never larger than a bit per ordinal and a place.
func TestHeldRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := held{at: place.Make(3, 77)}
		want := map[uint64]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "runs") {
			from, n := rapid.Uint64Range(0, heldSpan-1).Draw(t, "from"), rapid.Uint64Range(1, 300).Draw(t, "n")
			every := rapid.Uint64Range(1, 3).Draw(t, "every")
			for o := from; o < min(from+n, heldSpan); o += every {
				h.set.add(5*heldSpan + o)
				want[o] = true
			}
		}
		b := h.encode()
		if len(want) == 0 {
			if b != nil {
				t.Fatalf("no ordinals in %d bytes, want no row", len(b))
			}
			return
		}
		if most := place.Size + 1 + heldSpan/8; len(b) > most {
			t.Fatalf("%d bytes, want at most %d", len(b), most)
		}
		got, err := decodeHeld(b)
		if err != nil || got != h || got.set.count() != len(want) {
			t.Fatalf("%d ordinals read (%v), want the %d that were written", got.set.count(), err, len(want))
		}
	})
	for _, b := range []string{"", "123456789012", "123456789012\x00", "123456789012\x01", "123456789012\x01\xff\xff\xff\xff\x0f", "123456789012\x02"} {
		if _, err := decodeHeld([]byte(b)); err == nil {
			t.Errorf("%q is taken for a row", b)
		}
	}
}

// TestHeldChanges: an older change put in front of a newer one is both, one after the other; and the row's place is never
// behind an ordinal of it.
func TestHeldChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var older, newer heldChange
		var row held
		want := map[uint64]bool{}
		first := place.Place{}
		for _, c := range []*heldChange{&older, &newer} {
			for range rapid.IntRange(0, 20).Draw(t, "changes") {
				m := mark{Ordinal: rapid.Uint64Range(0, 12).Draw(t, "ordinal")}
				m.Place = place.Make(1, 100*m.Ordinal)
				if rapid.Bool().Draw(t, "held") {
					c.hold(m)
					want[m.Ordinal] = true
					first = lowest(first, m.Place)
				} else {
					c.release(m.Ordinal)
					delete(want, m.Ordinal)
				}
			}
		}
		newer.before(&older)
		newer.apply(&row)
		for o := range uint64(13) {
			if row.set.has(o) != want[o] {
				t.Fatalf("ordinal %d is held: %t, want %t", o, row.set.has(o), want[o])
			}
		}
		if row.at != first {
			t.Fatalf("the row begins at %s, want %s", row.at, first)
		}
	})
}

// TestKillInAPass: a second pass goes on after a kill, and sends at most what was not committed again: 1,000 answers,
// those that came during one commit, and a window.
func TestKillInAPass(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lines := bare(6000)
	r.log.add(t, record.Origin{}, lines...)
	r.o.Want, r.o.FilterKey = kinds(7)
	r.start()
	r.settled()
	if c := r.sink.Status().Counters; c.Skipped[SkipFilter] != 6000 {
		t.Fatalf("skipped %v, want all 6,000", c.Skipped)
	}
	r.reopen(false)
	r.o.Want, r.o.FilterKey = nil, ""
	for range 3 {
		before := len(r.relay.Got("EVENT"))
		r.start()
		r.await("some progress", func(st Status) bool { return st.Session.Sent > 1000 || st.Recheck == 0 && st.Pending == 0 })
		r.balanced()
		sent := map[string]bool{} // by the time of the kill
		for _, m := range r.relay.Got("EVENT")[:before] {
			sent[m.Raw] = true
		}
		again := 0
		for _, m := range r.relay.Got("EVENT")[before:] {
			if sent[m.Raw] {
				again++
			}
		}
		if most := commitMost + r.o.Settings.Window; again > most {
			t.Errorf("%d events were sent again after a kill, want at most %d", again, most)
		}
		r.reopen(true)
	}
	r.start()
	r.settled()
	r.has(lines)
	if c := r.sink.Status().Counters; c.Delivered+c.Duplicate != 6000 || c.SkippedTotal() != 0 {
		t.Fatalf("%+v; want 6,000 delivered and nothing held back", c)
	}
}
