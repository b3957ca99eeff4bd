package sources

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/reconcile"
	"rebroadcastr/relay"
	"rebroadcastr/state"
)

const (
	// refusedFor is how long a relay that does not reconcile is not asked again.
	refusedFor = 24 * time.Hour
	// silentFor is the silence before the first NEG-MSG that counts as a refusal: khatru without negentropy answers nothing.
	silentFor = 10 * time.Second
	// maxDrops sessions in a row that ended while the relay was to answer a NEG-OPEN, then that is what ends them.
	// A command that ends by itself has three.
	maxDrops = 2
)

// negEnd is how the reconciliation of one window ended.
type negEnd struct {
	kind   negKind
	reason string
}

type negKind uint8

const (
	settled   negKind = iota // need is complete
	tooMany                  // the relay holds, or we lack, more than fits in one window
	refused                  // the relay does not do it: remembered
	broken                   // it began and did not come to its end, or cannot be done now
	unfetched                // settled, and not everything came
	paged                    // more is missing than should be asked for by its ids
)

// reconcileWindow finds what the relay has of f, since and until included, that items lack. An error ends the visit.
func (v *visit) reconcileWindow(f event.Filter, items []reconcile.Item) (_ *reconcile.Session, end negEnd, err error) {
	frame := reconcile.DefaultFrame
	if room := v.sess.Info().Limits.MaxMessageLength; room > 0 {
		frame = min(frame, (room-roomForRest)/2)
	}
	if frame < reconcile.MinFrame {
		return nil, negEnd{broken, "the relay takes too short messages"}, nil
	}
	session, err := reconcile.NewSession(items, frame, nil)
	if errors.Is(err, reconcile.ErrTooMany) {
		return nil, negEnd{tooMany, err.Error()}, nil
	}
	if err != nil {
		return nil, end, err
	}
	msg, err := session.Open()
	if err != nil {
		return nil, end, err
	}
	x := v.exchange(negPrefix, nil)
	defer func() { err = errors.Join(err, v.hangUp(x, "NEG-CLOSE")) }()
	v.s.drops++ // until it has answered
	open := append([]byte(`["NEG-OPEN","`+x.sub+`",`), f.AppendJSON(nil, -1)...)
	if err := v.sess.Request(v.ctx, append(open, `,"`+msg+`"]`...)); err != nil {
		return nil, end, fmt.Errorf("reconcile with %s: %w", v.s.o.URL, err)
	}
	x.alive(v.sess.Stalled())
	for answered := false; ; {
		patience := min(silentFor, v.s.o.Idle)
		if answered {
			patience = v.s.o.Idle
		}
		w, err := v.hear(x, patience)
		if err != nil {
			if ours(v.sess.Err()) {
				v.s.drops = 0
			}
			return nil, end, err
		}
		if w.kind != saidNeg {
			if end, ends := judgeNeg(w, answered); ends {
				v.s.drops = 0
				return nil, end, nil
			}
			continue
		}
		answered, v.s.drops = true, 0
		v.sess.Progress()
		reply, done, err := session.Answer(w.text)
		switch {
		case errors.Is(err, reconcile.ErrTooMany):
			return session, negEnd{tooMany, err.Error()}, nil
		case err != nil: // whatever it speaks
			return nil, negEnd{refused, err.Error()}, nil
		case done:
			return session, negEnd{}, nil
		}
		if err := v.sess.Send(v.ctx, []byte(`["NEG-MSG","`+x.sub+`","`+reply+`"]`)); err != nil {
			return nil, end, fmt.Errorf("reconcile with %s: %w", v.s.o.URL, err)
		}
		x.alive(v.sess.Stalled())
	}
}

// judgeNeg says what anything but a NEG-MSG means; ends is false where it means nothing. Relays refuse in many ways: by
// NEG-ERR, CLOSED, a NOTICE that names no subscription, or silence.
func judgeNeg(w word, answered bool) (end negEnd, ends bool) {
	low := strings.ToLower(w.text)
	busy := relay.TooManyREQ(low) || strings.Contains(low, "rate-limit") || strings.Contains(low, "too many negentropy")
	switch {
	case w.kind == saidNegErr && !busy && (w.most > 0 || strings.Contains(low, "too many")):
		return negEnd{tooMany, w.text}, true
	case w.kind == saidNotice && answered, w.kind == saidEOSE, w.kind == saidAll:
		return end, false
	case answered, busy:
		return negEnd{broken, w.text}, true
	}
	return negEnd{refused, w.text}, true
}

var keyRefused = []byte("no negentropy until") // unix seconds, 8 bytes big-endian

// reconciles says whether the relay may be asked to.
func (s *Source) reconciles(info relay.Info) (bool, error) {
	if s.o.Seen == nil || info.Known && len(info.NIPs) > 0 && !info.Supports(77) {
		return false, nil
	}
	var until int64
	err := s.o.State.View(func(tx *state.Tx) error {
		if b := tx.Bucket(s.path()...); b != nil {
			if at := b.Get(keyRefused); len(at) == 8 {
				until = int64(binary.BigEndian.Uint64(at))
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("look whether %s reconciles: %w", s.o.URL, err)
	}
	now := s.o.Now()
	// A time further ahead was made by a clock that ran ahead.
	return until <= now.Unix() || until > now.Add(refusedFor).Unix(), nil
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
