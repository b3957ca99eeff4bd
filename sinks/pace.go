package sinks

import "time"

// The pace of a sink that asks to be sent to more slowly: halved at each such answer (once per round trip), then found
// again in steps of an eighth, which double beyond the pace that was last too fast.
const (
	minPace    = 1.0 / 60 // events a second
	minStep    = 0.02
	firstPace  = 10.0     // events a second that a sink is taken to have been sent where little was answered yet
	freePace   = 10_000.0 // above it there is no limit any more
	paceEvery  = 5 * time.Second
	paceBurst  = 50 * time.Millisecond // what may be sent at once, in time
	slowHold   = time.Second           // nothing is sent for so long after "slower"
	maxPaceAsk = time.Hour             // the longest wait that a relay's text may ask for
)

// pace decides when the next event may be sent. The zero pace has no limit. Its owner locks.
type pace struct {
	rate    float64 // events a second; 0: no limit
	tooFast float64 // what was halved last
	step    float64
	tokens  float64
	at      time.Time // tokens are counted up to here
	changed time.Time // rate's last change
	halved  time.Time
	hold    time.Time // nothing is sent before

	second         int64 // unix second that this counts answers of
	this, previous int   // answers in that second and in the one before
}

// wait is how long the next send has to wait; 0: it may go.
func (p *pace) wait(now time.Time) time.Duration {
	if d := p.hold.Sub(now); d > 0 {
		return d
	}
	if p.rate == 0 {
		return 0
	}
	p.refill(now)
	if p.tokens >= 1 {
		return 0
	}
	return time.Duration((1-p.tokens)/p.rate*float64(time.Second)) + time.Millisecond
}

func (p *pace) refill(now time.Time) {
	if passed := now.Sub(p.at).Seconds(); passed > 0 {
		p.tokens = min(p.tokens+passed*p.rate, max(1, p.rate*paceBurst.Seconds()))
	}
	p.at = now
}

// sent takes a token.
func (p *pace) sent() { p.tokens = max(0, p.tokens-1) }

// answered counts an answer other than "slower", by which the pace is measured and found again.
func (p *pace) answered(now time.Time) {
	p.count(now)
	p.this++
	if p.rate == 0 || now.Sub(p.changed) < paceEvery {
		return
	}
	p.refill(now)
	p.rate += p.step
	p.changed = now
	if p.rate > p.tooFast {
		p.step *= 2
	}
	if p.rate > freePace {
		p.rate = 0
	}
}

func (p *pace) count(now time.Time) {
	switch s := now.Unix(); {
	case s == p.second:
	case s == p.second+1:
		p.second, p.previous, p.this = s, p.this, 0
	default:
		p.second, p.previous, p.this = s, 0, 0
	}
}

// slower halves the pace, unless the event it is about was sent before the last halving. ask is the wait that the relay's text
// names, 0 if none.
func (p *pace) slower(now, sent time.Time, ask time.Duration) {
	if until := now.Add(min(max(ask, slowHold), maxPaceAsk)); p.hold.Before(until) {
		p.hold = until
	}
	if p.rate > 0 && sent.Before(p.halved) {
		return
	}
	p.tooFast = p.rate
	if p.rate == 0 {
		p.count(now)
		p.tooFast = max(float64(max(p.this, p.previous)), firstPace)
	}
	p.rate = max(minPace, p.tooFast/2)
	p.step = max(p.rate/8, minStep)
	p.tokens, p.at, p.changed, p.halved = 0, now, now, now
}
