package sources

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/dedup"
	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

type nowhere struct{}

func (nowhere) Offer(context.Context, Frame) error { return nil }
func (nowhere) Barrier(context.Context) (<-chan error, error) {
	ch := make(chan error, 1)
	ch <- nil
	return ch, nil
}

type progress struct{ session }

func (progress) Progress()              {}
func (progress) Stalled() time.Duration { return 0 }

// What the reader adds to a live frame before the intake.
func BenchmarkLiveFrame(b *testing.B) {
	ev := relaytest.Sign(relaytest.Key(1), 1, 1_700_000_000, [][]string{{"p", relaytest.Pub(relaytest.Key(2))}}, string(make([]byte, 600)))
	frame := []byte(`["EVENT","live-0",` + ev + `]`)
	s := New(Options{Door: NewDoor("", nil), Intake: nowhere{}, Log: zerolog.Nop()})
	v := &visit{s: s, ctx: context.Background(), sess: progress{}}
	b.ReportAllocs()
	for b.Loop() {
		v.event(frame)
	}
}

// seen is the way in of a copy: the pipeline's intake asks the LRU of the id's shard and drops it.
type seen struct {
	nowhere
	index *dedup.Index
}

func (k seen) Offer(_ context.Context, f Frame) error {
	if !k.index.Hit(f.Scan.ID) {
		return errors.New("not a copy")
	}
	f.Door.Tally.Copies.Add(1)
	return nil
}

// BenchmarkStageCopy is a copy of a known event from frame to drop, live and on a page.
func BenchmarkStageCopy(b *testing.B) {
	x, err := dedup.Open(dedup.Options{Dir: b.TempDir(), Shards: 2, Log: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	ev := relaytest.Sign(relaytest.Key(1), 1, 1_700_000_000, [][]string{{"p", relaytest.Pub(relaytest.Key(2))}}, string(make([]byte, 600)))
	scan, _ := event.ScanLine([]byte(ev))
	x.Begin(scan.ID)
	x.Written([]record.Record{{Event: event.Event{ID: scan.ID}}})
	for _, sub := range []string{"live-0", "page-1"} {
		b.Run(sub, func(b *testing.B) {
			frame := []byte(`["EVENT","` + sub + `",` + ev + `]`)
			s := New(Options{Door: NewDoor("", nil), Intake: seen{index: x}, Log: zerolog.Nop()})
			v := &visit{s: s, ctx: b.Context(), cancel: func(err error) { b.Fatal(err) }, sess: progress{}}
			w := newWalk(event.Filter{}, window{0, openEnd}, newManners(500, false))
			v.open.add(newPage(1, record.Page, w, w.next(500), openEnd, 0))
			b.ReportAllocs()
			for b.Loop() {
				v.event(frame)
			}
		})
	}
}
