package sinks

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/relay"
)

// BenchmarkStageLedger opens and settles an event while the window is full: the oldest is answered, and another one is sent.
func BenchmarkStageLedger(b *testing.B) {
	db := openState(b, filepath.Join(b.TempDir(), "state.db"))
	defer db.Close()
	l := mustLedger(b, db)
	window := make([]item, relay.DefaultSettings().Window)
	var rec record.Record
	next := func(n int) item {
		rec.Ordinal, rec.Place, rec.End = uint64(n), place.Make(1, uint64(n)*300), place.Make(1, uint64(n+1)*300)
		it, err := l.Next(&rec)
		if err != nil {
			b.Fatal(err)
		}
		return it
	}
	for n := range window {
		window[n] = next(n)
	}
	b.ReportAllocs()
	for n := len(window); b.Loop(); n++ {
		oldest := &window[n%len(window)]
		l.Ack(*oldest, delivered)
		*oldest = next(n)
		if l.Uncommitted() >= commitAfter {
			if err := l.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkStageSinkWindow is a sink with its window always full, over a socket, to a relay that answers OK to each event in the
// order they come and keeps nothing, up to the commit of its ledger: let it run for seconds. The relay's work is in the figure, and
// two of the allocations: gorilla's reader and writer of a message.
func BenchmarkStageSinkWindow(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(answerOK))
	defer server.Close()
	url := "ws" + strings.TrimPrefix(server.URL, "http")
	db := openState(b, filepath.Join(b.TempDir(), "state.db"))
	defer db.Close()
	log := newEndless(b)
	s, err := New(Options{URL: url, State: db, Open: log.Open, End: log.End, Settings: relay.DefaultSettings(), Log: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	link := relay.NewLink(relay.LinkOptions{URL: url, Settings: relay.DefaultSettings(), Log: zerolog.Nop()})
	link.Add("sink", s)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- link.Run(ctx) }()
	deliver := func(n int) {
		if err := s.Settled(ctx, log.grow(n)); err != nil {
			b.Fatal(err)
		}
	}
	deliver(1000) // connected, and its buffers grown
	b.SetBytes(int64(len(log.events[0].Line)))
	b.ReportAllocs()
	b.ResetTimer()
	deliver(b.N)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "acks/s")
	cancel()
	if err := errors.Join(<-ended, s.Flush(b.Context())); err != nil {
		b.Fatal(err)
	}
}

// answerOK is a relay that takes everything and looks at nothing.
func answerOK(w http.ResponseWriter, r *http.Request) {
	if !websocket.IsWebSocketUpgrade(r) {
		http.NotFound(w, r)
		return
	}
	ws, err := (&websocket.Upgrader{}).Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer ws.Close()
	const before = `["EVENT",{"id":"`
	frame := make([]byte, 4096)
	ok := []byte(`["OK","` + strings.Repeat("0", 64) + `",true,""]`)
	for {
		_, in, err := ws.NextReader()
		if err != nil {
			return
		}
		n := 0
		for err == nil {
			var m int
			m, err = in.Read(frame[n:])
			n += m
		}
		copy(ok[len(`["OK","`):], frame[len(before):len(before)+64])
		if ws.WriteMessage(websocket.TextMessage, ok) != nil {
			return
		}
	}
}

// endless is an archive that has the same events again and again, each time under another ordinal.
type endless struct {
	growing
	events []event.Event
	next   uint64
}

func newEndless(b *testing.B) *endless {
	l := &endless{}
	for _, line := range bare(2000) {
		var e event.Event
		if err := event.Parse([]byte(line), &e); err != nil {
			b.Fatal(err)
		}
		l.events = append(l.events, e)
	}
	return l
}

func (l *endless) grow(n int) (end uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next += uint64(n)
	l.grewLocked()
	return l.next
}

func (l *endless) place(ordinal uint64) place.Place { return place.Make(1, ordinal*300) }

func (l *endless) End() (place.Place, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.place(l.next), l.next
}

func (l *endless) Open(from place.Place) (Reader, error) {
	return &endlessReader{l, from.Offset() / 300}, nil
}

type endlessReader struct {
	log *endless
	at  uint64
}

func (r *endlessReader) TryNext() (record.Record, bool, error) {
	if _, end := r.log.End(); r.at >= end {
		return record.Record{}, false, nil
	}
	n := r.at
	r.at++
	return record.Record{Place: r.log.place(n), End: r.log.place(n + 1), Ordinal: n, Event: r.log.events[n%uint64(len(r.log.events))]}, true, nil
}

func (r *endlessReader) Next(ctx context.Context) (record.Record, error) { return r.log.wait(ctx, r) }

func (r *endlessReader) Close() error { return nil }
