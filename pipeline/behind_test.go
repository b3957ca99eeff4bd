package pipeline

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/report"
)

// counter is a relay that takes every event and keeps nothing but which it got, so that what grows is ours.
type counter struct {
	url   string
	got   []atomic.Uint32 // times, by number
	total atomic.Int64
	all   chan struct{} // closed when every number was got
	step  int64
	tick  func(total int64) // every step events
}

// newCounter is such a relay for events numbered below n.
func newCounter(t testing.TB, n int, tick func(int64)) *counter {
	c := &counter{got: make([]atomic.Uint32, n), all: make(chan struct{}), step: int64(n / 20), tick: tick}
	var conns sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conns.Add(1)
		defer conns.Done()
		if !websocket.IsWebSocketUpgrade(r) {
			http.NotFound(w, r)
			return
		}
		up := websocket.Upgrader{ReadBufferSize: 64 << 10, CheckOrigin: func(*http.Request) bool { return true }}
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		c.serve(t, ws)
	}))
	t.Cleanup(func() { conns.Wait(); server.Close() })
	c.url = "ws" + strings.TrimPrefix(server.URL, "http")
	return c
}

func (c *counter) serve(t testing.TB, ws *websocket.Conn) {
	const head = `["EVENT",{"id":"`
	var buf bytes.Buffer
	answer := []byte(`["OK","` + strings.Repeat("0", 64) + `",true,""]`)
	for {
		_, r, err := ws.NextReader()
		if err != nil {
			return
		}
		buf.Reset()
		if _, err := buf.ReadFrom(r); err != nil {
			return
		}
		frame := buf.Bytes()
		if !bytes.HasPrefix(frame, []byte(head)) {
			continue
		}
		id := frame[len(head):][:64]
		var number [8]byte
		if _, err := hex.Decode(number[:], id[:16]); err != nil {
			t.Errorf("an event that was never archived: %s", frame)
			return
		}
		if n := binary.BigEndian.Uint64(number[:]); c.got[n].Add(1) == 1 {
			total := c.total.Add(1)
			if total%c.step == 0 {
				c.tick(total)
			}
			if total == int64(len(c.got)) {
				close(c.all)
			}
		}
		copy(answer[len(`["OK","`):], id)
		if ws.WriteMessage(websocket.TextMessage, answer) != nil {
			return
		}
	}
}

// numbered is an event of some 450 bytes whose id begins with its number. Nothing checks it on its way from the archive to
// a sink.
func numbered(t testing.TB, n int) (e event.Event) {
	line := fmt.Appendf(nil, `{"id":"%016x%048x","pubkey":"%064x","created_at":%d,"kind":1,"tags":[],"content":"%s","sig":"%0128x"}`,
		n, n, n%100, 1_700_000_000+n, strings.Repeat("x", 100), n)
	if err := event.Parse(line, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// behind archives n events in a Mirror without sinks.
func behind(t *testing.T, cfg *config.Config, n int) *rig {
	r := begin(t, cfg, Options{})
	for i := range n {
		if err := r.store.Archive.Append(t.Context(), numbered(t, i), record.Origin{}); err != nil {
			t.Fatal(err)
		}
	}
	answer := make(chan error, 1)
	if err := r.store.Archive.Barrier(t.Context(), answer); err != nil {
		t.Fatal(err)
	}
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	return r
}

// TestFarBehind: a sink that is 200,000 events behind gets each once, and the heap stays as it was at the beginning: the
// archive is the queue. The same goes for a second pass over as many.
func TestFarBehind(t *testing.T) {
	n := 200_000
	if raceDetector { // which makes it ten times as slow
		n /= 10
	}
	for name, narrow := range map[string]bool{"down for a week": false, "a wider filter": true} {
		t.Run(name, func(t *testing.T) {
			var heap heap
			sink := newCounter(t, n, func(int64) { heap.look() })
			cfg := testConfig(t, nil, nil)
			r := behind(t, cfg, n)
			with := *cfg
			with.Sinks = []config.Sink{{URL: sink.url, Enabled: true}}
			if narrow {
				none := *cfg
				none.Sinks = []config.Sink{{URL: sink.url, Enabled: true, Only: []event.Filter{{Kinds: []int{7}}}}}
				begun := time.Now()
				if err := r.m.Apply(&none); err != nil {
					t.Fatal(err)
				}
				r.eventually("everything is held back", func(s report.Status) bool { return settled(s) && s.Sinks[0].Skipped == int64(n) })
				t.Logf("held back: %.0f events/s", float64(n)/time.Since(begun).Seconds())
			}
			begun := time.Now()
			if err := r.m.Apply(&with); err != nil {
				t.Fatal(err)
			}
			select {
			case <-sink.all:
			case <-time.After(2 * time.Minute):
				t.Fatalf("the sink has %d of %d events after two minutes", sink.total.Load(), n)
			}
			t.Logf("delivered: %.0f events/s", float64(n)/time.Since(begun).Seconds())
			r.eventually("nothing is pending", func(s report.Status) bool { return settled(s) && s.Sinks[0].Recheck == 0 })
			if k := r.stop().Sinks[0]; k.Delivered != int64(n) || k.Skipped != 0 {
				t.Errorf("the ledger says %d delivered, %d skipped, want %d and none", k.Delivered, k.Skipped, n)
			}
			for i := range sink.got {
				if times := sink.got[i].Load(); times != 1 {
					t.Fatalf("event %d was sent %d times, want once", i, times)
				}
			}
			heap.flat(t, 16<<20)
		})
	}
}

// heap is what is live, looked at now and then.
type heap struct {
	mu          sync.Mutex
	first, most uint64
}

func (h *heap) look() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.first == 0 {
		h.first = m.HeapAlloc
	}
	h.most = max(h.most, m.HeapAlloc)
}

// flat fails if it grew by more than slack bytes after the first look.
func (h *heap) flat(t *testing.T, slack uint64) {
	t.Helper()
	t.Logf("live heap: %.1f MiB at first, %.1f MiB at most", float64(h.first)/(1<<20), float64(h.most)/(1<<20))
	if h.most > h.first+slack {
		t.Errorf("the live heap grew from %d to %d bytes, want at most %d more", h.first, h.most, slack)
	}
}
