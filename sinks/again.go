package sinks

import (
	"fmt"

	"rebroadcastr/place"
	"rebroadcastr/record"
)

// A relay that has lost most of what it was sent is offered all of it again: a pass over the archive that opens, one at a time and
// behind the tail, what was delivered by the ledger and would be sent by the rules of now. What the relay has after all it answers
// with duplicate:.

// again is how far that pass is: everything before next has been looked at, to is the first ordinal that was not met when it
// began. The zero again is none.
type again struct {
	Next mark   `json:"next"`
	To   uint64 `json:"to"`
}

// OfferAll begins the pass, from the sink's start on. It returns over how many ordinals it goes.
func (l *ledger) OfferAll() (ordinals uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.frontier.Ordinal <= l.counters.Before {
		return 0
	}
	l.passes++
	l.again, l.dirty = again{mark{Ordinal: l.counters.Before}, l.frontier.Ordinal}, true
	return l.again.To - l.counters.Before
}

// Again is the pass under way, and a number that is another for each.
func (l *ledger) Again() (p again, number int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.again, l.passes
}

// passingLocked says whether a pass of either kind is under way.
func (l *ledger) passingLocked() bool { return l.pass != (pass{}) || l.again != (again{}) }

// Known are the ordinals of a span that are open, or of which a row tells that they are parked, refused or held back.
func (l *ledger) Known(span uint64) (ordinals, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.knownLocked(span)
}

// Looked moves the pass to next, or ends it there.
func (l *ledger) Looked(next mark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lookedLocked(next)
}

func (l *ledger) lookedLocked(next mark) {
	if next.Ordinal <= l.again.Next.Ordinal {
		return
	}
	l.dirty = true
	if l.again.Next = next; next.Ordinal >= l.again.To {
		l.again = again{}
	}
}

// Revive opens m again, which was delivered, and moves the pass to next in the same step; false: nothing is counted as delivered
// any more.
func (l *ledger) Revive(m, next mark) (it item, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.Ordinal >= l.again.Next.Ordinal && m.Ordinal < l.again.To && l.undeliverLocked() {
		it, ok = l.reopenLocked(openMark{mark: m, lacked: true}), true
		l.lack.Offered++
	}
	l.lookedLocked(next)
	return it, ok
}

// reviver walks over the archive for one attempt.
type reviver struct {
	number int // of the pass
	have   bool
	span   uint64 // if have
	known  ordinals
	reader Reader // nil: none open
}

// on takes the pass that is under way a bit further, to the first event that it opens again; more: there is a pass.
func (w *reviver) on(l *ledger, open func(place.Place) (Reader, error), decide func(*record.Record) (decision, error)) (found *reopened, more bool, err error) {
	p, number := l.Again()
	if p == (again{}) {
		w.close()
		return nil, false, nil
	}
	if w.number != number {
		w.close()
		*w = reviver{number: number}
	}
	if w.reader == nil {
		if w.reader, err = open(p.Next.Place); err != nil {
			return nil, true, fmt.Errorf("read the archive from %s: %w", p.Next.Place, err)
		}
	}
	for range passAtOnce {
		rec, ok, err := w.reader.TryNext()
		switch {
		case err != nil:
			return nil, true, fmt.Errorf("read the archive: %w", err)
		case !ok || rec.Ordinal >= p.To: // what is left before stands on no line
			w.close()
			l.Looked(mark{Ordinal: p.To})
			return nil, true, nil
		case rec.Ordinal < p.Next.Ordinal:
			continue
		}
		if span := rec.Ordinal / heldSpan; !w.have || span != w.span {
			// What is settled while the pass is in its span was answered a moment ago, and stays as it is.
			if w.known, err = l.Known(span); err != nil {
				return nil, true, err
			}
			w.span, w.have = span, true
		}
		next := mark{rec.Ordinal + 1, rec.End}
		if !w.known.has(rec.Ordinal) {
			v, err := decide(&rec)
			if err != nil {
				return nil, true, err
			}
			if v.sends() {
				if it, ok := l.Revive(mark{rec.Ordinal, rec.Place}, next); ok {
					return &reopened{it, &rec, v}, true, nil
				}
			}
		}
		l.Looked(next)
	}
	return nil, true, nil
}

func (w *reviver) close() {
	if w.reader != nil {
		w.reader.Close()
	}
	w.reader = nil
}

// offerOn takes the pass of a relay that has lost most of what it was sent a bit further; false: there is none.
func (a *attempt) offerOn() (found bool, err error) {
	decide := func(rec *record.Record) (decision, error) { return a.s.decide(rec, a.sess) }
	again, more, err := a.revive.on(a.s.ledger, a.s.o.Open, decide)
	if again == nil || err != nil {
		return more, err
	}
	return true, a.act(again.item, again.rec, again.decision)
}
