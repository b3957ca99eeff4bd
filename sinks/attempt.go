package sinks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relay"
)

// attempt is one session's worth of sending. run is its only sender; heard comes from the session's reader. Shared
// fields are under the sink's mu.
type attempt struct {
	s    *Sink
	sess *relay.Session

	// Of run alone.
	reader   Reader        // follow uses it while following is true
	tail     chan followed // what follow read
	ask      chan struct{} // tells follow to wait for the next record
	waiting  bool          // follow has been asked
	ended    mark          // the archive's end when it was asked, and when that was
	endedAt  time.Time
	hand     *delivery // read, entered in the ledger, and not sent yet
	out      [][]byte  // entered in the window, and handed to the session together
	outBytes int
	trial    bool // the connection is the sink's alone, to try the suspect
	silent   bool // ended because nothing was answered
	sincePut int  // sends since the last parked one
	pass     passer
	revive   reviver

	// Under s.mu.
	sent     map[event.ID]*flight
	order    flights // as sent
	bytes    int
	again    []item                 // open and to be sent (again), ascending by ordinal
	due      []item                 // parked rows to be sent
	taken    map[parkedKey]struct{} // parked rows in hand or sent
	late     map[event.ID]lateItem  // parked for want of an answer on this session
	seq      uint64                 // of the last event sent
	top      uint64                 // the highest seq that was answered
	aside    []item                 // open, and others go first
	control  *flight                // an event the relay has, sent to learn whether it answers at all
	controls int                    // answered
	pause    *relay.Pause
	notices  string // the last NOTICE
	closed   bool
}

// delivery is an event ready to be sent.
type delivery struct {
	item
	id      event.ID
	author  event.PubKey
	created int64
	lesson  lesson
	frame   []byte
}

type followed struct {
	rec record.Record
	err error
}

func newAttempt(s *Sink, sess *relay.Session) *attempt {
	s.ledger.LookAgain()
	a := &attempt{
		s: s, sess: sess, tail: make(chan followed, 1), ask: make(chan struct{}, 1),
		sent:  make(map[event.ID]*flight),
		taken: make(map[parkedKey]struct{}), late: make(map[event.ID]lateItem), sincePut: 3,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.again = a.setAsideLocked(s.ledger.Open())
	a.pause = a.trialLocked(s.now())
	return a
}

// close ends the attempt; it returns how the session ended and what was not answered, to which nothing is charged here, and
// the pause that the relay's refusal of us, if there was one, or a trial asks for.
func (a *attempt) close() (e ending, pause *relay.Pause) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.closed = true
	now := a.s.now()
	e = ending{trial: a.trial, silent: a.silent, window: a.s.window.now, control: a.control != nil, controls: a.controls}
	for f := a.order.first; f != nil; f = f.next {
		if f.control {
			continue
		}
		if e.unanswered == 0 {
			e.oldest, e.intime = *f, a.leftLocked(f, f.bytes, now) > 0
		}
		e.unanswered++
	}
	return e, a.pause
}

// follow waits at the archive's end on run's behalf.
func (a *attempt) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.ask:
		}
		rec, err := a.reader.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		a.tail <- followed{rec, err} // holds one, and run asks for one at a time
	}
}

// run sends until ctx or the session ends, or an error.
func (a *attempt) run(ctx context.Context) (err error) {
	if err := a.s.ledger.resume(a.s.o.Resume); err != nil {
		return fmt.Errorf("find where to go on in the archive: %w", err)
	}
	_, _, frontier, _ := a.s.ledger.Account()
	if a.reader, err = a.s.o.Open(frontier.Place); err != nil {
		return fmt.Errorf("read the archive from %s: %w", frontier.Place, err)
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait, err := a.step(ctx)
		if err != nil {
			return err
		}
		if wait == 0 && len(a.out) < outMost && a.outBytes < outBytes {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-a.sess.Done():
				return a.sess.Err()
			default:
				continue
			}
		}
		if err := a.flush(ctx); err != nil {
			return err
		}
		if wait == 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.sess.Done():
			return a.sess.Err()
		case <-a.s.wake:
		case <-timer.C:
		case f := <-a.tail:
			if err := a.arrived(&f); err != nil {
				return err
			}
		}
	}
}

// arrived enters what follow has read.
func (a *attempt) arrived(f *followed) error {
	a.waiting = false
	if f.err != nil {
		return fmt.Errorf("read the archive: %w", f.err)
	}
	return a.enter(&f.rec)
}

// longest is how long run sleeps when nothing calls for it.
const longest = time.Minute

// step does one thing: sends one event, or settles one without sending. It returns how long there is nothing to do; 0: step
// again.
func (a *attempt) step(ctx context.Context) (time.Duration, error) {
	if a.trial {
		return a.tryStep()
	}
	s := a.s
	now := s.now()
	l, err := a.look(now)
	if err != nil {
		return 0, err
	}
	switch {
	case l.doubt:
		err := a.sendControl(noOrdinal)
		if errors.Is(err, errNoControl) {
			err = a.silence()
		}
		return 0, err
	case l.full, s.ledger.Crowded():
		return l.wait, nil // an answer or a commit wakes us
	case l.paced > 0:
		return min(l.wait, l.paced), nil
	case a.hand != nil:
		return 0, a.send()
	}
	found, err := a.choose(ctx, now)
	if err != nil || found || s.ledger.Offering() {
		return 0, err // what was found may have been settled, or may not fit
	}
	if d := s.ledger.NextDue().Sub(now); d < l.wait {
		l.wait = max(d, time.Millisecond)
	}
	return min(l.wait, a.passEnd(now)), nil
}

// outlook is what an attempt may do now.
type outlook struct {
	wait  time.Duration // until it is looked at again
	doubt bool          // only a control can tell whether the relay answers at all
	full  bool          // nothing more may be in flight
	paced time.Duration // until the next send
}

// look deals with what is overdue, and takes back in line what comes back. The error ends the session.
func (a *attempt) look(now time.Time) (l outlook, err error) {
	s := a.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.pause != nil {
		return l, a.pause
	}
	if l.wait, l.doubt, err = a.overdueLocked(now); err != nil {
		return l, err
	}
	room := s.window.now
	if s.paused != "" || a.waryLocked() {
		room = 1 // a probe
	}
	if back := a.comeBackLocked(now); !back.IsZero() {
		l.wait = min(l.wait, back.Sub(now))
	}
	l.full = s.draining || len(a.sent) >= room || a.hand != nil && !a.fitsLocked(a.hand)
	l.paced = s.pace.wait(now)
	return l, nil
}

// tailWait is how long follow must have waited before the ordinals that are left at the log's end count as held by no line.
const tailWait = 250 * time.Millisecond

// passEnd passes ordinals that no line holds at the end of the log: withdrawn or blanked lines, with nothing behind them that
// would show the gap. Not at once: a reader that cannot read on, though something is there, says so in Next. It returns the time
// until it should be asked again.
func (a *attempt) passEnd(now time.Time) time.Duration {
	if !a.waiting || len(a.tail) > 0 {
		return longest
	}
	if left := tailWait - now.Sub(a.endedAt); left > 0 {
		return left
	}
	a.s.ledger.Pass(a.ended)
	return longest
}

// waryLocked says that the relay has taken nothing from us yet and says of itself (NIP-11) that it does not take from everybody.
// Many that say so take some events of anybody, so the answers decide, but they are asked for one at a time: the first
// auth-required:, or the first twenty refusals, pause the sink, and a whole window was not spent on them.
func (a *attempt) waryLocked() bool {
	if a.s.accepted {
		return false
	}
	l := a.sess.Info().Limits
	return l.AuthRequired || l.PaymentRequired || l.RestrictedWrites
}

func (a *attempt) fitsLocked(d *delivery) bool {
	return len(a.sent) == 0 || a.bytes+len(d.frame) <= windowBytes
}

// choose takes the next event in hand, or settles one; false: there is none. Due parked events go first, but at most one
// in four sends while anything else is there. The second pass waits for the tail.
func (a *attempt) choose(ctx context.Context, now time.Time) (found bool, err error) {
	if err := a.refill(now); err != nil {
		return false, err
	}
	if a.sincePut >= 3 {
		if it, ok := a.takeDue(); ok {
			return true, a.load(it)
		}
	}
	a.s.mu.Lock()
	var it item
	ready := len(a.again) > 0
	if ready {
		it, a.again = a.again[0], a.again[1:]
	}
	a.s.mu.Unlock()
	if ready {
		return true, a.load(it)
	}
	if a.waiting {
		select {
		case f := <-a.tail:
			return true, a.arrived(&f)
		default:
		}
	} else if found, err = a.readLog(); found || err != nil {
		return found, err
	}
	// What is new does not wait for what is looked at again.
	if err := a.flush(ctx); err != nil {
		return false, err
	}
	if found, err = a.passOn(); found || err != nil {
		return found, err
	}
	if it, ok := a.takeDue(); ok {
		return true, a.load(it)
	}
	return a.offerOn()
}

// dueAtOnce is how many parked rows are held in memory.
const dueAtOnce = 64

// refill reads the next range of parked rows that are due.
func (a *attempt) refill(now time.Time) error {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if len(a.due) > 0 || a.s.ledger.NextDue().After(now) && !a.s.ledger.Offering() {
		return nil
	}
	var err error
	a.due, err = a.s.ledger.Due(now, dueAtOnce, func(k parkedKey) bool {
		_, taken := a.taken[k]
		return taken || a.s.poison.isAside(k.ordinal())
	})
	if len(a.due) > 0 || err != nil || !a.s.ledger.Offering() {
		return err
	}
	// Only now, so that the parked rows do not become as many as the refused ones.
	a.s.refused.clear() // as in Retry
	return a.s.ledger.OfferAgain(now)
}

func (a *attempt) takeDue() (it item, ok bool) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	if len(a.due) == 0 {
		return item{}, false
	}
	it, a.due = a.due[0], a.due[1:]
	a.taken[it.key] = struct{}{}
	return it, true
}

// readLog takes the next record of the log; at its end it has follow wait for one.
func (a *attempt) readLog() (found bool, err error) {
	endPlace, endOrdinal := a.s.o.End() // before the look: what it covers is readable
	rec, ok, err := a.reader.TryNext()
	if err != nil {
		return false, fmt.Errorf("read the archive: %w", err)
	}
	if ok {
		return true, a.enter(&rec)
	}
	a.waiting, a.ended, a.endedAt = true, mark{endOrdinal, endPlace}, a.s.now()
	a.ask <- struct{}{}
	return false, nil
}

// enter opens the record's ordinal in the ledger and takes it in hand, or skips it.
func (a *attempt) enter(rec *record.Record) error {
	it, err := a.s.ledger.Next(rec)
	if err != nil {
		return err
	}
	return a.judge(it, rec)
}

// read reads an event by its place; false: its line is not there any more.
func (a *attempt) read(it item) (record.Record, bool, error) {
	r, err := a.s.o.Open(it.Place)
	if err != nil {
		return record.Record{}, false, fmt.Errorf("read the archive at %s: %w", it.Place, err)
	}
	defer r.Close()
	rec, ok, err := r.TryNext()
	if err != nil {
		return record.Record{}, false, fmt.Errorf("read the archive at %s: %w", it.Place, err)
	}
	return rec, ok && rec.Ordinal == it.Ordinal, nil
}

// load reads an open or parked event again.
func (a *attempt) load(it item) error {
	rec, ok, err := a.read(it)
	if err != nil {
		return err
	}
	if !ok {
		// Its line was withdrawn (a failed write, a power cut) or blanked; if it was written again, it has a new ordinal.
		a.s.ledger.Skip(it, SkipWithdrawn)
		a.release(it)
		return nil
	}
	return a.judge(it, &rec)
}

// release forgets that a parked row was taken, once the ledger has settled it without a send. An OK that was awaited in vain
// says nothing any more.
func (a *attempt) release(it item) {
	if !it.parked {
		return
	}
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	delete(a.taken, it.key)
	maps.DeleteFunc(a.late, func(_ event.ID, l lateItem) bool { return l.key == it.key })
}

// judge decides at each send what becomes of an event: in hand, skipped, or parked.
func (a *attempt) judge(it item, rec *record.Record) error {
	v, err := a.s.decide(rec, a.sess)
	if err != nil {
		return err
	}
	return a.act(it, rec, v)
}

func (a *attempt) act(it item, rec *record.Record, v decision) error {
	switch {
	case v.skip != "":
		a.s.ledger.Skip(it, v.skip)
		a.release(it)
	case v.park > 0:
		a.s.ledger.Later(it, a.s.now().Add(v.park), it.attempts, v.reason)
		a.release(it)
	case v.reject != "" && !a.s.check(v.lesson):
		a.s.ledger.Reject(it, Rejected{ID: rec.Event.ID, Prefix: v.reject, Text: v.reason, Time: a.s.now()})
		a.release(it)
	default:
		a.hand = &delivery{it, rec.Event.ID, rec.Event.PubKey, rec.Event.CreatedAt, v.lesson, frame(rec)}
	}
	return nil
}

// againLocked queues an event to be sent again; nothing is charged.
func (a *attempt) againLocked(it item) {
	if it.parked {
		delete(a.taken, it.key) // its row stands and is due
		a.s.ledger.LookAgain()
		return
	}
	i, _ := slices.BinarySearchFunc(a.again, it, func(x, y item) int {
		switch {
		case x.Ordinal < y.Ordinal:
			return -1
		case x.Ordinal > y.Ordinal:
			return 1
		}
		return 0
	})
	a.again = slices.Insert(a.again, i, it)
}
