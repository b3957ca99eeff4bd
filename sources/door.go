package sources

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"rebroadcastr/event"
)

// What a door keeps of refused events, for the curious: at most 200 doors × 64 KiB are 12.5 MiB, reached only when
// every relay sends garbage.
const (
	maxSamples     = 100
	maxSampleBytes = 2 << 10  // of one sample; the rest is cut off
	maxDoorBytes   = 64 << 10 // of all samples of a door
)

// Door is one way in: a source relay, or an import. It knows what was asked for, and counts what came. All methods
// are safe from any goroutine.
type Door struct {
	Relay     string // normalised URL; empty for an import
	NoDeliver bool   // archived, but kept from every sink (--no-deliver)
	Tally     Tally
	// OnRefused, if set before first use, is told of every refused event too (import --rejects). raw is valid only
	// until it returns.
	OnRefused func(raw []byte, reason event.Reason)

	want atomic.Pointer[event.Matcher]

	mu      sync.Mutex
	samples []Sample // oldest first
	bytes   int
}

// Sample is one refused event, kept for the curious.
type Sample struct {
	At     time.Time
	Reason event.Reason
	Raw    string // its first 2 KiB
	Size   int    // of the whole, in bytes
}

// NewDoor makes a door that wants what want takes; nil takes everything.
func NewDoor(relay string, want *event.Matcher) *Door {
	d := &Door{Relay: relay}
	d.want.Store(want)
	return d
}

// Wants reports whether e was asked for here: streams ∩ this source's only and except.
func (d *Door) Wants(e *event.Event) bool {
	m := d.want.Load()
	return m == nil || m.Match(e)
}

// SetWant swaps what is wanted; nil takes everything.
func (d *Door) SetWant(m *event.Matcher) { d.want.Store(m) }

// Refused counts an event that is not genuine and keeps a sample of it.
func (d *Door) Refused(raw []byte, reason event.Reason) {
	d.Tally.invalid(reason)
	if d.OnRefused != nil {
		d.OnRefused(raw, reason)
	}
	s := Sample{At: time.Now(), Reason: reason, Raw: string(raw[:min(len(raw), maxSampleBytes)]), Size: len(raw)}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.samples = append(d.samples, s)
	d.bytes += len(s.Raw)
	drop := 0
	for len(d.samples)-drop > maxSamples || d.bytes > maxDoorBytes {
		d.bytes -= len(d.samples[drop].Raw)
		drop++
	}
	if drop > 0 { // copied down, so that the array does not creep and what was dropped is freed
		n := copy(d.samples, d.samples[drop:])
		clear(d.samples[n:])
		d.samples = d.samples[:n]
	}
}

// Samples returns the last refused events, oldest first.
func (d *Door) Samples() []Sample {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]Sample(nil), d.samples...)
}

// Tally counts what came through a door. At rest
//
//	received = copies + invalid + unasked + new
//
// and before that the difference is in flight.
type Tally struct {
	Received atomic.Int64 // events taken on by the intake
	Copies   atomic.Int64 // of events that are pending or known
	New      atomic.Int64 // handed to the archive
	Unasked  atomic.Int64 // genuine or not, nobody asked for it
	// Ephemeral ones are part of Unasked: they are for who listens now, and neither archived nor sent (NIP-01).
	Ephemeral atomic.Int64

	mu       sync.Mutex
	byReason map[event.Reason]int64
	refused  atomic.Int64
}

func (t *Tally) invalid(reason event.Reason) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byReason == nil {
		t.byReason = make(map[event.Reason]int64)
	}
	t.byReason[reason]++
	t.refused.Add(1)
}

// Invalid counts what was refused, for whatever reason.
func (t *Tally) Invalid() int64 { return t.refused.Load() }

// InvalidBy counts what was refused, by reason.
func (t *Tally) InvalidBy() map[event.Reason]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.byReason)
}

// Counts is one look at a Tally, and adds up also while events pass:
//
//	received = copies + invalid + unasked + new + in flight
type Counts struct {
	Received, Copies, Invalid, Unasked, New int64
	Ephemeral                               int64 // part of Unasked
	InFlight                                int64 // received, and without a verdict when it was looked at
	InvalidBy                               map[event.Reason]int64
}

// Read takes that look. The counters are read one after the other: what passes meanwhile may still count as in flight.
func (t *Tally) Read() Counts {
	c := Counts{Ephemeral: t.Ephemeral.Load(), Copies: t.Copies.Load(), New: t.New.Load(), Unasked: t.Unasked.Load(), InvalidBy: t.InvalidBy()}
	for _, n := range c.InvalidBy {
		c.Invalid += n
	}
	settled := c.Copies + c.Invalid + c.Unasked + c.New
	c.InFlight = max(0, t.Received.Load()-settled) // read last: what has a verdict was received before
	c.Received = settled + c.InFlight
	return c
}
