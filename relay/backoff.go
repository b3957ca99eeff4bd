package relay

import (
	"math"
	"time"
)

// Wait is how long to wait after the failure that has number failed, from 0, in a row: full jitter, anything from
// nothing to a bound that grows with each. random gives numbers in [0, 1).
func (b Backoff) Wait(failed int, random func() float64) time.Duration {
	bound := math.Min(float64(b.Max), float64(b.Initial)*math.Pow(max(b.Multiplier, 1), float64(failed)))
	return time.Duration(random() * bound)
}

// backoff counts the failures of a link.
type backoff struct {
	Backoff
	random   func() float64 // in [0, 1)
	failures int            // in a row, without progress
}

// next counts a failure and returns how long to wait.
func (b *backoff) next() time.Duration {
	d := b.Wait(b.failures, b.random)
	b.failures++
	return d
}

// progress forgets the failures.
func (b *backoff) progress() { b.failures = 0 }
