// Package localrelay is a real relay on the loopback, in this process: khatru over an eventstore database in memory.
// Tests and the demo fill it, let the daemon loose on it, and look at what it was asked and sent.
//
// Two things are done here instead of in khatru. Live events are handed out by Publish, because khatru v0.17.4 walks its
// listeners without its lock (an event published while a REQ arrives may be lost, and the race detector says so). And
// deletion requests are stored, because khatru carries them out and forgets them.
package localrelay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	store "github.com/fiatjaf/eventstore/badger"
	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"
)

// Options of a relay; the zero value is a relay that announces NIPs 1, 9, 11 and 40 and answers pages of 500.
type Options struct {
	// MaxLimit works as eventstore's: a REQ that asks for more, or names no limit, gets a quarter of it, without a word.
	MaxLimit int
	// NIPs that its information document names. nil: khatru's own list, which has 40.
	NIPs []any
	// KeepAll stores every version of a replaceable event and carries out no deletion, as an archive relay does.
	KeepAll bool
	// Negentropy makes it reconcile (NIP-77), and say so.
	Negentropy bool
	// Static is all that it holds, newest first, instead of a store: relays that hold the same share it. What clients send is noted
	// and not kept.
	Static []*nostr.Event
	// Counts makes it answer COUNT (NIP-45), and say so.
	Counts bool
	// Refuse answers an EVENT with OK false and the text, if that is not empty. Called by several goroutines.
	Refuse func(*nostr.Event) string
	// Log takes what khatru says; nil: nobody.
	Log io.Writer
}

// maxEvents is how many a relay may hold: eventstore makes room for so many, twice 16 bytes each, at each reading of all.
const maxEvents = 20_000

// Relay is a relay that runs. It is made by Start and ended by Close.
type Relay struct {
	o      Options
	db     *store.BadgerBackend
	rl     *khatru.Relay
	server *http.Server
	addr   string
	byID   map[string]*nostr.Event // of Options.Static
	served chan struct{}           // closed when the accept loop has ended

	replacing sync.Mutex // one replaceable event at a time

	using  sync.RWMutex // held for reading while the store is used
	closed bool         // under using

	mu       sync.Mutex
	subs     map[subKey]subscription
	received []*nostr.Event // in order of arrival, also what was refused or known
	requests []Request
	clients  map[*khatru.WebSocket]int // their numbers, from 1
	sent     int                       // stored events
	opened   int                       // reconciliations
	conns    map[net.Conn]struct{}
	accepted int           // connections so far
	gate     chan struct{} // answers wait until it is closed; nil: no gate
}

// Request is one filter of a REQ as it came in, and what it was answered.
type Request struct {
	Client       int // number of the websocket, from 1
	Subscription string
	Filter       nostr.Filter
	Answer       []*nostr.Event // stored events, as they were handed to the websocket; they may have met nobody
}

type subKey struct {
	ws *khatru.WebSocket
	id string
}

type subscription struct {
	ctx     context.Context // done when the client closed it or left
	filters []nostr.Filter
	request int // index of the last one in Relay.requests
}

// Start makes a relay and serves it on a free port of 127.0.0.1.
func Start(o Options) (*Relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for a local relay: %w", err)
	}
	r, err := startOn(ln, o)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return r, nil
}

// StartAt is Start on a named address, for a relay that comes back where another one stood.
func StartAt(addr string, o Options) (*Relay, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for a local relay: %w", err)
	}
	r, err := startOn(ln, o)
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return r, nil
}

func startOn(ln net.Listener, o Options) (*Relay, error) {
	if o.MaxLimit == 0 {
		o.MaxLimit = 500
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	r := &Relay{
		o:      o,
		addr:   ln.Addr().String(),
		served: make(chan struct{}),
		subs:   map[subKey]subscription{},

		clients: map[*khatru.WebSocket]int{},
		conns:   map[net.Conn]struct{}{},
	}
	if o.Static != nil {
		r.byID = make(map[string]*nostr.Event, len(o.Static))
		for _, e := range o.Static {
			r.byID[e.ID] = e
		}
	}
	r.db = &store.BadgerBackend{
		MaxLimit: o.MaxLimit,
		BadgerOptionsModifier: func(b badger.Options) badger.Options {
			return b.WithInMemory(true).WithDir("").WithValueDir("").WithLogger(nil).
				WithMemTableSize(8 << 20).WithNumCompactors(2).WithBlockCacheSize(4 << 20)
		},
	}
	if err := r.db.Init(); err != nil {
		return nil, fmt.Errorf("open the store of a local relay: %w", err)
	}
	// Init ties the two limits together; All reads with this one.
	r.db.MaxLimitNegentropy = maxEvents

	r.rl = khatru.NewRelay()
	r.rl.Log = log.New(o.Log, "khatru "+r.addr+" ", log.LstdFlags)
	r.rl.Info.Name = "local relay " + r.addr
	if o.NIPs != nil {
		r.rl.Info.SupportedNIPs = o.NIPs
	}
	r.rl.Negentropy = o.Negentropy
	if o.Counts {
		r.rl.CountEvents = append(r.rl.CountEvents, r.count)
	}
	r.rl.OverwriteFilter = append(r.rl.OverwriteFilter, r.onRequest)
	r.rl.QueryEvents = append(r.rl.QueryEvents, r.query)
	r.rl.RejectEvent = append(r.rl.RejectEvent, r.onEvent)
	r.rl.StoreEvent = append(r.rl.StoreEvent, r.store)
	r.rl.ReplaceEvent = append(r.rl.ReplaceEvent, r.replace)
	r.rl.OverwriteResponseEvent = append(r.rl.OverwriteResponseEvent, r.onResponse)
	r.rl.OnConnect = append(r.rl.OnConnect, r.onConnect)
	r.rl.OnDisconnect = append(r.rl.OnDisconnect, r.onDisconnect)
	if !o.KeepAll {
		r.rl.DeleteEvent = append(r.rl.DeleteEvent, func(ctx context.Context, e *nostr.Event) error {
			deleting.Lock()
			defer deleting.Unlock()
			return r.withStore(func() error { return r.db.DeleteEvent(ctx, e) })
		})
	}

	r.server = &http.Server{Handler: r.rl, ConnState: r.onConnState, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(r.served)
		if err := r.server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			r.rl.Log.Printf("serve: %v", err)
		}
	}()
	return r, nil
}

// URL is where clients find the relay, in the form that the daemon shows.
func (r *Relay) URL() string { return "ws://" + r.addr }

// Addr is host and port.
func (r *Relay) Addr() string { return r.addr }

// Close cuts all connections and ends the relay.
func (r *Relay) Close() error {
	r.Open() // or a held answer would keep its goroutine
	err := r.server.Close()
	r.Drop()
	<-r.served
	r.using.Lock()
	defer r.using.Unlock()
	r.closed = true
	r.db.Close()
	return err
}

// Drop cuts all connections without a word, as a crash or a network does.
func (r *Relay) Drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		c.Close() //nolint:errcheck // nothing is told about a connection that is cut on purpose
		delete(r.conns, c)
	}
}

// Hold makes every REQ that asks for stored events wait until Open.
func (r *Relay) Hold() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate == nil {
		r.gate = make(chan struct{})
	}
}

// Open ends Hold.
func (r *Relay) Open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate != nil {
		close(r.gate)
		r.gate = nil
	}
}

// Load puts events into the store as they are: no signature is checked, nothing replaced, nothing deleted, nobody told.
func (r *Relay) Load(events ...*nostr.Event) error {
	for _, e := range events {
		if err := r.withStore(func() error { return r.db.SaveEvent(context.Background(), e) }); err != nil {
			return fmt.Errorf("store event %s: %w", e.ID, err)
		}
	}
	return nil
}

// Lose takes events out of the store; nobody is told.
func (r *Relay) Lose(events ...*nostr.Event) error {
	for _, e := range events {
		if err := r.withStore(func() error { return r.db.DeleteEvent(context.Background(), e) }); err != nil {
			return fmt.Errorf("lose event %s: %w", e.ID, err)
		}
	}
	return nil
}

// Publish stores an event (an ephemeral one excepted) and hands it to every subscription that it fits.
func (r *Relay) Publish(e *nostr.Event) error {
	if !nostr.IsEphemeralKind(e.Kind) {
		if err := r.Load(e); err != nil {
			return err
		}
	}
	return r.fanOut(e)
}

func (r *Relay) fanOut(e *nostr.Event) error {
	r.mu.Lock()
	var to []subKey
	for k, s := range r.subs {
		if s.ctx.Err() != nil {
			delete(r.subs, k)
			continue
		}
		if nostr.Filters(s.filters).Match(e) {
			to = append(to, k)
		}
	}
	r.mu.Unlock()
	for _, k := range to {
		if err := k.ws.WriteJSON(nostr.EventEnvelope{SubscriptionID: &k.id, Event: *e}); err != nil {
			r.rl.Log.Printf("send %s: %v", e.ID, err) // the client has gone meanwhile
		}
	}
	return nil
}

// Received are the events that clients sent, in order of arrival, whatever became of them. What khatru answers before any
// hook is not among them: a wrong id or signature, a protected event (NIP-70).
func (r *Relay) Received() []*nostr.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*nostr.Event(nil), r.received...)
}

// Requests are the REQs so far, one entry per filter.
func (r *Relay) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Request(nil), r.requests...)
}

// Reconciliations counts the NEG-OPENs so far.
func (r *Relay) Reconciliations() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opened
}

// Connections counts how often somebody connected, for NIP-11 documents too.
func (r *Relay) Connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// Subscribed says whether a live subscription is open: one that asked for no stored events (limit 0), or at most one.
func (r *Relay) Subscribed() bool { return r.Live() > 0 }

// Live counts the live subscriptions that are open.
func (r *Relay) Live() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subs {
		if s.ctx.Err() == nil && slices.ContainsFunc(s.filters, func(f nostr.Filter) bool { return f.LimitZero || f.Limit == 1 }) {
			n++
		}
	}
	return n
}

// Asking counts the subscriptions for stored events that are open.
func (r *Relay) Asking() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subs {
		if s.ctx.Err() == nil && slices.ContainsFunc(s.filters, func(f nostr.Filter) bool { return !f.LimitZero }) {
			n++
		}
	}
	return n
}

// Sent counts the stored events that were sent, or handed to a websocket whose other end had gone.
func (r *Relay) Sent() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent
}
