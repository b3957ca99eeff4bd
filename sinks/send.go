package sinks

import (
	"context"

	"rebroadcastr/record"
)

// frame is the message that publishes rec's event: its canonical line, whatever it looked like when it came.
func frame(rec *record.Record) []byte {
	const head = `["EVENT",`
	b := make([]byte, 0, len(head)+len(rec.Event.Line)+1)
	b = append(b, head...)
	b = append(b, rec.Event.Line...)
	return append(b, ']')
}

// send takes the event in hand into the window and puts it on the wire, at the next flush.
func (a *attempt) send() error {
	s, d := a.s, a.hand
	now := s.now()
	s.mu.Lock()
	if s.draining { // since look
		s.mu.Unlock()
		return nil
	}
	if other := a.sent[d.id]; other != nil {
		// The log holds it twice, and the relay is to answer one of the two: its OK is for this line.
		older, control := other.item, other.control
		other.item, other.author, other.created, other.lesson, other.control = d.item, d.author, d.created, d.lesson, false
		s.mu.Unlock()
		if !control { // the first line was withdrawn after we read it
			s.ledger.Skip(older, SkipWithdrawn)
			a.release(older)
		}
		a.hand = nil
		return nil
	}
	a.launchLocked(d, now)
	s.pace.sent()
	s.counts.Sent++
	s.mu.Unlock()
	if d.parked {
		a.sincePut = 0
	} else {
		a.sincePut++
	}
	a.hand = nil
	// Entered before it is sent: its OK can come before flush returns.
	a.put(d.frame)
	return nil
}

// Events that are there at once are handed to the session together, at most so many, and so many bytes: what waits for them is
// microseconds.
const (
	outMost  = 32
	outBytes = 32 << 10
)

func (a *attempt) put(frame []byte) {
	if a.out == nil {
		a.out = make([][]byte, 0, outMost)
	}
	a.out = append(a.out, frame)
	a.outBytes += len(frame)
}

// flush sends what put has taken.
func (a *attempt) flush(ctx context.Context) error {
	out := a.out
	a.out, a.outBytes = nil, 0
	return a.sess.SendAll(ctx, out)
}
