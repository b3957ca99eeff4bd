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
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rebroadcastr/config"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
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

// realEvents are n events with the kinds, tags and contents of real ones, signed anew, one a line.
func realEvents(tb testing.TB, n int) string {
	f, err := os.Open(filepath.Join("..", "testdata", "relay-messages.jsonl"))
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close() // read only
	type event struct {
		Kind    int
		Tags    [][]string
		Content string
	}
	var from []event
	lines := bufio.NewScanner(f)
	for lines.Buffer(nil, 1<<20); lines.Scan(); {
		var msg []json.RawMessage
		var e event
		if json.Unmarshal(lines.Bytes(), &msg) != nil || len(msg) < 3 || json.Unmarshal(msg[2], &e) != nil || e.Kind >= 20_000 {
			continue
		}
		from = append(from, e)
	}
	var b strings.Builder
	for i := range n {
		e := from[i%len(from)]
		b.WriteString(relaytest.Sign(relaytest.Key(1+i%50), e.Kind, 1_700_000_000+int64(i), e.Tags, e.Content))
		b.WriteByte('\n')
	}
	return b.String()
}

// copiesRig is a Mirror that knows all that its sources will send.
type copiesRig struct {
	*rig
	url    string
	doors  []*sources.Door
	perNew float64 // ns of CPU for an event when it was new
	tell   io.WriteCloser
	answer *bufio.Scanner
}

func newCopiesRig(tb testing.TB, events string, conns int, secure bool, settings func(*relay.Settings)) *copiesRig {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "events.jsonl")
	if err := os.WriteFile(file, []byte(events), 0o600); err != nil {
		tb.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), copiesFile+"="+file)
	child.Stderr = os.Stderr
	in, err := child.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := child.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		in.Close()
		_ = child.Wait()
	})
	c := &copiesRig{tell: in, answer: bufio.NewScanner(out)}
	if !c.answer.Scan() {
		tb.Fatal("the relays' process does not start")
	}
	urls := strings.Fields(c.answer.Text())
	cfg := testConfig(tb, nil, nil)
	settings(&cfg.Default)
	cfg.Default.TLS.InsecureSkipVerify = secure
	cfg.History.None = true
	url := urls[0]
	if secure {
		url = urls[1]
	}
	c.url = url
	for i := range conns {
		cfg.Sources = append(cfg.Sources, config.Source{URL: fmt.Sprintf("%s/%d", url, i), Enabled: true, History: cfg.History})
	}
	c.rig = begin(tb, cfg, Options{})
	c.send(fmt.Sprint("wait ", conns))
	for _, l := range c.m.sorted() {
		source, _ := l.roles()
		c.doors = append(c.doors, source.door)
	}
	n, before := strings.Count(events, "\n"), cpuTime()
	c.send("all")
	c.await("all is archived", func() bool { return c.m.Status().Archive.Lines == uint64(n) })
	c.perNew = float64(cpuTime()-before) / float64(n)
	return c
}

func (c *copiesRig) await(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			c.t.Fatalf("within a minute: %s; %+v", what, c.m.Status())
		}
	}
}

// send has the relays send something and returns how many bytes that was.
func (c *copiesRig) send(what string) (sent int) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.tell, what); err != nil {
		c.t.Fatal(err)
	}
	if !c.answer.Scan() {
		c.t.Fatal("the relays' process has ended")
	}
	_, _ = fmt.Sscan(c.answer.Text(), &sent)
	return sent
}

// copies dropped so far.
func (c *copiesRig) copies() (n int64) {
	for _, door := range c.doors {
		n += door.Tally.Copies.Load()
	}
	return n
}

// measure has n copies sent in the given manner and returns when they were dropped.
func (c *copiesRig) measure(how string, n int) (cpu time.Duration, sent int) {
	c.t.Helper()
	before, began := c.copies(), cpuTime()
	sent = c.send(fmt.Sprint(how, " ", n/len(c.cfg.Sources)))
	want := int64(n / len(c.cfg.Sources) * len(c.cfg.Sources))
	c.await("all copies are dropped", func() bool { return c.copies()-before == want })
	return cpuTime() - began, sent
}

// bare reads the same from the same sockets and does nothing else: what the kernel and the runtime cost.
func (c *copiesRig) bare(how string, conns, n int) (cpu time.Duration, sent int) {
	c.t.Helper()
	c.send("forget")
	var got atomic.Int64
	var readers sync.WaitGroup
	defer readers.Wait() // deferred first: all are closed by then
	for i := range conns {
		ws, _, err := websocket.DefaultDialer.Dial(fmt.Sprintf("%s/bare/%d", c.url, i), nil)
		if err != nil {
			c.t.Fatal(err)
		}
		defer ws.Close()
		if err := ws.WriteMessage(websocket.TextMessage, []byte(`["REQ","live-0",{}]`)); err != nil {
			c.t.Fatal(err)
		}
		if _, _, err := ws.ReadMessage(); err != nil {
			c.t.Fatal(err)
		}
		readers.Go(func() {
			buf := make([]byte, 64<<10)
			for {
				n, err := ws.NetConn().Read(buf)
				if got.Add(int64(n)); err != nil {
					return
				}
			}
		})
	}
	c.send(fmt.Sprint("wait ", conns))
	began := cpuTime()
	sent = c.send(fmt.Sprint(how, " ", n/conns))
	c.await("all bytes are read", func() bool { return got.Load() == int64(sent) })
	return cpuTime() - began, sent
}

// cpuTime is this process's, in its own code and the kernel's.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCopies is a copy of a known event from the socket to its drop, in a whole Mirror with its archive; the events are
// real ones. cpu-ns/copy is all processor time of this process, the relays are another one; cpu-ns/new is what the 2,000 events
// cost before that, when they were new. "flood" is as fast as can be, "narrow" a line of 10 Mbit/s, "turns" one message at a
// time from one relay after the other, 10,000 a second: there each message wakes a reader, and nearly all of the figure is what
// the kernel and the runtime take for that. "bare" reads the same and does nothing with it.
//
//	go test -tags libsecp256k1 -run '^$' -bench BenchmarkCopies ./pipeline
func BenchmarkCopies(b *testing.B) {
	events := realEvents(b, 2_000)
	for _, k := range []struct {
		name    string
		how     string
		conns   int
		secure  bool
		deflate bool
		bare    bool
	}{
		{name: "flood/1", how: "flood", conns: 1},
		{name: "flood/16", how: "flood", conns: 16},
		{name: "flood/64", how: "flood", conns: 64},
		{name: "bare-flood/1", how: "flood", conns: 1, bare: true},
		{name: "turns/1", how: "turns", conns: 1},
		{name: "turns/16", how: "turns", conns: 16},
		{name: "turns/64", how: "turns", conns: 64},
		{name: "bare-turns/1", how: "turns", conns: 1, bare: true},
		{name: "bare-turns/16", how: "turns", conns: 16, bare: true},
		{name: "bare-turns/64", how: "turns", conns: 64, bare: true},
		{name: "tls-flood/1", how: "flood", conns: 1, secure: true},
		{name: "tls-turns/16", how: "turns", conns: 16, secure: true},
		{name: "narrow/1", how: "narrow", conns: 1},
		{name: "deflate-flood/1", how: "flood", conns: 1, deflate: true},
		{name: "deflate-turns/16", how: "turns", conns: 16, deflate: true},
		{name: "deflate-narrow/1", how: "narrow", conns: 1, deflate: true},
	} {
		var c *copiesRig
		all := b
		b.Run(k.name, func(b *testing.B) {
			if c == nil {
				c = newCopiesRig(all, events, k.conns, k.secure, func(s *relay.Settings) { s.Compression = k.deflate })
			}
			n := max(b.N/k.conns, 1) * k.conns
			var cpu time.Duration
			var sent int
			b.ReportAllocs()
			b.ResetTimer()
			if k.bare {
				cpu, sent = c.bare(k.how, k.conns, n)
			} else {
				cpu, sent = c.measure(k.how, n)
			}
			b.StopTimer()
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(n), "cpu-ns/copy")
			b.ReportMetric(c.perNew, "cpu-ns/new")
			b.ReportMetric(float64(sent)/float64(n), "wire-B/copy")
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "copies/s")
		})
		if c != nil {
			c.stop()
			c.tell.Close() // that process ends too
		}
	}
}

// TestCopiesAllocateNothing bounds what BenchmarkCopies shows: from the socket to the drop a copy allocates nothing. What the
// rest of the program does meanwhile is counted too, so the bound is one in a hundred copies, and the best of some tries counts.
func TestCopiesAllocateNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates")
	}
	const n, most = 20_000, 200
	c := newCopiesRig(t, realEvents(t, 200), 4, false, func(*relay.Settings) {})
	least := uint64(math.MaxUint64)
	for try := 0; try < 10 && least > most; try++ {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c.measure("flood", n)
		runtime.ReadMemStats(&after)
		least = min(least, after.Mallocs-before.Mallocs)
	}
	c.stop()
	if least > most {
		t.Errorf("%d copies cost %d allocations, want at most %d", n, least, most)
	}
	t.Logf("%d allocations for %d copies", least, n)
}
