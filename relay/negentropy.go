package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/reconcile"
)

const (
	// negSilence before the first NEG-MSG counts as a refusal: khatru without negentropy answers nothing. After a NOTICE that may be
	// the answer a tenth of it does.
	negSilence = 10 * time.Second
	// negTurn is how long after the NEG-OPEN answers to what was sent before it still put off the end of that silence: a relay that
	// deals with its messages in turn comes to it behind a window of 500 EVENTs, at 40 a second after 12 s.
	negTurn = time.Minute
	// negPatience is the silence after it that ends a reconciliation.
	negPatience = 30 * time.Second
	// negWhole such silences one window may take, however much is said: others wait for its place in memory.
	negWhole = 10
	// negClose is the most that the NEG-CLOSE may wait for.
	negClose = time.Second
	// negRest is the room of a NEG-OPEN that its message may not take, where a relay says how long messages may be.
	negRest = 1 << 10
)

// NegKind says how the reconciliation of one window ended.
type NegKind uint8

// The ends of a reconciliation.
const (
	NegSettled NegKind = iota // what differs is known
	NegTooMany                // the relay holds, or we lack, more than fits in one window
	NegRefused                // the relay does not do it: to be remembered
	NegBroken                 // it began and did not come to its end, or cannot be done now
	NegCut                    // the relay lists only the newest of what it has in the window: see Lists
	NegDropped                // with an error: the relay ended the connection when it should have answered the NEG-OPEN
)

// NegEnd is how the reconciliation of one window ended.
type NegEnd struct {
	Kind     NegKind
	Reason   string
	Answered bool // by a NEG-MSG at least
	// Beside: the relay owed other answers on the same connection (Handler.Awaits). Its silence before any NEG-MSG, NegBroken, or the
	// connection's end, NegDropped, may be about those.
	Beside bool
}

// negWord is what a relay says in a reconciliation.
type negWord struct {
	kind kind // kindNeg, kindNegErr, kindClosed, kindNotice; kindUnknown: nothing, for too long
	text string
	most int64 // of kindNegErr
}

// negotiation is one NEG-OPEN and what the relay says to it; its handler is called by the session's reader.
type negotiation struct {
	s     *Session
	ctx   context.Context
	sub   string
	words chan negWord
	over  chan struct{} // closed when nobody listens any more

	mu      sync.Mutex
	ended   bool          // by the relay
	heard   time.Time     // the relay's last NEG-MSG, or our last message; before the first answer, also another one that it owed
	stalled time.Duration // the session's, at heard
}

// Reconcile compares one window with the relay (NIP-77): f with its since and until, items of ours, at most
// reconcile.MostItems. have is as in reconcile.NewSession: called by this goroutine, and to remember only, for nothing may be
// sent before the end. idle is how long the relay may be silent, 0: 30 s. The session is nil where it is of no use. An error
// says that ctx or the relay's session has ended.
func (s *Session) Reconcile(ctx context.Context, f event.Filter, items []reconcile.Item, have func(event.ID), idle time.Duration) (*reconcile.Session, NegEnd, error) {
	frame := reconcile.DefaultFrame
	if room := s.Info().Limits.MaxMessageLength; room > 0 {
		frame = min(frame, (room-negRest)/2)
	}
	if frame < reconcile.MinFrame {
		return nil, NegEnd{Kind: NegBroken, Reason: "the relay takes too short messages"}, nil
	}
	session, err := reconcile.NewSession(items, frame, have)
	if errors.Is(err, reconcile.ErrTooMany) {
		return nil, NegEnd{Kind: NegTooMany, Reason: err.Error()}, nil
	}
	if err != nil {
		return nil, NegEnd{}, err
	}
	msg, err := session.Open()
	if err != nil {
		return nil, NegEnd{}, err
	}
	if idle <= 0 {
		idle = negPatience
	}
	n := &negotiation{s: s, ctx: ctx, sub: fmt.Sprintf("neg-%d", s.core.negs.Add(1)), words: make(chan negWord), over: make(chan struct{})}
	n.alive()
	remove := s.Handle(n.handler())
	open := append([]byte(`["NEG-OPEN","`+n.sub+`",`), f.AppendJSON(nil, -1)...)
	if err := s.Request(ctx, append(open, `,"`+msg+`"]`...)); err != nil {
		remove()
		close(n.over)
		return nil, NegEnd{}, fmt.Errorf("reconcile with %s: %w", s.URL(), err)
	}
	n.alive()
	settled, end, err := n.run(session, idle)
	remove()
	return settled, end, errors.Join(err, n.hangUp())
}

func (n *negotiation) handler() *Handler {
	own := func(w negWord) func(sub, text string) {
		return func(sub, text string) {
			if sub == n.sub {
				w.text = text
				n.say(w)
			}
		}
	}
	return &Handler{
		Neg: own(negWord{kind: kindNeg}), Closed: own(negWord{kind: kindClosed}),
		NegErr: func(sub, text string, most int64) { own(negWord{kind: kindNegErr, most: most})(sub, text) },
		Notice: func(text string) { n.say(negWord{kind: kindNotice, text: text}) }, // it names no subscription
	}
}

// say runs on the reader and waits until the word is taken.
func (n *negotiation) say(w negWord) {
	switch w.kind {
	case kindNeg:
		n.alive()
	case kindNegErr, kindClosed:
		n.mu.Lock()
		n.ended = true
		n.mu.Unlock()
	}
	select {
	case n.words <- w:
	case <-n.over:
	case <-n.ctx.Done():
	}
}

// alive starts the clock of silence anew.
func (n *negotiation) alive() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.heard, n.stalled = time.Now(), n.s.Stalled()
}

// quiet is how long the relay has been silent. While the reader waits for our own stages, its clock stands still.
func (n *negotiation) quiet() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Since(n.heard) - (n.s.Stalled() - n.stalled)
}

// hear waits for the relay's next word.
func (n *negotiation) hear(patience time.Duration) (negWord, error) {
	for {
		left := patience - n.quiet()
		if left <= 0 {
			return negWord{text: fmt.Sprintf("silent for %s", patience)}, nil
		}
		t := time.NewTimer(left)
		select {
		case w := <-n.words:
			t.Stop()
			return w, nil
		case <-t.C:
		case <-n.s.Done():
			t.Stop()
			return negWord{}, n.s.Err()
		case <-n.ctx.Done():
			t.Stop()
			return negWord{}, context.Cause(n.ctx)
		}
	}
}

// opening waits for the first answer. A NOTICE is one only if it says so; one that may be is the text of the silence that follows.
// owed: the relay owed other answers when it was asked.
func (n *negotiation) opening(silence time.Duration, owed bool) (negWord, error) {
	if owed {
		defer n.s.Handle(n.others(time.Now().Add(negTurn)))()
	}
	for complaint := ""; ; {
		w, err := n.hear(silence)
		switch {
		case err != nil:
			return w, err
		case w.kind == kindUnknown && complaint != "":
			w.text = complaint
			return w, nil
		case w.kind != kindNotice:
			return w, nil
		}
		switch subjectOf(w.text, n.sub) {
		case aboutThis:
			return w, nil
		case aboutAnything:
			if complaint == "" && complains(w.text) {
				silence, complaint = min(silence, n.quiet()+silence/10), w.text
			}
		}
	}
}

// others hears, until a time, that the relay answers what it was sent before: it has not come to this yet.
func (n *negotiation) others(until time.Time) *Handler {
	answered := func() {
		if time.Now().Before(until) {
			n.alive()
		}
	}
	return &Handler{
		OK: func(event.ID, bool, string) { answered() }, EOSE: func(string, string) { answered() },
		Closed: func(string, string) { answered() }, Count: func(string, Count) { answered() },
	}
}

// run answers the relay until the end.
func (n *negotiation) run(session *reconcile.Session, idle time.Duration) (*reconcile.Session, NegEnd, error) {
	begun, stalled := time.Now(), n.s.Stalled()
	reply, rounds, hasty := "", 0, 0
	owed := n.s.core.awaits()
	for answered := false; ; {
		if time.Since(begun)-(n.s.Stalled()-stalled) > negWhole*idle {
			return nil, NegEnd{Kind: NegBroken, Reason: fmt.Sprintf("one window took more than %s", negWhole*idle), Answered: answered}, nil
		}
		var w negWord
		var err error
		if answered {
			w, err = n.hear(idle)
		} else {
			w, err = n.opening(min(negSilence, idle), owed)
		}
		if err != nil {
			end := NegEnd{Answered: answered}
			if !answered && Theirs(n.s.Err()) {
				end.Kind, end.Beside = NegDropped, n.s.core.awaited()
			}
			return nil, end, err
		}
		if w.kind == kindNegErr && rounds == 1 && hasty < negHasty && strings.EqualFold(w.text, "closed") {
			if err := n.sayAgain(reply, negHastyPause<<hasty); err != nil {
				return nil, NegEnd{Answered: answered}, err
			}
			hasty++
			continue
		}
		if w.kind != kindNeg {
			silent := w.kind == kindUnknown && !answered
			beside := silent && (owed || n.s.core.awaits())
			does := answered || beside || silent && n.s.core.compares.Load()
			if end, ends := judgeNeg(w, does); ends {
				if j := ClassifyClosed(w.text); j.Verdict == Slower && j.Cause != CauseTooManyREQ {
					n.s.Slower(j.Wait)
				}
				if end.Answered, end.Beside = answered, beside; beside {
					end.Reason += ", beside other answers that were due"
				}
				return nil, end, nil
			}
			continue
		}
		if !answered {
			n.s.Answered()
		}
		answered = true
		n.s.Progress()
		var done bool
		reply, done, err = session.Answer(w.text)
		if rounds++; err == nil {
			n.s.core.compares.Store(true)
		}
		end := NegEnd{Answered: true}
		switch {
		case errors.Is(err, reconcile.ErrTooMany):
			end.Kind, end.Reason = NegTooMany, err.Error()
			return session, end, nil
		case err != nil: // whatever it speaks
			end.Kind, end.Reason = NegRefused, err.Error()
			return nil, end, nil
		case done:
			return session, end, nil
		}
		if err := n.reply(reply); err != nil {
			return nil, end, err
		}
	}
}

func (n *negotiation) reply(msg string) error {
	if err := n.s.Send(n.ctx, []byte(`["NEG-MSG","`+n.sub+`","`+msg+`"]`)); err != nil {
		return fmt.Errorf("reconcile with %s: %w", n.s.URL(), err)
	}
	n.alive()
	return nil
}

// khatru (v0.17.4) answers a NEG-OPEN before it notes the reconciliation, and says CLOSED to a message that comes back before it
// has done so. The same message is understood a moment later, and said again up to negHasty times, after a pause that doubles.
const (
	negHasty      = 4
	negHastyPause = 10 * time.Millisecond
)

// sayAgain repeats a message after a pause.
func (n *negotiation) sayAgain(msg string, pause time.Duration) error {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
	case <-n.s.Done():
		return n.s.Err()
	case <-n.ctx.Done():
		return context.Cause(n.ctx)
	}
	n.mu.Lock()
	n.ended = false
	n.mu.Unlock()
	return n.reply(msg)
}

// hangUp says NEG-CLOSE, unless the relay has ended it.
func (n *negotiation) hangUp() error {
	close(n.over)
	n.mu.Lock()
	ended := n.ended
	n.mu.Unlock()
	if ended || n.s.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), negClose)
	defer cancel()
	return n.s.Send(ctx, []byte(`["NEG-CLOSE","`+n.sub+`"]`))
}
