package relay

import (
	"net"
	"sync"
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

// A wait that the relay asks for holds those too who stood in line for the pace already.
func TestPaceIsQuietForAllWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(1)
		start := time.Now()
		var went []time.Duration
		var mu sync.Mutex
		var waiting sync.WaitGroup
		for range 5 {
			waiting.Go(func() {
				if err := p.wait(t.Context()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				went = append(went, time.Since(start))
				mu.Unlock()
			})
		}
		time.Sleep(1500 * time.Millisecond) // two have gone
		p.slower(30 * time.Second)
		waiting.Wait()
		for n, at := range went {
			if n >= 2 && at < 31*time.Second {
				t.Errorf("request %d went after %s, want none from 1.5s to 31.5s", n, at)
			}
			if n >= 3 && at-went[n-1] < 1900*time.Millisecond {
				t.Errorf("request %d went %s after the one before, want 2s at half the pace", n, at-went[n-1])
			}
		}
	})
}

// What nobody has set follows from where the relay is: strangers are asked slowly, the user's own relay is not. A number that was
// set is heeded everywhere, and a connection to the same place does not bring back what was found too fast.
func TestPaceWhereNobodySetOne(t *testing.T) {
	p := newPace(0)
	if p.now != publicPace {
		t.Errorf("before the first connection the pace is %v, want %v", p.now, publicPace)
	}
	p.connected(true)
	p.slower(0)
	p.connected(true)
	if p.now != nearPace/2 {
		t.Errorf("connected again after a complaint the pace is %v, want %v", p.now, nearPace/2)
	}
	p.connected(false)
	if p.now != publicPace || p.slowed() != 0 {
		t.Errorf("at a public address the pace is %v, want %v", p.now, publicPace)
	}
	p.change(3)
	p.connected(true)
	if p.now != 3 {
		t.Errorf("set to 3 the pace is %v at a relay on this machine", p.now)
	}
	p.change(0)
	if p.now != nearPace {
		t.Errorf("set to auto again the pace is %v, want %v", p.now, nearPace)
	}
}

func TestNear(t *testing.T) {
	for ip, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "10.1.2.3": true, "172.18.0.2": true, "192.168.1.9": true, "fd00::7": true, "fe80::1": true,
		"::ffff:10.0.0.1": true, "8.8.8.8": false, "172.32.0.1": false, "2001:db8::1": false, "100.64.0.1": false,
	} {
		if got := near(&net.TCPAddr{IP: net.ParseIP(ip), Port: 443}); got != want {
			t.Errorf("%s is near: %t, want %t", ip, got, want)
		}
	}
	if near(&net.UnixAddr{}) {
		t.Error("what has no IP address is near")
	}
}
