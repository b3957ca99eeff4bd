package relay

import (
	"time"

	"github.com/gorilla/websocket"
)

// write is the session's only writer of messages, pings and pongs.
func (c *core) write() error {
	for {
		select {
		case msgs := <-c.outbox:
			if err := c.writeMessages(msgs); err != nil {
				return c.endOfWrite(err)
			}
		case m := <-c.control:
			if err := c.ws.WriteControl(m.kind, []byte(m.payload), time.Time{}); err != nil {
				return c.endOfWrite(err)
			}
		case <-c.leaving:
			return c.farewell()
		case <-c.done:
			return nil
		}
	}
}

// writeMessages writes messages, each one of the websocket's, with as few writes of the socket as they and what is queued behind
// them need.
func (c *core) writeMessages(msgs [][]byte) error {
	for written := 0; ; {
		for i, msg := range msgs {
			written += len(msg)
			last := i == len(msgs)-1
			// Not for ever: pings and pongs wait behind.
			c.wire.more.Store(!last || written < maxBatch && len(c.outbox) > 0)
			if err := c.ws.WriteMessage(websocket.TextMessage, msg); err != nil {
				return err
			}
		}
		if !c.wire.more.Load() {
			return nil
		}
		msgs = <-c.outbox // only we take from it
	}
}

// farewell sends what is still queued, and the close frame. The relay's answer ends the reader, and with it the session.
func (c *core) farewell() error {
	for {
		select {
		case msgs := <-c.outbox:
			if err := c.writeMessages(msgs); err != nil {
				return c.endOfWrite(err)
			}
			continue
		case <-c.done:
			return nil
		default:
		}
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		if err := c.ws.WriteControl(websocket.CloseMessage, bye, time.Time{}); err != nil {
			return c.endOfWrite(err)
		}
		return nil
	}
}

func (c *core) endOfWrite(err error) error {
	return &End{Reason: Dropped, Err: err}
}

// tell hands a ping or pong to the writer, unless so many wait already that one more says nothing new.
func (c *core) tell(kind int, payload string) {
	select {
	case c.control <- control{kind, payload}:
	default:
	}
}

// tick is how often keep looks at its clocks.
func (s *Settings) tick() time.Duration {
	return max(min(s.PingEvery, s.Pong, s.Stall, s.Write, 4*time.Second)/4, time.Millisecond)
}

// keep looks after the session's time: pings, pongs while the reader waits, the end of a wait that is too long, and
// the write deadline. It looks at clocks only, so a handler or a write that hangs cannot hold it up.
func (c *core) keep() error {
	s := c.settings.Load()
	ticker := time.NewTicker(s.tick())
	defer ticker.Stop()
	lastPing := time.Now()
	lastPong := time.Duration(0) // into the running wait
	for {
		select {
		case <-c.done:
			return nil
		case <-ticker.C:
		}
		if now := c.settings.Load(); now != s {
			s = now
			ticker.Reset(s.tick())
			lastPing = time.Time{} // its answer ends the read that still has the old deadline
		}
		inside := c.clock.inside()
		if inside < lastPong {
			lastPong = 0 // another wait
		}
		if inside-lastPong >= s.Pong {
			lastPong = inside
			// A reader that waits answers no pings, and relays drop who does not (RFC 6455 5.5.3 allows this pong).
			c.tell(websocket.PongMessage, "")
		}
		if inside >= s.Stall {
			role := c.busy.Load()
			switch inside = c.clock.inside(); { // again: whose handler it is may just have changed
			case inside < s.Stall:
			case role == nil, inside >= 2*s.Stall:
				// It waits for a slot, or does not heed its ctx: nothing else on this socket can go on either.
				return &End{Reason: ArchiveStalled}
			default:
				role.cancel(&End{Reason: ArchiveStalled})
			}
		}
		if c.wire.blocked() >= s.Write {
			return &End{Reason: WriteBlocked}
		}
		if time.Since(lastPing) >= s.PingEvery {
			lastPing = time.Now()
			c.tell(websocket.PingMessage, "")
		}
	}
}
