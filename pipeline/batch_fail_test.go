package pipeline

import (
	"context"
	"errors"
	"slices"
	"testing"

	"rebroadcastr/dedup"
	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// fickle is a log that takes left events more, and then does what fails says.
type fickle struct {
	*log
	left    int
	fails   func() error
	origins []string // relays
}

func (f *fickle) Append(ctx context.Context, e event.Event, o record.Origin) error {
	if f.left--; f.left < 0 {
		return f.fails()
	}
	f.origins = append(f.origins, o.Relay)
	return f.log.Append(ctx, e, o)
}

// A batch that ends in its middle: what was handed over before is on its way, what is behind leaves no trace, no barrier passes, and
// each byte of the budget is back.
func TestBatchEndsInTheMiddle(t *testing.T) {
	broken := errors.New("broken")
	for name, tt := range map[string]struct {
		cancelled bool
		want      error
	}{"the archive fails": {false, broken}, "cancelled": {true, nil}} {
		t.Run(name, func(t *testing.T) {
			w := newWorkshop(t, t.TempDir(), 1)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			f := &fickle{log: w.log, left: 2, fails: func() error {
				if tt.cancelled {
					cancel()
					return ctx.Err()
				}
				return broken
			}}
			s := w.shards[0]
			s.archive = f
			door := sources.NewDoor("ws://a", nil)
			events := notes(1, 6)
			// The last is a copy that is looked at again behind the first, which never comes to its end.
			for _, raw := range append(events, relaytest.EscapedID(events[0]), relaytest.BadSig(events[5]), events[5]) {
				if err := w.Offer(ctx, w.frame(door, raw, false)); err != nil {
					t.Fatal(err)
				}
			}
			answer, err := w.Barrier(ctx)
			if err != nil {
				t.Fatal(err)
			}
			w.close()
			if err := s.run(ctx); !errors.Is(err, tt.want) {
				t.Errorf("the shard ends with %v, want %v", err, tt.want)
			}
			want := []dedup.State{dedup.Pending, dedup.Pending, dedup.Pending, dedup.Absent, dedup.Absent, dedup.Absent} // the third may be on its way
			for i, e := range events {
				if got, err := w.index.Lookup(parsedID(t, e)); err != nil || got != want[i] {
					t.Errorf("event %d is %v (%v), want %v", i, got, err, want[i])
				}
			}
			w.cutOff(t, answer, door, 2)
		})
	}
}

// Copies in one batch of several relays: each counts at its own door, and the first genuine one that is asked for is archived as its
// relay's.
func TestCopiesInOneBatchOfSeveralRelays(t *testing.T) {
	w := newWorkshop(t, t.TempDir(), 1)
	f := &fickle{log: w.log, left: 10}
	s := w.shards[0]
	s.archive = f
	e := notes(1, 1)[0]
	type counts struct{ fresh, copies, invalid, unasked int64 }
	offers := []struct {
		relay string
		raw   string
		want  counts
	}{
		{"ws://forger", relaytest.BadSig(e), counts{invalid: 1}},
		{"ws://unasked", e, counts{unasked: 1}},
		{"ws://first", relaytest.EscapedID(e), counts{fresh: 1}},
		{"ws://second", e, counts{copies: 1}},
		{"ws://late", relaytest.BadSig(e), counts{copies: 1}},
	}
	var doors []*sources.Door
	for _, o := range offers {
		door := sources.NewDoor(o.relay, nil)
		if o.relay == "ws://unasked" {
			door.SetWant(event.Selection{All: [][]event.Filter{{{Kinds: []int{7}}}}}.Compile())
		}
		door.Tally.Received.Add(1)
		if err := w.Offer(t.Context(), w.frame(door, o.raw, false)); err != nil {
			t.Fatal(err)
		}
		doors = append(doors, door)
	}
	if !s.gather(t.Context()) || len(s.batch) != len(offers) {
		t.Fatalf("a batch of %d, want all %d", len(s.batch), len(offers))
	}
	if err := s.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.origins, []string{"ws://first"}) {
		t.Errorf("archived from %q, want once, from ws://first", f.origins)
	}
	for i, d := range doors {
		got := counts{d.Tally.New.Load(), d.Tally.Copies.Load(), d.Tally.Invalid(), d.Tally.Unasked.Load()}
		if got != offers[i].want {
			t.Errorf("%s: %+v, want %+v", d.Relay, got, offers[i].want)
		}
	}
	w.idle(t)
}
