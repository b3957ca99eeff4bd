package sinks

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
	"rebroadcastr/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// growing is what a log and its readers share: the log's lock, and how a reader at the end hears that there is more.
type growing struct {
	mu    sync.Mutex
	grown chan struct{} // closed when there is more; nil: nobody waits
}

// grewLocked wakes the readers that wait.
func (g *growing) grewLocked() {
	if g.grown != nil {
		close(g.grown)
		g.grown = nil
	}
}

// wait is Next of a reader of the log.
func (g *growing) wait(ctx context.Context, r Reader) (record.Record, error) {
	for {
		g.mu.Lock()
		if g.grown == nil {
			g.grown = make(chan struct{})
		}
		grown := g.grown
		g.mu.Unlock()
		if rec, ok, err := r.TryNext(); ok || err != nil {
			return rec, err
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return record.Record{}, ctx.Err()
		}
	}
}

// testLog stands for the archive: records in order, readers that wait at the end.
type testLog struct {
	growing
	recs []record.Record
	end  place.Place
	next uint64
	told func([]record.Record) // of new records, before they can be read; or nil
}

func newLog() *testLog { return &testLog{end: place.Make(1, 0)} }

func (l *testLog) add(t testing.TB, origin record.Origin, lines ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range lines {
		rec := record.Record{Place: l.end, Ordinal: l.next, Origin: origin}
		if err := event.Parse([]byte(line), &rec.Event); err != nil {
			t.Fatalf("parse %s: %v", line, err)
		}
		l.end = place.Make(l.end.Segment(), l.end.Offset()+uint64(len(rec.Event.Line))+1)
		rec.End = l.end
		l.next++
		l.recs = append(l.recs, rec)
	}
	if l.told != nil {
		l.told(l.recs[len(l.recs)-len(lines):])
	}
	l.grewLocked()
}

// blank lets an ordinal pass that no line holds.
func (l *testLog) blank() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = place.Make(l.end.Segment(), l.end.Offset()+10)
	l.next++
}

func (l *testLog) End() (place.Place, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end, l.next
}

func (l *testLog) Open(from place.Place) (Reader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := sort.Search(len(l.recs), func(i int) bool { return !l.recs[i].Place.Before(from) })
	return &testReader{l, at}, nil
}

type testReader struct {
	log *testLog
	at  int
}

func (r *testReader) TryNext() (record.Record, bool, error) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	if r.at == len(r.log.recs) {
		return record.Record{}, false, nil
	}
	r.at++
	return r.log.recs[r.at-1], true, nil
}

func (r *testReader) Next(ctx context.Context) (record.Record, error) { return r.log.wait(ctx, r) }

func (r *testReader) Close() error { return nil }

// logged collects log lines.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *logged) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// rig is a sink, its relay, its archive and its state.
type rig struct {
	t     *testing.T
	relay *relaytest.Relay
	log   *testLog
	path  string
	db    *state.DB
	o     Options
	sink  *Sink
	out   *logged
	extra map[string]relay.Role // other roles on the link
	stop  func()
}

// newRig makes everything but the running sink.
func newRig(t *testing.T, script relaytest.Script) *rig {
	t.Helper()
	r := &rig{t: t, relay: relaytest.New(t, script), log: newLog(), out: &logged{}, path: filepath.Join(t.TempDir(), "state.db")}
	r.db = openState(t, r.path)
	t.Cleanup(func() { r.db.Close() })
	settings := relay.DefaultSettings()
	settings.Backoff = relay.Backoff{Initial: 5 * time.Millisecond, Max: 50 * time.Millisecond, Multiplier: 2}
	settings.OK = 5 * time.Second
	r.o = Options{
		URL: r.relay.URL, State: r.db, Open: r.log.Open, End: r.log.End, Settings: settings,
		Retry: 20 * time.Millisecond, Probe: 20 * time.Millisecond, Trial: 20 * time.Millisecond, Log: zerolog.New(r.out),
	}
	return r
}

// start makes the sink from its ledger and runs it.
func (r *rig) start() {
	r.t.Helper()
	var err error
	if r.sink, err = New(r.o); err != nil {
		r.t.Fatalf("make the sink: %v", err)
	}
	link := relay.NewLink(relay.LinkOptions{URL: r.relay.URL, Settings: r.o.Settings, Log: zerolog.New(r.out)})
	link.Add("sink", r.sink)
	for name, role := range r.extra {
		link.Add(name, role)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- link.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("the link ended with %v, want nil", err)
		}
		flush, end := context.WithTimeout(context.Background(), 5*time.Second)
		defer end()
		if err := r.sink.Flush(flush); err != nil {
			r.t.Errorf("flush: %v", err)
		}
		r.balanced()
	})
	r.t.Cleanup(r.stop)
}

// reopen stops the sink and its state, and opens the state again; with kill it is the state as it was on disk.
func (r *rig) reopen(kill bool) {
	r.t.Helper()
	if kill {
		copyState(r.t, r.path, r.path+".killed")
	}
	r.stop()
	r.db.Close()
	if kill {
		if err := os.Rename(r.path+".killed", r.path); err != nil {
			r.t.Fatal(err)
		}
	}
	r.db = openState(r.t, r.path)
	r.o.State = r.db
}

func (r *rig) balanced() {
	r.t.Helper()
	if err := r.sink.Status().Balance().Check(); err != nil {
		r.t.Errorf("%v", err)
	}
}

// settled waits until the sink has a verdict or a parked row for everything.
func (r *rig) settled() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	_, n := r.log.End()
	if err := r.sink.Settled(ctx, n); err != nil {
		r.t.Fatalf("not everything is settled: %v; %+v", err, r.sink.Status())
	}
	r.balanced()
}

// await waits for cond.
func (r *rig) await(what string, cond func(Status) bool) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond(r.sink.Status()) {
			return
		}
	}
	r.t.Fatalf("%s did not come to pass; %+v", what, r.sink.Status())
}

// has compares the relay's events with the lines.
func (r *rig) has(lines []string) {
	r.t.Helper()
	got, want := r.relay.Stored(), ids(lines)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.t.Fatalf("the relay has %d events, want %d of the %d sent", len(got), len(want), len(r.relay.Got("EVENT")))
	}
}

func ids(lines []string) []string {
	var out []string
	for _, line := range lines {
		out = append(out, relaytest.ID(line))
	}
	return out
}

const day = 1_700_000_000 // a created_at

// notes are n signed notes by two authors, told apart by their content.
func notes(n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = relaytest.Sign(relaytest.Key(1+i%2), 1, day+int64(i), nil, fmt.Sprintf("note %d", i))
	}
	return lines
}

// bare are n events that are well formed and nothing else: a sink sends what the archive has.
func bare(n int) []string {
	lines := make([]string, n)
	for i := range lines {
		id := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
		lines[i] = fmt.Sprintf(`{"id":"%x","pubkey":"%x","created_at":%d,"kind":1,"tags":[],"content":"note %d","sig":"%x%x"}`, id, id, day+i, i, id, id)
	}
	return lines
}

// failing is a state that refuses to commit while it is broken.
type failing struct {
	*state.DB
	mu     sync.Mutex
	broken bool
}

func (f *failing) Update(fn func(*state.Tx) error) error {
	f.mu.Lock()
	broken := f.broken
	f.mu.Unlock()
	if broken {
		return errors.New("no space left on device")
	}
	return f.DB.Update(fn)
}

func (f *failing) set(broken bool) { f.mu.Lock(); f.broken = broken; f.mu.Unlock() }

// hanging is a state whose commits wait while it hangs.
type hanging struct {
	*state.DB
	hangs chan struct{} // 1: a commit has begun to wait

	mu   sync.Mutex
	gate chan struct{} // nil: none
}

func (h *hanging) Update(fn func(*state.Tx) error) error {
	h.mu.Lock()
	gate := h.gate
	h.mu.Unlock()
	if gate != nil {
		select {
		case h.hangs <- struct{}{}:
		default:
		}
		<-gate
	}
	return h.DB.Update(fn)
}

// hang has commits wait until release.
func (h *hanging) hang() (release func()) {
	gate := make(chan struct{})
	h.mu.Lock()
	h.gate = gate
	h.mu.Unlock()
	return sync.OnceFunc(func() {
		h.mu.Lock()
		h.gate = nil
		h.mu.Unlock()
		close(gate)
	})
}
