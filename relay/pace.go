package relay

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// slowestPace, in requests a second: one a minute.
	slowestPace = 1.0 / 60
	// found is how much of the set pace is found again by each foundAfter answers.
	found, foundAfter = 0.1, 10
)

// pace limits a link's requests. A relay that says rate-limited halves it; answers find it again.
type pace struct {
	limiter *rate.Limiter

	mu       sync.Mutex
	set      float64 // requests a second
	now      float64
	answered int
	halved   time.Time
	times    int       // halved
	until    time.Time // nothing before, the relay has said
}

func newPace(set float64) *pace {
	return &pace{limiter: rate.NewLimiter(rate.Limit(set), burst(set)), set: set, now: set}
}

// wait returns when the next request may go.
func (p *pace) wait(ctx context.Context) error {
	p.mu.Lock()
	left := time.Until(p.until)
	p.mu.Unlock()
	if left > 0 {
		t := time.NewTimer(left)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return p.limiter.Wait(ctx)
}

// change sets another pace.
func (p *pace) change(set float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set, p.now = set, set
	p.takeLocked()
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
