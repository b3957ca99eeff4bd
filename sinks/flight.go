package sinks

import (
	"container/list"
	"context"
	"fmt"
	"time"

	"rebroadcastr/event"
)

// flight is an event that was sent and not answered. Its bytes are let go.
type flight struct {
	item
	seq     uint64
	control bool // not the ledger's business
	id      event.ID
	author  event.PubKey
	created int64
	bytes   int
	sent    time.Time
	start   time.Time     // of the wait for its OK
	stalled time.Duration // the session's at start
	element *list.Element
}

// launchLocked enters d into the window.
func (a *attempt) launchLocked(d *delivery, now time.Time) *flight {
	a.seq++
	f := &flight{
		item: d.item, seq: a.seq, id: d.id, author: d.author, created: d.created, bytes: len(d.frame),
		sent: now, start: now, stalled: a.sess.Stalled(),
	}
	f.element = a.order.PushBack(f)
	a.sent[f.id] = f
	a.bytes += f.bytes
	a.s.inFlight = len(a.sent)
	delete(a.late, f.id)
	return f
}

// landLocked takes f out of the window.
func (a *attempt) landLocked(f *flight) {
	a.order.Remove(f.element)
	delete(a.sent, f.id)
	a.bytes -= f.bytes
	if f.control {
		a.control = nil
	}
	if a.s.inFlight = len(a.sent); len(a.sent) == 0 {
		close(a.s.idle)
		a.s.idle = make(chan struct{})
	}
}

// overdueLocked deals with events that waited longer than the OK timeout. It returns the time until the next such look,
// and whether only a control can tell if the relay does not answer them or answers nothing.
func (a *attempt) overdueLocked(now time.Time) (next time.Duration, doubt bool, err error) {
	timeout := a.s.o.Settings.OK
	stalled := a.sess.Stalled()
	for {
		e := a.order.Front()
		if e == nil {
			return longest, false, nil
		}
		f := e.Value.(*flight)
		// While the reader waits inside a handler no OK can be heard, so the clock stands.
		if left := timeout - (now.Sub(f.start) - (stalled - f.stalled)); left > 0 {
			return min(left+time.Millisecond, longest), false, nil
		}
		switch {
		case f.seq < a.top: // something sent later was answered: it is about this event
			a.unansweredLocked(f, now)
		case a.control != nil:
			if left := timeout - (now.Sub(a.control.start) - (stalled - a.control.stalled)); left > 0 {
				return min(left+time.Millisecond, longest), false, nil
			}
			return 0, false, fmt.Errorf("%w within %s", errSilent, timeout)
		case a.s.draining:
			return 0, false, fmt.Errorf("%w within %s", errSilent, timeout)
		default:
			return 0, true, nil
		}
	}
}

// sendControl sends an event that the relay took before. Its answer tells a relay that answers nothing from one that does
// not answer what is in flight.
func (a *attempt) sendControl(ctx context.Context) error {
	s := a.s
	silent := fmt.Errorf("%w within %s", errSilent, s.o.Settings.OK)
	at, ok := s.ledger.Control()
	if !ok {
		return silent
	}
	rec, ok, err := a.read(item{mark: at})
	if err != nil {
		return err
	}
	if !ok || s.decide(&rec, a.sess) != (decision{}) {
		s.ledger.DropControl(at) // gone, or not to be sent any more
		return silent
	}
	d := &delivery{item: item{mark: at}, id: rec.Event.ID, frame: frame(&rec)}
	s.mu.Lock()
	if a.sent[d.id] != nil {
		s.mu.Unlock()
		return silent // it is itself among the unanswered
	}
	a.control = a.launchLocked(d, s.now())
	a.control.control = true
	s.mu.Unlock()
	return a.sess.Send(ctx, d.frame)
}
