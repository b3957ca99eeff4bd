package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// signals turns SIGINT and SIGTERM into the two contexts of a stop: the first signal ends ctx, which stops in the order
// of the flow; the second ends hurry, which cuts that short. stop gives the signals back.
func signals(parent context.Context) (ctx, hurry context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	hurry, cancelHurry := context.WithCancel(context.WithoutCancel(parent))
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, end := range []context.CancelFunc{cancel, cancelHurry} {
			select {
			case <-ch:
				end()
			case <-done:
				return
			}
		}
	})
	return ctx, hurry, func() {
		signal.Stop(ch)
		close(done)
		wg.Wait()
		cancel()
		cancelHurry()
	}
}
