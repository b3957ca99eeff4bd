package e2e

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
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	store "github.com/fiatjaf/eventstore/badger"
	"github.com/fiatjaf/khatru"
	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/child"
)

// relayVariable names a file of events, one a line. Where it is set, the test binary is a relay that holds them.
const relayVariable = "E2E_RELAY"

// pageCap is the most that it gives at once.
const pageCap = 500

// hoardRelay is a relay in a process of its own, so that its processor time can be told from that of who asks.
type hoardRelay struct {
	*process
	url string
}

// served is what such a relay says of itself.
type served struct {
	CPU    time.Duration `json:"cpu"`    // of the whole process so far
	Events int64         `json:"events"` // sent so far
	Pages  int64         `json:"pages"`  // REQs answered from the store so far
}

// startHoardRelay starts one on a file of events.
func startHoardRelay(t testing.TB, file string) *hoardRelay {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, child.Options{Binary: self, Env: []string{relayVariable + "=" + file}})
	r := &hoardRelay{process: p}
	eventually(t, "the relay has read its events", func() error {
		select {
		case <-p.Done():
			t.Fatalf("the relay has ended: %s", p.Stderr())
		default:
		}
		url, _, ok := strings.Cut(p.Stdout(), "\n")
		if !ok {
			return errors.New("it does not listen yet")
		}
		r.url = url
		return nil
	})
	return r
}

func (r *hoardRelay) served(t testing.TB) (s served) {
	t.Helper()
	resp, err := http.Get("http" + strings.TrimPrefix(r.url, "ws") + "/served")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

// beTheRelay serves a file of events until the process is told to end.
func beTheRelay(file string) int {
	if err := serveEvents(file); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// serveEvents is khatru over eventstore's badger, whose pages cost it a tenth of what sending them does; its slicestore would be
// cheaper still, but leaves out the events of the second that a REQ's since names.
func serveEvents(file string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	db := &store.BadgerBackend{MaxLimit: pageCap, BadgerOptionsModifier: func(b badger.Options) badger.Options {
		return b.WithInMemory(true).WithDir("").WithValueDir("").WithLogger(nil)
	}}
	if err := db.Init(); err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer db.Close()
	if err := load(file, func(e *nostr.Event) error { return db.SaveEvent(ctx, e) }); err != nil {
		return err
	}
	var s served
	rl := khatru.NewRelay()
	rl.Log = log.New(io.Discard, "", 0)
	rl.QueryEvents = append(rl.QueryEvents, func(ctx context.Context, f nostr.Filter) (chan *nostr.Event, error) {
		atomic.AddInt64(&s.Pages, 1)
		return db.QueryEvents(ctx, f)
	})
	rl.OverwriteResponseEvent = append(rl.OverwriteResponseEvent, func(context.Context, *nostr.Event) { atomic.AddInt64(&s.Events, 1) })
	rl.Router().HandleFunc("/served", func(w http.ResponseWriter, _ *http.Request) {
		now := served{Events: atomic.LoadInt64(&s.Events), Pages: atomic.LoadInt64(&s.Pages), CPU: ownCPU()}
		if err := json.NewEncoder(w).Encode(now); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server := &http.Server{Handler: rl, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	fmt.Printf("ws://%s\n", ln.Addr())
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	return server.Close()
}

// ownCPU is the processor time of this process, user and system.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
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
