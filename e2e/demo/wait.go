package main

import (
	"context"
	"fmt"
	"time"
)

// until waits for something that another process does, looking every 20 ms.
func until(what string, done func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			return fmt.Errorf("within %s: %s: it did not happen", patience, what)
		}
	}
	return nil
}

func contextFor() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 5*time.Second)
}
