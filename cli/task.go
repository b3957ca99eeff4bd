package cli

import (
	"fmt"
	"runtime/debug"
)

// task is a goroutine that somebody waits for. A panic in it becomes its error.
type task struct {
	done chan struct{}
	err  error
}

func spawn(name string, f func() error) *task {
	t := &task{done: make(chan struct{})}
	go func() {
		defer close(t.done)
		defer func() {
			if p := recover(); p != nil {
				t.err = fmt.Errorf("%s: panic: %v\n%s", name, p, debug.Stack())
			}
		}()
		if err := f(); err != nil {
			t.err = fmt.Errorf("%s: %w", name, err)
		}
	}()
	return t
}

func (t *task) wait() error {
	<-t.done
	return t.err
}
