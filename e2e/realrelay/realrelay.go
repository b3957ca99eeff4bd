// Package realrelay is a relay as people run them, for a process of its own: khatru over eventstore's badger in memory, filled from a file.
// It counts what it gives.
package realrelay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	store "github.com/fiatjaf/eventstore/badger"
	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"
)

// PageCap is the most events that it gives at once.
const PageCap = 500

// Served is what a relay has given so far.
type Served struct {
	Events int64 `json:"events"`
	Pages  int64 `json:"pages"` // REQs answered from the store
}

// Relay is a relay that runs. It is made by Start and ended by Close.
type Relay struct {
	URL string

	db      *store.BadgerBackend
	rl      *khatru.Relay
	server  *http.Server
	stopped chan error
	served  Served // atomic
}

// Start serves the events of a file, one a line, on a free port of 127.0.0.1. eventstore's badger makes pages for a tenth of what sending
// them costs; its slicestore would be cheaper still, but leaves out the events of the second that a REQ's since names.
func Start(file string) (*Relay, error) {
	r := &Relay{stopped: make(chan error, 1)}
	r.db = &store.BadgerBackend{MaxLimit: PageCap, BadgerOptionsModifier: func(b badger.Options) badger.Options {
		return b.WithInMemory(true).WithDir("").WithValueDir("").WithLogger(nil)
	}}
	if err := r.db.Init(); err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	if err := load(file, func(e *nostr.Event) error { return r.db.SaveEvent(context.Background(), e) }); err != nil {
		r.db.Close()
		return nil, err
	}
	r.rl = khatru.NewRelay()
	r.rl.Log = log.New(io.Discard, "", 0)
	r.rl.QueryEvents = append(r.rl.QueryEvents, func(ctx context.Context, f nostr.Filter) (chan *nostr.Event, error) {
		atomic.AddInt64(&r.served.Pages, 1)
		return r.db.QueryEvents(ctx, f)
	})
	r.rl.OverwriteResponseEvent = append(r.rl.OverwriteResponseEvent, func(context.Context, *nostr.Event) { atomic.AddInt64(&r.served.Events, 1) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.db.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	r.URL = "ws://" + ln.Addr().String()
	r.server = &http.Server{Handler: r.rl, ReadHeaderTimeout: 10 * time.Second}
	go func() { r.stopped <- r.server.Serve(ln) }()
	return r, nil
}

// Handle answers another path, beside the relay's.
func (r *Relay) Handle(path string, h http.HandlerFunc) { r.rl.Router().HandleFunc(path, h) }

// Served is what it has given.
func (r *Relay) Served() Served {
	return Served{Events: atomic.LoadInt64(&r.served.Events), Pages: atomic.LoadInt64(&r.served.Pages)}
}

// Close ends it. Connections end with the process, or when their clients go.
func (r *Relay) Close() error {
	err := r.server.Close()
	if end := <-r.stopped; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}

// load reads a file of events.
func load(file string, take func(*nostr.Event) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e := new(nostr.Event)
		if err := json.Unmarshal(lines.Bytes(), e); err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if err := take(e); err != nil {
			return fmt.Errorf("take %s: %w", e.ID, err)
		}
	}
	return lines.Err()
}
