package sources

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"rebroadcastr/state"
)

// saved is one step of progress.
type saved struct {
	atoms    []atom
	plan     uint64 // number of the plan that they were asked for
	window   window
	gaps     []hole              // found in window, which is not proven
	void     map[atomKey]windows // not proven after all
	caughtUp int64               // unix seconds: the start of a completed catch-up; 0: none
	answer   <-chan error
	told     func() // once it is saved, or cannot be; nil: nobody waits
}

// farewell is the time that barriers have to answer when a session ends in the middle; what is not saved by then is
// asked for again.
const farewell = time.Second

// saver writes progress to the state, in the order in which it was made, each step after the barrier behind its events
// has been answered: never before they are on disk.
type saver struct {
	s            *Source
	steps        chan saved
	closed       bool          // visit's goroutine only: no step may follow
	done         chan struct{} // closed when run has ended
	err          error         // why, set before done is closed
	hurry        context.Context
	hurryUp      context.CancelFunc
	lastCaughtUp int64 // visit's goroutine only
}

func (k *saver) init(s *Source) {
	k.s = s
	// A step is a few words. The walk waits only when the archive is this many pages behind.
	k.steps = make(chan saved, 256)
	k.done = make(chan struct{})
	k.hurry, k.hurryUp = context.WithCancel(context.Background())
}

// path of what is known of a source. Below it: "windows", by atom, and the key "caught up".
func (s *Source) path(more ...string) []string { return append([]string{"sources", s.o.URL}, more...) }

var keyCaughtUp = []byte("caught up") // unix seconds, 8 bytes big-endian

// load takes up the plan as it is now and reads what is proven of it. What this visit has proven of atoms that stay is
// kept.
func (v *visit) load() error {
	p, old, known := v.s.asked.Load(), v.plan, v.view
	narrow := ""
	err := v.s.o.State.View(func(tx *state.Tx) error {
		if b := tx.Bucket(v.s.path()...); b != nil {
			narrow = string(b.Get(keyNarrow))
		}
		return nil
	})
	if err == nil && narrow != p.names() {
		err = v.s.o.State.Update(func(tx *state.Tx) error { return v.s.narrowed(tx, p) })
	}
	if err != nil {
		return fmt.Errorf("load what is let in from %s: %w", v.s.o.URL, err)
	}
	if err := v.s.noteAsked(p); err != nil { // costs words of status --gaps
		v.log.Warn().Err(err).Str("relay", v.s.o.URL).Msg("what is asked for is not noted")
	}
	stays := func(a atom) bool { return old != nil && p.joined[a.key] <= old.number }
	err = v.s.o.State.View(func(tx *state.Tx) error {
		v.plan, v.view = p, make(map[atomKey]windows, len(p.atoms))
		if b := tx.Bucket(v.s.path()...); b != nil && old == nil {
			v.saver.lastCaughtUp = 0
			if at := b.Get(keyCaughtUp); len(at) == 8 {
				v.saver.lastCaughtUp = int64(binary.BigEndian.Uint64(at))
			}
		}
		b := tx.Bucket(v.s.path("windows")...)
		for _, a := range p.atoms {
			if stays(a) {
				v.view[a.key] = known[a.key]
				continue
			}
			if p.joined[a.key] > v.s.loaded { // joined again, perhaps
				delete(v.s.mine, a.key)
			}
			if b == nil {
				continue
			}
			ws, err := v.s.stored(b.Get(a.key[:]))
			if err != nil { // asked again
				v.log.Warn().Err(err).Str("relay", v.s.o.URL).Msg("proven windows are damaged: history is asked for again")
				continue
			}
			v.view[a.key] = ws
		}
		return v.s.loadGaps(tx, p)
	})
	if err != nil {
		return fmt.Errorf("load what is proven of %s: %w", v.s.o.URL, err)
	}
	v.s.loaded = p.number
	v.s.caughtUp(v.saver.lastCaughtUp)
	return nil
}

// stored reads an atom's windows. One that ends later than now was made by a clock that ran ahead, nobody knows how
// long: it is void.
func (s *Source) stored(b []byte) (windows, error) {
	ws, err := decodeWindows(b)
	for err == nil && len(ws) > 0 && ws[len(ws)-1].hi > s.o.Now().Unix() {
		ws = ws[:len(ws)-1]
	}
	return ws, err
}

// caughtUp is the start of the last completed catch-up, 0 for none.
func (k *saver) caughtUp() int64 { return k.lastCaughtUp }

// add puts a barrier behind everything that was offered so far, and the step behind the barrier.
func (k *saver) add(ctx context.Context, step saved) error {
	var err error
	if step.answer, err = k.s.o.Intake.Barrier(ctx); err != nil {
		return fmt.Errorf("put a barrier: %w", err)
	}
	if step.caughtUp != 0 {
		k.lastCaughtUp = step.caughtUp
	}
	select {
	case k.steps <- step:
		return nil
	case <-k.done:
		return nil // it has said why
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drain waits until every step so far is saved. No step may follow.
func (k *saver) drain(ctx context.Context) error {
	k.closed = true
	close(k.steps)
	select {
	case <-k.done:
		return k.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close ends run: at once where everything is drained, else after a moment.
func (k *saver) close(drained bool) {
	if !k.closed {
		close(k.steps)
	}
	if !drained {
		t := time.AfterFunc(farewell, k.hurryUp)
		<-k.done
		t.Stop()
	}
	k.hurryUp()
}

func (k *saver) run() (err error) {
	defer func() {
		k.err = err
		close(k.done)
	}()
	for first := range k.steps {
		for step, more := first, true; more; {
			if err := k.durable(step); err != nil {
				return k.hurried(err)
			}
			batch := []saved{step}
			batch, step, more = k.ready(batch)
			if err := k.save(batch); err != nil {
				// Costs asking again. The steps to come are as true without it.
				k.s.o.Log.Error().Err(err).Str("relay", k.s.o.URL).Msg("progress not saved")
			}
			for _, done := range batch {
				if done.told != nil {
					done.told()
				}
			}
		}
	}
	return nil
}

// ready adds to batch what can be saved in the same transaction; next, if there is one, must wait for its barrier.
func (k *saver) ready(batch []saved) (_ []saved, next saved, more bool) {
	for {
		select {
		case step, ok := <-k.steps:
			if !ok {
				return batch, saved{}, false
			}
			if len(step.answer) == 0 {
				return batch, step, true
			}
			if err := <-step.answer; err != nil {
				step.answer = failed(err)
				return batch, step, true
			}
			batch = append(batch, step)
		default:
			return batch, saved{}, false
		}
	}
}

// failed is an answer that has come already.
func failed(err error) <-chan error {
	c := make(chan error, 1)
	c <- err
	return c
}

var errHurry = errors.New("the session has ended")

// durable waits for the barrier in front of a step.
func (k *saver) durable(step saved) error {
	select {
	case err := <-step.answer:
		if err != nil {
			// Later steps stand on this one's events.
			return fmt.Errorf("wait for the archive: %w", err)
		}
		return nil
	case <-k.hurry.Done():
		return errHurry
	}
}

func (k *saver) hurried(err error) error {
	if errors.Is(err, errHurry) {
		return nil
	}
	return err
}

func (k *saver) save(batch []saved) error {
	unkept := 0
	err := k.s.o.State.Update(func(tx *state.Tx) error {
		unkept = 0 // it may be done twice
		for _, step := range batch {
			more, err := k.put(tx, step)
			if err != nil {
				return err
			}
			unkept += more
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("save what is proven of %s: %w", k.s.o.URL, err)
	}
	k.s.leftOut(unkept)
	for _, step := range batch {
		if step.caughtUp != 0 {
			k.s.caughtUp(step.caughtUp)
		}
	}
	return nil
}

// put saves one step; unkept are the gaps that there was no room for.
func (k *saver) put(tx *state.Tx, step saved) (unkept int, err error) {
	if step.caughtUp != 0 {
		b := tx.Bucket(k.s.path()...)
		return 0, b.Put(keyCaughtUp, binary.BigEndian.AppendUint64(nil, uint64(step.caughtUp)))
	}
	if step.gaps != nil {
		return k.s.keepGaps(tx, step)
	}
	b := tx.Bucket(k.s.path("windows")...)
	for key, void := range step.void {
		ws, err := k.s.stored(b.Get(key[:]))
		if err != nil || len(ws) == 0 { // what is damaged proves nothing
			continue
		}
		if err := b.Put(key[:], ws.without(void).encode()); err != nil {
			return 0, err
		}
	}
	for _, a := range step.atoms {
		if !k.s.lets(a, step.plan) { // part of what came may have been refused
			continue
		}
		ws, err := k.s.stored(b.Get(a.key[:]))
		if err != nil {
			ws = nil
		}
		if err := b.Put(a.key[:], ws.add(step.window).encode()); err != nil {
			return 0, err
		}
		if err := k.s.closeGaps(tx, a, step.window); err != nil {
			return 0, err
		}
	}
	return 0, nil
}
