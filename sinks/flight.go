package sinks

import (
	"fmt"
	"math"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

// noOrdinal is none that the archive issues.
const noOrdinal = math.MaxUint64

// flight is an event that was sent and not answered. Its bytes are let go.
type flight struct {
	item
	seq     uint64
	control bool // not the ledger's business: nothing of it waits
	id      event.ID
	author  event.PubKey
	created int64
	lesson  lesson
	bytes   int
	sent    time.Time
	start   time.Time     // of the wait for its OK
	stalled time.Duration // the session's at start

	previous, next *flight // in flights
}

// flights are in the order in which they were sent. The list is the flights' own: one more allocation for each event shows.
type flights struct{ first, last *flight }

func (l *flights) add(f *flight) {
	if f.previous = l.last; f.previous == nil {
		l.first = f
	} else {
		f.previous.next = f
	}
	l.last = f
}

func (l *flights) remove(f *flight) {
	if f.previous == nil {
		l.first = f.next
	} else {
		f.previous.next = f.next
	}
	if f.next == nil {
		l.last = f.previous
	} else {
		f.next.previous = f.previous
	}
	f.previous, f.next = nil, nil
}

// launchLocked enters d into the window.
func (a *attempt) launchLocked(d *delivery, now time.Time) *flight {
	a.seq++
	f := &flight{
		item: d.item, seq: a.seq, id: d.id, author: d.author, created: d.created, lesson: d.lesson, bytes: len(d.frame),
		sent: now, start: now, stalled: a.sess.Stalled(),
	}
	a.order.add(f)
	a.sent[f.id] = f
	a.bytes += f.bytes
	a.s.inFlight = len(a.sent)
	delete(a.late, f.id)
	return f
}

// landLocked takes f out of the window.
func (a *attempt) landLocked(f *flight) {
	a.order.remove(f)
	delete(a.sent, f.id)
	a.bytes -= f.bytes
	if a.control == f {
		a.control = nil
	}
	if a.s.inFlight = len(a.sent); len(a.sent) == 0 {
		close(a.s.idle)
		a.s.idle = make(chan struct{})
	}
}

// awaits says that an OK is.
func (a *attempt) awaits() bool {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	return len(a.sent) > 0
}

// leftLocked is what is left of the time in which f should be answered. While the reader waits inside a handler no OK can be
// heard, so the clock stands. bytes are what has to get there first: a large event takes its time on a narrow line.
func (a *attempt) leftLocked(f *flight, bytes int, now time.Time) time.Duration {
	return time.Duration(a.s.okTime.Load()) + relay.Transit(bytes) - (now.Sub(f.start) - (a.sess.Stalled() - f.stalled))
}

// silence ends a session on which nothing is answered.
func (a *attempt) silence() error {
	a.silent = true
	return fmt.Errorf("%w within %s", errSilent, time.Duration(a.s.okTime.Load()))
}

// overdueLocked deals with events that waited longer than the OK timeout. It returns the time until the next such look,
// and whether only a control can tell if the relay does not answer them or answers nothing.
func (a *attempt) overdueLocked(now time.Time) (next time.Duration, doubt bool, err error) {
	for {
		f := a.order.first
		if f == nil {
			return longest, false, nil
		}
		if left := a.leftLocked(f, f.bytes, now); left > 0 {
			return min(left+time.Millisecond, longest), false, nil
		}
		switch {
		case f.control && f.seq < a.top: // it has served: something sent later was answered
			a.landLocked(f)
		case f.seq < a.top: // something sent later was answered: it is about this event
			a.unansweredLocked(f, now)
		case a.control != nil:
			if left := a.leftLocked(a.control, a.bytes, now); left > 0 {
				return min(left+time.Millisecond, longest), false, nil
			}
			return 0, false, a.silence()
		case a.s.draining:
			return 0, false, a.silence()
		default:
			return 0, true, nil
		}
	}
}

// sendControl sends an event that the relay took before, but not the one at ordinal. Its answer tells a relay that answers
// nothing from one that does not answer what is in flight. The error is errNoControl if there is none to send.
func (a *attempt) sendControl(not uint64) error {
	s := a.s
	at, ok := s.ledger.Control()
	if !ok {
		return errNoControl
	}
	rec, ok, err := a.read(item{mark: at})
	if err != nil {
		return err
	}
	sends := false
	if ok {
		v, err := s.decide(&rec, a.sess)
		if err != nil {
			return err
		}
		sends = v.sends()
	}
	if !sends || at.Ordinal == not {
		s.ledger.DropControl(at) // gone, offered again, or not to be sent any more
		return errNoControl
	}
	d := &delivery{item: item{mark: at}, id: rec.Event.ID, frame: frame(&rec)}
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return nil // who asked looks again
	}
	if a.sent[d.id] != nil {
		s.mu.Unlock()
		return errNoControl // it is itself among the unanswered
	}
	a.control = a.launchLocked(d, s.now())
	a.control.control = true
	s.mu.Unlock()
	a.put(d.frame)
	return nil
}
