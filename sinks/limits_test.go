package sinks

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// beyondNotes are n events by two authors.
func beyondNotes(n int, sign func(key string, i int) string) (lines []string) {
	for i := range n {
		lines = append(lines, sign(relaytest.Key(1+i%2), i))
	}
	return lines
}

// TestClaimedLimits: a limit of the NIP-11 document costs one send to prove; a claim that is not so costs nothing.
func TestClaimedLimits(t *testing.T) {
	long := strings.Repeat("é", 21)
	for name, c := range map[string]struct {
		claim, answer, prefix string
		within, beyond        func(key string, i int) string
	}{
		"tags": {`"max_event_tags":2`, "invalid: too many tags", "too large",
			func(key string, i int) string {
				return relaytest.Sign(key, 1, day+int64(i), [][]string{{"t", "a"}, {"t", "b"}}, "in")
			},
			func(key string, i int) string {
				return relaytest.Sign(key, 1, day+int64(i), [][]string{{"t", "a"}, {"t", "b"}, {"t", "c"}}, "out")
			}},
		"content": {`"max_content_length":20`, "invalid: content is too long", "too large",
			func(key string, i int) string { return relaytest.Sign(key, 1, day+int64(i), nil, "in"+long[:36]) },
			func(key string, i int) string { return relaytest.Sign(key, 1, day+int64(i), nil, "out"+long) }},
		"work": {`"min_pow_difficulty":60`, "pow: difficulty 3 is less than 60", "pow", nil,
			func(key string, i int) string { return relaytest.Sign(key, 1, day+int64(i), nil, "out") }},
		"age": {`"created_at_lower_limit":100000`, "invalid: created_at too early", "too old",
			func(key string, i int) string { return relaytest.Sign(key, 1, time.Now().Unix()-int64(i), nil, "in") },
			func(key string, i int) string { return relaytest.Sign(key, 1, day+int64(i), nil, "out") }},
	} {
		for _, so := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%t", name, so), func(t *testing.T) {
				info := `{"limitation":{` + c.claim + `}}`
				r := newRig(t, relaytest.Script{Info: info, OK: func(e nostr.Event) relaytest.Answer {
					if so && strings.HasPrefix(e.Content, "out") {
						return relaytest.Reject(c.answer)
					}
					return relaytest.Accept()
				}})
				r.o.Settings.Window = 1
				out := beyondNotes(10, c.beyond)
				want := []string{}
				r.log.add(t, record.Origin{}, out...)
				if c.within != nil {
					want = beyondNotes(4, c.within)
					r.log.add(t, record.Origin{}, want...)
				}
				r.start()
				r.settled()
				if !so {
					r.has(append(out, want...))
					return
				}
				r.has(want)
				got := r.sink.Status()
				if sends := got.Session.Sent; sends != uint64(len(want)+4) {
					t.Errorf("%d sends, want %d, one to prove the claim and 3 of 9 to check it", sends, len(want))
				}
				if n := got.Counters.Rejected[c.prefix]; n < 6 || got.Counters.RejectedTotal() != 10 {
					t.Errorf("rejected %v, want 10, of these at least 6 as %q", got.Counters.Rejected, c.prefix)
				}
				told := 0
				for _, row := range r.rejected() {
					if strings.Contains(row.Text, "NIP-11") {
						told++
					}
				}
				if told != 6 {
					t.Errorf("%d rows name the claim, want 6", told)
				}
			})
		}
	}
}

// TestClaimedFuture: what is dated beyond the relay's upper limit waits until it is in reach, unsent.
func TestClaimedFuture(t *testing.T) {
	var offset atomic.Int64
	r := newRig(t, relaytest.Script{Info: `{"limitation":{"created_at_upper_limit":600}}`})
	r.o.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	line := relaytest.Sign(relaytest.Key(1), 1, time.Now().Add(time.Hour).Unix(), nil, "soon")
	never := relaytest.Sign(relaytest.Key(1), 1, event.MaxCreatedAt-1, nil, "hardly")
	r.log.add(t, record.Origin{}, line, never)
	r.start()
	r.settled()
	if st := r.sink.Status(); st.Counters.Parked != 2 || st.Session.Sent != 0 {
		t.Fatalf("parked %d with %d sends, want 2 and none", st.Counters.Parked, st.Session.Sent)
	}
	r.reopen(false)
	offset.Store(int64(51 * time.Minute)) // an hour less 600 s, and a bit
	r.start()
	r.await("the delivery", func(st Status) bool { return st.Counters.Delivered == 1 })
	r.has([]string{line})
	if st := r.sink.Status(); st.Session.Sent != 1 || st.Counters.Parked != 1 {
		t.Fatalf("%d sends, %d parked; want 1 and the far one", st.Session.Sent, st.Counters.Parked)
	}
}

// TestLearnedFloor: without a document, two refusals of two authors tell how old is too old, for that kind, and few others are
// sent to see whether it still holds; an operator's retry asks again.
func TestLearnedFloor(t *testing.T) {
	var floor atomic.Int64
	floor.Store(day + 30)
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		if int64(e.CreatedAt) < floor.Load() {
			return relaytest.Reject("invalid: created_at too early")
		}
		return relaytest.Accept()
	}})
	r.o.Settings.Window = 1
	var lines []string
	for i := 29; i >= 0; i-- { // the youngest first: it tells of all others
		lines = append(lines, relaytest.Sign(relaytest.Key(1+i%2), 1, day+int64(i), nil, fmt.Sprint("old ", i)))
	}
	other := relaytest.Sign(relaytest.Key(1), 7, day, nil, "+")
	young := relaytest.Sign(relaytest.Key(1), 1, day+31, nil, "young")
	r.log.add(t, record.Origin{}, append(lines, other, young)...)
	r.start()
	r.settled()
	r.has([]string{young})
	st := r.sink.Status()
	if st.Session.Sent != 9 || st.Counters.Rejected["too old"] != 23 || st.Counters.Rejected["invalid"] != 8 {
		t.Fatalf("%d sends, rejected %v; want 9 sends: one each of two authors, 5 of 28 to check, another kind, the young one", st.Session.Sent, st.Counters.Rejected)
	}
	floor.Store(0)
	done, err := r.sink.Retry(context.Background(), "too old")
	if err != nil || done.Offered["too old"] != 23 {
		t.Fatalf("retry: %+v, %v; want the 23 offered again", done, err)
	}
	r.await("their delivery", func(st Status) bool { return st.Counters.Delivered == 24 })
}

// TestWrongLimits: a relay that calls events too early, or without work, for a reason of its own gets every other event all the
// same, and so does one that is stricter for an hour than it says and was: what was kept from it meanwhile is offered again.
func TestWrongLimits(t *testing.T) {
	info := `{"limitation":{"created_at_lower_limit":100}}`
	for name, c := range map[string]struct{ info, answer string }{
		"floor": {"", "invalid: created_at too early"}, "work": {"", "pow: 28 bits needed"}, "claim": {info, "invalid: created_at too early"},
	} {
		for _, window := range []int{1, 20} {
			t.Run(fmt.Sprintf("%s, window %d", name, window), func(t *testing.T) {
				lines := notes(600)
				slices.Reverse(lines) // the youngest first: it tells of all others
				bad := make(map[string]bool)
				for i, line := range lines {
					bad[relaytest.ID(line)] = i < 200 || i%7 == 0
				}
				r := newRig(t, relaytest.Script{Info: c.info, OK: func(e nostr.Event) relaytest.Answer {
					if bad[e.ID] {
						return relaytest.Reject(c.answer)
					}
					return relaytest.Accept()
				}})
				r.o.Settings.Window = window
				r.log.add(t, record.Origin{}, lines...)
				r.start()
				want := slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return bad[relaytest.ID(line)] })
				r.await("everything that the relay takes", func(st Status) bool {
					return int(st.Counters.Delivered) == len(want) && st.Counters.Parked == 0 && st.Pending == 0
				})
				r.settled()
				r.has(want)
				if n := r.out.count("was thought to refuse"); n != 1 {
					t.Errorf("said %d times, want once", n)
				}
				for _, row := range r.rejected() {
					if row.Text != c.answer {
						t.Fatalf("a row says %q, want the relay's words in all", row.Text)
					}
				}
			})
		}
	}
}

// TestWrongLimitKilled: what a wrong floor kept from a relay is offered again also when the process dies in the middle of that.
func TestWrongLimitKilled(t *testing.T) {
	var mood atomic.Int32 // 0: too early, 1: takes one and answers no more, 3: takes all
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer {
		switch mood.Load() {
		case 0:
			return relaytest.Reject("invalid: created_at too early")
		case 1:
			mood.Store(2)
		case 2:
			return relaytest.Answer{None: true}
		}
		return relaytest.Accept()
	}})
	r.o.Settings.Window = 20
	lines := notes(2*rowsAtOnce + checkEvery + 1)
	slices.Reverse(lines) // the youngest first: it tells of all others
	r.log.add(t, record.Origin{}, lines[:2*rowsAtOnce]...)
	r.start()
	r.settled()
	mood.Store(1)
	r.log.add(t, record.Origin{}, lines[2*rowsAtOnce:]...)
	r.await("some that are offered again", func(st Status) bool { return st.Counters.Parked > 0 })
	if err := r.sink.ledger.Commit(); err != nil {
		t.Fatal(err)
	}
	left := r.sink.Status().Counters.Rejected["too old"]
	r.reopen(true)
	if left < rowsAtOnce/2 {
		t.Fatalf("%d are left to be offered, want some hundred: %+v", left, r.sink.Status())
	}
	mood.Store(3)
	r.start()
	r.await("all that were kept from it", func(st Status) bool {
		return st.Counters.Rejected["too old"] == 0 && st.Counters.Parked == 0 && st.Pending == 0
	})
}

// TestLimitsLearn, the rules one by one.
func TestLimitsLearn(t *testing.T) {
	now := time.Unix(day, 0)
	one, two := event.PubKey{1}, event.PubKey{2}
	old := relay.Judgement{Verdict: relay.Rejected, Prefix: "invalid", Cause: relay.CauseTooOld}
	blocked := relay.Judgement{Verdict: relay.Rejected, Prefix: "blocked", Breaker: true}
	taken := relay.Judgement{Verdict: relay.Delivered}
	at := func(created int64) *event.Event { return &event.Event{Kind: 1, CreatedAt: created} }
	type step struct {
		created int64
		author  event.PubKey
		j       relay.Judgement
	}
	for name, c := range map[string]struct {
		steps []step
		after time.Duration
		want  string
	}{
		"one author":            {[]step{{50, one, old}, {60, one, old}}, 0, ""},
		"two authors":           {[]step{{50, one, old}, {60, two, old}}, 0, "too old"},
		"younger than refused":  {[]step{{39, one, old}, {38, two, old}}, 0, ""},
		"a day later":           {[]step{{50, one, old}, {60, two, old}}, knownFor, ""},
		"another reason":        {[]step{{50, one, blocked}, {60, two, blocked}}, 0, ""},
		"older one accepted":    {[]step{{50, one, old}, {60, two, old}, {30, one, taken}}, 0, ""},
		"never learned again":   {[]step{{50, one, old}, {60, two, old}, {30, one, taken}, {61, one, old}, {62, two, old}}, 0, ""},
		"younger one accepted":  {[]step{{50, one, old}, {60, two, old}, {70, one, taken}}, 0, "too old"},
		"duplicate says little": {[]step{{50, one, old}, {60, two, old}, {30, one, relay.Judgement{Verdict: relay.Duplicate}}}, 0, "too old"},
	} {
		var l limits
		for _, s := range c.steps {
			l.learn(lesson{kind: 1, created: s.created}, s.author, s.j, now)
		}
		if got, _, _ := l.check(at(40), &relay.Limits{}, now.Add(c.after)); got != c.want {
			t.Errorf("%s: %q for an event dated 40, want %q", name, got, c.want)
		}
	}
	// A claim that was proven holds for a day, and for that value.
	var l limits
	claimed := &relay.Limits{CreatedAtLower: 100}
	_, _, ls := l.check(at(day-101), claimed, now)
	l.learn(ls, one, blocked, now)
	if got, _, _ := l.check(at(day-101), claimed, now); got != "" {
		t.Errorf("a claim was taken for proven by a refusal for another reason")
	}
	l.learn(ls, one, old, now)
	for _, c := range []struct {
		lower int64
		at    time.Time
		want  string
	}{{100, now, "too old"}, {100, now.Add(knownFor), ""}, {101, now.Add(time.Second), ""}} {
		if got, _, _ := l.check(at(day-101), &relay.Limits{CreatedAtLower: c.lower}, c.at); got != c.want {
			t.Errorf("a claim of %d s, proven for 100 s, %s later: %q, want %q", c.lower, c.at.Sub(now), got, c.want)
		}
	}
}

// TestWaryOfTheRestricted: a relay that says it does not take from everybody is asked one event at a time until it takes one.
func TestWaryOfTheRestricted(t *testing.T) {
	for _, c := range []struct {
		claim, text string
		most        int
	}{
		{"auth_required", "auth-required: members only", 1},
		{"payment_required", "restricted: pay first", refusalsBan},
		{"restricted_writes", "blocked: not on the list", refusalsBan},
	} {
		t.Run(c.claim, func(t *testing.T) {
			var open atomic.Bool
			r := newRig(t, relaytest.Script{Info: `{"limitation":{"` + c.claim + `":true}}`, OK: func(nostr.Event) relaytest.Answer {
				if open.Load() {
					return relaytest.Accept()
				}
				return relaytest.Reject(c.text)
			}})
			r.o.Probe = 300 * time.Millisecond
			lines := notes(200)
			r.log.add(t, record.Origin{}, lines...)
			r.start()
			r.await("the pause", func(st Status) bool { return st.Paused != "" })
			if n := len(r.relay.Got("EVENT")); n > c.most {
				t.Errorf("%d sends before the pause, want at most %d", n, c.most)
			}
			open.Store(true)
			r.await("the delivery", func(st Status) bool { return st.Counters.Delivered == 200 })
			r.has(lines)
		})
	}
	t.Run("and takes them", func(t *testing.T) {
		hold := make(chan struct{})
		r := newRig(t, relaytest.Script{Info: `{"limitation":{"restricted_writes":true}}`, OK: func(e nostr.Event) relaytest.Answer {
			if e.Content != "note 0" {
				<-hold
			}
			return relaytest.Accept()
		}})
		r.log.add(t, record.Origin{}, notes(50)...)
		r.start()
		r.await("a window", func(st Status) bool { return st.InFlight == 49 })
		close(hold)
		r.settled()
	})
}
