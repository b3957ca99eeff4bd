package relay

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

// roles is the set of a link's roles, changed from any goroutine while the link serves them.
type roles struct {
	changed chan struct{} // holds one token after a change that Run must look at

	mu  sync.Mutex // over everything below, and over the fields of entries
	set map[string]*entry

	held  time.Time // since when no role is served, by the operator's wish; zero: they are
	hurry bool      // a wait under way is to end now
}

// entry is a role in use.
type entry struct {
	name   string
	role   Role
	after  chan struct{} // closed when the role that this one replaces has been left; nil: none
	until  time.Time     // paused
	reason string
	woken  bool                    // while serving: the next pause is the one that wake has just ended
	cancel context.CancelCauseFunc // while serving
	left   chan struct{}           // while serving: closed when Serve has returned and no handler runs
	alone  string                  // why it wants a session of its own; "": it does not
}

var (
	errRemoved = errors.New("role removed")
	errHeld    = errors.New("paused by the operator")
	errAside   = errors.New("another role needs the connection for itself")
)

// hold leaves every role until wake. left are closed when they have been left.
func (r *roles) hold(since time.Time) (left []<-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = since
	for _, e := range r.set {
		if e.left != nil {
			e.cancel(errHeld)
			left = append(left, e.left)
		}
	}
	r.hurry = true // out of a backoff, so that the status says what holds now
	r.tell()
	return left
}

// wake ends hold, the roles' own pauses, and a wait under way.
func (r *roles) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held, r.hurry = time.Time{}, true
	for _, e := range r.set {
		e.until, e.reason = time.Time{}, ""
		// A role that has decided to pause may still be on its way out of Serve.
		e.woken = e.left != nil
	}
	r.tell()
}

// hasten ends a wait under way.
func (r *roles) hasten() {
	r.mu.Lock()
	r.hurry = true
	r.mu.Unlock()
	r.tell()
}

// hurried says whether a wait is to end now, once.
func (r *roles) hurried() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.hurry
	r.hurry = false
	return was
}

func (r *roles) heldSince() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held
}

func (r *roles) tell() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// heard takes the token of changes so far.
func (r *roles) heard() {
	select {
	case <-r.changed:
	default:
	}
}

// put adds a role, in place of one of the same name, which is left first.
func (r *roles) put(name string, role Role) {
	r.mu.Lock()
	e := &entry{name: name, role: role}
	if old := r.set[name]; old != nil {
		e.after = old.after // old may itself still wait for the one before it
		if old.left != nil {
			e.after = old.left
			old.cancel(errRemoved)
		}
	}
	r.set[name] = e
	r.mu.Unlock()
	r.tell()
}

// remove takes a role out and returns a channel that is closed when it has been left; nil if there is nothing to wait for.
func (r *roles) remove(name string) (left <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.set[name]
	if old == nil {
		return nil
	}
	delete(r.set, name)
	left = old.after
	if old.left != nil {
		left = old.left
		old.cancel(errRemoved)
	}
	r.tell()
	return left
}

// startLocked reports whether a role can be served now; if not, when (zero: after a change).
func (e *entry) startLocked(now time.Time) (ready bool, at time.Time) {
	if e.left != nil {
		return false, time.Time{}
	}
	if e.after != nil {
		select {
		case <-e.after:
			e.after = nil
		default:
			return false, time.Time{}
		}
	}
	if now.Before(e.until) {
		return false, e.until
	}
	return true, time.Time{}
}

// loneLocked is the role that wants the link for itself, nil if none does.
func (r *roles) loneLocked() (lone *entry) {
	for _, e := range r.set {
		if e.alone != "" && (lone == nil || e.name < lone.name) {
			lone = e
		}
	}
	return lone
}

// outlook says how many roles there are, whether one of them can be served now, and else when the first can (zero:
// after a change).
func (r *roles) outlook() (n int, ready bool, next time.Time, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.held.IsZero() {
		return len(r.set), false, time.Time{}, ""
	}
	now := time.Now()
	lone := r.loneLocked()
	for _, e := range r.set {
		if lone != nil && e != lone {
			continue
		}
		ok, at := e.startLocked(now)
		ready = ready || ok
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next, reason = at, e.reason
		}
	}
	return len(r.set), ready, next, reason
}

func (r *roles) status() []RoleStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]RoleStatus, 0, len(r.set))
	lone := r.loneLocked()
	for _, e := range r.set {
		s := RoleStatus{Name: e.name, Serving: e.left != nil}
		switch {
		case s.Serving:
		case time.Now().Before(e.until):
			s.Until, s.Reason = e.until, e.reason
		case lone != nil && e != lone:
			s.Reason = lone.alone
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b RoleStatus) int { return strings.Compare(a.Name, b.Name) })
	return out
}
