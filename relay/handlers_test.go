package relay

import (
	"sync/atomic"
	"testing"
)

// TestHandlersThatAreRemoved: a session that lives for weeks does not keep the handlers of what was asked on it, but one that is being
// called, for leave waits for its end.
func TestHandlersThatAreRemoved(t *testing.T) {
	c := &core{}
	c.handlers.Store(&[]*registered{})
	s := &Session{core: c}
	stays := s.Handle(&Handler{})
	for range 1000 {
		s.Handle(&Handler{Awaits: func() bool { return true }})()
	}
	if len(s.handlers) != 1 || len(*c.handlers.Load()) != 1 || c.awaits() {
		t.Errorf("%d handlers in the session, %d in use, want 1", len(s.handlers), len(*c.handlers.Load()))
	}
	stays()

	remove := s.Handle(&Handler{})
	called := s.handlers[0]
	called.mu.Lock()
	remove()
	left := make(chan struct{})
	var over atomic.Bool
	go func() {
		defer close(left)
		s.leave()
		if !over.Load() {
			t.Error("left while a handler was being called")
		}
	}()
	over.Store(true)
	called.mu.Unlock()
	<-left
	if len(s.handlers) > 0 {
		t.Errorf("%d handlers after the session was left", len(s.handlers))
	}
}
