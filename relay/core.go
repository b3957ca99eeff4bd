package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/rs/zerolog"
)

const (
	// readBuffer in bytes, for each connection, and once more while gorilla reads a message. A longer one takes a big-frame slot.
	readBuffer = 64 << 10
	// gorillaBuffer is what gorilla reads heads and control frames into.
	gorillaBuffer = 1 << 10
	// writeBuffer in bytes: an event of usual size is one write.
	writeBuffer = 4 << 10
	// outboxSize in calls of Send. A sink's window bounds what is sent and unanswered; this only decouples two goroutines.
	outboxSize = 64
	// leaveTime is the most that the last messages, the close frame and the relay's answer to it may take.
	leaveTime = 2 * time.Second
)

// core is one websocket with its reader, its writer and its keeper. Roles see it through their Session.
type core struct {
	url      string
	dialed   *Settings                 // that the connection was made with
	settings *atomic.Pointer[Settings] // the link's
	log      zerolog.Logger
	ws       *websocket.Conn
	frames   *frames // below ws
	wire     *wire   // below frames
	clock    *clock
	pace     *pace
	big      chan struct{} // slots for big messages, shared by all links
	info     func() Info
	notice   func(text string)
	unknown  *[len(unknownReasons)]atomic.Int64

	outbox   chan [][]byte
	control  chan control
	leaving  chan struct{} // closed by stop: the writer sends what is queued, then the close frame
	done     chan struct{} // closed by fail
	progress atomic.Bool
	negs     atomic.Uint64           // NEG-OPENs so far: a number is used once on a socket
	compares atomic.Bool             // one of them was answered by a NEG-MSG
	used     bool                    // a role was served on it; attend's own
	busy     atomic.Pointer[Session] // whose handler runs

	handlers atomic.Pointer[[]*registered] // copied on write under mu

	mu      sync.Mutex // over end, owed, left and writes of handlers
	end     error
	owed    bool // see awaited
	left    *End // why we leave, once we do
	running sync.WaitGroup
}

// control is a ping or pong on its way to the writer.
type control struct {
	kind    int
	payload string
}

// start begins reading and writing. stop must be called afterwards.
func (c *core) start() {
	c.wire.settings = c.settings
	c.outbox = make(chan [][]byte, outboxSize)
	c.control = make(chan control, 4)
	c.leaving = make(chan struct{})
	c.done = make(chan struct{})
	c.handlers.Store(&[]*registered{})
	// The reader must not write: only one goroutine does. A pong that finds the queue full is left out; the queue is
	// only full while the relay does not read.
	c.ws.SetPingHandler(func(payload string) error { c.tell(websocket.PongMessage, payload); return nil })
	c.ws.SetPongHandler(func(string) error { return nil }) // its bytes were the sign of life
	c.goes("reader", c.read)
	c.goes("writer", c.write)
	c.goes("keeper", c.keep)
}

// goes runs f on a goroutine that stop waits for. Its error, or panic, ends the session.
func (c *core) goes(name string, f func() error) {
	c.running.Add(1)
	go func() {
		defer c.running.Done()
		var err error
		defer func() {
			recovered(name+" of "+c.url, recover(), &err)
			if err != nil {
				c.fail(err)
			}
		}()
		err = f()
	}()
}

// fail ends the session. The first reason holds.
func (c *core) fail(err error) {
	owed := Theirs(err) && c.awaits() // before c.mu: it takes locks of the roles'
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		return
	}
	var p *PanicError
	if c.left != nil && !errors.As(err, &p) {
		err = c.left // whatever the relay does once we leave, we left
	}
	c.end, c.owed = err, owed
	close(c.done)
	_ = c.wire.Close() // unblocks reader and writer
}

func (c *core) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end
}

// awaits says that the relay owes an answer to something that is not a NEG-OPEN.
func (c *core) awaits() bool {
	return slices.ContainsFunc(*c.handlers.Load(), func(r *registered) bool {
		return r.Awaits != nil && !r.removed.Load() && r.Awaits()
	})
}

// awaited says that it did when it, or the line, ended the session.
func (c *core) awaited() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.owed
}

// stop leaves for the given reason, if the session has not ended yet: what is queued is sent, then the close frame. It
// returns when reader, writer and keeper have ended. No role may be running.
func (c *core) stop(why *End) {
	c.mu.Lock()
	if c.left == nil {
		c.left = why
		close(c.leaving)
	}
	c.mu.Unlock()
	timer := time.NewTimer(leaveTime)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
		c.fail(why)
	}
	c.running.Wait()
}

func (c *core) register(r *registered) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.handlers.Load()
	now := append(old[:len(old):len(old)], r)
	c.handlers.Store(&now)
}

func (c *core) unregister(r *registered) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var now []*registered
	for _, h := range *c.handlers.Load() {
		if h != r {
			now = append(now, h)
		}
	}
	c.handlers.Store(&now)
}

// read is the session's reader.
func (c *core) read() error {
	for {
		c.wire.whole()
		if msg, ok := c.frames.text(); ok {
			c.whole(websocket.TextMessage, msg)
		} else if err := c.readByGorilla(); err != nil {
			return err
		}
	}
}

// pooled buffers are for messages that gorilla reads.
var pooled = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// readByGorilla reads a message that is not a plain one, and what stands before it.
func (c *core) readByGorilla() error {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return endOfRead(err, c.wire.slow())
	}
	c.wire.begun()
	p := pooled.Get().(*[readBuffer]byte)
	defer pooled.Put(p)
	buf := p[:]
	n, whole, err := fill(r, buf)
	if err != nil {
		return endOfRead(err, c.wire.slow())
	}
	if whole {
		c.whole(kind, buf[:n])
		return nil
	}
	return c.readBig(kind, r, buf)
}

// whole takes a message that needed no slot.
func (c *core) whole(kind int, msg []byte) {
	if int64(len(msg)) > c.settings.Load().MaxFrame {
		c.tooBig()
		return
	}
	c.message(kind, msg)
}

// fill reads until the message is whole or buf is full.
func fill(r io.Reader, buf []byte) (n int, whole bool, err error) {
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err == io.EOF {
			return n, true, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, false, nil
}

// readBig reads on a message whose first bytes have filled the buffer. It holds a slot while it holds the bytes.
func (c *core) readBig(kind int, r io.Reader, head []byte) error {
	c.clock.enter(c.wire.readAt)
	select {
	case c.big <- struct{}{}:
		c.clock.leave()
	case <-c.done:
		c.clock.leave()
		return c.err()
	}
	defer func() { <-c.big }()
	c.wire.whole()
	c.wire.begun()                     // anew: the wait for the slot was ours, not the relay's
	most := c.settings.Load().MaxFrame // for the whole of one message
	msg := make([]byte, len(head), 4*len(head))
	copy(msg, head)
	for {
		if len(msg) == cap(msg) {
			// One byte of room above the limit tells "just fits" from "too big".
			size := min(2*int64(cap(msg)), most+1)
			if size <= int64(len(msg)) {
				return c.passOver(r)
			}
			grown := make([]byte, len(msg), size)
			copy(grown, msg)
			msg = grown
		}
		n, err := r.Read(msg[len(msg):cap(msg)])
		msg = msg[:len(msg)+n]
		if int64(len(msg)) > most {
			return c.passOver(r)
		}
		if err == io.EOF {
			c.message(kind, msg)
			return nil
		}
		if err != nil {
			return endOfRead(err, c.wire.slow())
		}
	}
}

// mostPassed times MaxFrame is the longest message that is passed over: a megabyte of deflate may hold a gigabyte, at half a
// second of a core's time.
const mostPassed = 64

// passOver reads a message above MaxFrame to its end and keeps nothing of it: one huge event must not make the page it
// is on unreadable. How long that may take is the frame's time.
func (c *core) passOver(r io.Reader) error {
	most := mostPassed * c.settings.Load().MaxFrame
	n, err := io.CopyN(io.Discard, r, most)
	if n == most {
		return &End{Reason: FrameTooBig}
	}
	if err != io.EOF {
		return endOfRead(err, c.wire.slow())
	}
	c.tooBig()
	return nil
}

func (c *core) tooBig() {
	c.count(UnknownTooBig, nil)
	for _, h := range *c.handlers.Load() {
		h.deliver(c, &message{kind: kindTooBig}, nil)
	}
}

// message hands a whole message to the handlers it is for.
func (c *core) message(frameKind int, frame []byte) {
	if frameKind != websocket.TextMessage {
		c.count(UnknownBinary, frame)
		return
	}
	var m message
	if reason := parse(frame, &m); reason != "" {
		c.count(reason, frame)
		return
	}
	switch m.kind {
	case kindNotice:
		m.text = clean(m.text)
		c.notice(m.text)
	case kindEvent, kindNeg:
	default:
		m.text = clean(m.text)
	}
	known := m.kind != kindOther
	for _, h := range *c.handlers.Load() {
		if h.deliver(c, &m, frame) {
			known = true
		}
	}
	if !known {
		c.count(UnknownType, frame)
	}
}

// deliver calls the handler for a message. True: Other has said that it knows it.
func (r *registered) deliver(c *core, m *message, frame []byte) (known bool) {
	if !r.takes(m.kind) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.removed.Load() {
		return false
	}
	c.busy.Store(r.session)
	c.clock.enter(c.wire.readAt)
	defer func() {
		c.wire.readAt = c.clock.leave() // the next handler's time begins here
		c.busy.Store(nil)
	}()
	switch m.kind {
	case kindEvent:
		r.Event(frame)
	case kindEOSE:
		r.EOSE(m.sub, m.text)
	case kindClosed:
		r.Closed(m.sub, m.text)
	case kindOK:
		r.OK(m.id, m.ok, m.text)
	case kindNotice:
		r.Notice(m.text)
	case kindAuth:
		r.Auth(m.text)
	case kindNeg:
		r.Neg(m.sub, m.text)
	case kindNegErr:
		r.NegErr(m.sub, m.text, m.most)
	case kindCount:
		r.Count(m.sub, m.count)
	case kindTooBig:
		r.TooBig()
	case kindOther:
		return r.Other(m.label, frame)
	}
	return false
}

func (r *registered) takes(k kind) bool {
	switch k {
	case kindEvent:
		return r.Event != nil
	case kindEOSE:
		return r.EOSE != nil
	case kindClosed:
		return r.Closed != nil
	case kindOK:
		return r.OK != nil
	case kindNotice:
		return r.Notice != nil
	case kindAuth:
		return r.Auth != nil
	case kindNeg:
		return r.Neg != nil
	case kindNegErr:
		return r.NegErr != nil
	case kindCount:
		return r.Count != nil
	case kindTooBig:
		return r.TooBig != nil
	case kindOther:
		return r.Other != nil
	}
	return false
}

func (c *core) count(reason string, frame []byte) {
	for i, r := range unknownReasons {
		if r == reason {
			c.unknown[i].Add(1)
		}
	}
	if e := c.log.Debug(); e.Enabled() {
		e.Str("reason", reason).Str("frame", clean(string(frame[:min(len(frame), maxText)]))).Msg("frame not understood")
	}
}

// send queues messages for the writer.
func (c *core) send(ctx context.Context, msgs [][]byte) error {
	select {
	case <-c.done:
		return c.err()
	default:
	}
	select {
	case c.outbox <- msgs:
		return nil
	case <-c.done:
		return c.err()
	case <-ctx.Done():
		return fmt.Errorf("send to %s: %w", c.url, context.Cause(ctx))
	}
}
