package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"rebroadcastr/dedup"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// log is an archive in memory: it writes and syncs when it is told to, and tells the index.
type log struct {
	index *dedup.Index
	full  chan struct{} // not nil: Append waits for it

	mu      sync.Mutex
	queue   []logItem
	written []record.Record
	waiting []chan<- error // barriers behind what is written
	durable map[event.ID]int
}

type logItem struct {
	e      event.Event
	answer chan<- error
}

func (l *log) Append(ctx context.Context, e event.Event, _ record.Origin) error {
	if l.full != nil {
		select {
		case <-l.full:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, logItem{e: e})
	return nil
}

func (l *log) Barrier(_ context.Context, answer chan<- error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queue = append(l.queue, logItem{answer: answer})
	return nil
}

// write takes up to n of what is queued into the log.
func (l *log) write(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, len(l.queue))
	var rs []record.Record
	for _, it := range l.queue[:n] {
		if it.answer != nil {
			l.waiting = append(l.waiting, it.answer)
			continue
		}
		at := uint64(len(l.written) + len(rs))
		rs = append(rs, record.Record{Event: it.e, Place: place.Make(1, at), End: place.Make(1, at+1), Ordinal: at})
	}
	l.queue = l.queue[n:]
	l.written = append(l.written, rs...)
	l.index.Written(rs)
}

// sync makes durable what is written.
func (l *log) sync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.written[len(l.durable):] {
		l.durable[r.Event.ID]++
	}
	if n := len(l.written); n > 0 {
		l.index.Synced(l.written[n-1].End)
	}
	for _, answer := range l.waiting {
		select {
		case answer <- nil:
		default: // it has an answer
		}
	}
	l.waiting = nil
}

func (l *log) isDurable(id event.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable[id] > 0
}

// workshop is the intake and its shards on a log in memory.
type workshop struct {
	*intake
	log *log
}

func newWorkshop(t interface {
	rapid.TB
	Cleanup(func())
}, dir string, shards int) *workshop {
	t.Helper()
	index, err := dedup.Open(dedup.Options{Dir: dir, Shards: shards, LRU: 16, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := index.Close(); err != nil {
			t.Error(err)
		}
	})
	w := &workshop{
		intake: &intake{index: index, budget: newBudget(), now: time.Now},
		log:    &log{index: index, durable: make(map[event.ID]int)},
	}
	w.restart()
	return w
}

// restart gives the workshop fresh shards; the old ones have ended.
func (w *workshop) restart() {
	w.closed = make(chan struct{})
	w.shards = nil
	for range w.index.Shards() {
		w.shards = append(w.shards, newShard(w.index, w.log, w.budget, w.closed))
	}
}

func (w *workshop) frame(door *sources.Door, raw string, live bool) sources.Frame {
	f := sources.Frame{Raw: []byte(raw), Door: door, Live: live, Bare: raw[0] != '['}
	if f.Bare {
		f.Scan, f.Simple = event.ScanLine(f.Raw)
	} else {
		f.Scan, f.Simple = event.ScanFrame(f.Raw)
	}
	return f
}

// idle fails unless every byte of the budget is back.
func (w *workshop) idle(t rapid.TB) {
	t.Helper()
	if !w.budget.whole.TryAcquire(budgetBytes) || !w.budget.history.TryAcquire(historyBytes) {
		t.Fatal("bytes in flight were not given back")
	}
	w.budget.whole.Release(budgetBytes)
	w.budget.history.Release(historyBytes)
}

// cutOff fails unless shards that were cut off let no barrier pass, though the log makes durable all that it was handed, and what they
// dropped counts nowhere: archived events of the door, and no byte of the budget.
func (w *workshop) cutOff(t *testing.T, barrier <-chan error, door *sources.Door, archived int64) {
	t.Helper()
	w.log.write(len(w.log.queue))
	w.log.sync()
	select {
	case err := <-barrier:
		t.Errorf("the barrier was answered %v, want no answer", err)
	default:
	}
	if n := door.Tally.New.Load(); n != archived {
		t.Errorf("%d events count as archived, want %d", n, archived)
	}
	w.idle(t)
}

func parsedID(t rapid.TB, raw string) event.ID {
	id, err := event.ParseID(relaytest.ID(raw))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Live events go first, and at least one of history per 16 of them.
func TestLiveFirstAndHistoryNeverStarves(t *testing.T) {
	w := newWorkshop(t, t.TempDir(), 1)
	door := sources.NewDoor("ws://a", nil)
	lives, pages := notes(1, liveQueue), notes(2, 10)
	for _, e := range pages {
		if err := w.Offer(t.Context(), w.frame(door, e, false)); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range lives {
		if err := w.Offer(t.Context(), w.frame(door, e, true)); err != nil {
			t.Fatal(err)
		}
	}
	w.close()
	if err := w.shards[0].run(t.Context()); err != nil {
		t.Fatal(err)
	}
	isLive := make(map[string]bool)
	for _, id := range idsOf(lives) {
		isLive[id] = true
	}
	var got, want strings.Builder
	for _, it := range w.log.queue {
		if isLive[it.e.ID.String()] {
			got.WriteByte('l')
		} else {
			got.WriteByte('h')
		}
	}
	want.WriteString(strings.Repeat(strings.Repeat("l", livePerHistory)+"h", liveQueue/livePerHistory))
	want.WriteString(strings.Repeat("h", len(pages)-liveQueue/livePerHistory))
	if got.String() != want.String() {
		t.Errorf("order of live and history:\n%s, want\n%s", got.String(), want.String())
	}
	w.idle(t)
}

// A shard that is cut off in the middle of a hand-over drops that event, so it lets no barrier pass behind it: the answer
// would prove a window that lacks it.
func TestNoBarrierBehindADroppedEvent(t *testing.T) {
	w := newWorkshop(t, t.TempDir(), 1)
	w.log.full = make(chan struct{})
	door := sources.NewDoor("ws://a", nil)
	if err := w.Offer(t.Context(), w.frame(door, notes(1, 1)[0], false)); err != nil {
		t.Fatal(err)
	}
	answer, err := w.Barrier(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := start(ctx, "shard", nil, w.shards[0].run)
	for w.index.Status().Pending == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := s.wait(t.Context()); err != nil {
		t.Errorf("a shard that was cancelled: %v, want nil", err)
	}
	w.cutOff(t, answer, door, 0)
}

// Whatever way an offer ends, its bytes are given back.
func TestBudgetComesBack(t *testing.T) {
	for name, offer := range map[string]func(t *testing.T, w *workshop, raw string) error{
		"cancelled before": func(t *testing.T, w *workshop, raw string) error {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			fill(w)
			return w.Offer(ctx, w.frame(sources.NewDoor("", nil), raw, false))
		},
		"cancelled in the queue's place": func(t *testing.T, w *workshop, raw string) error {
			ctx, cancel := context.WithCancel(t.Context())
			fill(w)
			time.AfterFunc(10*time.Millisecond, cancel)
			return w.Offer(ctx, w.frame(sources.NewDoor("", nil), raw, true))
		},
		"cancelled while it waits for room": func(t *testing.T, w *workshop, raw string) error {
			ctx, cancel := context.WithCancel(t.Context())
			if err := w.budget.whole.Acquire(ctx, budgetBytes); err != nil {
				t.Fatal(err)
			}
			defer w.budget.whole.Release(budgetBytes)
			time.AfterFunc(10*time.Millisecond, cancel)
			return w.Offer(ctx, w.frame(sources.NewDoor("", nil), raw, false))
		},
		"closed": func(t *testing.T, w *workshop, raw string) error {
			fill(w)
			w.close()
			return w.Offer(t.Context(), w.frame(sources.NewDoor("", nil), raw, false))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorkshop(t, t.TempDir(), 1)
			for _, raw := range []string{notes(1, 1)[0], relaytest.EscapedID(notes(1, 2)[1])} {
				if err := offer(t, w, raw); err == nil {
					t.Fatal("taken, want an error")
				}
				w.idle(t)
				w.restart()
			}
		})
	}
	t.Run("larger than a share", func(t *testing.T) {
		w := newWorkshop(t, t.TempDir(), 1)
		door := sources.NewDoor("", nil)
		huge := `{"id":"` + strings.Repeat("0", 64) + `","content":"` + strings.Repeat("x", budgetBytes) + `"}`
		var g errgroup.Group
		g.Go(func() error { return w.shards[0].run(t.Context()) })
		for _, live := range []bool{true, false, true} {
			if err := w.Offer(t.Context(), w.frame(door, huge, live)); err != nil {
				t.Fatal(err)
			}
		}
		w.close()
		if err := g.Wait(); err != nil || door.Tally.Invalid() != 3 {
			t.Errorf("%v, %d invalid, want 3", err, door.Tally.Invalid())
		}
		w.idle(t)
	})
}

// fill takes every place of the queues.
func fill(w *workshop) {
	for _, s := range w.shards {
		for range cap(s.live) {
			s.live <- item{live: true}
		}
		for range cap(s.history) {
			s.history <- item{}
		}
	}
}

// Any order, any copies, forged ones first, from any number of doors, written and synced at any moment: what a barrier
// covers is durable when it is answered, and in the end the log holds each genuine event once and nothing else.
func TestBarrierAndSet(t *testing.T) {
	events := slices.Concat(notes(1, 25), notes(2, 25))
	variants := []func(string) string{
		func(e string) string { return e },
		func(e string) string { return `["EVENT","page-1",` + e + `]` },
		func(e string) string { return `["EVENT","page-1",` + e + `,"more"]` },
		relaytest.EscapedID,
		relaytest.BadSig,
		func(e string) string { return strings.Replace(e, `"kind":1`, `"kind":2`, 1) },
		func(e string) string { return strings.Replace(e, `{`, `{"id":"`+strings.Repeat("0", 64)+`",`, 1) },
		func(e string) string { return e[:len(e)-1] },
		func(e string) string { return `["EVENT","page-1",` + e },
	}
	const genuine = 4 // the first so many of them
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorkshop(rt, t.TempDir(), rapid.IntRange(1, 4).Draw(rt, "shards"))
		type step struct {
			event, variant int
			live, barrier  bool
		}
		doors := make([]*sources.Door, rapid.IntRange(1, 4).Draw(rt, "doors"))
		scripts := make([][]step, len(doors))
		want := make(map[event.ID]int)
		for i := range doors {
			doors[i] = sources.NewDoor(fmt.Sprintf("ws://%d", i), nil)
			scripts[i] = rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
				return step{
					rapid.IntRange(0, len(events)-1).Draw(rt, "event"), rapid.IntRange(0, len(variants)-1).Draw(rt, "variant"),
					rapid.IntRange(0, 3).Draw(rt, "live") == 0, rapid.IntRange(0, 4).Draw(rt, "barrier") == 0,
				}
			}), 0, 60).Draw(rt, "script")
			for _, s := range scripts[i] {
				if s.variant < genuine {
					want[parsedID(rt, events[s.event])] = 1
				}
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		index := start(ctx, "index", nil, w.index.Run)
		var shards []*stage
		for _, s := range w.shards {
			shards = append(shards, start(ctx, "shard", nil, s.run))
		}
		writer := start(ctx, "writer", nil, func(ctx context.Context) error {
			for ctx.Err() == nil {
				w.log.write(rand.IntN(5))
				if rand.IntN(3) == 0 {
					w.log.sync()
				}
				time.Sleep(time.Duration(rand.IntN(50)) * time.Microsecond)
			}
			return nil
		})
		var g errgroup.Group
		for i, script := range scripts {
			g.Go(func() error {
				var offered []event.ID // genuine, on the history queue
				for _, s := range script {
					raw := variants[s.variant](events[s.event])
					doors[i].Tally.Received.Add(1)
					if err := w.Offer(ctx, w.frame(doors[i], raw, s.live)); err != nil {
						return err
					}
					if s.variant < genuine && !s.live {
						offered = append(offered, parsedID(rt, events[s.event]))
					}
					if !s.barrier {
						continue
					}
					answer, err := w.Barrier(ctx)
					if err != nil {
						return err
					}
					if err := <-answer; err != nil {
						return err
					}
					for _, id := range offered {
						if !w.log.isDurable(id) {
							return fmt.Errorf("the barrier was answered, but %s is not durable", id)
						}
					}
				}
				return nil
			})
		}
		err := g.Wait()
		w.close()
		for _, s := range shards {
			err = errors.Join(err, s.wait(ctx))
		}
		err = errors.Join(err, writer.wait(stopped()))
		w.log.write(len(w.log.queue))
		w.log.sync()
		err = errors.Join(err, index.wait(stopped()))
		if err != nil {
			rt.Fatal(err)
		}
		if len(w.log.durable) != len(want) || len(w.log.written) != len(want) {
			rt.Errorf("%d lines of %d events, want each of %d once", len(w.log.written), len(w.log.durable), len(want))
		}
		for id := range want {
			if w.log.durable[id] != 1 {
				rt.Errorf("%s is in the log %d times, want once", id, w.log.durable[id])
			}
		}
		for _, d := range doors {
			if n := d.Tally.Read().InFlight; n != 0 {
				rt.Errorf("%s: %d in flight at the end, want 0", d.Relay, n)
			}
		}
		w.idle(rt)
	})
}
