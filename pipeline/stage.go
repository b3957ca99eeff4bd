package pipeline

import (
	"context"
	"fmt"
	"runtime/debug"
)

// stage is one running part of the pipeline with a context of its own: an errgroup's shared cancel would stop all of
// them at once and break the flow order.
type stage struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid once done is closed
}

// start runs f until it returns or its context is cancelled. An error or a panic is sent to failed, if there is room:
// the first one starts the ordered stop, the others are in err.
func start(ctx context.Context, name string, failed chan<- error, f func(context.Context) error) *stage {
	ctx, cancel := context.WithCancel(ctx)
	s := &stage{name: name, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		defer cancel()
		s.err = guard(name, func() error { return f(ctx) })
		if s.err != nil {
			select {
			case failed <- s.err:
			default:
			}
		}
	}()
	return s
}

// guard turns a panic of f into an error that holds its stack.
func guard(name string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v\n%s", name, p, debug.Stack())
		}
	}()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// wait gives the stage until ctx ends to return by itself, then cancels it and waits for good.
func (s *stage) wait(ctx context.Context) error {
	select {
	case <-s.done:
	case <-ctx.Done():
		s.cancel()
		<-s.done
	}
	return s.err
}

// stopped is a context that has ended: wait(stopped()) cancels at once.
func stopped() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}
