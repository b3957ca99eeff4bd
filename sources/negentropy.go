package sources

import (
	"encoding/binary"
	"fmt"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/reconcile"
	"rebroadcastr/relay"
	"rebroadcastr/state"
)

const (
	// refusedFor is how long a relay that does not reconcile is not asked again.
	refusedFor = 24 * time.Hour
	// busyFor is how long a relay is paged that did not answer a NEG-OPEN and may yet reconcile: it had too much else to do, or has answered
	// another one before.
	busyFor = 10 * time.Minute
)

// negEnd is how the reconciliation of one window ended.
type negEnd struct {
	kind   negKind
	reason string
}

type negKind uint8

const (
	settled   negKind = iota // need is complete
	tooMany                  // more is archived, or lacked, than fits in one window
	overfull                 // the relay says that it holds more than it reconciles at once
	cut                      // the relay lists a part of what it holds, without a word
	refused                  // the relay does not do it: remembered
	broken                   // it began and did not come to its end
	mute                     // it cannot be done now, or is not answered: after negTries not asked again for busyFor
	busy                     // it was not answered, beside other things: not asked again for busyFor
	unfetched                // settled, and not everything came
	paged                    // more is missing than should be asked for by its ids
)

// ends are relay.Lists' in our words.
var ends = map[relay.NegKind]negKind{
	relay.NegSettled: settled, relay.NegTooMany: tooMany, relay.NegCut: cut, relay.NegRefused: refused, relay.NegBroken: broken,
}

// differ finds what the relay has of f, since and until included, that items lack. An error ends the visit.
func (v *visit) differ(lists *relay.Lists, f event.Filter, items []reconcile.Item) (d relay.Difference, end negEnd, err error) {
	d, out, err := lists.Compare(v.ctx, v.sess, f, items, v.s.o.Idle)
	v.s.drops.Add(out, err)
	end = negEnd{ends[out.Kind], out.Reason}
	switch {
	case end.kind == tooMany && !d.Begun:
		end.kind = overfull
	case end.kind == broken && out.Beside:
		end.kind = busy
	case end.kind == broken && !out.Answered:
		end.kind = mute
	}
	return d, end, err
}

var keyRefused = []byte("no negentropy until") // unix seconds, 8 bytes big-endian

// reconciles says whether the relay may be asked to.
func (s *Source) reconciles(info relay.Info) (can bool, err error) {
	if s.o.Seen == nil || !mayReconcile(info) || time.Now().Before(s.notNow) {
		return false, nil
	}
	err = s.o.State.View(func(tx *state.Tx) error {
		can = !s.refusedLately(tx)
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("look whether %s reconciles: %w", s.o.URL, err)
	}
	return can, nil
}

// mayReconcile says whether the relay's document leaves that open.
func mayReconcile(info relay.Info) bool {
	return !info.Known || len(info.NIPs) == 0 || info.Supports(77)
}

// refusedLately says whether the relay has refused to reconcile, less than refusedFor ago.
func (s *Source) refusedLately(tx *state.Tx) bool {
	b := tx.Bucket(s.path()...)
	if b == nil {
		return false
	}
	at := b.Get(keyRefused)
	if len(at) != 8 {
		return false
	}
	until, now := int64(binary.BigEndian.Uint64(at)), s.o.Now()
	// A time further ahead was made by a clock that ran ahead.
	return until > now.Unix() && until <= now.Add(refusedFor).Unix()
}

// mayReconcileAgain forgets that the relay has refused.
func (s *Source) mayReconcileAgain() error {
	s.notNow = time.Time{}
	err := s.o.State.Update(func(tx *state.Tx) error { return tx.Bucket(s.path()...).Delete(keyRefused) })
	if err != nil {
		return fmt.Errorf("forget that %s does not reconcile: %w", s.o.URL, err)
	}
	return nil
}

// doesNotReconcile remembers that the relay refuses, and says so once.
func (s *Source) doesNotReconcile(reason string) error {
	s.o.Log.Info().Str("source", s.o.URL).Str("reason", reason).Stringer("for", refusedFor).Msg("the relay does not reconcile (NIP-77): it is paged")
	until := s.o.Now().Add(refusedFor).Unix()
	err := s.o.State.Update(func(tx *state.Tx) error {
		return tx.Bucket(s.path()...).Put(keyRefused, binary.BigEndian.AppendUint64(nil, uint64(until)))
	})
	if err != nil {
		return fmt.Errorf("save that %s does not reconcile: %w", s.o.URL, err)
	}
	return nil
}
