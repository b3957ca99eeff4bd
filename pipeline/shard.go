package pipeline

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rebroadcastr/dedup"
	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/sources"
)

// liveQueue keeps live events short of waiting: at 64 a reader of live frames waits for its shard.
// historyQueue is longer, so that a page's burst keeps the shard busy while the next page is asked for.
const (
	liveQueue    = 64
	historyQueue = 256
	// livePerHistory live events are taken in a row at most while history waits: history never starves.
	livePerHistory = 16
)

// item is one event or barrier on its way through a shard.
type item struct {
	raw      *[]byte      // pooled; from the event's first byte to the message's end. nil for a parsed event or a barrier
	framed   bool         // raw is the rest of a message, not a bare event
	parsed   *event.Event // the slow way: parsed in the reader
	id       event.ID
	door     *sources.Door
	how      record.How
	received time.Time
	size     int64 // what the budget gave
	live     bool
	barrier  *barrier
}

// barrier is answered once everything that was offered before it is durable.
type barrier struct {
	left   atomic.Int32 // shards that it has not passed yet
	answer chan error   // holds one: a source that has gone blocks nobody
}

// appender is what a shard needs of the archive.
type appender interface {
	// Append hands e over; nil means that it will be written.
	Append(ctx context.Context, e event.Event, o record.Origin) error
	// Barrier answers, into a channel that holds one, once everything appended before is durable.
	Barrier(ctx context.Context, answer chan<- error) error
}

// shard owns the ids that dedup assigns to it: all copies of one event meet here, in order, so there is no race
// between them.
type shard struct {
	index   *dedup.Index
	archive appender
	budget  *budget
	live    chan item
	history chan item
	closed  <-chan struct{} // closed when nothing more is offered
}

func newShard(x *dedup.Index, a appender, b *budget, closed <-chan struct{}) *shard {
	return &shard{
		index: x, archive: a, budget: b, live: make(chan item, liveQueue), history: make(chan item, historyQueue), closed: closed,
	}
}

// run settles what is queued until the intake is closed and both queues are empty. A cancelled ctx ends it at once:
// what was queued then was promised to nobody, and no barrier passes behind an event that was dropped.
func (s *shard) run(ctx context.Context) error {
	streak := 0
	for ctx.Err() == nil {
		it, ok := s.next(ctx, streak < livePerHistory)
		if !ok {
			return nil
		}
		if it.live {
			streak++
		} else {
			streak = 0
		}
		var err error
		if it.barrier != nil {
			err = s.pass(ctx, it.barrier)
		} else {
			err = s.settle(ctx, it)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil // being stopped is no error
}

// next prefers live items, or history when preferLive is false. It is false when there will be none.
func (s *shard) next(ctx context.Context, preferLive bool) (it item, ok bool) {
	first := s.live
	if !preferLive {
		first = s.history
	}
	select {
	case it = <-first:
		return it, true
	default:
	}
	select {
	case it = <-s.live:
		return it, true
	case it = <-s.history:
		return it, true
	case <-ctx.Done():
		return it, false
	case <-s.closed:
	}
	select { // what is queued now is all that there is
	case it = <-s.live:
		return it, true
	case it = <-s.history:
		return it, true
	default:
		return it, false
	}
}

func (s *shard) pass(ctx context.Context, b *barrier) error {
	if b.left.Add(-1) > 0 {
		return nil
	}
	// The last shard to see it speaks for all: what the others settled is in the appender's queue before this.
	return s.archive.Barrier(ctx, b.answer)
}

// settle brings one event to its end: a copy, refused, not asked for, or handed to the archive. A failure leaves no
// trace in dedup, so a forged copy cannot keep the genuine one out.
func (s *shard) settle(ctx context.Context, it item) error {
	defer s.release(it)
	state, err := s.index.Lookup(it.id)
	if err != nil {
		return fmt.Errorf("look up %s: %w", it.id, err)
	}
	if state != dedup.Absent {
		it.door.Tally.Copies.Add(1)
		return nil
	}
	e := it.parsed
	if e == nil {
		e = new(event.Event)
		if err := it.parse(e); err != nil {
			it.door.Refused(*it.raw, event.ReasonOf(err))
			return nil
		}
	}
	ephemeral := event.IsEphemeral(e.Kind)
	if ephemeral || !it.door.Wants(e) {
		it.door.Tally.Unasked.Add(1)
		if ephemeral {
			it.door.Tally.Ephemeral.Add(1)
		}
		return nil
	}
	// Verify compares the computed id with the claimed one; that must also be the one it was sharded by.
	if err := e.Verify(); err != nil || e.ID != it.id {
		reason := event.BadID
		if err != nil {
			reason = event.ReasonOf(err)
		}
		it.door.Refused(e.Line, reason)
		return nil
	}
	s.index.Begin(e.ID)
	origin := record.Origin{Relay: it.door.Relay, Received: it.received, How: it.how, NoDeliver: it.door.NoDeliver}
	if err := s.archive.Append(ctx, *e, origin); err != nil {
		return fmt.Errorf("archive %s: %w", e.ID, err)
	}
	it.door.Tally.New.Add(1)
	return nil
}

func (it *item) parse(e *event.Event) error {
	if it.framed {
		return event.ParseScanned(*it.raw, event.Scan{Sub: []byte{}}, e)
	}
	return event.Parse(*it.raw, e)
}

func (s *shard) release(it item) {
	if it.raw != nil {
		putBuffer(it.raw)
	}
	s.budget.release(it.size, it.live)
}

// buffers holds the bytes of events between readers and shards.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// maxPooled keeps a rare huge event from staying in the pool for ever.
const maxPooled = 64 << 10

func getBuffer(raw []byte) *[]byte {
	b := buffers.Get().(*[]byte)
	*b = append((*b)[:0], raw...)
	return b
}

func putBuffer(b *[]byte) {
	if cap(*b) <= maxPooled {
		buffers.Put(b)
	}
}
