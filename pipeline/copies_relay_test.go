package pipeline

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"
)

// The relays of BenchmarkCopies are another process, this test binary started once more, so that what the operating system
// counts of ours is what copies cost us. It reads the events from a file, one a line, and is told on its standard input what
// to send:
//
//	wait N            nothing, once N connections have asked for what is live
//	all               every event once, to the first of them
//	forget            nothing, to the connections so far, from here on
//	flood N           N events to each connection, as fast as they are taken
//	turns N           N events, each to every connection, one after the other, at 10,000 messages a second
//	narrow N          N events to each connection, 10 Mbit/s in all
//
// and answers each with the bytes of websocket frames that it has sent.
const (
	copiesFile = "REBROADCASTR_COPIES" // of the environment
	turnsPace  = 100 * time.Microsecond
	narrowByte = 800 * time.Nanosecond // 10 Mbit/s
)

// copies are that process's relays: one address, a connection for each path.
type copies struct {
	plain, deflated [][]byte // frames

	mu    sync.Mutex
	conns []*copiesConn // that have asked
	asked chan struct{} // one for each
}

type copiesConn struct {
	ws     *websocket.Conn
	frames [][]byte
	next   int
}

func sendCopies(file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	s := &copies{asked: make(chan struct{})}
	for line := range strings.Lines(string(text)) {
		msg := `["EVENT","live-0",` + strings.TrimSuffix(line, "\n") + `]`
		s.plain = append(s.plain, serverFrame(0x81, []byte(msg)))
		s.deflated = append(s.deflated, serverFrame(0xc1, deflate(msg)))
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	server.EnableHTTP2 = false
	server.Start()
	secure := httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	secure.Listener = gathering{secure.Listener}
	secure.StartTLS()
	fmt.Printf("ws%s ws%s\n", strings.TrimPrefix(server.URL, "http"), strings.TrimPrefix(secure.URL, "http"))
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var how string
		var n int
		_, _ = fmt.Sscan(lines.Text(), &how, &n)
		if how == "wait" {
			for range n {
				<-s.asked
			}
		}
		s.mu.Lock()
		fmt.Println(s.send(how, n))
		s.mu.Unlock()
	}
}

func (s *copies) serve(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsWebSocketUpgrade(r) {
		http.NotFound(w, r)
		return
	}
	ws, err := (&websocket.Upgrader{EnableCompression: true}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer ws.Close()
	c := &copiesConn{ws: ws, frames: s.plain}
	if r.Header.Get("Sec-Websocket-Extensions") != "" {
		c.frames = s.deflated
	}
	for {
		_, msg, err := ws.ReadMessage()
		if err != nil {
			return
		}
		var m []json.RawMessage
		if json.Unmarshal(msg, &m) != nil || string(m[0]) != `"REQ"` {
			continue
		}
		s.mu.Lock()
		_, _ = ws.NetConn().Write(serverFrame(0x81, fmt.Appendf(nil, `["EOSE",%s]`, m[1])))
		if string(m[1]) == `"live-0"` {
			s.conns = append(s.conns, c)
		}
		s.mu.Unlock()
		if string(m[1]) == `"live-0"` {
			s.asked <- struct{}{}
		}
	}
}

// send returns the bytes sent.
func (s *copies) send(how string, n int) (bytes int) {
	switch how {
	case "forget":
		s.conns = nil
	case "all":
		return s.conns[0].flood(len(s.plain))
	case "flood":
		var wg sync.WaitGroup
		sent := make([]int, len(s.conns))
		for i, c := range s.conns {
			wg.Go(func() { sent[i] = c.flood(n) })
		}
		wg.Wait()
		for _, n := range sent {
			bytes += n
		}
	case "turns", "narrow":
		for next := time.Now(); n > 0; n-- {
			for _, c := range s.conns {
				m, _ := c.ws.NetConn().Write(c.take())
				bytes += m
				if how == "turns" {
					next = next.Add(turnsPace)
				} else {
					next = next.Add(time.Duration(m) * narrowByte)
				}
			}
			for wait := time.Until(next); wait > 0; wait = time.Until(next) {
				pause := syscall.NsecToTimespec(int64(wait)) // a timer of Go's is not that fine
				_ = syscall.Nanosleep(&pause, nil)
			}
			if late := time.Since(next); late > 0 && how == "turns" { // what was missed is not made up for
				next = next.Add(late)
			}
		}
	}
	return bytes
}

func (c *copiesConn) take() []byte {
	f := c.frames[c.next]
	c.next = (c.next + 1) % len(c.frames)
	return f
}

// gathered below TLS is what flood writes: large pieces of small records, one a message as of a real relay.
type gathered struct {
	net.Conn
	most  int
	piece []byte
}

type gathering struct{ net.Listener }

func (l gathering) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &gathered{Conn: conn}, err
}

func (g *gathered) Write(p []byte) (int, error) {
	g.piece = append(g.piece, p...)
	if len(g.piece) > g.most {
		_, err := g.Conn.Write(g.piece)
		g.piece = g.piece[:0]
		return len(p), err
	}
	return len(p), nil
}

// flood writes large pieces, so that it is faster than who reads.
func (c *copiesConn) flood(n int) (bytes int) {
	if over, ok := c.ws.NetConn().(*tls.Conn); ok {
		g := over.NetConn().(*gathered)
		for g.most = 128 << 10; n > 0; n-- {
			if n == 1 {
				g.most = 0
			}
			m, err := over.Write(c.take())
			if bytes += m; err != nil {
				return bytes
			}
		}
		return bytes
	}
	piece := make([]byte, 0, 256<<10)
	for ; n > 0; n-- {
		piece = append(piece, c.take()...)
		if len(piece) > 128<<10 || n == 1 {
			m, err := c.ws.NetConn().Write(piece)
			if bytes += m; err != nil {
				return bytes
			}
			piece = piece[:0]
		}
	}
	return bytes
}

func serverFrame(first byte, payload []byte) []byte {
	switch n := len(payload); {
	case n < 126:
		return append([]byte{first, byte(n)}, payload...)
	case n < 1<<16:
		return append(binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(n)), payload...)
	default:
		return append(binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(n)), payload...)
	}
}

// deflate is a message's payload under permessage-deflate without context, at the level of gorilla's servers.
func deflate(msg string) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 1)
	_, _ = io.WriteString(w, msg)
	_ = w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}
