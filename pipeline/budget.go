package pipeline

import (
	"context"
	"fmt"

	"golang.org/x/sync/semaphore"
)

// Bytes of events between the readers and the shards. 16 MiB is 10,000 events of the usual 1.1 kB and holds one
// event of the largest max_frame that config accepts (16 MiB).
const (
	budgetBytes  = 16 << 20
	historyBytes = budgetBytes / 2
)

// budget bounds the bytes in flight. History may fill half of it, so that live events find room during a backfill.
//
// Only readers acquire, and always history's half first and then the whole; shards release. So the wait graph is
// reader → shard → appender → disk and has no cycle.
type budget struct {
	whole, history *semaphore.Weighted
}

func newBudget() *budget {
	return &budget{whole: semaphore.NewWeighted(budgetBytes), history: semaphore.NewWeighted(historyBytes)}
}

// acquire waits for n bytes and returns what release must get back: a frame larger than a whole share counts as one.
func (b *budget) acquire(ctx context.Context, n int, live bool) (int64, error) {
	size := int64(n)
	if live {
		size = min(size, budgetBytes)
	} else {
		size = min(size, historyBytes)
		if err := b.history.Acquire(ctx, size); err != nil {
			return 0, fmt.Errorf("wait for room for %d bytes of history: %w", n, err)
		}
	}
	if err := b.whole.Acquire(ctx, size); err != nil {
		if !live {
			b.history.Release(size)
		}
		return 0, fmt.Errorf("wait for room for %d bytes: %w", n, err)
	}
	return size, nil
}

func (b *budget) release(size int64, live bool) {
	b.whole.Release(size)
	if !live {
		b.history.Release(size)
	}
}
