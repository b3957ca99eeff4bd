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

// Where live events come, a batch of history is short, so that the next one waits 0.3 ms for it and not 1. calmAfter so much history
// without one between there are none any more.
const (
	shortBatch = 16
	calmAfter  = 4096
)

// maxBatchBytes of events as they came end a batch: what is parsed of them is in no budget until the archive has it.
const maxBatchBytes = 256 << 10

// shard owns the ids that dedup assigns to it: all copies of one event meet here, in order, so there is no race
// between them. What waits is settled in batches, because signatures cost a third together; nothing waits for a batch.
type shard struct {
	index   *dedup.Index
	archive appender
	budget  *budget
	live    chan item
	history chan item
	closed  <-chan struct{} // closed when nothing more is offered

	streak     int // live items taken in a row
	calm       int // history items taken since the last live one
	batch      []work
	signatures *event.Batch
}

// work is an item of a batch.
type work struct {
	item
	event   event.Event // Line is made anew for each
	step    step
	genuine bool
}

// step is how far a work has come.
type step uint8

const (
	ended    step = iota // a copy, refused, not asked for, or handed to the archive
	verified             // all is checked but the signature, which is the next of signatures
	again                // a copy of one before it in the batch: looked at again when that one has ended
)

func newShard(x *dedup.Index, a appender, b *budget, closed <-chan struct{}) *shard {
	return &shard{
		index: x, archive: a, budget: b, live: make(chan item, liveQueue), history: make(chan item, historyQueue), closed: closed,
		calm: calmAfter, batch: make([]work, 0, event.MaxBatch), signatures: event.NewBatch(),
	}
}

// run settles what is queued until the intake is closed and both queues are empty. A cancelled ctx ends it at once:
// what was queued then was promised to nobody, and no barrier passes behind an event that was dropped.
func (s *shard) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if !s.gather(ctx) {
			return nil
		}
		if err := s.settle(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil // being stopped is no error
}

// gather waits for one item and takes what else is queued, in the order in which it would take one by one. It takes no history
// for which live items would wait, but what their turn is anyway, and nothing behind a barrier. It is false when there will be
// no more items.
func (s *shard) gather(ctx context.Context) bool {
	it, ok := s.next(ctx, s.streak < livePerHistory)
	if !ok {
		return false
	}
	live := it.live || len(s.live) > 0
	most := cap(s.batch)
	if !live && s.calm < calmAfter {
		most = shortBatch
	}
	for bytes := int64(0); ok; it, ok = s.queued(s.streak < livePerHistory) {
		if it.live {
			s.streak++
			s.calm = 0
		} else {
			s.streak = 0
			s.calm++
		}
		s.batch = append(s.batch, work{item: it})
		bytes += it.size
		if it.barrier != nil || bytes >= maxBatchBytes || len(s.batch) == most || live != (len(s.live) > 0) {
			break
		}
	}
	return true
}

// next waits for an item. It prefers live ones, or history when preferLive is false, and is false when there will be none.
func (s *shard) next(ctx context.Context, preferLive bool) (it item, ok bool) {
	if it, ok = s.queued(preferLive); ok {
		return it, true
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
	return s.queued(true) // what is queued now is all that there is
}

// queued is next for what is there already.
func (s *shard) queued(preferLive bool) (it item, ok bool) {
	first, second := s.live, s.history
	if !preferLive {
		first, second = second, first
	}
	select {
	case it = <-first:
		return it, true
	default:
	}
	select {
	case it = <-second:
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

// settle brings each event of the batch to its end: a copy, refused, not asked for, or handed to the archive, in their order. A
// failure leaves no trace in dedup, so a forged copy cannot keep the genuine one out.
func (s *shard) settle(ctx context.Context) error {
	defer s.clear()
	for i := range s.batch {
		if err := s.check(i); err != nil {
			return err
		}
	}
	s.verify(s.batch)
	for i := range s.batch {
		w := &s.batch[i]
		if w.barrier != nil {
			if err := s.pass(ctx, w.barrier); err != nil {
				return err
			}
			continue
		}
		if w.step == again {
			if err := s.look(w); err != nil {
				return err
			}
			s.verify(s.batch[i : i+1])
		}
		if err := s.finish(ctx, w); err != nil {
			return err
		}
	}
	return nil
}

// check takes the i-th of the batch up to its signature, unless one with the same id is on its way before it.
func (s *shard) check(i int) error {
	w := &s.batch[i]
	if w.barrier != nil {
		return nil
	}
	for j := range s.batch[:i] {
		if before := &s.batch[j]; before.id == w.id && before.step != ended {
			w.step = again
			return nil
		}
	}
	return s.look(w)
}

// look takes an event up to its signature.
func (s *shard) look(w *work) error {
	w.step = ended
	state, err := s.index.Lookup(w.id)
	if err != nil {
		return fmt.Errorf("look up %s: %w", w.id, err)
	}
	if state != dedup.Absent {
		w.door.Tally.Copies.Add(1)
		return nil
	}
	e := &w.event
	if w.parsed != nil {
		*e = *w.parsed
	} else if err := w.parse(e); err != nil {
		w.door.Refused(*w.raw, event.ReasonOf(err))
		return nil
	}
	ephemeral := event.IsEphemeral(e.Kind)
	if ephemeral || !w.door.Wants(e) {
		w.door.Tally.Unasked.Add(1)
		if ephemeral {
			w.door.Tally.Ephemeral.Add(1)
		}
		return nil
	}
	// Add compares the computed id with the claimed one; that must also be the one it was sharded by.
	if e.ID != w.id || s.signatures.Add(e) != nil {
		w.door.Refused(e.Line, event.BadID)
		return nil
	}
	w.step = verified
	return nil
}

// verify checks the signatures of those of batch that come to that.
func (s *shard) verify(batch []work) {
	genuine := s.signatures.Verify()
	for i := range batch {
		if w := &batch[i]; w.step == verified {
			w.genuine, genuine = genuine[0], genuine[1:]
		}
	}
}

// finish hands an event to the archive if it is genuine.
func (s *shard) finish(ctx context.Context, w *work) error {
	defer s.release(&w.item)
	if w.step != verified {
		return nil
	}
	w.step = ended
	if !w.genuine {
		w.door.Refused(w.event.Line, event.BadSignature)
		return nil
	}
	s.index.Begin(w.id)
	origin := record.Origin{Relay: w.door.Relay, Received: w.received, How: w.how, NoDeliver: w.door.NoDeliver}
	if err := s.archive.Append(ctx, w.event, origin); err != nil {
		return fmt.Errorf("archive %s: %w", w.id, err)
	}
	w.door.Tally.New.Add(1)
	return nil
}

// clear empties the batch. What did not come to its end gives back its bytes.
func (s *shard) clear() {
	for i := range s.batch {
		s.release(&s.batch[i].item)
	}
	clear(s.batch)
	s.batch = s.batch[:0]
}

func (it *item) parse(e *event.Event) error {
	if it.framed {
		return event.ParseScanned(*it.raw, event.Scan{Sub: []byte{}}, e)
	}
	return event.Parse(*it.raw, e)
}

// release gives back, once, what an item holds.
func (s *shard) release(it *item) {
	if it.raw != nil {
		putBuffer(it.raw)
		it.raw = nil
	}
	s.budget.release(it.size, it.live)
	it.size = 0
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
