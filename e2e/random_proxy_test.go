package e2e

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// proxy stands before a relay and spoils its connections: it cuts them, holds them up and delays what passes.
type proxy struct {
	ln      net.Listener
	to      string
	running sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	closed bool
	refuse bool          // new connections are cut at once
	stall  bool          // nothing passes
	delay  time.Duration // of every piece
	change chan struct{} // closed at each change of stall
}

func newProxy(t testing.TB, to string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{ln: ln, to: to, conns: map[net.Conn]struct{}{}, change: make(chan struct{})}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		ln.Close() //nolint:errcheck // of a listener
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.heal()
		p.cut()
		p.running.Wait()
	})
	return p
}

func (p *proxy) url() string { return "ws://" + p.ln.Addr().String() }

func (p *proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		up, err := net.Dial("tcp", p.to)
		if err != nil {
			c.Close() //nolint:errcheck // the relay behind is gone
			continue
		}
		if !p.keep(c, up) {
			c.Close()  //nolint:errcheck // refused
			up.Close() //nolint:errcheck // refused
			continue
		}
		p.running.Go(func() { p.pipe(c, up) })
		p.running.Go(func() { p.pipe(up, c) })
	}
}

func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse || p.closed {
		return false
	}
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return true
}

func (p *proxy) pipe(to, from net.Conn) {
	defer func() {
		p.mu.Lock()
		delete(p.conns, to)
		delete(p.conns, from)
		p.mu.Unlock()
		to.Close()   //nolint:errcheck // both ends end together
		from.Close() //nolint:errcheck // both ends end together
	}()
	piece := make([]byte, 4096)
	for {
		n, err := from.Read(piece)
		if n > 0 {
			p.held()
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// held waits as long as the proxy holds things up.
func (p *proxy) held() {
	for {
		p.mu.Lock()
		stall, delay, change := p.stall, p.delay, p.change
		p.mu.Unlock()
		if delay > 0 {
			time.Sleep(delay)
		}
		if !stall {
			return
		}
		<-change
	}
}

// cut resets all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0) //nolint:errcheck // it is cut either way
		}
		c.Close() //nolint:errcheck // cut
	}
	clear(p.conns)
}

func (p *proxy) heal() { p.set(false, false, 0) }

func (p *proxy) spoil(rng *rand.Rand) {
	switch rng.IntN(4) {
	case 0:
		p.cut()
	case 1:
		p.set(true, false, 0)
	case 2:
		p.set(false, true, 0)
	case 3:
		p.set(false, false, time.Duration(1+rng.IntN(20))*time.Millisecond)
	}
}

func (p *proxy) set(refuse, stall bool, delay time.Duration) {
	p.mu.Lock()
	p.refuse, p.stall, p.delay = refuse, stall, delay
	close(p.change)
	p.change = make(chan struct{})
	p.mu.Unlock()
	if refuse {
		p.cut()
	}
}
