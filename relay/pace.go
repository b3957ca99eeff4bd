package relay

import (
	"context"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// publicPace and nearPace, in requests a second, where no pace is set. Twelve pages of 500, less what the ends of windows cost
	// (a sixth), are 5,000 events or 5 MB a second: as much as one may ask of a stranger. A relay on this machine or a private network is the user's own, and the slower of the two
	// decides: no pace bounds a relay that gives 50,000 events a second in pages of 50.
	publicPace, nearPace = 12, 1000
	// slowestPace, in requests a second: one a minute.
	slowestPace = 1.0 / 60
	// found is how much of the set pace is found again by each foundAfter answers.
	found, foundAfter = 0.1, 10
)

// pace limits a link's requests. A relay that says rate-limited halves it; answers find it again.
type pace struct {
	limiter *rate.Limiter

	mu       sync.Mutex
	wish     float64 // what the settings say; 0: nothing
	near     bool    // see nearPace
	set      float64 // requests a second, as they follow from both
	now      float64
	answered int
	halved   time.Time
	times    int       // halved
	until    time.Time // nothing before, the relay has said
}

// newPace takes what the settings say.
func newPace(wish float64) *pace {
	p := &pace{wish: wish}
	p.set = p.due()
	p.now, p.limiter = p.set, rate.NewLimiter(rate.Limit(p.set), burst(p.set))
	return p
}

// due is the pace that follows from wish and near.
func (p *pace) due() float64 {
	switch {
	case p.wish > 0:
		return p.wish
	case p.near:
		return nearPace
	}
	return publicPace
}

// wait returns when the next request may go.
func (p *pace) wait(ctx context.Context) error {
	for {
		if err := p.limiter.Wait(ctx); err != nil {
			return err
		}
		left := p.quiet()
		if left <= 0 {
			return nil
		}
		// The relay has asked for it, perhaps while we stood in line. Afterwards the line forms again, at the pace of then.
		t := time.NewTimer(left)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// quiet is for how long nothing is asked.
func (p *pace) quiet() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.until)
}

// change takes what the settings say now.
func (p *pace) change(wish float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wish = wish
	p.setLocked()
}

// connected says where the relay is. A pace that it found too fast before stays, unless it is somewhere else now.
func (p *pace) connected(near bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.near != near {
		p.near = near
		p.setLocked()
	}
}

// setLocked sets the pace that is due, if that is another one.
func (p *pace) setLocked() {
	if set := p.due(); set != p.set {
		p.set, p.now = set, set
		p.takeLocked()
	}
}

// near says whether the other end of a connection is this machine or in a private network.
func near(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && (tcp.IP.IsLoopback() || tcp.IP.IsPrivate() || tcp.IP.IsLinkLocalUnicast())
}

func (p *pace) takeLocked() {
	p.limiter.SetLimit(rate.Limit(p.now))
	p.limiter.SetBurst(burst(p.now))
}

// slower halves the pace and sends nothing for so long. Complaints about requests that were out already are one complaint.
func (p *pace) slower(wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(wait); wait > 0 && until.After(p.until) {
		p.until = until
	}
	p.answered = 0
	if time.Since(p.halved) < max(time.Second, time.Duration(2*float64(time.Second)/p.now)) {
		return
	}
	p.halved = time.Now()
	p.times++
	p.now = max(slowestPace, p.now/2)
	p.takeLocked()
}

// answer finds a part of the pace again.
func (p *pace) answer() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now >= p.set {
		return
	}
	if p.answered++; p.answered%foundAfter == 0 {
		p.now = min(p.set, p.now+found*p.set)
		p.takeLocked()
	}
}

// rate is the pace in force, in requests a second.
func (p *pace) rate() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now
}

// slowed is the pace, if that is not what was set; 0: it is.
func (p *pace) slowed() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now < p.set {
		return p.now
	}
	return 0
}

// complaints are how often the pace was halved, and until when nothing is asked.
func (p *pace) complaints() (times int, until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.times, p.until
}
