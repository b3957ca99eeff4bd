package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
)

// flood serves one websocket that sends n text frames, as fast as they are taken, and then waits for its end.
func flood(b *testing.B, frame string, n int) (url string) {
	b.Helper()
	// Frames are made once and written in large pieces, so that the figure is the reader's.
	one := serverFrame(frame)
	per := max(1, (256<<10)/len(one))
	block := []byte(strings.Repeat(one, per))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !websocket.IsWebSocketUpgrade(r) {
			http.NotFound(w, r)
			return
		}
		ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		if _, _, err := ws.ReadMessage(); err != nil {
			return
		}
		for left := n; left > 0; left -= per {
			if _, err := ws.NetConn().Write(block[:min(left, per)*len(one)]); err != nil {
				return
			}
		}
		_, _, _ = ws.ReadMessage()
	}))
	b.Cleanup(server.Close)
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

func serverFrame(text string) string {
	n := len(text)
	return string([]byte{0x81, 126, byte(n >> 8), byte(n)}) + text
}

// BenchmarkStageRead is an EVENT message of 1.1 kB from the socket to a handler and back: all that a known event costs but
// its scan and its lookup. It allocates nothing. The sender's system calls run beside it and are in the figure.
func BenchmarkStageRead(b *testing.B) {
	frame := `["EVENT","live-0",{"id":"` + strings.Repeat("a", 64) + `","content":"` + strings.Repeat("x", 1000) + `"}]`
	benchmark(b, frame, func(s *Session, left *int, done chan struct{}) *Handler {
		return &Handler{Event: func(f []byte) {
			s.Progress()
			if *left--; *left == 0 {
				close(done)
			}
		}}
	})
}

// BenchmarkReadNoEvent is a short message that is parsed in full: the slow way.
func BenchmarkReadNoEvent(b *testing.B) {
	benchmark(b, `["CLOSED","page-1","error: shutting down idle subscription"]`, func(s *Session, left *int, done chan struct{}) *Handler {
		return &Handler{Closed: func(_, _ string) {
			if *left--; *left == 0 {
				close(done)
			}
		}}
	})
}

func benchmark(b *testing.B, frame string, handler func(s *Session, left *int, done chan struct{}) *Handler) {
	url := flood(b, frame, b.N)
	l := NewLink(LinkOptions{URL: url, Dial: (&net.Dialer{}).DialContext})
	left, done := b.N, make(chan struct{})
	l.Add("source", roleFunc(func(ctx context.Context, s *Session) error {
		s.Handle(handler(s, &left, done))
		b.ReportAllocs()
		b.SetBytes(int64(len(frame)))
		b.ResetTimer()
		if err := s.Send(ctx, []byte(`["REQ","live-0",{}]`)); err != nil {
			return err
		}
		select {
		case <-done:
			b.StopTimer()
			return nil
		case <-ctx.Done():
			return errors.New("ended early")
		}
	}))
	if err := l.Run(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkParseOK(b *testing.B) {
	frame := []byte(`["OK","` + strings.Repeat("ab", 32) + `",true,""]`)
	b.ReportAllocs()
	var m message
	for b.Loop() {
		if parse(frame, &m) != "" || !m.ok {
			b.Fatal("not understood")
		}
	}
}

// TestReadingAllocatesNothing is BenchmarkStageRead's claim, as a test.
func TestReadingAllocatesNothing(t *testing.T) {
	r := testing.Benchmark(BenchmarkStageRead)
	if r.N > 1000 && r.AllocsPerOp() > 0 {
		t.Errorf("%d allocations a message, of %d bytes, want none", r.AllocsPerOp(), r.AllocedBytesPerOp())
	}
}

// BenchmarkSend is an EVENT message of 0.7 kB from SendAll to the socket, thirty-two at a time: framing, masking and a 90th of a
// system call. Whoever reads them runs beside it and is in the figure.
func BenchmarkSend(b *testing.B) {
	msg := []byte(`["EVENT",{"id":"` + strings.Repeat("a", 64) + `","content":"` + strings.Repeat("x", 600) + `"}]`)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil); err == nil {
			defer ws.Close()
			_, _ = io.Copy(io.Discard, ws.NetConn())
		}
	}))
	b.Cleanup(server.Close)
	l := NewLink(LinkOptions{URL: "ws" + strings.TrimPrefix(server.URL, "http"), Dial: (&net.Dialer{}).DialContext})
	l.Add("sink", roleFunc(func(ctx context.Context, s *Session) error {
		all := make([][]byte, 32)
		for i := range all {
			all[i] = msg
		}
		b.ReportAllocs()
		b.SetBytes(int64(len(msg)))
		b.ResetTimer()
		for left := b.N; left > 0; left -= len(all) {
			if err := s.SendAll(ctx, all[:min(left, len(all))]); err != nil {
				return err
			}
		}
		b.StopTimer()
		return nil
	}))
	if err := l.Run(b.Context()); err != nil {
		b.Fatal(err)
	}
}
