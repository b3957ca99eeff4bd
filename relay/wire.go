package relay

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// wire is the socket below the websocket (and below TLS). It sets the read deadline immediately before each read, so
// that a reader that has waited in a handler does not find it run out, and it tells how long a write has been going on.
type wire struct {
	net.Conn
	clock *clock

	// The reader's own.
	inMessage bool // a message was begun and is not whole yet
	slowAt    time.Time
	readAt    int64                     // clock's time of the last read's return
	settings  *atomic.Pointer[Settings] // nil before the handshake is over

	more  atomic.Bool // the writer has another message in hand: what is written now may wait for it
	batch *[]byte     // what waits; nil: nothing. Under the lock, gorilla's or TLS's, that Write is called under

	writing atomic.Int64 // clock's time when the running write began, 0: none runs
	stalled atomic.Int64 // clock.waited at that time
	written atomic.Int64 // bytes
	drained atomic.Int64 // clock's time when all of them are off even the slowest line
}

// slowest is what the slowest line that counts as alive carries in a second, in bytes: Tor and mobile lines at their worst. A
// relay that is silent behind it for the OK timeout or the ping's, and that long again for what was sent, is taken for dead.
const slowest = 8 << 10

// Transit is how long n bytes may be on their way to a relay. Until then its silence says nothing: a large event, and a ping
// behind it, may still be in a buffer on our side of a narrow line.
func Transit(n int) time.Duration { return time.Duration(n) * time.Second / slowest }

// mostTransit bounds it for a whole connection: a sink's window. That a busy sink has died is noticed by its missing OKs.
const mostTransit = (4 << 20) / slowest * time.Second

// Read reads from the socket. Any byte is a sign of life, a pong too.
func (w *wire) Read(p []byte) (int, error) {
	began, written := time.Now(), w.written.Load()
	backlog := max(0, time.Duration(w.drained.Load()-w.clock.now()))
	idle := func(s *Settings) time.Time { // the end of this silence
		sent := Transit(int(w.written.Load() - written))
		return began.Add(s.PingEvery + s.PingTimeout + min(backlog+sent, mostTransit))
	}
	for {
		if w.settings != nil { // before, the deadline is the dialer's
			s := w.settings.Load()
			deadline := idle(s)
			if w.inMessage {
				if w.slowAt.IsZero() {
					w.slowAt = began.Add(s.FrameTime)
				}
				if w.slowAt.Before(deadline) {
					deadline = w.slowAt
				}
			}
			if err := w.SetReadDeadline(deadline); err != nil {
				return 0, err
			}
		}
		n, err := w.Conn.Read(p)
		w.readAt = w.clock.now()
		if n == 0 && w.settings != nil && errors.Is(err, os.ErrDeadlineExceeded) && !w.slow() && time.Now().Before(idle(w.settings.Load())) {
			continue // something was sent meanwhile, and may still be on its way
		}
		return n, err
	}
}

// slow says that the running message has used up its time.
func (w *wire) slow() bool {
	return w.inMessage && !w.slowAt.IsZero() && !time.Now().Before(w.slowAt)
}

// begun and whole frame a message for the deadline: its time counts from the first read behind the first begun.
func (w *wire) begun() {
	if !w.inMessage {
		w.inMessage, w.slowAt = true, time.Time{}
	}
}

func (w *wire) whole() { w.inMessage = false }

// maxBatch is how much is written at once, in bytes: some eighty events of usual size.
const maxBatch = 64 << 10

// batches are the buffers of wires that have more to write than one message, as few of many have at a time.
var batches = sync.Pool{New: func() any { b := make([]byte, 0, maxBatch); return &b }}

// Write writes p, after what waits. While there is more, p waits too: a system call costs as much as all the rest of sending an
// event. Who sets more must write again, with more unset.
func (w *wire) Write(p []byte) (int, error) {
	more := w.more.Load()
	if w.batch == nil && (!more || len(p) > maxBatch) {
		return w.write(p)
	}
	if w.batch != nil && len(*w.batch)+len(p) > maxBatch {
		if err := w.flush(); err != nil {
			return 0, err
		}
		return w.Write(p)
	}
	if w.batch == nil {
		w.batch = batches.Get().(*[]byte)
	}
	*w.batch = append(*w.batch, p...)
	if !more {
		return len(p), w.flush()
	}
	return len(p), nil
}

// flush writes what waits.
func (w *wire) flush() error {
	_, err := w.write(*w.batch)
	*w.batch = (*w.batch)[:0]
	batches.Put(w.batch)
	w.batch = nil
	return err
}

func (w *wire) write(p []byte) (int, error) {
	w.stalled.Store(int64(w.clock.waited()))
	w.writing.Store(w.clock.now())
	n, err := w.Conn.Write(p)
	w.writing.Store(0)
	now := w.clock.now()
	w.drained.Store(min(max(w.drained.Load(), now)+int64(Transit(n)), now+int64(mostTransit))) // only one goroutine writes
	w.written.Add(int64(n))
	return n, err
}

// blocked is how long the running write has been waiting for the relay. The time in which our own reader waited in a
// handler does not count: a relay may rightly wait until we read again.
func (w *wire) blocked() time.Duration {
	since := w.writing.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(w.clock.now()-since) - (w.clock.waited() - time.Duration(w.stalled.Load()))
}

// clock tells a session's time, and how much of it the reader has spent in handlers.
type clock struct {
	start time.Time
	total atomic.Int64 // ns spent in handlers that have returned
	since atomic.Int64 // when the running handler was called, 0: none runs
}

// now is the time since the session's start in ns, never 0.
func (c *clock) now() int64 { return int64(time.Since(c.start)) + 1 }

// enter is told when the reader goes into a handler, leave when it is back.
func (c *clock) enter(at int64) { c.since.Store(at) }

func (c *clock) leave() (now int64) {
	now = c.now()
	// since is cleared first: waited may for a moment tell too little, never count one wait twice.
	since := c.since.Swap(0)
	c.total.Add(now - since)
	return now
}

// inside is how long the running handler has been waiting, 0 if none runs.
func (c *clock) inside() time.Duration {
	since := c.since.Load()
	if since == 0 {
		return 0
	}
	return time.Duration(c.now() - since)
}

// waited is the time spent in handlers so far.
func (c *clock) waited() time.Duration {
	for {
		total := c.total.Load()
		inside := c.inside()
		if c.total.Load() == total {
			return time.Duration(total) + inside
		}
	}
}
