package sinks

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// gone is an index that knows deletions only.
type gone struct {
	mu  sync.Mutex
	ids map[event.ID]bool
}

func (g *gone) delete(t *testing.T, line string) {
	t.Helper()
	id, err := event.ParseID(relaytest.ID(line))
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ids == nil {
		g.ids = make(map[event.ID]bool)
	}
	g.ids[id] = true
}

func (g *gone) Deleted(e *event.Event, _ string) (place.Place, bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return place.Place{}, g.ids[e.ID], nil
}

func (g *gone) Newer(*event.Event) (place.Place, bool, error) { return place.Place{}, false, nil }

// TestLateOKOfWhatIsNotSentAgain: an event was parked for want of an OK, and was settled without a send when it was due. Its OK,
// which comes after all, settles nothing a second time.
func TestLateOKOfWhatIsNotSentAgain(t *testing.T) {
	var late atomic.Pointer[relaytest.Conn]
	mute := relaytest.Sign(relaytest.Key(1), 1, day, nil, "mute")
	r := newRig(t, relaytest.Script{
		OK: func(e nostr.Event) relaytest.Answer {
			return relaytest.Answer{Accepted: true, None: e.Content == "mute"}
		},
		Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
			if strings.Contains(m.Raw, `"mute"`) {
				late.Store(c)
			}
			return false
		},
	})
	past := &gone{}
	r.o.Past = past
	r.o.Settings.OK = 50 * time.Millisecond
	r.o.Retry = 300 * time.Millisecond
	r.log.add(t, record.Origin{}, mute)
	r.log.add(t, record.Origin{}, notes(10)...)
	r.start()
	r.settled()
	r.await("the row of what is not answered", func(st Status) bool { return st.Counters.Parked == 1 })
	past.delete(t, mute)
	r.await("the look at it when it is due", func(st Status) bool { return st.Counters.Skipped["deleted"] == 1 })
	late.Load().Send(`["OK","` + relaytest.ID(mute) + `",true,""]`)
	r.await("its OK", func(st Status) bool { return st.Session.Strays+st.Session.Late == 1 })
	if st := r.sink.Status(); st.Counters.Delivered != 10 || st.Counters.Parked != 0 || st.Session.Late != 0 {
		t.Errorf("delivered %d, parked %d, late %d; want 10, 0, 0", st.Counters.Delivered, st.Counters.Parked, st.Session.Late)
	}
	r.balanced()
}

// TestDuplicatesAreNotAnswered: a relay that says nothing to what it has leaves the control unanswered, and answers what was sent
// after it.
func TestDuplicatesAreNotAnswered(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	var controls atomic.Int64
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if seen[m.Raw] {
			controls.Add(1)
			return true
		}
		seen[m.Raw] = true
		return strings.Contains(m.Raw, `"mute"`)
	}})
	var passed atomic.Int64 // by the sink's clock, which stands otherwise: on a slow machine the control would be overdue, too
	begin := time.Now()
	r.o.Now = func() time.Time { return begin.Add(time.Duration(passed.Load())) }
	r.o.Settings.OK = 300 * time.Millisecond
	r.o.Retry = time.Hour
	lines := notes(3)
	r.log.add(t, record.Origin{}, lines[0])
	r.start()
	r.settled()
	r.log.add(t, record.Origin{}, relaytest.Sign(relaytest.Key(1), 1, day, nil, "mute"))
	r.await("the mute one in flight", func(st Status) bool { return st.InFlight == 1 })
	passed.Add(int64(time.Second))
	r.await("the control", func(Status) bool { return controls.Load() > 0 })
	r.log.add(t, record.Origin{}, lines[1])
	r.settled()
	passed.Add(int64(time.Second))
	r.await("that nothing is in flight", func(st Status) bool { return st.InFlight == 0 })
	r.log.add(t, record.Origin{}, lines[2])
	r.settled()
	r.has(lines)
	if st := r.sink.Status(); st.Counters.Delivered != 3 || st.Counters.Parked != 1 || st.Session.Sessions != 1 {
		t.Errorf("delivered %d, parked %d in %d sessions; want 3, the mute one, 1", st.Counters.Delivered, st.Counters.Parked, st.Session.Sessions)
	}
}

// TestSecondCopyOfTheControl: the archive holds an event twice, and the second line's turn comes while the first one is out as the
// control. One answer is for both, and the session goes on waiting for it.
func TestSecondCopyOfTheControl(t *testing.T) {
	var asked atomic.Pointer[relaytest.Conn]
	var times atomic.Int64
	twin := notes(1)[0]
	r := newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if strings.Contains(m.Raw, `"mute"`) {
			return true
		}
		if strings.Contains(m.Raw, `"note 0"`) && times.Add(1) == 2 {
			asked.Store(c)
			return true
		}
		return false
	}})
	r.o.Settings.OK = time.Hour
	var ahead atomic.Int64
	r.o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	r.o.Retry = time.Hour
	r.log.add(t, record.Origin{}, twin)
	r.start()
	r.settled()
	r.log.add(t, record.Origin{}, relaytest.Sign(relaytest.Key(1), 1, day, nil, "mute"))
	r.await("the mute one", func(st Status) bool { return st.Session.Sent == 2 })
	ahead.Store(int64(61 * time.Minute))
	r.sink.nudge()
	r.await("the control", func(Status) bool { return asked.Load() != nil })
	r.log.add(t, record.Origin{}, twin)
	second := r.rec(2)
	r.await("the second line's turn", func(Status) bool { _, sent := r.sink.sentAt(second); return sent })
	asked.Load().Send(`["OK","` + relaytest.ID(twin) + `",true,"duplicate:"]`)
	r.settled()
	if st := r.sink.Status(); st.Counters.SkippedTotal() != 0 || st.Counters.Delivered+st.Counters.Duplicate != 2 || st.Counters.Parked != 1 || times.Load() != 2 {
		t.Errorf("%+v, the twin was sent %d times; want both lines delivered in two, and the mute one parked", st.Counters, times.Load())
	}
	if n := r.relay.Accepted(); n != 1 {
		t.Errorf("%d connections, want one", n)
	}
}

// TestRetryOneOfOneAside: what an operator asks for does not let others go first.
func TestRetryOneOfOneAside(t *testing.T) {
	var healed atomic.Bool
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer {
		if healed.Load() {
			return relaytest.Accept()
		}
		return relaytest.Reject("error: try later")
	}})
	r.o.Retry = time.Hour
	r.log.add(t, record.Origin{}, notes(1)...)
	r.start()
	r.settled()
	r.sink.mu.Lock()
	r.sink.poison.every = time.Hour
	r.sink.poison.stepAside(time.Now(), 0)
	r.sink.mu.Unlock()
	healed.Store(true)
	if was, err := r.sink.RetryOne(r.rec(0)); was != Parked || err != nil {
		t.Fatalf("it was %s, %v; want parked", was, err)
	}
	r.await("the delivery", func(st Status) bool { return st.Counters.Delivered == 1 })
}

// TestPanicEndsTheLink: a broken invariant, found while the sink is locked, ends the link with the panic; nobody waits for the
// lock, and the ledger is committed.
func TestPanicEndsTheLink(t *testing.T) {
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		return relaytest.Answer{Accepted: true, None: e.Content == "mute"}
	}})
	r.o.Settings.OK = 50 * time.Millisecond
	var err error
	if r.sink, err = New(r.o); err != nil {
		t.Fatal(err)
	}
	link := relay.NewLink(relay.LinkOptions{URL: r.relay.URL, Settings: r.o.Settings})
	link.Add("sink", r.sink)
	done := make(chan error, 1)
	go func() { done <- link.Run(t.Context()) }()
	r.log.add(t, record.Origin{}, relaytest.Sign(relaytest.Key(1), 1, day, nil, "mute"))
	r.await("an event in flight", func(st Status) bool { return st.InFlight == 1 })
	r.sink.ledger.Skip(r.sink.ledger.Open()[0], SkipWithdrawn)
	r.log.add(t, record.Origin{}, notes(1)...) // its answer shows that the first one is not answered
	var p *relay.PanicError
	if err := <-done; !errors.As(err, &p) || !strings.Contains(err.Error(), "settled twice") {
		t.Fatalf("the link ended with %v, want a panic that says what is broken", err)
	}
	if at, _, _ := r.sink.ledger.Committed(); at.Ordinal != 2 || r.sink.Status().InFlight != 0 {
		t.Errorf("committed up to %d, %+v; want 2 and nothing in flight", at.Ordinal, r.sink.Status())
	}
}

// TestRetryOneDuringTrials: an operator who asks again and again for a parked event that kills does not save it.
func TestRetryOneDuringTrials(t *testing.T) {
	r, lines := parkedPoison(t, time.Hour)
	r.await("the conviction", func(st Status) bool {
		if st.Counters.Rejected["poison"] == 1 {
			return true
		}
		if _, err := r.sink.RetryOne(r.rec(0)); err != nil {
			t.Fatal(err)
		}
		return r.sink.Status().Counters.Rejected["poison"] == 1
	})
	r.has(lines)
}
