package localrelay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/fiatjaf/eventstore"
	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"
)

// onRequest notes a REQ before its stored events are read, so that nothing published meanwhile is lost.
func (r *Relay) onRequest(ctx context.Context, f *nostr.Filter) {
	if eventstore.IsNegentropySession(ctx) {
		r.mu.Lock()
		r.opened++
		r.mu.Unlock()
		return
	}
	ws, id := khatru.GetConnection(ctx), subscriptionID(ctx)
	if ws == nil || id == "" {
		return
	}
	r.mu.Lock()
	k := subKey{ws, id}
	s := r.subs[k]
	if s.ctx != nil && s.ctx != ctx {
		s = subscription{} // a REQ with a known id replaces the subscription
	}
	s.ctx = ctx
	s.filters = append(s.filters, *f)
	s.request = len(r.requests)
	r.requests = append(r.requests, Request{Client: r.clients[ws], Subscription: id, Filter: *f})
	r.subs[k] = s
	gate := r.gate
	r.mu.Unlock()
	if gate != nil && !f.LimitZero {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
}

// query answers as NIP-01 says, newest first, cut at the limit as eventstore cuts it. The order and the cut are made here:
// eventstore v0.16.2's own page for several authors is not the newest of them, a tag's value is found by its beginning,
// and until is not looked at beside ids. The list is finished, so that a reader who leaves early leaves no goroutine behind.
// A reconciliation is about everything.
func (r *Relay) query(ctx context.Context, f nostr.Filter) (chan *nostr.Event, error) {
	events, err := r.candidates(f)
	if err != nil {
		return nil, err
	}
	limit := r.o.MaxLimit / 4
	if f.Limit > 0 && f.Limit <= r.o.MaxLimit {
		limit = f.Limit
	}
	reconciles := eventstore.IsNegentropySession(ctx)
	var answer []*nostr.Event
	for _, e := range events {
		if len(answer) == limit && !reconciles || f.Since != nil && e.CreatedAt < *f.Since {
			break
		}
		if f.Matches(e) {
			answer = append(answer, e)
		}
	}
	if !reconciles {
		r.answered(ctx, answer)
	}
	out := make(chan *nostr.Event, len(answer))
	defer close(out)
	for _, e := range answer {
		out <- e
	}
	return out, nil
}

// candidates are events that f may match and none dated later than its until, newest first.
func (r *Relay) candidates(f nostr.Filter) ([]*nostr.Event, error) {
	if r.byID != nil && len(f.IDs) > 0 {
		var events []*nostr.Event
		for _, id := range f.IDs {
			if e := r.byID[id]; e != nil {
				events = append(events, e)
			}
		}
		return sorted(events), nil
	}
	events, err := r.All()
	if f.Until != nil {
		events = events[sort.Search(len(events), func(i int) bool { return events[i].CreatedAt <= *f.Until }):]
	}
	return events, err
}

// answered notes what a REQ is answered.
func (r *Relay) answered(ctx context.Context, events []*nostr.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.subs[subKey{khatru.GetConnection(ctx), subscriptionID(ctx)}]; ok { // else the client has left
		r.requests[s.request].Answer = events
		r.sent += len(events)
	}
}

// count answers a COUNT.
func (r *Relay) count(_ context.Context, f nostr.Filter) (n int64, err error) {
	events, err := r.All()
	for _, e := range events {
		if f.Matches(e) {
			n++
		}
	}
	return n, err
}

// All is what the store holds, newest first, of one second the lower id first.
func (r *Relay) All() ([]*nostr.Event, error) {
	if r.o.Static != nil {
		return r.o.Static, nil
	}
	var events []*nostr.Event
	err := r.withStore(func() error {
		ch, err := r.db.QueryEvents(eventstore.SetNegentropy(context.Background()), nostr.Filter{})
		if err != nil {
			return err
		}
		for e := range ch {
			events = append(events, e)
		}
		if len(events) >= maxEvents {
			return fmt.Errorf("a local relay holds %d events, more than it is made for", len(events))
		}
		return nil
	})
	return sorted(events), err
}

func sorted(events []*nostr.Event) []*nostr.Event {
	slices.SortFunc(events, func(a, b *nostr.Event) int {
		return cmp.Or(cmp.Compare(b.CreatedAt, a.CreatedAt), strings.Compare(a.ID, b.ID))
	})
	return events
}

// onEvent notes what a client sent and refuses what the options refuse.
func (r *Relay) onEvent(_ context.Context, e *nostr.Event) (bool, string) {
	r.note(e)
	if r.o.Refuse != nil {
		if text := r.o.Refuse(e); text != "" {
			return true, text
		}
	}
	return false, ""
}

// store and replace hand the event out themselves and answer "duplicate" so that khatru does not (it answers OK true to that).
func (r *Relay) store(ctx context.Context, e *nostr.Event) error {
	if r.o.Static != nil {
		return eventstore.ErrDupEvent
	}
	return r.kept(e, r.withStore(func() error { return r.db.SaveEvent(ctx, e) }))
}

func (r *Relay) replace(ctx context.Context, e *nostr.Event) error {
	if r.o.KeepAll || r.o.Static != nil {
		return r.store(ctx, e)
	}
	// Two versions at once would conflict in the store, which answers "error:" then.
	r.replacing.Lock()
	defer r.replacing.Unlock()
	return r.kept(e, r.withStore(func() error { return r.db.ReplaceEvent(ctx, e) }))
}

// deleting is over all relays: eventstore v0.16.2 counts deletions in one variable of its package, without a lock.
var deleting sync.Mutex

// withStore keeps the store open while f uses it: khatru answers messages in goroutines that outlive their connection.
func (r *Relay) withStore(f func() error) error {
	r.using.RLock()
	defer r.using.RUnlock()
	if r.closed {
		return errClosed
	}
	return f()
}

var errClosed = errors.New("error: the relay is closed")

func (r *Relay) kept(e *nostr.Event, err error) error {
	if err != nil {
		return err
	}
	if err := r.fanOut(e); err != nil {
		return err
	}
	return eventstore.ErrDupEvent
}

// onResponse is called for every event that is answered with OK true, and for every stored event that is sent out. Only
// there a deletion request can be caught: khatru asks no other hook about it.
func (r *Relay) onResponse(ctx context.Context, e *nostr.Event) {
	if e.Kind != nostr.KindDeletion || subscriptionID(ctx) != "" {
		return
	}
	r.note(e)
	if r.o.Static != nil {
		return
	}
	if err := r.withStore(func() error { return r.db.SaveEvent(ctx, e) }); err != nil && err != eventstore.ErrDupEvent {
		r.rl.Log.Printf("store deletion request %s: %v", e.ID, err)
	}
}

func (r *Relay) onConnect(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clients[khatru.GetConnection(ctx)] = len(r.clients) + 1
}

func (r *Relay) onDisconnect(ctx context.Context) {
	ws := khatru.GetConnection(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	for k := range r.subs {
		if k.ws == ws {
			delete(r.subs, k)
		}
	}
}

// onConnState keeps the connections that have become websockets: http.Server forgets those.
func (r *Relay) onConnState(c net.Conn, s http.ConnState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch s {
	case http.StateNew:
		r.accepted++
		r.conns[c] = struct{}{}
	case http.StateClosed:
		delete(r.conns, c)
	}
}

func (r *Relay) note(e *nostr.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received = append(r.received, e)
}

// subscriptionID is the id of the REQ that is being answered, or "" outside of one: khatru's own accessor panics there.
func subscriptionID(ctx context.Context) (id string) {
	defer func() {
		if recover() != nil {
			id = ""
		}
	}()
	return khatru.GetSubscriptionID(ctx)
}
