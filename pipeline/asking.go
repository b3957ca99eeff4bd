package pipeline

import (
	"sync"

	"rebroadcastr/report"
)

// asking counts the operators' requests that are at work in the store. They come whenever they like, and nobody may look into
// the store once it is closed: the index would take that for damage.
type asking struct {
	mu   sync.Mutex
	over bool
	work sync.WaitGroup
}

// begin is followed by end, unless it refuses.
func (a *asking) begin() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return report.Refuse(report.NotReady, "rebroadcastr has just stopped: ask again")
	}
	a.work.Add(1)
	return nil
}

func (a *asking) end() { a.work.Done() }

// close refuses what comes from now on and waits for what is at work.
func (a *asking) close() {
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
	a.work.Wait()
}
