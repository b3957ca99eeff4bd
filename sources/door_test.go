package sources_test

import (
	"strings"
	"sync"
	"testing"

	"rebroadcastr/event"
	"rebroadcastr/sources"
)

func TestSamplesAreBounded(t *testing.T) {
	d := sources.NewDoor("wss://relay.example", nil)
	told := 0
	d.OnRefused = func([]byte, event.Reason) { told++ }
	for range 150 {
		d.Refused([]byte("short"), event.BadID)
	}
	if n := len(d.Samples()); n != 100 {
		t.Errorf("%d short samples are kept, want 100", n)
	}
	huge := []byte(strings.Repeat("x", 1<<20))
	for range 150 {
		d.Refused(huge, event.BadSignature)
	}
	bytes := 0
	for _, s := range d.Samples() {
		bytes += len(s.Raw)
		if s.Size != len(huge) && s.Reason == event.BadSignature {
			t.Errorf("a sample says it was %d bytes, want %d", s.Size, len(huge))
		}
	}
	if bytes > 64<<10 {
		t.Errorf("samples hold %d bytes, want at most 64 KiB", bytes)
	}
	if by := d.Tally.InvalidBy(); by[event.BadID] != 150 || by[event.BadSignature] != 150 || d.Tally.Invalid() != 300 || told != 300 {
		t.Errorf("counted %v, %d in all, told of %d; want 150 each", by, d.Tally.Invalid(), told)
	}
}

// TestTallyAddsUp: also while events pass.
func TestTallyAddsUp(t *testing.T) {
	d := sources.NewDoor("wss://relay.example", nil)
	y := &d.Tally
	var passing sync.WaitGroup
	over := make(chan struct{})
	for i := range 4 {
		passing.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				y.Received.Add(1)
				switch i {
				case 0:
					y.Copies.Add(1)
				case 1:
					y.New.Add(1)
				case 2:
					y.Unasked.Add(1)
					y.Ephemeral.Add(1)
				case 3:
					d.Refused(nil, event.BadID)
				}
			}
		})
	}
	for range 20_000 {
		c := y.Read()
		if c.Received != c.Copies+c.Invalid+c.Unasked+c.New+c.InFlight || c.InFlight < 0 || c.Ephemeral > c.Unasked || c.InvalidBy[event.BadID] != c.Invalid {
			t.Fatalf("%+v does not add up", c)
		}
	}
	close(over)
	passing.Wait()
	if c := y.Read(); c.InFlight != 0 || c.Received != y.Received.Load() || c.Invalid != y.Invalid() {
		t.Errorf("at rest: %+v, %d received", c, y.Received.Load())
	}
}

func TestWantIsSwapped(t *testing.T) {
	only := func(kind int) *event.Matcher {
		return event.Selection{All: [][]event.Filter{{{Kinds: []int{kind}}}}}.Compile()
	}
	d := sources.NewDoor("", nil)
	e := &event.Event{Kind: 7}
	if !d.Wants(e) {
		t.Error("a door without a matcher does not want everything")
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 100 {
				d.SetWant(only(i))
				d.Wants(e)
			}
		})
	}
	wg.Wait()
	if d.SetWant(only(1)); d.Wants(e) {
		t.Error("kind 7 is wanted where kind 1 was asked for")
	}
	if d.SetWant(only(7)); !d.Wants(e) {
		t.Error("kind 7 is not wanted where it was asked for")
	}
}
