package archive

import (
	"context"
	"sync"

	"rebroadcastr/event"
	"rebroadcastr/record"
)

// What waits for the appender: as much as one group takes. Beyond it Append waits.
const (
	maxGroup      = 256
	maxGroupBytes = 1 << 20
)

// item is an event on its way to the log, or a barrier.
type item struct {
	event   event.Event
	origin  record.Origin
	barrier chan<- error // nil: an event
}

// queue is the appender's one FIFO, bounded by count and bytes. A larger event than the bound passes alone.
type queue struct {
	mu     sync.Mutex
	items  []item // from head on
	head   int
	bytes  int
	closed bool

	more chan struct{} // a token: there may be something to take
	room chan struct{} // a token: there may be room; whoever takes it and leaves room passes it on
	done chan struct{} // closed by close
}

func newQueue() *queue {
	return &queue{more: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{})}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (q *queue) put(ctx context.Context, it item) error {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return ErrClosed
		}
		if q.roomLocked() {
			q.items = append(q.items, it)
			q.bytes += len(it.event.Line)
			if q.roomLocked() {
				signal(q.room)
			}
			q.mu.Unlock()
			signal(q.more)
			return nil
		}
		q.mu.Unlock()
		select {
		case <-q.room:
		case <-q.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (q *queue) roomLocked() bool {
	return len(q.items)-q.head < maxGroup && q.bytes < maxGroupBytes
}

// take appends to barriers those that stand before any event, and to events a group: those up to the next barrier,
// at most maxGroup and, but for the first, at most maxGroupBytes. left is false when the queue is closed and empty.
func (q *queue) take(events []item, barriers []chan<- error) (_ []item, _ []chan<- error, left bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	size := 0
	for q.head < len(q.items) {
		it := &q.items[q.head]
		if it.barrier != nil {
			if len(events) > 0 {
				break
			}
			barriers = append(barriers, it.barrier)
		} else {
			n := len(it.event.Line)
			if len(events) == maxGroup || len(events) > 0 && size+n > maxGroupBytes {
				break
			}
			size += n
			q.bytes -= n
			events = append(events, *it)
		}
		*it = item{}
		q.head++
	}
	if q.head == len(q.items) {
		q.items, q.head = q.items[:0], 0
	}
	if q.roomLocked() {
		signal(q.room)
	}
	return events, barriers, !q.closed || q.head < len(q.items) || len(events) > 0
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) - q.head
}

// close ends put. What is queued can still be taken.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.closed = true
		close(q.done)
	}
	signal(q.more)
}
