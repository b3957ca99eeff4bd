package pipeline

import (
	"context"
	"errors"
	"time"

	"rebroadcastr/dedup"
	"rebroadcastr/event"
	"rebroadcastr/sources"
)

// errStopping is the answer to events that come after the stop has begun.
var errStopping = errors.New("rebroadcastr is stopping")

// intake is the way into the shards, called from the sources' readers and from imports.
type intake struct {
	index  *dedup.Index
	shards []*shard
	budget *budget
	now    func() time.Time
	closed chan struct{} // closed when nothing more is offered
}

// Offer takes one event. A copy of an id in the LRU ends here, with no allocation; anything else is copied and queued
// at the shard that owns its id. It blocks while that is full, which stops the reader and so the relay.
func (in *intake) Offer(ctx context.Context, f sources.Frame) error {
	it := item{door: f.Door, how: f.How, live: f.Live, id: f.Scan.ID, framed: !f.Bare}
	raw := f.Raw[f.Scan.Event:]
	if !f.Simple {
		// The scanner and the parser may see different ids here: parse in full before choosing the shard.
		var err error
		if raw, err = bare(f); err == nil {
			it.parsed = new(event.Event)
			err = event.Parse(raw, it.parsed)
		}
		if err != nil {
			f.Door.Refused(f.Raw, event.ReasonOf(err))
			return nil
		}
		it.id = it.parsed.ID
	}
	if in.index.Hit(it.id) {
		f.Door.Tally.Copies.Add(1)
		return nil
	}
	size, err := in.budget.acquire(ctx, len(raw), it.live)
	if err != nil {
		return err
	}
	it.size = size
	it.received = in.now()
	if it.parsed == nil {
		it.raw = getBuffer(raw)
	}
	s := in.shards[in.index.Shard(it.id)]
	queue := s.history
	if it.live {
		queue = s.live
	}
	select {
	case queue <- it:
		return nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-in.closed:
		err = errStopping
	}
	s.release(&it)
	return err
}

// bare finds the event in a frame that the structural scan could not make out.
func bare(f sources.Frame) ([]byte, error) {
	if f.Bare {
		return f.Raw, nil
	}
	_, raw, err := event.ParseFrame(f.Raw)
	return raw, err
}

// Barrier sends a token behind everything this caller has offered on the history queues. The answer comes when all of
// that is durable; nil means it is.
func (in *intake) Barrier(ctx context.Context) (<-chan error, error) {
	b := &barrier{answer: make(chan error, 1)}
	b.left.Store(int32(len(in.shards)))
	for _, s := range in.shards {
		select {
		case s.history <- item{barrier: b}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-in.closed:
			return nil, errStopping
		}
	}
	return b.answer, nil
}

// close lets the shards end behind what is queued. Nobody offers any more; who does is refused or left waiting. It
// waits for no shard: one may have failed with its queues full.
func (in *intake) close() { close(in.closed) }
