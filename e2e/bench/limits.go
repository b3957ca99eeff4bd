package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// What the program is held against. All of it runs in a host, a process of its own, as the program does.

// Stretch is a part of the stock.
type Stretch struct{ From, To int }

// Cost is what something took.
type Cost struct {
	CPU  time.Duration // of the process
	Wall time.Duration
}

// measured is what f takes of this process.
func measured(f func() error) (c Cost, err error) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		return c, err
	}
	begun := time.Now()
	err = f()
	c.Wall = time.Since(begun)
	after, err2 := cpuOf(os.Getpid())
	c.CPU = after - before
	return c, errors.Join(err, err2)
}

// proof is what a signature check needs.
type proof struct {
	Key [32]byte
	ID  [32]byte
	Sig [64]byte
}

// Verify checks the signatures of a part of the stock with all cores, and nothing else.
func (h *host) Verify(p Stretch, out *Cost) error {
	proofs := make([]proof, p.To-p.From)
	for i := range proofs {
		var e struct{ ID, Pubkey, Sig hexBytes }
		if err := json.Unmarshal(h.stock.line(p.From+i), &e); err != nil {
			return err
		}
		copy(proofs[i].ID[:], e.ID)
		copy(proofs[i].Key[:], e.Pubkey)
		copy(proofs[i].Sig[:], e.Sig)
	}
	var err error
	*out, err = measured(func() error {
		var bad atomic.Int64
		var all sync.WaitGroup
		cores := runtime.NumCPU()
		for c := range cores {
			mine := proofs[c*len(proofs)/cores : (c+1)*len(proofs)/cores]
			all.Go(func() { bad.Add(int64(len(mine) - bareVerify(mine))) })
		}
		all.Wait()
		if n := bad.Load(); n > 0 {
			return fmt.Errorf("%d signatures of the stock are wrong", n)
		}
		return nil
	})
	return err
}

// hexBytes is a string of hex digits in JSON.
type hexBytes []byte

func (b *hexBytes) UnmarshalJSON(text []byte) error {
	*b = make([]byte, (len(text)-2)/2)
	_, err := fmt.Sscanf(string(text), `"%x"`, (*[]byte)(b))
	return err
}

// Copy copies the events' bytes once, one at a time, to where the next one goes too.
func (h *host) Copy(p Stretch, out *Cost) (err error) {
	var to [64 << 10]byte
	*out, err = measured(func() error {
		for i := p.From; i < p.To; i++ {
			copy(to[:], h.stock.line(i))
		}
		return nil
	})
	return err
}

// Syncing says what Fsync does.
type Syncing struct {
	Dir   string
	Times int
}

// Fsync writes an event to a file and has it on disk, again and again, and tells how long each fsync took, shortest first.
func (h *host) Fsync(p Syncing, out *[]time.Duration) error {
	f, err := os.Create(filepath.Join(p.Dir, "fsync"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close() //nolint:errcheck // its content is nothing
	for i := range p.Times {
		if _, err := f.Write(h.stock.line(i % h.stock.len())); err != nil {
			return err
		}
		begun := time.Now()
		if err := f.Sync(); err != nil {
			return err
		}
		*out = append(*out, time.Since(begun))
	}
	slices.Sort(*out)
	return nil
}

// client is a connection to a relay.
type client struct{ *websocket.Conn }

func dial(url string) (client, error) {
	d := websocket.Dialer{ReadBufferSize: much, WriteBufferSize: 512, HandshakeTimeout: 10 * time.Second}
	c, _, err := d.Dial(url, nil)
	return client{c}, err
}

// listen opens a live subscription and reads each message into the same memory, until the connection ends.
func (c client) listen(take func(text []byte)) error {
	if err := c.WriteMessage(websocket.TextMessage, []byte(`["REQ","live-0",{"limit":0}]`)); err != nil {
		return err
	}
	var text bytes.Buffer
	for {
		_, r, err := c.NextReader()
		if err != nil {
			return nil // it was closed
		}
		text.Reset()
		if _, err := text.ReadFrom(r); err != nil {
			return nil
		}
		take(text.Bytes())
	}
}

// appendMasked appends a message of a client. Its mask is zero, which costs nothing and is a mask.
func appendMasked(b []byte, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	switch b = append(b, opText); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	b = append(b, 0, 0, 0, 0)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// Read connects to sources, and from then on reads what they send and drops it: what gorilla's websocket costs by itself.
func (h *host) Read(urls []string, _ *struct{}) error { return h.listenTo(urls, func([]byte) {}) }

// Mirroring says where a mirror takes from and sends to.
type Mirroring struct {
	Sources []string
	Sink    string
}

// Mirror connects sources with a sink as simply as can be: the first copy of each id goes on at once, nothing is checked, nothing is
// kept, no OK is waited for.
func (h *host) Mirror(p Mirroring, _ *struct{}) error {
	to, err := dial(p.Sink)
	if err != nil {
		return err
	}
	h.keep(to)
	go func() {
		for {
			if _, _, err := to.NextReader(); err != nil { // OKs
				return
			}
		}
	}()
	var mu sync.Mutex
	seen := map[[64]byte]struct{}{}
	var b []byte
	return h.listenTo(p.Sources, func(text []byte) {
		at := bytes.Index(text, []byte(`{"id":"`))
		if at < 0 || len(text) < at+71 {
			return
		}
		id := [64]byte(text[at+7 : at+71])
		mu.Lock()
		defer mu.Unlock()
		if _, known := seen[id]; known {
			return
		}
		seen[id] = struct{}{}
		b = appendMasked(b[:0], []byte(`["EVENT",`), text[at:])
		to.NetConn().Write(b) //nolint:errcheck // what the sink lacks in the end is counted there
	})
}

func (h *host) listenTo(urls []string, take func([]byte)) error {
	for _, url := range urls {
		c, err := dial(url)
		if err != nil {
			return err
		}
		h.keep(c)
		go c.listen(take) //nolint:errcheck // Reset ends it
	}
	return nil
}

func (h *host) keep(c client) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bare = append(h.bare, c)
}

// Blasting says what Blast sends.
type Blasting struct {
	URL string
	Stretch
	Window int // unanswered at most; 0: as many as the socket takes
}

// Blast sends events to a sink as fast as it takes them, and waits for all answers: the sink's own rate.
func (h *host) Blast(p Blasting, out *Cost) error {
	c, err := dial(p.URL)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // all was answered
	window := p.Window
	if window == 0 {
		window = p.To - p.From
	}
	free := make(chan struct{}, window)
	sent := make(chan error, 1)
	*out, err = measured(func() error {
		go func() { sent <- c.blast(h.stock, p.Stretch, free) }()
		var text bytes.Buffer
		for range p.To - p.From {
			_, r, err := c.NextReader()
			if err != nil {
				return err
			}
			text.Reset()
			if _, err := text.ReadFrom(r); err != nil {
				return err
			}
			<-free
		}
		return <-sent
	})
	return err
}

func (c client) blast(s *stock, p Stretch, free chan struct{}) error {
	var b []byte
	for i := p.From; i < p.To; i++ {
		select {
		case free <- struct{}{}:
		default: // the window is full: what waits has to go first
			if _, err := c.NetConn().Write(b); err != nil {
				return err
			}
			b = b[:0]
			free <- struct{}{}
		}
		if b = appendMasked(b, []byte(`["EVENT",`), s.line(i), []byte{']'}); len(b) > much {
			if _, err := c.NetConn().Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	_, err := c.NetConn().Write(b)
	return err
}

// bareCheck is the processor time of a signature check alone on every core at once, and how many a second that makes.
func (b *bench) bareCheck(ctx context.Context) (cpu time.Duration, rate float64, err error) {
	n := b.n(size{20_000, 500})
	c, err := tell[Cost](ctx, b.limits, "Verify", Stretch{0, n})
	return c.CPU / time.Duration(n), float64(n) / c.Wall.Seconds(), err
}

// bareRead is what reading from so many sources costs a process that drops everything.
func (b *bench) bareRead(ctx context.Context, sources int, s Sending) (cpu time.Duration, sent Sent, err error) {
	urls, err := b.sources(ctx, SourceOptions{N: sources})
	if err != nil {
		return 0, sent, err
	}
	if _, err := tell[struct{}](ctx, b.limits, "Read", urls); err != nil {
		return 0, sent, err
	}
	if err := b.subscribed(ctx); err != nil {
		return 0, sent, err
	}
	before, err := cpuOf(b.limits.cmd.Process.Pid)
	if err != nil {
		return 0, sent, err
	}
	if sent, err = b.send(ctx, s); err != nil {
		return 0, sent, err
	}
	after, err := cpuOf(b.limits.cmd.Process.Pid)
	if err != nil {
		return 0, sent, err
	}
	return after - before, sent, b.tidy()
}
