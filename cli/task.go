package cli

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
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

// hurryTime is what the end of everything gets after a second signal: the archive's last try (2 s) and the ledgers'.
const hurryTime = 5 * time.Second

// endsSoonAfter waits for the task to end, but once hurry has ended for hurryTime only.
func (t *task) endsSoonAfter(hurry context.Context) bool {
	select {
	case <-t.done:
		return true
	case <-hurry.Done():
	}
	last := time.NewTimer(hurryTime)
	defer last.Stop()
	select {
	case <-t.done:
		return true
	case <-last.C:
		return false
	}
}
