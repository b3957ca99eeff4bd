package localrelay

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/dgraph-io/badger/v4"
	store "github.com/fiatjaf/eventstore/badger"
	"github.com/nbd-wtf/go-nostr"
)

// TestShortPagesOfEventstore: its page for several authors need not be their newest events, but one that is not full holds all there
// is. Sources rely on both.
func TestShortPagesOfEventstore(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		db := &store.BadgerBackend{MaxLimit: 60, BadgerOptionsModifier: func(badger.Options) badger.Options {
			return badger.DefaultOptions("").WithInMemory(true).WithLogger(nil)
		}}
		if err := db.Init(); err != nil {
			t.Fatal(err)
		}
		f := nostr.Filter{Limit: 60}
		total := 0
		for a := range 2 + r.IntN(30) {
			author := fmt.Sprintf("%02x%062x", a+1, a+1)
			f.Authors = append(f.Authors, author)
			n := r.IntN(8)
			if r.IntN(5) == 0 {
				n = r.IntN(100)
			}
			for i := range n {
				e := &nostr.Event{PubKey: author, CreatedAt: nostr.Timestamp(1_700_000_000 + r.IntN(500)), Kind: 1, Content: fmt.Sprint(i), Tags: nostr.Tags{}, Sig: fmt.Sprintf("%0128x", i)}
				e.ID = e.GetID()
				if err := db.SaveEvent(ctx, e); err != nil {
					t.Fatal(err)
				}
				total++
			}
		}
		ch, err := db.QueryEvents(ctx, f)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for range ch {
			got++
		}
		if got != min(total, 60) {
			t.Errorf("seed %d: %d events of %d of %d authors, want as many as there are, or 60", seed, got, total, len(f.Authors))
		}
		db.Close()
	}
}
