package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"rebroadcastr/policy"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/state"
)

// What an operator asks of a sink, running or not.

// Ledgers lists the sinks that db keeps a ledger of, by normalised URL.
func Ledgers(db State) (urls []string, err error) {
	err = db.View(func(tx *state.Tx) error {
		all := tx.Bucket(sinksBucket)
		if all == nil {
			return nil
		}
		return all.ForEachBucket(func(url []byte) error {
			urls = append(urls, string(url))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read the ledgers: %w", err)
	}
	return urls, nil
}

// ErrNoLedger is the answer about a sink that was never one.
var ErrNoLedger = errors.New("no ledger")

// Look loads the ledger of a sink that does not run; it writes nothing. ErrNoLedger: there is none.
func Look(o Options) (*Sink, error) {
	o = o.filled()
	err := o.State.View(func(tx *state.Tx) error {
		if tx.Bucket(sinksBucket, o.URL) == nil {
			return ErrNoLedger
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the ledger of %s: %w", o.URL, err)
	}
	l, lost, err := openLedger(untouched{o.State}, o.URL, mark{}, 0, "")
	if err = cmp.Or(lost, err); err != nil {
		return nil, err
	}
	l.db = o.State
	return o.over(l), nil
}

// untouched keeps a damaged ledger from being started anew by who only looks at it.
type untouched struct{ State }

func (untouched) Update(func(*state.Tx) error) error {
	return errors.New("it cannot be read")
}

// Fate is what became of an event at a sink.
type Fate string

// The fates.
const (
	Delivered Fate = "delivered" // answered: the relay has it, or a newer version
	Refused   Fate = "rejected"  // for good
	Parked    Fate = "parked"    // waits on its own
	Sent      Fate = "sent"      // and not answered yet
	Pending   Fate = "pending"   // its turn has not come
	Skipped   Fate = "skipped"   // not sent, for a reason
	// Settled is below the cursor without a row, and the rules as they are now do not tell what was done: delivered, or skipped.
	Settled Fate = "settled"
)

// Story is what a sink knows of one event.
type Story struct {
	Fate     Fate
	Reason   string    // Refused, Parked, Skipped: what it is counted under; Pending, Parked, Settled: why it would not be sent now
	Text     string    // Refused: the relay's words
	At       time.Time // Refused, Sent: when; Delivered, Settled: it was before
	Due      time.Time // Parked: until when
	Attempts int       // Parked: answers so far that asked to wait
	Ahead    uint64    // Pending, Sent: events to be settled before it
	Again    string    // Parked: what it was parked for
}

// Story tells what became of an event of the archive. info is the relay's NIP-11 document, as last known. rules says that the
// Options were those that the sink runs with; without them only the ledger is asked.
//
// The ledger keeps no row of an event that was delivered: what is below the frontier, has no row, and would be sent by the rules
// as they are now, was.
func (s *Sink) Story(rec *record.Record, info relay.Info, rules bool) (Story, error) {
	tr, err := s.ledger.Trace(rec.Ordinal)
	if err != nil {
		return Story{}, err
	}
	d, err := s.decide(rec, known(info))
	if err != nil {
		return Story{}, err
	}
	if own := d.skip == SkipNoDeliver || d.skip == SkipBeforeStart || d.skip == SkipEcho; !rules && !own {
		d = decision{}
	}
	switch {
	case tr.before:
		return Story{Fate: Skipped, Reason: SkipBeforeStart}, nil
	case tr.rejected != nil:
		return Story{Fate: Refused, Reason: tr.rejected.Prefix, Text: tr.rejected.Text, At: tr.rejected.Time}, nil
	case tr.parked != nil:
		return Story{Fate: Parked, Again: tr.parked.reason, Due: tr.parked.key.due(), Attempts: tr.parked.attempts, Reason: d.skip}, nil
	case tr.open, tr.unmet:
		if at, sent := s.sentAt(rec); sent {
			return Story{Fate: Sent, At: at, Ahead: tr.ahead}, nil
		}
		return Story{Fate: Pending, Ahead: tr.ahead, Reason: d.skip}, nil
	case tr.again && d.skip != tr.held:
		return Story{Fate: Pending, Reason: d.skip}, nil
	case tr.held != "":
		return Story{Fate: Skipped, Reason: tr.held}, nil
	}
	by := s.answeredBy()
	switch {
	case d.skip != "" && !passing(d.skip) && !lifted[d.skip]: // else it would be held
		return Story{Fate: Skipped, Reason: d.skip}, nil
	case d.skip != "" || d.park > 0 || !rules:
		return Story{Fate: Settled, Reason: cmp.Or(d.skip, d.reason), At: by}, nil
	}
	return Story{Fate: Delivered, At: by}, nil
}

type known relay.Info

func (k known) Info() relay.Info { return relay.Info(k) }

func (s *Sink) sentAt(rec *record.Record) (at time.Time, sent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempt == nil {
		return at, false
	}
	f := s.attempt.sent[rec.Event.ID]
	if f == nil || f.control {
		return at, false
	}
	return f.sent, true
}

// answeredBy is a time by which everything that is settled by an answer was.
func (s *Sink) answeredBy() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastOK.IsZero() {
		return s.made // nothing was answered since
	}
	return s.lastOK
}

// passing says of a reason to skip that it may not have held when the event's turn came: it came with time.
func passing(skip string) bool {
	switch skip {
	case policy.Expired, policy.Expiring, policy.Deleted, policy.Superseded:
		return true
	}
	return false
}

// Retried counts what Retry did.
type Retried struct {
	Offered map[string]uint64 // refused events that are parked again and due, by what they were counted under
	Kept    uint64            // refused events that are not of the reason
}

// Retry offers refused events again: they are parked and due now. reason is the start of what they were counted under or of the
// relay's words; "" takes all. It works in ranges, each committed; after an error Retried holds what was done before.
func (s *Sink) Retry(ctx context.Context, reason string) (Retried, error) {
	done := Retried{Offered: make(map[string]uint64)}
	if err := s.ledger.Commit(); err != nil { // what was refused a moment ago too
		return done, err
	}
	reason = strings.ToLower(reason) // relays write Blocked: too, which is counted under blocked
	match := func(r Rejected) bool {
		return strings.HasPrefix(strings.ToLower(r.Prefix), strings.TrimSuffix(reason, ":")) || strings.HasPrefix(strings.ToLower(r.Text), reason)
	}
	s.mu.Lock()
	s.limits = limits{} // ask the relay again, not what it said before
	s.mu.Unlock()
	for next, more := uint64(0), true; more; {
		if err := ctx.Err(); err != nil {
			return done, err
		}
		var taken map[string]uint64
		var kept uint64
		var err error
		s.mu.Lock()
		s.refused.clear() // its rows must not be restored a second time
		taken, kept, next, more, err = s.ledger.Reoffer(next, s.now(), match)
		s.mu.Unlock()
		if err != nil {
			return done, err
		}
		if err := s.ledger.Commit(); err != nil {
			return done, err
		}
		done.Kept += kept
		for prefix, n := range taken {
			done.Offered[prefix] += n
		}
		s.nudge()
	}
	return done, nil
}

// RetryOne offers one event again that was refused or is parked. It returns what it was before; anything else than Refused and
// Parked is left as it is.
func (s *Sink) RetryOne(rec *record.Record) (was Fate, err error) {
	if err := s.ledger.Commit(); err != nil {
		return "", err
	}
	if was, err = s.retryOne(rec); err != nil {
		return was, err
	}
	defer s.nudge()
	return was, s.ledger.Commit()
}

func (s *Sink) retryOne(rec *record.Record) (Fate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits = limits{}
	tr, err := s.ledger.Trace(rec.Ordinal)
	switch {
	case err != nil:
		return "", err
	case tr.rejected != nil:
		s.refused.clear()
		s.ledger.Restore(*tr.rejected, s.now())
		return Refused, nil
	case tr.parked != nil:
		s.poison.recall(rec.Ordinal)
		s.ledger.LookAgain()
		// A row that is due keeps its key: by that it may be suspected.
		if tr.parked.key.due().After(s.now()) && (s.attempt == nil || !s.attempt.holdsLocked(tr.parked.key)) {
			s.ledger.DueNow(*tr.parked, s.now())
		}
		if s.attempt != nil {
			delete(s.attempt.late, rec.Event.ID) // it knows the row by the old time
		}
		return Parked, nil
	case tr.open, tr.unmet:
		return Pending, nil
	}
	return Settled, nil
}

// holdsLocked says whether a parked row is being sent, or is about to be.
func (a *attempt) holdsLocked(k parkedKey) bool {
	_, taken := a.taken[k]
	return taken || slices.ContainsFunc(a.due, func(it item) bool { return it.key == k })
}

// Wake forgets a wait that the relay asked for; a relay that takes nothing from us is still only probed until it takes something.
func (s *Sink) Wake() {
	s.mu.Lock()
	s.pace.hold = time.Time{}
	s.mu.Unlock()
	s.nudge()
}

// Waiting counts the parked events of one reason.
type Waiting struct {
	Reason string
	Events uint64
	Next   time.Time // the first of them is due
}

// Parked tells what is parked, by reason. What was parked in the last moment may be missing.
func (s *Sink) Parked() ([]Waiting, error) {
	by := make(map[string]Waiting)
	err := s.ledger.parkedRows(func(it item) {
		w := by[it.reason]
		if w.Events++; w.Events == 1 {
			w.Reason, w.Next = it.reason, it.key.due()
		}
		by[it.reason] = w
	})
	return slices.SortedFunc(maps.Values(by), func(a, b Waiting) int { return cmp.Compare(a.Reason, b.Reason) }), err
}
