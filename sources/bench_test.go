package sources

import (
	"context"
	"testing"

	"github.com/rs/zerolog"

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

func (progress) Progress() {}

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
