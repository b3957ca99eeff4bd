package relay

import (
	"math"
	"time"
)

// backoff is the wait between attempts: full jitter, anything from nothing to a bound that grows with each failure in
// a row.
type backoff struct {
	Backoff
	random   func() float64 // in [0, 1)
	failures int            // in a row, without progress
}

// next counts a failure and returns how long to wait.
func (b *backoff) next() time.Duration {
	bound := math.Min(float64(b.Max), float64(b.Initial)*math.Pow(b.Multiplier, float64(b.failures)))
	b.failures++
	return time.Duration(b.random() * bound)
}

// progress forgets the failures.
func (b *backoff) progress() { b.failures = 0 }
