package sources

import (
	"fmt"
	"sync"
	"time"

	"rebroadcastr/relay"
)

const (
	garbageEvery  = 256         // events between two looks
	garbageEnough = 200         // verdicts before one is passed on the relay
	garbagePause  = time.Minute // the first; doubled up to maxGarbage
	maxGarbage    = 6 * time.Hour
)

// garbage watches for a relay that sends mostly events that are not genuine: each costs us a signature check. What
// nobody asked for does not count: except lists make that a good relay's daily bread.
type garbage struct {
	mu       sync.Mutex
	verdicts int64 // at the last look
	invalid  int64
	pauses   int // in a row
}

// judge looks at what came since the last look; not nil: leave the relay alone for that long.
func (g *garbage) judge(t *Tally) *relay.Pause {
	g.mu.Lock()
	defer g.mu.Unlock()
	invalid := t.Invalid()
	verdicts := invalid + t.Copies.Load() + t.New.Load() + t.Unasked.Load()
	newVerdicts, newInvalid := verdicts-g.verdicts, invalid-g.invalid
	if newVerdicts < garbageEnough {
		return nil
	}
	g.verdicts, g.invalid = verdicts, invalid
	if 2*newInvalid <= newVerdicts {
		g.pauses = 0
		return nil
	}
	d := min(maxGarbage, garbagePause<<min(g.pauses, 20))
	g.pauses++
	return &relay.Pause{For: d, Reason: fmt.Sprintf("mostly garbage: %d of the last %d events were refused", newInvalid, newVerdicts)}
}
