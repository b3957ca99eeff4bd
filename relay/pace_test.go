package relay

import (
	"testing"
	"testing/synctest"
	"time"
)

// A relay that says rate-limited is asked half as often; answers find the pace again.
func TestPaceIsHalvedAndFoundAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(10)
		send := func(n int) time.Duration {
			start := time.Now()
			for range n {
				if err := p.wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(start)
		}
		send(10) // the burst
		if took := send(20).Round(time.Millisecond); took != 2*time.Second {
			t.Errorf("20 requests took %s at 10/s, want 2s", took)
		}
		p.slower(0)
		p.slower(0) // about a request that was out already
		if got := p.slowed(); got != 5 {
			t.Errorf("the pace is %v after a complaint, want 5", got)
		}
		if took := send(20).Round(time.Millisecond); took != 4*time.Second {
			t.Errorf("20 requests took %s at 5/s, want 4s", took)
		}
		p.slower(30 * time.Second)
		if took := send(1); took < 30*time.Second {
			t.Errorf("the next request went after %s, want the relay's 30s", took)
		}
		if got := p.slowed(); got != 2.5 {
			t.Errorf("the pace is %v after the second complaint, want 2.5", got)
		}
		for range 75 { // 2.5 and 7.5 times one
			p.answer()
		}
		if got := p.slowed(); got == 0 || got < 9 {
			t.Errorf("the pace is %v after 75 answers, want 9.5", got)
		}
		for range 10 {
			p.answer()
		}
		if got := p.slowed(); got != 0 {
			t.Errorf("the pace is %v after 85 answers, want what was set", got)
		}
		for range 200 {
			p.slower(0)
			time.Sleep(time.Hour)
		}
		if got := p.slowed(); got < slowestPace-1e-9 || got > slowestPace+1e-9 {
			t.Errorf("the pace is %v in the end, want one a minute", got)
		}
	})
}
