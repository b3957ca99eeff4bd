package pipeline

import (
	"context"
	"encoding/json"
	"io"
	"sync"

	"rebroadcastr/event"
)

// Reject is one refused line of an import, as --rejects writes it.
type Reject struct {
	Reason string `json:"reason"`
	Line   string `json:"line"`
}

// maxRejects bytes wait for their writer, then the import waits. What the shards hold by then may still come on top.
const maxRejects = 1 << 20

// rejects are refused lines on their way to a writer that may be slow, or go before its import's last lines are
// through: the shards, which all sources share, only leave them here.
type rejects struct {
	to io.Writer

	mu      sync.Mutex
	waiting [][]byte
	bytes   int
	closed  bool

	more chan struct{} // a token: there may be something to write
	room chan struct{} // a token: there may be room
}

func newRejects(to io.Writer) *rejects {
	return &rejects{to: to, more: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// add takes one refused line; it may be called from any goroutine, and after close, when it is no more than counted.
func (r *rejects) add(raw []byte, reason event.Reason) {
	b, err := json.Marshal(Reject{string(reason), string(raw)})
	if err != nil {
		panic("pipeline: encode a reject: " + err.Error()) // two strings: cannot fail
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.waiting = append(r.waiting, append(b, '\n'))
	r.bytes += len(b)
	token(r.more)
}

// wait returns when there is room for more.
func (r *rejects) wait(ctx context.Context) error {
	for {
		r.mu.Lock()
		ok := r.bytes < maxRejects
		r.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-r.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// close says that no more will come.
func (r *rejects) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	token(r.more)
}

// run writes until close, or until ctx ends; a Write under way is waited for.
func (r *rejects) run(ctx context.Context) error {
	for {
		r.mu.Lock()
		lines, closed := r.waiting, r.closed
		r.waiting = nil
		r.mu.Unlock()
		for _, line := range lines {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := r.to.Write(line); err != nil {
				return err
			}
			r.mu.Lock()
			r.bytes -= len(line) - 1
			r.mu.Unlock()
			token(r.room)
		}
		if len(lines) > 0 {
			continue
		}
		if closed {
			return nil
		}
		select {
		case <-r.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// token leaves one, unless one is there.
func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
