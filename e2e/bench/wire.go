package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/nbd-wtf/go-nostr"
)

const (
	opText = 0x81 // a whole message
	opPing = 0x89
	// much is how many bytes go into one write where there is no reason to hurry.
	much = 64 << 10
)

// appendFrame appends a websocket message of a server, which is not masked.
func appendFrame(b []byte, op byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	switch b = append(b, op); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// wire writes messages to a client, many in one write. gorilla reads what comes from it.
type wire struct {
	*websocket.Conn
	mu sync.Mutex
}

func (w *wire) write(frames []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.NetConn().Write(frames)
	return err
}

// server is a relay's socket: its information document, and what is done with each connection.
type server struct {
	url    string
	http   *http.Server
	mu     sync.Mutex
	conns  map[*wire]struct{}
	closed bool
	ended  sync.WaitGroup
}

// serve listens on a free port.
func serve(talk func(*wire) error) (*server, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	s := &server{url: "ws://" + ln.Addr().String(), conns: map[*wire]struct{}{}}
	up := websocket.Upgrader{ReadBufferSize: much, WriteBufferSize: 512}
	s.http = &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !websocket.IsWebSocketUpgrade(r) {
			rw.Header().Set("Content-Type", "application/nostr+json")
			rw.Write([]byte(`{"name":"bench","supported_nips":[1,9,11,40],"limitation":{"max_limit":500,"max_subscriptions":20}}`)) //nolint:errcheck // who asked has gone
			return
		}
		c, err := up.Upgrade(rw, r, nil)
		if err != nil {
			return
		}
		w := &wire{Conn: c}
		defer c.Close() //nolint:errcheck // whoever is left sees it
		if s.add(w) {
			defer s.remove(w)
			talk(w) //nolint:errcheck // connections end
		}
	})}
	s.ended.Go(func() { s.http.Serve(ln) }) //nolint:errcheck // it is closed on purpose
	return s, nil
}

func (s *server) add(w *wire) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[w] = struct{}{}
	s.ended.Add(1)
	return true
}

func (s *server) remove(w *wire) {
	s.mu.Lock()
	delete(s.conns, w)
	s.mu.Unlock()
	s.ended.Done()
}

func (s *server) close() error {
	err := s.http.Close()
	s.mu.Lock()
	s.closed = true
	for w := range s.conns {
		w.Close() //nolint:errcheck // the other end may have gone first
	}
	s.mu.Unlock()
	s.ended.Wait()
	return err
}

// request is a REQ.
type request struct {
	sub     string
	filters []nostr.Filter
}

func (r request) live() bool {
	return len(r.filters) > 0 && (r.filters[0].LimitZero || r.filters[0].Limit == 1)
}

// parseRequest reads a client's message; ok is false where it is not a REQ.
func parseRequest(text []byte) (r request, ok bool, err error) {
	var parts []json.RawMessage
	if err := json.Unmarshal(text, &parts); err != nil || len(parts) < 2 {
		return r, false, errors.Join(errors.New("not a message of a client"), err)
	}
	var label string
	if err := errors.Join(json.Unmarshal(parts[0], &label), json.Unmarshal(parts[1], &r.sub)); err != nil || label != "REQ" {
		return r, false, err
	}
	r.filters = make([]nostr.Filter, len(parts)-2)
	for i, p := range parts[2:] {
		if err := json.Unmarshal(p, &r.filters[i]); err != nil {
			return r, false, err
		}
	}
	return r, true, nil
}
