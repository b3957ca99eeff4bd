package pipeline

import (
	"strings"
	"testing"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// What a shard takes at once: what waits, but no history for which live events would wait, nothing behind a barrier, and only so much.
func TestGather(t *testing.T) {
	big := int64(maxBatchBytes / 4)
	for name, tt := range map[string]struct {
		live, history []item
		want          string // batches of l(ive), h(istory) and b(arriers)
	}{
		"one":                   {[]item{{}}, nil, "l"},
		"one of each":           {[]item{{}}, []item{{}}, "l h"},
		"live before history":   {make([]item, 3), make([]item, 10), "lll hhhhhhhhhh"},
		"history's turn":        {make([]item, 20), make([]item, 2), "llllllllllllllllhllll h"},
		"a barrier ends one":    {nil, []item{{}, {barrier: &barrier{}}, {}, {}}, "hb hh"},
		"a barrier alone":       {make([]item, 2), []item{{barrier: &barrier{}}, {barrier: &barrier{}}}, "ll b b"},
		"so many bytes":         {nil, []item{{size: big}, {size: big}, {size: big}, {size: big}, {size: 9 * big}, {size: 1}}, "hhhh h h"},
		"so many":               {nil, make([]item, event.MaxBatch+1), strings.Repeat("h", event.MaxBatch) + " h"},
		"history behind live":   {make([]item, 1), make([]item, 40), "l" + strings.Repeat(" "+strings.Repeat("h", shortBatch), 2) + " hhhhhhhh"},
		"live to the last item": {make([]item, liveQueue), nil, strings.Repeat("l", min(liveQueue, event.MaxBatch))},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShard(nil, nil, newBudget(), make(chan struct{}))
			for _, it := range tt.live {
				it.live = true
				s.live <- it
			}
			for _, it := range tt.history {
				s.history <- it
			}
			var got []string
			for len(s.live)+len(s.history) > 0 {
				if !s.gather(t.Context()) {
					t.Fatal("nothing is gathered")
				}
				var batch strings.Builder
				for _, w := range s.batch {
					switch {
					case w.barrier != nil:
						batch.WriteByte('b')
					case w.live:
						batch.WriteByte('l')
					default:
						batch.WriteByte('h')
					}
				}
				got = append(got, batch.String())
				s.batch = s.batch[:0]
			}
			if got := strings.Join(got, " "); got != tt.want {
				t.Errorf("batches %s, want %s", got, tt.want)
			}
		})
	}
}

// Copies of one event in one batch are settled one behind the other: forged ones first, and in between, keep nobody out, and one is
// archived. The other events of the batch are none the worse.
func TestCopiesInOneBatch(t *testing.T) {
	events := notes(1, 6)
	forged := func(e string) string { return strings.Replace(e, `"kind":1`, `"kind":2`, 1) } // not the hash
	offered := []string{
		relaytest.BadSig(events[0]), events[1], relaytest.BadSig(events[0]), events[0], events[0], relaytest.BadSig(events[0]),
		forged(events[2]), events[2], events[3], relaytest.EscapedID(events[3]), events[4], events[4],
		relaytest.BadSig(events[5]),
	}
	for name, live := range map[string]bool{"live": true, "history": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorkshop(t, t.TempDir(), 1)
			door := sources.NewDoor("ws://a", nil)
			for _, raw := range offered {
				door.Tally.Received.Add(1)
				if err := w.Offer(t.Context(), w.frame(door, raw, live)); err != nil {
					t.Fatal(err)
				}
			}
			w.close()
			s := w.shards[0]
			if !s.gather(t.Context()) || len(s.batch) != len(offered) {
				t.Fatalf("a batch of %d, want all %d", len(s.batch), len(offered))
			}
			if err := s.settle(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, it := range w.log.queue {
				got = append(got, it.e.ID.String())
			}
			want := idsOf([]string{events[1], events[0], events[2], events[3], events[4]})
			if strings.Join(got, " ") != strings.Join(want, " ") {
				t.Errorf("archived:\n%s\nwant, in this order:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			// Behind the genuine one a forged copy is a copy, like any other.
			if n, bad, copies := door.Tally.New.Load(), door.Tally.Invalid(), door.Tally.Copies.Load(); n != 5 || bad != 4 || copies != 4 {
				t.Errorf("%d new, %d invalid, %d copies; want 5, 4, 4", n, bad, copies)
			}
			if n := door.Tally.Read().InFlight; n != 0 {
				t.Errorf("%d in flight", n)
			}
			w.idle(t)
		})
	}
}

// BenchmarkShard is a new event from its reader to the archive's queue, in batches as long as they can be.
func BenchmarkShard(b *testing.B) {
	const batches = 32
	door := sources.NewDoor("ws://a", nil)
	events := notes(1, batches*event.MaxBatch)
	frames := make([]sources.Frame, len(events))
	for i, e := range events {
		frames[i] = (*workshop)(nil).frame(door, `["EVENT","x",`+e+`]`, false)
	}
	var w *workshop
	at := len(frames)
	b.ReportAllocs()
	for b.Loop() {
		if at == len(frames) {
			b.StopTimer()
			w, at = newWorkshop(b, b.TempDir(), 1), 0
			w.log.queue = make([]logItem, 0, len(frames))
			b.StartTimer()
		}
		for range event.MaxBatch {
			if err := w.Offer(b.Context(), frames[at]); err != nil {
				b.Fatal(err)
			}
			at++
		}
		w.shards[0].gather(b.Context())
		if err := w.shards[0].settle(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	if n := door.Tally.New.Load(); n < int64(b.N) {
		b.Fatalf("%d of %d are new", n, b.N*event.MaxBatch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*event.MaxBatch), "ns/event")
}
