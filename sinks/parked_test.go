package sinks

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

// parkedOnes are n events that the rigs of this file park by their content.
func parkedOnes(n int) (lines []string) {
	for i := range n {
		lines = append(lines, relaytest.Sign(relaytest.Key(1), 1, day+int64(i), nil, fmt.Sprint("park ", i)))
	}
	return lines
}

// TestShareOfTheParked: due parked events go first, but no more than one in four sends while others wait; then all.
func TestShareOfTheParked(t *testing.T) {
	var healed atomic.Bool
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		if strings.HasPrefix(e.Content, "park") && !healed.Load() {
			return relaytest.Reject("error: no room")
		}
		return relaytest.Accept()
	}})
	r.o.Settings.Window, r.o.Retry = 1, time.Hour
	parked, fresh := parkedOnes(40), notes(60)
	var offset atomic.Int64
	r.o.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	r.log.add(t, record.Origin{}, parked...)
	r.start()
	r.settled()
	r.reopen(false)
	if n := r.sink.Status().Counters.ParkedErrors; n != 40 {
		t.Fatalf("%d parked, want 40", n)
	}
	healed.Store(true)
	offset.Store(int64(2 * time.Hour))
	before := len(r.relay.Got("EVENT"))
	r.log.add(t, record.Origin{}, fresh...)
	r.start()
	r.await("the delivery of all", func(st Status) bool { return st.Counters.Delivered == 100 })
	sends := r.relay.Got("EVENT")[before:]
	var order []bool // parked
	for _, m := range sends {
		order = append(order, strings.Contains(m.Raw, `"park `))
	}
	if len(order) != 100 || !order[0] {
		t.Fatalf("%d sends, the first parked: %t; want 100 and a parked one first", len(order), len(order) > 0 && order[0])
	}
	count := func(sends []bool) (n int) {
		for _, parked := range sends {
			if parked {
				n++
			}
		}
		return n
	}
	// 60 fresh ones are out after 80 sends.
	for i := 0; i < 80; i += 4 {
		if n := count(order[i : i+4]); n != 1 {
			t.Errorf("sends %d to %d have %d parked ones, want 1", i, i+3, n)
		}
	}
	if n := count(order[80:]); n != 20 {
		t.Errorf("%d parked ones among the last 20 sends, want 20: nothing else waits", n)
	}
}

// TestTooManyErrors: a thousand events wait for their error:, then it is the relay that is slowed, and the cursor stands.
func TestTooManyErrors(t *testing.T) {
	var mu sync.Mutex
	n := map[string]int{}
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		s, ok := event.ScanLine([]byte(m.Raw[len(`["EVENT",`) : len(m.Raw)-1]))
		if !ok {
			return false
		}
		mu.Lock()
		i, known := n[s.ID.String()]
		if !known {
			i = len(n)
			n[s.ID.String()] = i
		}
		mu.Unlock()
		if i%3 == 0 {
			c.Send(`["OK","` + s.ID.String() + `",false,"error: try later"]`)
		} else {
			c.Send(`["OK","` + s.ID.String() + `",true,""]`)
		}
		return true
	}})
	r.o.Settings.Window, r.o.Retry = 20, time.Hour
	r.log.add(t, record.Origin{}, bare(4500)...)
	r.start()
	r.await("a slower pace", func(st Status) bool {
		return st.Pace > 0 && st.Session.Slower >= 10 && st.Counters.Parked == maxParkedErrors && st.Cursor == 3*maxParkedErrors
	})
	if st := r.sink.Status(); st.Counters.ParkedErrors != maxParkedErrors || st.Cursor != 3*maxParkedErrors || st.Counters.RejectedTotal() != 0 {
		t.Fatalf("parked %d, cursor %d, rejected %d; want 1000, at the 1001st that is refused, 0", st.Counters.ParkedErrors, st.Cursor, st.Counters.RejectedTotal())
	}
}

// TestDeadSessionChargesTheParkedNothing: attempts count answers, not the connections that died meanwhile.
func TestDeadSessionChargesTheParkedNothing(t *testing.T) {
	var sends atomic.Int64
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if !strings.Contains(m.Raw, `"park `) {
			return false
		}
		if sends.Add(1)%2 == 1 {
			c.Drop()
			return true
		}
		c.Send(`["OK","` + relaytest.ID(parkedOnes(1)[0]) + `",false,"error: no"]`)
		return true
	}})
	r.o.Retry = time.Millisecond
	r.log.add(t, record.Origin{}, append(notes(5), parkedOnes(1)...)...)
	r.start()
	r.await("the end of the retries", func(st Status) bool { return st.Counters.Rejected["error"] == 1 })
	if n := sends.Load(); n != 2*maxAttempts {
		t.Fatalf("offered %d times, want %d with an answer and as many without", n, maxAttempts)
	}
}

// TestOKBeforeItIsSent: an OK for an event that was not sent there yet, another sink's say, settles nothing.
func TestOKBeforeItIsSent(t *testing.T) {
	lines := notes(2)
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if strings.Contains(m.Raw, `"note 0"`) {
			c.Send(`["OK","` + relaytest.ID(lines[1]) + `",true,""]`)
		}
		return false
	}})
	r.o.Settings.Window = 1
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	r.has(lines)
	if st := r.sink.Status(); st.Counters.Delivered != 2 || st.Session.Strays != 1 {
		t.Fatalf("delivered %d, strays %d; want 2 and the early OK", st.Counters.Delivered, st.Session.Strays)
	}
}

// TestTenThousandDue: parked rows that are due all at once are read in ranges, never all held.
func TestTenThousandDue(t *testing.T) {
	const total = 10_000
	var most atomic.Int64
	var sink atomic.Pointer[Sink]
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		s, ok := event.ScanLine([]byte(m.Raw[len(`["EVENT",`) : len(m.Raw)-1]))
		if !ok {
			return false
		}
		if s := sink.Load(); s != nil {
			s.mu.Lock()
			if a := s.attempt; a != nil {
				most.Store(max(most.Load(), int64(len(a.due)+len(a.taken)+len(a.again))))
			}
			s.mu.Unlock()
		}
		c.Send(`["OK","` + s.ID.String() + `",true,""]`)
		return true
	}})
	r.log.add(t, record.Origin{}, bare(total)...)
	l, _, err := openLedger(r.db, r.o.URL, mark{}, 0, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.log.recs {
		it, err := l.Next(&r.log.recs[i])
		if err != nil {
			t.Fatal(err)
		}
		l.Later(it, time.UnixMilli(int64(i)), 1, parkedForFuture)
	}
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	r.start()
	sink.Store(r.sink)
	r.await("the delivery of all", func(st Status) bool { return st.Counters.Delivered == total })
	if st := r.sink.Status(); st.Counters.Parked != 0 || st.Session.Sent != total {
		t.Fatalf("parked %d, %d sends; want 0 and one each", st.Counters.Parked, st.Session.Sent)
	}
	if n, bound := most.Load(), int64(dueAtOnce+r.o.Settings.Window); n > bound || n == 0 {
		t.Fatalf("up to %d rows held, want at most %d", n, bound)
	}
	// The longest due first.
	got := r.relay.Got("EVENT")
	if !slices.IsSortedFunc(got, func(a, b relaytest.Message) int { return contentNumber(a.Raw) - contentNumber(b.Raw) }) {
		t.Error("they did not go in the order of their due times")
	}
}

func contentNumber(raw string) (n int) {
	_, _ = fmt.Sscanf(raw[strings.Index(raw, `"note `):], `"note %d"`, &n)
	return n
}
