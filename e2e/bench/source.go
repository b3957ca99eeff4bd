package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// SourceOptions say what a source holds.
type SourceOptions struct {
	N        int           // how many sources like this
	From, To int           // the events of the stock that it answers REQs from, To excluded; live ones are another matter
	Delay    time.Duration // between a REQ for these and its answer, without holding up what comes behind it
}

// pageOf is how many events a source gives at once.
const pageOf = 500

// source is a lean relay to read from. It answers pages newest first from the stock, and sends live what it is told to.
type source struct {
	*server
	stock *stock
	o     SourceOptions

	mu    sync.Mutex
	w     *wire
	sub   string        // the live subscription
	ready chan struct{} // closed when it stands
	pongs chan struct{} // one for each ping's answer
}

// OpenSources starts sources and tells their URLs.
func (h *host) OpenSources(o SourceOptions, urls *[]string) error {
	for range o.N {
		s := &source{stock: h.stock, o: o, ready: make(chan struct{}), pongs: make(chan struct{}, 1)}
		var err error
		if s.server, err = serve(s.talk); err != nil {
			return err
		}
		h.mu.Lock()
		h.sources = append(h.sources, s)
		h.mu.Unlock()
		*urls = append(*urls, s.url)
	}
	return nil
}

func (s *source) talk(w *wire) error {
	w.SetPongHandler(func(string) error {
		select {
		case s.pongs <- struct{}{}:
		default:
		}
		return nil
	})
	for {
		_, text, err := w.ReadMessage()
		if err != nil {
			return err
		}
		r, ok, err := parseRequest(text)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if r.live() {
			if err := w.write(eose(nil, r.sub)); err != nil {
				return err
			}
			s.mu.Lock()
			if s.sub == "" {
				close(s.ready)
			}
			s.w, s.sub = w, r.sub
			s.mu.Unlock()
			continue
		}
		if s.o.Delay > 0 {
			time.AfterFunc(s.o.Delay, func() { s.page(w, r) }) //nolint:errcheck // connections end
		} else if err := s.page(w, r); err != nil {
			return err
		}
	}
}

func eose(b []byte, sub string) []byte { return appendFrame(b, opText, []byte(`["EOSE","`+sub+`"]`)) }

// page answers by date alone: nobody here asks for less than everything.
func (s *source) page(w *wire, r request) error {
	var b []byte
	for _, f := range r.filters {
		from, to := s.o.From, s.o.To
		if f.Since != nil {
			from = max(from, int(*f.Since)-firstAt)
		}
		if f.Until != nil {
			to = min(to, int(*f.Until)-firstAt+1)
		}
		n := pageOf
		if f.Limit > 0 {
			n = min(n, f.Limit)
		}
		if len(f.IDs) > 0 {
			n = 0
		}
		head := []byte(`["EVENT","` + r.sub + `",`)
		for i := to - 1; i >= from && n > 0; i, n = i-1, n-1 {
			b = appendFrame(b, opText, head, s.stock.line(i), []byte{']'})
			if len(b) > much {
				if err := w.write(b); err != nil {
					return err
				}
				b = b[:0]
			}
		}
	}
	return w.write(eose(b, r.sub))
}

// Subscribed waits until every source has a live subscription.
func (h *host) Subscribed(patience time.Duration, _ *struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, s := range h.allSources() {
		select {
		case <-s.ready:
		case <-ctx.Done():
			return fmt.Errorf("source %s has no live subscription after %s", s.url, patience)
		}
	}
	return nil
}

func (h *host) allSources() []*source {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]*source(nil), h.sources...)
}

// Sending says what is sent live.
type Sending struct {
	Sources  []int   // their numbers in the order in which they were opened; nil: all
	From, To int     // events of the stock, To excluded
	Times    int     // how often all of them; 0: once
	Rate     float64 // new events a second, with gaps as if each came by chance; 0: as fast as they are read
	Seed     uint64  // of the gaps
	Apart    bool    // with a rate: each event is sent by one source only
}

// Sent is when it was.
type Sent struct {
	Begun, Ended int64   // monotonic; ended when all was read: a ping behind it was answered
	Times        []int64 // with a rate: of the first copy of each event
}

// Send sends events as live ones. Without a rate each source sends all of them, at full speed, all sources at once. With a rate,
// each event is sent by one source, the next one with the next event, and so on round.
func (h *host) Send(p Sending, out *Sent) error {
	sources := h.allSources()
	if p.Sources != nil {
		var some []*source
		for _, i := range p.Sources {
			some = append(some, sources[i])
		}
		sources = some
	}
	out.Begun = monotonic()
	var err error
	if p.Rate > 0 {
		out.Times, err = h.sendPaced(sources, p)
	} else {
		err = eachSource(sources, func(s *source) error { return s.send(p) })
	}
	if err == nil {
		err = eachSource(sources, (*source).drained)
	}
	out.Ended = monotonic()
	return err
}

func eachSource(list []*source, f func(*source) error) error {
	errs := make([]error, len(list))
	var all sync.WaitGroup
	for i, s := range list {
		all.Go(func() { errs[i] = f(s) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (s *source) to() (*wire, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w, []byte(`["EVENT","` + s.sub + `",`)
}

func (s *source) send(p Sending) error {
	w, head := s.to()
	b := make([]byte, 0, 2*much)
	for range max(p.Times, 1) {
		for i := p.From; i < p.To; i++ {
			if b = appendFrame(b, opText, head, s.stock.line(i), []byte{']'}); len(b) > much {
				if err := w.write(b); err != nil {
					return err
				}
				b = b[:0]
			}
		}
	}
	return w.write(b)
}

// sendPaced sends each event by every source, the further copies one event later each; or by one.
func (h *host) sendPaced(sources []*source, p Sending) ([]int64, error) {
	times := make([]int64, 0, p.To-p.From)
	rnd := rand.New(rand.NewPCG(p.Seed, 1))
	wires, heads := make([]*wire, len(sources)), make([][]byte, len(sources))
	for i, s := range sources {
		wires[i], heads[i] = s.to()
	}
	copies := len(sources)
	if p.Apart {
		copies = 1
	}
	var b []byte
	due := time.Now()
	for i := p.From; i < p.To+copies-1; i++ {
		due = due.Add(time.Duration(rnd.ExpFloat64() / p.Rate * float64(time.Second)))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		for later := range copies { // the new one first
			e := i - later
			if e < p.From || e >= p.To {
				continue
			}
			if later == 0 {
				times = append(times, monotonic())
			}
			k := (e + later) % len(sources)
			b = appendFrame(b[:0], opText, heads[k], h.stock.line(e), []byte{']'})
			if err := wires[k].write(b); err != nil {
				return nil, err
			}
		}
	}
	return times, nil
}

// drained waits until the client has read everything: it answers a ping when its turn comes.
func (s *source) drained() error {
	w, _ := s.to()
	select {
	case <-s.pongs: // of a keepalive
	default:
	}
	if err := w.write(appendFrame(nil, opPing, []byte("drained"))); err != nil {
		return err
	}
	select {
	case <-s.pongs:
		return nil
	case <-time.After(3 * time.Minute):
		return fmt.Errorf("source %s: no pong after 3 minutes", s.url)
	}
}
