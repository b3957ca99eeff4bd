package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"sync"
	"time"
)

// SinkOptions say how a sink behaves.
type SinkOptions struct {
	N     int
	Delay time.Duration // between an event's arrival and its OK, without holding up what comes behind it
	Keep  bool          // when each event came
}

// Receipt is an event's arrival. The first bytes of an id tell events apart well enough.
type Receipt struct {
	ID [8]byte
	At int64 // monotonic
}

// sink is a lean relay to send to: it counts, and answers OK true to everything.
type sink struct {
	*server
	o SinkOptions

	mu       sync.Mutex
	got      int
	receipts []Receipt
	want     int
	reached  chan struct{} // closed when got is want
	at       int64         // when that was
	first    int64         // when the first event came
	met      chan struct{} // closed at the first connection
	once     sync.Once
}

// OpenSinks starts sinks and tells their URLs.
func (h *host) OpenSinks(o SinkOptions, urls *[]string) error {
	for range o.N {
		s := &sink{o: o, met: make(chan struct{})}
		var err error
		if s.server, err = serve(s.talk); err != nil {
			return err
		}
		h.mu.Lock()
		h.sinks = append(h.sinks, s)
		h.mu.Unlock()
		*urls = append(*urls, s.url)
	}
	return nil
}

func (s *sink) talk(w *wire) error {
	s.once.Do(func() { close(s.met) })
	a := &answers{w: w, news: make(chan struct{}, 1), gone: make(chan struct{})}
	var answering sync.WaitGroup
	answering.Go(func() { a.run(s.o.Delay) })
	defer answering.Wait()
	defer close(a.gone)
	var text bytes.Buffer
	for {
		_, r, err := w.NextReader()
		if err != nil {
			return err
		}
		text.Reset()
		if _, err := text.ReadFrom(r); err != nil {
			return err
		}
		id, ok := eventID(text.Bytes())
		if !ok {
			r, isREQ, err := parseRequest(text.Bytes())
			if err != nil {
				return err
			}
			if isREQ {
				a.add(eose(nil, r.sub), 0)
			}
			continue
		}
		s.count(id)
		a.addOK(id, s.o.Delay)
	}
}

// eventID finds the id in a message ["EVENT",{"id":"…", whose order of keys is the program's.
func eventID(text []byte) (id []byte, ok bool) {
	const head = `["EVENT",{"id":"`
	if len(text) < len(head)+64 || string(text[:len(head)]) != head {
		return nil, false
	}
	return text[len(head) : len(head)+64], true
}

func (s *sink) count(id []byte) {
	now := monotonic()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.got++; s.got == 1 {
		s.first = now
	}
	if s.o.Keep {
		r := Receipt{At: now}
		hex.Decode(r.ID[:], id[:16]) //nolint:errcheck // an id that is not hex is nobody's
		s.receipts = append(s.receipts, r)
	}
	if s.reached != nil && s.got >= s.want {
		close(s.reached)
		s.reached, s.at = nil, now
	}
}

// answers are what a sink has still to say to one client, in order.
type answers struct {
	w    *wire
	news chan struct{}
	gone chan struct{}

	mu    sync.Mutex
	bytes []byte
	due   []due // of parts of bytes, where there is a delay
}

type due struct {
	at  time.Time
	end int // of bytes
}

func (a *answers) addOK(id []byte, delay time.Duration) {
	a.mu.Lock()
	a.bytes = appendFrame(a.bytes, opText, []byte(`["OK","`), id, []byte(`",true,""]`))
	a.addedLocked(delay)
	a.mu.Unlock()
}

func (a *answers) add(frame []byte, delay time.Duration) {
	a.mu.Lock()
	a.bytes = append(a.bytes, frame...)
	a.addedLocked(delay)
	a.mu.Unlock()
}

func (a *answers) addedLocked(delay time.Duration) {
	if delay > 0 {
		a.due = append(a.due, due{time.Now().Add(delay), len(a.bytes)})
	}
	select {
	case a.news <- struct{}{}:
	default:
	}
}

// run writes what is due, all of it at once.
func (a *answers) run(delay time.Duration) {
	var b []byte
	for {
		select {
		case <-a.news:
		case <-a.gone:
			return
		}
		for {
			var wait time.Duration
			if b, wait = a.take(b[:0], delay > 0); len(b) > 0 && a.w.write(b) != nil {
				return
			}
			if wait == 0 {
				break
			}
			select {
			case <-time.After(wait):
			case <-a.gone:
				return
			}
		}
	}
}

// take moves what is due to b, and says how long the next one has to wait.
func (a *answers) take(b []byte, delayed bool) ([]byte, time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, k := len(a.bytes), 0
	if delayed {
		now := time.Now()
		for n = 0; k < len(a.due) && !a.due[k].at.After(now); k++ {
			n = a.due[k].end
		}
	}
	b = append(b, a.bytes[:n]...)
	a.bytes = append(a.bytes[:0], a.bytes[n:]...)
	a.due = append(a.due[:0], a.due[k:]...)
	for i := range a.due {
		a.due[i].end -= n
	}
	if len(a.due) == 0 {
		return b, 0
	}
	return b, max(time.Until(a.due[0].at), time.Microsecond)
}

// Waiting is what is waited for of each sink.
type Waiting struct {
	Events   int // received so far; 0: only that somebody has connected
	Patience time.Duration
}

// Reached is when the last of the sinks had so many, and when the first event came to any.
type Reached struct{ At, First int64 }

// Await waits until every sink has received so many events.
func (h *host) Await(p Waiting, out *Reached) error {
	deadline := time.After(p.Patience)
	h.mu.Lock()
	sinks := append([]*sink(nil), h.sinks...)
	h.mu.Unlock()
	for _, s := range sinks {
		wait := s.met
		if p.Events > 0 {
			wait = s.until(p.Events)
		}
		select {
		case <-wait:
		case <-deadline:
			s.mu.Lock()
			defer s.mu.Unlock()
			return fmt.Errorf("sink %s has %d of %d events after %s", s.url, s.got, p.Events, p.Patience)
		}
		s.mu.Lock()
		out.At = max(out.At, s.at)
		if out.First == 0 || s.first < out.First {
			out.First = s.first
		}
		s.mu.Unlock()
	}
	return nil
}

func (s *sink) until(n int) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{})
	if s.want = n; s.got >= n {
		if s.at == 0 {
			s.at = monotonic()
		}
		close(c)
	} else {
		s.reached = c
	}
	return c
}

// Receipts are the arrivals at all sinks that keep them, and are forgotten.
func (h *host) Receipts(_ struct{}, out *[]Receipt) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sinks {
		s.mu.Lock()
		*out = append(*out, s.receipts...)
		s.receipts = nil
		s.mu.Unlock()
	}
	return nil
}
