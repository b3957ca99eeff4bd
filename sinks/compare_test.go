package sinks

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/reconcile"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

// seenOf is what the archive of a rig has ever had.
type seenOf struct{ r *rig }

func (s seenOf) IDs(_ context.Context, f event.Filter) (reconcile.IDs, func(), error) {
	set := reconcile.NewSet(s.r.t.TempDir())
	s.r.log.mu.Lock()
	defer s.r.log.mu.Unlock()
	f.Since, f.Until = 0, 0
	for i := range s.r.log.recs {
		if e := &s.r.log.recs[i].Event; f.Match(e) {
			if err := set.Add(reconcile.Item{CreatedAt: e.CreatedAt, ID: e.ID}); err != nil {
				return nil, nil, err
			}
		}
	}
	return set, func() { _ = set.Close() }, set.Flush()
}

func (s seenOf) Room(context.Context) (func(), error) { return func() {}, nil }

func (s seenOf) Place(id event.ID) (at place.Place, found bool, err error) {
	s.r.log.mu.Lock()
	defer s.r.log.mu.Unlock()
	for i := range s.r.log.recs {
		if s.r.log.recs[i].Event.ID == id {
			return s.r.log.recs[i].Place, true, nil
		}
	}
	return at, false, nil
}

// compared asks for a comparison and waits for it, and until what it offered is answered.
func (r *rig) compared() Status {
	r.t.Helper()
	before := r.sink.Status().Compared.At
	r.sink.Reconcile()
	r.await("a comparison", func(s Status) bool { return s.Compared.At.After(before) })
	r.await("the end of what it offered", func(s Status) bool {
		_, parked, _ := r.sink.ledger.Lack()
		return parked == 0 && s.Again == 0 && s.Pending == 0
	})
	r.balanced()
	return r.sink.Status()
}

// lacking is a rig whose relay has been sent everything and reconciles.
func lackingRig(t *testing.T, script relaytest.Script, lines ...string) *rig {
	t.Helper()
	script.Negentropy = true
	r := newRig(t, script)
	r.o.Seen, r.o.Filters = seenOf{r}, []event.Filter{{}}
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	return r
}

// lose has the relay lose each n-th of the lines.
func (r *rig) lose(lines []string, n int) (lost []string) {
	gone := map[string]bool{}
	for i := 0; i < len(lines); i += n {
		gone[relaytest.ID(lines[i])] = true
		lost = append(lost, lines[i])
	}
	r.relay.Lose(func(id string) bool { return gone[id] })
	return lost
}

// TestWhatASinkLacks: it is found and offered again; nothing else is sent, and a second comparison finds nothing.
func TestWhatASinkLacks(t *testing.T) {
	lines := notes(300)
	r := lackingRig(t, relaytest.Script{}, lines...)
	lost := r.lose(lines, 10)
	sent := len(r.relay.Got("EVENT"))
	st := r.compared()
	r.has(lines)
	if c := st.Compared; !c.Full || c.Listed != 300 || c.Lacked != len(lost) || c.Offered != len(lost) || c.Text != "" || c.More || c.All {
		t.Errorf("compared: %+v; want %d of 300 lacked and offered", c, len(lost))
	}
	if st.Lack.Offered != uint64(len(lost)) || st.Lack.Taken != uint64(len(lost)) || st.Counters.Delivered != 300 {
		t.Errorf("%+v, %+v; want %d offered and taken, 300 delivered", st.Lack, st.Counters, len(lost))
	}
	if got := len(r.relay.Got("EVENT")) - sent; got != len(lost) {
		t.Errorf("%d events were sent, want the %d that were lost", got, len(lost))
	}
	if opened, closed := len(r.relay.Got("NEG-OPEN")), len(r.relay.Got("NEG-CLOSE")); opened == 0 || opened != closed {
		t.Errorf("%d reconciliations were opened, %d closed", opened, closed)
	}
	if st := r.compared(); st.Compared.Lacked != 0 || st.Compared.Offered != 0 || st.Lack.Taken != uint64(len(lost)) || st.Lack.Rows != 0 {
		t.Errorf("compared again: %+v, %+v; want nothing lacked, and the last count kept", st.Compared, st.Lack)
	}
	r.reopen(false)
	r.start()
	if st := r.sink.Status(); st.Compared.At.IsZero() || st.Lack.Taken != uint64(len(lost)) {
		t.Errorf("after a restart: %+v, %+v; want the last comparison", st.Compared, st.Lack)
	}
}

// TestNotLacked: what the ledger or the rules of now settle otherwise is never offered, however often the relay is compared.
func TestNotLacked(t *testing.T) {
	sign := func(kind int, content string, tags ...[]string) string {
		return relaytest.Sign(relaytest.Key(1), kind, day, tags, content)
	}
	r := newRig(t, relaytest.Script{Negentropy: true, OK: func(e nostr.Event) relaytest.Answer {
		switch {
		case e.Content == "blocked":
			return relaytest.Reject("blocked: no")
		case e.Content == "trouble":
			return relaytest.Reject("error: try later")
		case e.Content == "slow":
			return relaytest.Answer{None: true}
		}
		return relaytest.Accept()
	}})
	r.o.Settings.OK = time.Minute
	r.o.Retry = time.Hour
	r.o.Start.Since = day
	r.o.Seen, r.o.Filters = seenOf{r}, []event.Filter{{}}
	r.o.Want, r.o.FilterKey = event.Selection{Except: []event.Filter{{Kinds: []int{7}}}}.Compile(), "but 7"
	r.log.add(t, record.Origin{}, sign(1, "fine"), sign(1, "blocked"), sign(1, "trouble"), sign(4, "dm"), sign(1059, "wrap"), sign(7, "not wanted"),
		sign(1, "gone", []string{"expiration", "1700000100"}), sign(1, "protected", []string{"-"}),
		relaytest.Sign(relaytest.Key(1), 1, day-1, nil, "old"))
	r.log.add(t, record.Origin{Relay: r.relay.URL}, sign(1, "echo"))
	r.log.add(t, record.Origin{NoDeliver: true}, sign(1, "kept"))
	r.log.add(t, record.Origin{}, sign(1, "slow"))
	r.start()
	r.await("all but the last", func(s Status) bool { return s.InFlight == 1 && s.Counters.Parked == 1 && s.Frontier == 12 })
	for range 2 {
		before := r.sink.Status().Compared.At
		r.sink.Reconcile()
		r.await("a comparison", func(s Status) bool { return s.Compared.At.After(before) })
		if st := r.sink.Status(); st.Compared.Offered != 0 || st.Counters.Parked != 1 || st.Compared.Lacked == 0 {
			t.Errorf("compared: %+v, %d parked; want nothing offered", st.Compared, st.Counters.Parked)
		}
	}
	r.balanced()
}

// TestLackedAndHad: what the relay says that it has, or takes and does not keep, is not offered at each comparison.
func TestLackedAndHad(t *testing.T) {
	for name, test := range map[string]struct {
		answer  relaytest.Answer
		insists bool // an operator gets it offered again at once
	}{
		"duplicate": {answer: relaytest.Answer{Accepted: true, Text: "duplicate: have it"}},
		"replaced":  {answer: relaytest.Answer{Text: "replaced: have newer event"}},
		"taken":     {answer: relaytest.Accept(), insists: true},
		"refused":   {answer: relaytest.Reject("blocked: deleted")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var answer atomic.Pointer[relaytest.Answer]
			lines := notes(40)
			r := newRig(t, relaytest.Script{Negentropy: true, Forget: false, OK: func(nostr.Event) relaytest.Answer {
				if a := answer.Load(); a != nil {
					return *a
				}
				return relaytest.Accept()
			}})
			var clock atomic.Int64 // ahead of now
			r.o.Now = func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
			r.o.Seen, r.o.Filters = seenOf{r}, []event.Filter{{}}
			r.log.add(t, record.Origin{}, lines...)
			r.start()
			r.settled()
			r.relay.Update(func(s *relaytest.Script) { s.Forget = true })
			lost := len(r.lose(lines, 4))
			answer.Store(&test.answer)
			if st := r.compared(); st.Compared.Offered != lost {
				t.Fatalf("%+v; want %d offered", st.Compared, lost)
			}
			want := func(what string, offered int) {
				t.Helper()
				if st := r.compared(); st.Compared.Lacked != lost || st.Compared.Offered != offered {
					t.Errorf("%s: %+v; want %d offered of %d lacked", what, st.Compared, offered, lost)
				}
			}
			switch name {
			case "refused":
				want("at once", 0)
				clock.Store(int64(40 * 24 * time.Hour))
				want("after 40 days", 0)
				return
			case "taken":
				want("an operator insists", lost)
			default:
				want("at once", 0)
			}
			r.reopen(true)
			r.o.Reconcile = Reconcile{Every: time.Hour}
			r.start()
			after := func(d time.Duration, offered int) {
				t.Helper()
				clock.Add(int64(d))
				before := r.sink.Status().Compared.At
				r.sink.comparer.nudge()
				r.await("a comparison", func(s Status) bool { return s.Compared.At.After(before) })
				r.await("its answers", func(s Status) bool { return s.Counters.Parked == 0 && s.Pending == 0 })
				if st := r.sink.Status(); st.Compared.Offered != offered {
					t.Errorf("%s later: %+v; want %d offered", d, st.Compared, offered)
				}
			}
			after(2*time.Hour, 0)
			after(50*time.Hour, lost)
			after(25*time.Hour, 0) // the wait has doubled
			after(200*time.Hour, lost)
			r.relay.Update(func(s *relaytest.Script) { s.Forget = false })
			answer.Store(nil)
			after(400*time.Hour, lost)
			after(24*time.Hour, 0)
			if st := r.sink.Status(); st.Lack.Rows != 0 {
				t.Errorf("%d rows are kept of what is not lacked any more", st.Lack.Rows)
			}
		})
	}
}

// TestAnEmptiedSink: a relay that has lost more than is parked one by one is sent all that it ever took, and nothing else.
func TestAnEmptiedSink(t *testing.T) {
	r := newRig(t, relaytest.Script{Negentropy: true, OK: func(e nostr.Event) relaytest.Answer {
		if strings.HasSuffix(e.Content, "7") {
			return relaytest.Reject("blocked: no sevens")
		}
		return relaytest.Accept()
	}})
	r.o.Seen, r.o.Filters = indexed(r), []event.Filter{{}}
	lines := bare(maxOffered + 5000)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	stored := len(r.relay.Stored())
	sent := len(r.relay.Got("EVENT"))
	r.relay.Lose(func(string) bool { return true })
	before := r.sink.Status()
	r.sink.Reconcile()
	r.await("the pass", func(s Status) bool { return s.Compared.All })
	r.settled()
	st := r.sink.Status()
	if got := len(r.relay.Stored()); got != stored {
		t.Errorf("the relay has %d events again, want %d", got, stored)
	}
	if got := len(r.relay.Got("EVENT")) - sent; got != stored {
		t.Errorf("%d events were sent, want the %d that it had taken", got, stored)
	}
	if st.Counters.Delivered != before.Counters.Delivered || st.Lack.Taken != uint64(stored) || st.Counters.Parked != 0 || st.Again != 0 {
		t.Errorf("%+v, %+v; want %d delivered and taken", st.Counters, st.Lack, stored)
	}
	if n := r.out.count("lacks most"); n != 1 {
		t.Errorf("%d lines say so, want one", n)
	}
	// Empty again: an operator gets it all offered, nobody else the same day.
	r.reopen(false)
	r.relay.Lose(func(string) bool { return true })
	var clock atomic.Int64
	r.o.Now = func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	r.o.Reconcile = Reconcile{Every: time.Hour}
	r.start()
	at := r.sink.Status().Compared.At
	clock.Store(int64(2 * time.Hour))
	r.sink.comparer.nudge()
	r.await("a comparison", func(s Status) bool { return s.Compared.At.After(at) })
	if c := r.sink.Status().Compared; c.All || !strings.Contains(c.Text, "again") {
		t.Errorf("empty again the same day: %+v; want nothing offered", c)
	}
	r.sink.Reconcile()
	r.await("the pass", func(s Status) bool { return s.Compared.All })
	r.settled()
	if got := len(r.relay.Stored()); got != stored {
		t.Errorf("the relay has %d events, want %d", got, stored)
	}
}

// byID is seenOf with an index.
type byID struct {
	seenOf
	at map[event.ID]int
}

func indexed(r *rig) *byID { return &byID{seenOf{r}, nil} }

func (s *byID) Place(id event.ID) (at place.Place, found bool, err error) {
	s.r.log.mu.Lock()
	defer s.r.log.mu.Unlock()
	if s.at == nil {
		s.at = make(map[event.ID]int)
		for i := range s.r.log.recs {
			s.at[s.r.log.recs[i].Event.ID] = i
		}
	}
	i, found := s.at[id]
	return s.r.log.recs[i].Place, found, nil
}

// TestMoreThanIsOffered: what is beyond maxOffered comes with the next comparison, by itself.
func TestMoreThanIsOffered(t *testing.T) {
	r := newRig(t, relaytest.Script{Negentropy: true})
	var clock atomic.Int64
	r.o.Now = func() time.Time { return time.Now().Add(time.Duration(clock.Load())) }
	r.o.Seen, r.o.Filters = indexed(r), []event.Filter{{}}
	lines := bare(3 * maxOffered)
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.settled()
	r.relay.Lose(func(id string) bool { return slices.Contains([]byte("012345"), id[5]) }) // three of eight
	lost := len(lines) - len(r.relay.Stored())
	r.sink.Reconcile()
	r.await("a comparison", func(s Status) bool { return s.Compared.Offered > 0 })
	if c := r.sink.Status().Compared; c.Offered != maxOffered || !c.More || c.All || c.Lacked != lost {
		t.Errorf("%+v; want %d offered of %d, and more", c, maxOffered, lost)
	}
	r.await("its end", func(s Status) bool { return s.Counters.Parked == 0 && s.Pending == 0 })
	clock.Store(int64(moreAfter + time.Second))
	r.sink.comparer.nudge()
	r.await("the next one", func(s Status) bool { return s.Compared.Offered == lost-maxOffered })
	r.await("its end", func(s Status) bool { return s.Counters.Parked == 0 && s.Pending == 0 })
	if got := len(r.relay.Stored()); got != len(lines) || r.sink.Status().Compared.More {
		t.Errorf("the relay has %d events, want %d; %+v", got, len(lines), r.sink.Status().Compared)
	}
}
