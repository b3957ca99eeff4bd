package relaytest

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy"
)

// Conn is one client's websocket at a Relay.
type Conn struct {
	N      int         // from 1, in order of arrival
	Header http.Header // of the upgrade request

	relay *Relay
	ws    *websocket.Conn

	write sync.Mutex // over writes to ws

	mu     sync.Mutex // over subs and sent
	subs   map[string][]nostr.Filter
	sent   int // events
	events int // EVENT messages got; the reader's own

	neg map[string]*negentropy.Negentropy // by subscription; the reader's own

	code int // of the client's close frame; the reader's own
	text string
}

// Send sends a text frame. A client that does not take it within 5 s is dropped.
func (c *Conn) Send(frame string) { c.send(websocket.TextMessage, []byte(frame)) }

// SendBinary sends a binary frame.
func (c *Conn) SendBinary(frame []byte) { c.send(websocket.BinaryMessage, frame) }

func (c *Conn) send(kind int, frame []byte) {
	c.write.Lock()
	defer c.write.Unlock()
	_ = c.ws.SetWriteDeadline(time.Now().Add(5 * time.Second))
	if err := c.ws.WriteMessage(kind, frame); err != nil {
		_ = c.ws.Close()
	}
}

// Ping sends a ping.
func (c *Conn) Ping(payload string) {
	_ = c.ws.WriteControl(websocket.PingMessage, []byte(payload), time.Now().Add(5*time.Second))
}

// OnPong sets what is called for each pong; set it in Script.Handle or before the client can answer.
func (c *Conn) OnPong(f func(payload string)) {
	c.ws.SetPongHandler(func(p string) error { f(p); return nil })
}

// Close sends a close frame and closes the connection.
func (c *Conn) Close(code int, text string) {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, text), time.Now().Add(5*time.Second))
	_ = c.ws.Close()
}

// Drop resets the connection.
func (c *Conn) Drop() { reset(c.ws.NetConn()) }

// Write writes bytes below the websocket, as they are.
func (c *Conn) Write(raw []byte) { _, _ = c.ws.NetConn().Write(raw) }

func (c *Conn) subscriptions() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids := make([]string, 0, len(c.subs))
	for id := range c.subs {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Subscriptions returns the ids of the open subscriptions, sorted.
func (c *Conn) Subscriptions() []string { return c.subscriptions() }

// offer sends an event to the connection's subscriptions that it matches.
func (c *Conn) offer(raw string, e *nostr.Event) {
	c.mu.Lock()
	var subs []string
	for id, filters := range c.subs {
		if nostr.Filters(filters).Match(e) {
			subs = append(subs, id)
		}
	}
	c.mu.Unlock()
	for _, id := range subs {
		c.Send(`["EVENT",` + quote(id) + `,` + raw + `]`)
	}
}

func (c *Conn) run() {
	defer c.ws.Close()
	s := c.relay.current()
	c.ws.SetPingHandler(func(p string) error {
		c.relay.mu.Lock()
		c.relay.pings++
		c.relay.happenedLocked()
		c.relay.mu.Unlock()
		if !s.IgnorePings {
			_ = c.ws.WriteControl(websocket.PongMessage, []byte(p), time.Now().Add(5*time.Second))
		}
		return nil
	})
	if s.PingEvery > 0 {
		gone := make(chan struct{})
		defer close(gone)
		c.pinging(s.PingEvery, gone)
	}
	if s.AuthRequired {
		c.Send(`["AUTH","challenge"]`)
	}
	for _, frame := range s.Hello {
		c.Send(frame)
	}
	if s.StopReading {
		<-c.relay.closed
		return
	}
	for {
		_, raw, err := c.ws.ReadMessage()
		if err != nil {
			var ce *websocket.CloseError
			if errors.As(err, &ce) && ce.Code != websocket.CloseAbnormalClosure {
				c.code, c.text = ce.Code, ce.Text
			}
			return
		}
		m := Message{Conn: c.N, Raw: string(raw)}
		var parts []json.RawMessage
		if json.Unmarshal(raw, &parts) == nil && len(parts) > 0 {
			_ = json.Unmarshal(parts[0], &m.Label)
		}
		r := c.relay
		r.mu.Lock()
		r.got = append(r.got, m)
		r.happenedLocked()
		s := r.script
		r.mu.Unlock()
		if s.Handle != nil && s.Handle(c, m) || s.Silent {
			continue
		}
		switch {
		case m.Label == "REQ" && len(parts) >= 3:
			c.req(s, parts)
		case m.Label == "EVENT" && len(parts) >= 2:
			c.event(s, string(parts[1]))
		case m.Label == "CLOSE" && len(parts) >= 2:
			c.mu.Lock()
			delete(c.subs, text(parts[1]))
			c.mu.Unlock()
		case s.Count && m.Label == "COUNT" && len(parts) >= 3:
			c.count(s, parts)
		case s.Negentropy && isNeg(m.Label):
			c.negentropy(m)
		default:
			c.Send(`["NOTICE","ERROR: bad msg: unknown cmd"]`)
		}
	}
}

// pinging drops a client that answers no pings.
func (c *Conn) pinging(every time.Duration, gone <-chan struct{}) {
	pong := make(chan struct{}, 1)
	c.OnPong(func(string) {
		select {
		case pong <- struct{}{}:
		default:
		}
	})
	c.relay.wg.Add(1)
	go func() {
		defer c.relay.wg.Done()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for heard := time.Now(); time.Since(heard) < 3*every; {
			select {
			case <-tick.C:
				c.Ping("")
			case <-pong:
				heard = time.Now()
			case <-gone:
				return
			}
		}
		c.Drop()
	}()
}

func text(raw json.RawMessage) (s string) {
	_ = json.Unmarshal(raw, &s)
	return s
}

// Frames is the answer to a REQ message, for a Handle that sends it itself.
func (r *Relay) Frames(m Message) []string {
	var req nostr.ReqEnvelope
	if req.FromJSON(m.Raw) != nil {
		return nil
	}
	return r.answer(r.current(), req.SubscriptionID, req.Filters)
}

// Serve answers a REQ message from what the relay has, for a Handle that wants to do only a part itself.
func (c *Conn) Serve(m Message) {
	var parts []json.RawMessage
	if json.Unmarshal([]byte(m.Raw), &parts) == nil && len(parts) >= 3 {
		c.req(c.relay.current(), parts)
	}
}

func (c *Conn) req(s Script, parts []json.RawMessage) {
	sub := text(parts[1])
	var filters []nostr.Filter
	for _, p := range parts[2:] {
		var f nostr.Filter
		if err := json.Unmarshal(p, &f); err != nil {
			c.Send(`["CLOSED",` + quote(sub) + `,` + quote("invalid: "+err.Error()) + `]`)
			return
		}
		filters = append(filters, f)
	}
	refusal := ""
	switch {
	case s.AuthRequired:
		refusal = "auth-required: we serve members only"
	case s.RefuseLimit0 != "" && filters[0].LimitZero:
		refusal = s.RefuseLimit0
	case s.Paging.locked(filters[0]):
		refusal = loginFirst
	case s.Closed != nil:
		refusal = s.Closed(sub, filters)
	}
	if refusal != "" {
		c.Send(`["CLOSED",` + quote(sub) + `,` + quote(refusal) + `]`)
		return
	}
	c.mu.Lock()
	c.subs[sub] = filters // before the answer: nothing published meanwhile is missed
	c.mu.Unlock()
	for _, frame := range c.relay.answer(s, sub, filters) {
		switch {
		case frame == Cut:
			_ = c.ws.Close()
			return
		case strings.HasPrefix(frame, `["EVENT",`):
			if !c.sendEvent(s, frame) {
				return
			}
		case !s.stalled(c):
			c.Send(frame)
		}
	}
	if s.NoEOSE || s.stalled(c) {
		return
	}
	if s.ClosedAfter != "" {
		c.mu.Lock()
		delete(c.subs, sub)
		c.mu.Unlock()
		c.Send(`["CLOSED",` + quote(sub) + `,` + quote(s.ClosedAfter) + `]`)
	}
}

func (s Script) stalled(c *Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.StallAfter > 0 && c.sent >= s.StallAfter
}

// sendEvent is false when the connection is at its end.
func (c *Conn) sendEvent(s Script, frame string) bool {
	if s.stalled(c) {
		return true
	}
	for _, other := range s.Between {
		c.Send(other)
	}
	c.Send(frame)
	c.mu.Lock()
	c.sent++
	dead := s.CloseAfter > 0 && c.sent >= s.CloseAfter
	c.mu.Unlock()
	if dead {
		// Not a reset: what was sent must arrive.
		_ = c.ws.Close()
	}
	return !dead
}

// Keep stores the event of an EVENT message and passes it on, for a Handle that answers itself.
func (r *Relay) Keep(m Message) {
	var parts []json.RawMessage
	if json.Unmarshal([]byte(m.Raw), &parts) == nil && len(parts) >= 2 {
		r.Publish(string(parts[1]))
	}
}

func (c *Conn) event(s Script, raw string) {
	var e nostr.Event
	if err := json.Unmarshal([]byte(raw), &e); err != nil {
		c.Send(`["NOTICE","ERROR: bad msg: could not parse event"]`)
		return
	}
	c.events++
	if s.DropBeforeOK > 0 && c.events >= s.DropBeforeOK {
		c.Drop()
		return
	}
	a := Accept()
	switch {
	case s.AuthRequired:
		a = Reject("auth-required: we take events of members only")
	case s.OK != nil:
		a = s.OK(e)
	}
	r := c.relay
	if a.Accepted && !s.Forget {
		r.mu.Lock()
		had := r.have[e.ID]
		r.storeLocked(raw)
		r.mu.Unlock()
		if had && a.Text == "" {
			a.Text = "duplicate: already have this event"
		}
		if !had {
			defer r.pass(raw, c)
		}
	}
	switch {
	case a.None:
	case a.Raw != "":
		c.Send(a.Raw)
	default:
		ok, _ := json.Marshal([]any{"OK", e.ID, a.Accepted, a.Text})
		c.Send(string(ok))
	}
}

// Shut ends the connection in order (FIN), without a close frame: what was written arrives.
func (c *Conn) Shut() { _ = c.ws.Close() }
