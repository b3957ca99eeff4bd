package pipeline

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
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
