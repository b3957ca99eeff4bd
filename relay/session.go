package relay

import (
	"context"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rebroadcastr/event"
)

// Role is what a link does on a session: a source or a sink.
type Role interface {
	// Serve runs the role on one session. It returns when ctx ends, which it does when the session ends, the role is
	// removed or the link is stopped; the role may still Send then (CLOSE) if the session lives. What it returns while
	// ctx and session live decides: nil: the role has finished for good, the link drops it; the socket stays while
	// another role lives. Any error but *Pause: the session is given up and the link dials again with backoff. *Pause,
	// at any time: the role is left for that long, then served again; the socket stays if another role lives, unless the
	// role wants to be Alone.
	Serve(ctx context.Context, s *Session) error
}

// Pause is a role's wish to be left alone for a time.
type Pause struct {
	For    time.Duration
	Reason string

	// Alone asks for a connection of the role's own: when it is served again it is the first and only role of a new session,
	// and until it leaves that one, with anything but another such Pause, no other role of the link is served. The others are
	// left as for a session's end and come back by themselves, so For should be short.
	Alone bool
}

func (p *Pause) Error() string { return "pause " + p.For.String() + ": " + p.Reason }

// Handler is what a role does with a relay's messages. It is called on the session's one reader goroutine, in wire
// order; nil fields are skipped. A call may wait (back-pressure) but must return when the role's ctx ends. Texts are
// bounded and printable.
type Handler struct {
	Event  func(frame []byte)                            // any ["EVENT",…] message, whole; the bytes are valid until it returns
	EOSE   func(sub, hint string)                        // hint: "finish", "more" or "" (NIP-67)
	Closed func(sub, reason string)                      // see ClassifyClosed
	OK     func(id event.ID, accepted bool, text string) // see Classify
	Notice func(text string)
	Neg    func(sub, hex string)                         // NEG-MSG (NIP-77)
	NegErr func(sub, reason string, most int64)          // NEG-ERR or NEG-ERROR; most: the ids that the relay reconciles at once, 0: it does not say
	Count  func(sub string, n Count)                     // COUNT (NIP-45)
	TooBig func()                                        // a message above Settings.MaxFrame was passed over, perhaps an event
	Auth   func(challenge string)                        // informational: there is no key to answer with
	Other  func(label string, frame []byte) (known bool) // a message with another label; the bytes are valid until it returns

	// Awaits says whether the relay owes an answer to what the role has sent: what the relay does may be about that, and not about
	// what another role has just asked. It is called on any goroutine, at the session's end too, and must not wait.
	Awaits func() bool
}

// Session is a role's view of one websocket while it lives.
type Session struct {
	core   *core
	cancel context.CancelCauseFunc // ends the role's ctx
	alone  bool

	mu       sync.Mutex
	handlers []*registered
	left     bool // Serve has returned: no handler is taken any more
}

// registered is a Handler in use. Its mutex is held while it is called, so that leave can wait for the call's end.
type registered struct {
	Handler
	session *Session
	mu      sync.Mutex
	removed atomic.Bool
}

// URL is the relay's normalised address.
func (s *Session) URL() string { return s.core.url }

// Settings are the link's as they are now, with defaults filled in.
func (s *Session) Settings() Settings { return *s.core.settings.Load() }

// Info is the relay's NIP-11 document as last fetched, leniently read; Info.Known says if there is one.
func (s *Session) Info() Info { return s.core.info() }

// Alone says that nothing else was or is done on this connection: the role has asked for that with Pause.Alone.
func (s *Session) Alone() bool { return s.alone }

// Handle registers a role's handler until remove is called or Serve returns. After remove no new call begins; a
// running one may still be at work, until the role's Serve has returned and the link has waited for it.
func (s *Session) Handle(h *Handler) (remove func()) {
	r := &registered{Handler: *h, session: s}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return func() {}
	}
	s.handlers = append(s.handlers, r)
	s.core.register(r)
	return func() {
		r.removed.Store(true)
		s.core.unregister(r)
		if r.mu.TryLock() { // else it is being called: leave waits for that
			r.mu.Unlock()
			s.mu.Lock()
			defer s.mu.Unlock()
			s.handlers = slices.DeleteFunc(s.handlers, func(h *registered) bool { return h == r })
		}
	}
}

// leave removes the handlers and waits until none of them runs. The role's ctx must have ended.
func (s *Session) leave() {
	s.mu.Lock()
	handlers := s.handlers
	s.handlers, s.left = nil, true
	s.mu.Unlock()
	for _, r := range handlers {
		r.removed.Store(true)
		s.core.unregister(r)
		r.await()
	}
}

// await returns when the reader is out of the handler.
func (r *registered) await() {
	r.mu.Lock()
	defer r.mu.Unlock()
}

// Send queues a message for the session's writer and waits while the outbox is full. msg must not be changed
// afterwards. nil says that it was queued, not that the relay has it.
func (s *Session) Send(ctx context.Context, msg []byte) error {
	return s.core.send(ctx, [][]byte{msg})
}

// SendAll is Send for messages that there are at once: they cost one wake of the writer and, up to 64 KiB, one write of the socket.
// msgs itself must not be changed afterwards either.
func (s *Session) SendAll(ctx context.Context, msgs [][]byte) error {
	if len(msgs) == 0 {
		return nil
	}
	return s.core.send(ctx, msgs)
}

// Request is Send after waiting for the link's pace: for REQ, COUNT and NEG-OPEN.
func (s *Session) Request(ctx context.Context, msg []byte) error {
	if err := s.core.pace.wait(ctx); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	return s.core.send(ctx, [][]byte{msg})
}

// Slower says that the relay finds us too fast: the link's pace is halved, and for so long nothing is asked.
func (s *Session) Slower(wait time.Duration) { s.core.pace.slower(wait) }

// Pace is how many requests a second may be made now.
func (s *Session) Pace() float64 { return s.core.pace.rate() }

// Answered says that the relay has answered a request: a pace that was halved is found again.
func (s *Session) Answered() { s.core.pace.answer() }

// Progress says that the relay has brought something, an event or an OK: it resets the link's backoff.
func (s *Session) Progress() {
	if p := &s.core.progress; !p.Load() {
		p.Store(true)
	}
}

// Stalled is the total time that the reader has spent in handlers. Clocks that wait for a relay's answer stand still
// meanwhile: they subtract what it has grown since they were started.
func (s *Session) Stalled() time.Duration { return s.core.clock.waited() }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.core.done }

// Err is why the session has ended, an *End; nil while it lives.
func (s *Session) Err() error { return s.core.err() }

// Guard runs f for a role, on a goroutine of its own or not, and makes a panic a *PanicError.
func Guard(where string, f func() error) (err error) {
	defer func() { recovered(where, recover(), &err) }()
	return f()
}

// recovered makes a panic an error: defer func() { recovered("…", recover(), &err) }().
func recovered(where string, value any, err *error) {
	if value != nil {
		*err = &PanicError{Where: where, Value: value, Stack: debug.Stack()}
	}
}
