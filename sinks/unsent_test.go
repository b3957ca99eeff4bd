package sinks

import (
	"fmt"
	"slices"
	"testing"

	"rebroadcastr/event"
	"rebroadcastr/policy"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

// TestWhatIsNotSent: echo, filter, start, --no-deliver, the policy table, and ordinals that no line holds.
func TestWhatIsNotSent(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	key := relaytest.Key(1)
	sign := func(kind int, at int64, tags ...[]string) string { return relaytest.Sign(key, kind, at, tags, "x") }
	sent := sign(1, day)
	allowed := sign(4, day)
	r.log.add(t, record.Origin{Relay: "wss://elsewhere.example.com"}, sent, allowed)
	r.log.add(t, record.Origin{Relay: r.relay.URL}, sign(1, day+1))
	r.log.add(t, record.Origin{NoDeliver: true}, sign(1, day+2))
	r.log.add(t, record.Origin{}, sign(1, day-1), sign(7, day), sign(1059, day), sign(17375, day), sign(1, day+3, []string{"-"}),
		sign(1, day+4, []string{"expiration", "1700000000"}))
	r.log.blank()
	r.log.blank()
	allow, err := policy.NewAllow([]string{policy.DM})
	if err != nil {
		t.Fatal(err)
	}
	r.o.Allow = allow
	r.o.Start = Start{Since: day}
	r.o.Want = event.Selection{All: [][]event.Filter{{{Kinds: []int{1, 4, 17375}}}}}.Compile()
	r.start()
	r.settled()
	r.has([]string{sent, allowed})
	want := map[string]uint64{
		SkipEcho: 1, SkipNoDeliver: 1, SkipBeforeStart: 1, SkipFilter: 2, policy.Wallet: 1, policy.Protected: 1, policy.Expired: 1, SkipWithdrawn: 2,
	}
	if got := r.sink.Status().Counters.Skipped; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("skipped %v, want %v", got, want)
	}
}

func TestExpiring(t *testing.T) {
	expiring := relaytest.Sign(relaytest.Key(1), 1, day, [][]string{{"expiration", "99999999999"}}, "x")
	for name, c := range map[string]struct {
		info            string
		delivered, held uint64
		parked          uint64
	}{
		"unknown": {"", 0, 0, 1},
		"without": {`{"supported_nips":[1,11]}`, 0, 1, 0},
		"with":    {`{"supported_nips":[1,"40"]}`, 1, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, relaytest.Script{Info: c.info})
			r.log.add(t, record.Origin{}, expiring)
			r.start()
			r.settled()
			got := r.sink.Status().Counters
			if got.Delivered != c.delivered || got.Skipped[policy.Expiring] != c.held || got.Parked != c.parked {
				t.Fatalf("%+v; want %d delivered, %d held, %d parked", got, c.delivered, c.held, c.parked)
			}
		})
	}
}

// TestStartNow: what was archived before the sink came is not sent, also not after a restart before anything was.
func TestStartNow(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	lines := notes(30)
	r.log.add(t, record.Origin{}, lines[:20]...)
	r.o.Start = Start{Now: true}
	if _, err := New(r.o); err != nil {
		t.Fatal(err)
	}
	r.log.add(t, record.Origin{}, lines[20:]...)
	r.start()
	r.settled()
	r.has(lines[20:])
	if c := r.sink.Status().Counters; c.Before != 20 {
		t.Fatalf("%d before the start, want 20", c.Before)
	}
}

// TestFilterSwappedWhileRunning: nothing is sent that the filter of the moment does not take, and all that it does.
func TestFilterSwappedWhileRunning(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	ones := notes(20)
	var sevens []string
	for i := range 20 {
		sevens = append(sevens, relaytest.Sign(relaytest.Key(1), 7, day+int64(i), nil, "+"))
	}
	only := func(kind int) *event.Matcher {
		return event.Selection{All: [][]event.Filter{{{Kinds: []int{kind}}}}}.Compile()
	}
	r.o.Want = only(1)
	r.log.add(t, record.Origin{}, append(slices.Clone(ones[:10]), sevens[:10]...)...)
	r.start()
	r.settled()
	r.sink.SetRules(only(7), "sevens", policy.Allow{})
	r.log.add(t, record.Origin{}, append(slices.Clone(ones[10:]), sevens[10:]...)...)
	r.settled()
	r.has(append(slices.Clone(ones[:10]), sevens...))
}
