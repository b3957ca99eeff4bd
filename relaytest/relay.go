package relaytest

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/nbd-wtf/go-nostr"
)

// Relay is a running scripted relay. It is closed at the end of the test.
type Relay struct {
	URL string // ws:// or wss://, host and port

	t      testing.TB
	server *httptest.Server
	closed chan struct{}
	wg     sync.WaitGroup

	mu       sync.Mutex // over everything below
	change   chan struct{}
	script   Script
	stored   []stored
	sorted   []stored        // the same, newest first; nil: to be made. Never changed
	have     map[string]bool // ids in stored
	got      []Message
	conns    map[*Conn]struct{}
	accepted int
	asked    int // REQs that were answered
	dials    int
	infos    int
	pings    int
	closes   []Close
}

type stored struct {
	raw   string
	event nostr.Event
}

// Close is how a client left: the close frame it sent, or Code 0 without one.
type Close struct {
	Conn int
	Code int
	Text string
}

// New starts a relay on a free port of the loopback.
func New(t testing.TB, s Script) *Relay {
	t.Helper()
	r := &Relay{t: t, conns: map[*Conn]struct{}{}, have: map[string]bool{}, closed: make(chan struct{}), change: make(chan struct{})}
	r.setLocked(s)
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	r.server.Config.ErrorLog = nil
	if s.TLS {
		r.server.StartTLS()
	} else {
		r.server.Start()
	}
	r.URL = "ws" + strings.TrimPrefix(r.server.URL, "http")
	t.Cleanup(r.Stop)
	return r
}

// Stop closes all connections and the port, and waits for everything the relay started.
func (r *Relay) Stop() {
	r.mu.Lock()
	select {
	case <-r.closed:
		r.mu.Unlock()
		return
	default:
	}
	close(r.closed)
	r.mu.Unlock()
	r.Drop()
	r.server.CloseClientConnections()
	r.server.Close()
	r.wg.Wait()
}

// CAFile writes the certificate of a TLS relay into a PEM file of the test's and returns its path.
func (r *Relay) CAFile() string {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// Certificate is that of a TLS relay. It is good for 127.0.0.1, ::1 and example.com.
func (r *Relay) Certificate() *x509.Certificate { return r.server.Certificate() }

// Update changes the script. Events that are new in s.Events are stored; what was stored stays.
func (r *Relay) Update(f func(s *Script)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.script
	f(&s)
	r.setLocked(s)
}

func (r *Relay) setLocked(s Script) {
	for _, raw := range s.Events {
		r.storeLocked(raw)
	}
	s.Events = nil
	r.script = s
}

func (r *Relay) storeLocked(raw string) {
	e := parse(raw)
	if !r.have[e.ID] {
		r.have[e.ID] = true
		r.stored = append(r.stored, stored{raw, e})
		r.sorted = nil
	}
}

// Publish stores events and sends them to the live subscriptions that they match.
func (r *Relay) Publish(events ...string) {
	for _, raw := range events {
		r.mu.Lock()
		r.storeLocked(raw)
		r.mu.Unlock()
		r.pass(raw, nil)
	}
}

// PassOn sends an event to the live subscriptions without storing or matching it: forged and damaged ones.
func (r *Relay) PassOn(raw string) {
	for _, c := range r.Conns() {
		for _, sub := range c.subscriptions() {
			c.Send(`["EVENT",` + quote(sub) + `,` + raw + `]`)
		}
	}
}

func (r *Relay) pass(raw string, from *Conn) {
	e := parse(raw)
	for _, c := range r.Conns() {
		if c != from {
			c.offer(raw, &e)
		}
	}
}

// Stored returns the ids it has, in order of arrival.
func (r *Relay) Stored() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := make([]string, len(r.stored))
	for i, s := range r.stored {
		ids[i] = s.event.ID
	}
	return ids
}

// Got returns the messages with that label, or all of them for "", in order of arrival.
func (r *Relay) Got(label string) []Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Message
	for _, m := range r.got {
		if label == "" || m.Label == label {
			out = append(out, m)
		}
	}
	return out
}

// Dials is the number of upgrade requests so far, refused ones included.
func (r *Relay) Dials() int { r.mu.Lock(); defer r.mu.Unlock(); return r.dials }

// Accepted is the number of websockets so far.
func (r *Relay) Accepted() int { r.mu.Lock(); defer r.mu.Unlock(); return r.accepted }

// InfoRequests is the number of requests for the NIP-11 document so far.
func (r *Relay) InfoRequests() int { r.mu.Lock(); defer r.mu.Unlock(); return r.infos }

// Pings is the number of pings got so far.
func (r *Relay) Pings() int { r.mu.Lock(); defer r.mu.Unlock(); return r.pings }

// Closes tells how clients left, in order.
func (r *Relay) Closes() []Close { r.mu.Lock(); defer r.mu.Unlock(); return slices.Clone(r.closes) }

// Conns returns the open connections, oldest first.
func (r *Relay) Conns() []*Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*Conn, 0, len(r.conns))
	for c := range r.conns {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *Conn) int { return a.N - b.N })
	return out
}

// Drop resets all open connections, without a close frame.
func (r *Relay) Drop() {
	for _, c := range r.Conns() {
		c.Drop()
	}
}

// Send sends a raw frame on all open connections.
func (r *Relay) Send(frame string) {
	for _, c := range r.Conns() {
		c.Send(frame)
	}
}

// Wait blocks until cond holds, looking again at each thing that happens at the relay, and fails the test after a minute.
func (r *Relay) Wait(what string, cond func() bool) {
	r.t.Helper()
	end := time.NewTimer(time.Minute)
	defer end.Stop()
	for {
		r.mu.Lock()
		change := r.change
		r.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-change:
		case <-time.After(20 * time.Millisecond): // cond may look at something that is not the relay's
		case <-end.C:
			r.t.Fatalf("%s did not come to pass within a minute", what)
		}
	}
}

// happenedLocked wakes Wait.
func (r *Relay) happenedLocked() {
	close(r.change)
	r.change = make(chan struct{})
}

func (r *Relay) current() Script { r.mu.Lock(); defer r.mu.Unlock(); return r.script }

func (r *Relay) serve(w http.ResponseWriter, req *http.Request) {
	s := r.current()
	if !websocket.IsWebSocketUpgrade(req) {
		r.serveInfo(w, req, s)
		return
	}
	r.mu.Lock()
	r.dials++
	r.happenedLocked()
	r.mu.Unlock()
	if s.NoAccept || s.Handshake != nil {
		select {
		case <-s.Handshake: // for ever if nil
		case <-req.Context().Done():
			return
		case <-r.closed:
			return
		}
	}
	if s.Status != 0 {
		if s.RetryAfter != "" {
			w.Header().Set("Retry-After", s.RetryAfter)
		}
		http.Error(w, http.StatusText(s.Status), s.Status)
		return
	}
	up := websocket.Upgrader{EnableCompression: s.Compress, CheckOrigin: func(*http.Request) bool { return true }}
	// Held from before the client hears of it: what a test does once its client is connected finds the connection here.
	r.mu.Lock()
	ws, err := up.Upgrade(w, req, nil)
	if err != nil {
		r.mu.Unlock()
		return
	}
	c := &Conn{relay: r, ws: ws, subs: map[string][]nostr.Filter{}, Header: req.Header.Clone()}
	select {
	case <-r.closed:
		r.mu.Unlock()
		ws.Close()
		return
	default:
	}
	r.accepted++
	c.N = r.accepted
	r.conns[c] = struct{}{}
	r.wg.Add(1)
	r.happenedLocked()
	r.mu.Unlock()
	defer r.wg.Done()
	c.run()
	r.mu.Lock()
	delete(r.conns, c)
	r.closes = append(r.closes, Close{c.N, c.code, c.text})
	r.happenedLocked()
	r.mu.Unlock()
}

func (r *Relay) serveInfo(w http.ResponseWriter, req *http.Request, s Script) {
	r.mu.Lock()
	r.infos++
	r.happenedLocked()
	r.mu.Unlock()
	if s.HoldInfo != nil {
		select {
		case <-s.HoldInfo:
		case <-req.Context().Done():
			return
		case <-r.closed:
			return
		}
	}
	if s.Info == "" {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/nostr+json")
	_, _ = w.Write([]byte(s.Info))
}

func quote(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// reset makes the close of a TCP connection a reset.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
