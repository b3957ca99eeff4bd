package relay

import (
	"cmp"
	"context"
	"errors"
	"time"
)

// outcome is how a role left a session.
type outcome struct {
	entry *entry
	err   error
	cause error // of its ctx's or the session's end, nil if both still lived when Serve returned
}

// progressLook is how often a live session is asked whether it brought progress, to clear the status of old errors.
const progressLook = time.Second

// attend serves the link's roles on a session until it ends, ctx ends, or no role can be served on it any more. It
// returns with the session ended and all its goroutines gone. nil: left on purpose.
func (l *Link) attend(ctx, infoCtx context.Context, c *core) error {
	outcomes := make(chan outcome)
	serving := 0
	why := &End{Reason: ClosedByUs}
	var failure error // a role's, or a panic; ends the session
	look := time.NewTicker(progressLook)
	defer look.Stop()
	for failure == nil && ctx.Err() == nil && c.err() == nil {
		if now := l.settings.Load(); now != c.dialed && Redials(l.o.URL, *c.dialed, *now) {
			l.o.Log.Info().Msg("connecting anew, as the changed settings want it")
			break
		}
		started, next := l.startRoles(ctx, c, outcomes)
		if serving += started; serving == 0 {
			break
		}
		timer := time.NewTimer(time.Until(next))
		if next.IsZero() {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
		case <-c.done:
		case <-l.roles.changed:
		case <-timer.C:
		case <-look.C:
			if c.progress.Load() {
				l.board.change(func(s *LinkStatus) { s.Tries, s.Reason, s.LastError = 0, "", "" })
			}
			l.refreshInfo(ctx, infoCtx, false)
		case o := <-outcomes:
			serving--
			if end, err := l.settle(o); err != nil {
				failure = err
			} else if end != nil {
				why = end
			}
		}
		timer.Stop()
	}
	// The session still lives unless it was its end that brought us here: roles may say CLOSE, sinks hear their last OKs.
	l.cancelRoles(c)
	for ; serving > 0; serving-- {
		o := <-outcomes
		if _, err := l.settle(o); err != nil && failure == nil {
			failure = err
		}
	}
	ended := c.err()
	if failure != nil {
		why = endOf(failure)
	}
	c.stop(why)
	var p *PanicError
	if errors.As(c.err(), &p) {
		return p
	}
	if errors.As(failure, &p) {
		return p
	}
	if ended != nil {
		return ended
	}
	return failure
}

// startRoles serves the roles that can be. next is when another one can, zero if only after a change.
func (l *Link) startRoles(ctx context.Context, c *core, outcomes chan<- outcome) (started int, next time.Time) {
	l.roles.mu.Lock()
	defer l.roles.mu.Unlock()
	if !l.roles.held.IsZero() {
		return 0, time.Time{}
	}
	lone := l.roles.loneLocked()
	for _, e := range l.roles.set {
		switch {
		case lone == nil:
		case e != lone:
			if e.left != nil {
				e.cancel(errAside)
			}
			continue
		case c.used:
			continue // this session is left as soon as the others are; the next one is its own
		}
		ready, at := e.startLocked(time.Now())
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
		if !ready {
			continue
		}
		c.used = true
		roleCtx, cancel := context.WithCancelCause(ctx)
		e.cancel, e.left, e.until, e.reason = cancel, make(chan struct{}), time.Time{}, ""
		s := &Session{core: c, cancel: cancel, alone: lone != nil}
		started++
		go serve(roleCtx, s, e, e.left, outcomes) // attend waits for its outcome
	}
	return started, next
}

// serve runs one role on one session. It sends exactly one outcome.
func serve(ctx context.Context, s *Session, e *entry, left chan struct{}, outcomes chan<- outcome) {
	o := outcome{entry: e}
	defer func() {
		recovered("role "+e.name+" of "+s.core.url, recover(), &o.err)
		if o.cause = context.Cause(ctx); o.cause == nil {
			o.cause = s.core.err()
		}
		s.cancel(errRemoved) // its handlers must not wait for a Serve that is gone
		s.leave()
		close(left)
		outcomes <- o
	}()
	o.err = e.role.Serve(ctx, s)
}

// settle books a role's outcome. err ends the session; end is why it should be left if this was its last role.
func (l *Link) settle(o outcome) (end *End, err error) {
	l.roles.mu.Lock()
	defer l.roles.mu.Unlock()
	e := o.entry
	e.cancel, e.left, e.alone = nil, nil, ""
	var p *PanicError
	if errors.As(o.err, &p) {
		return nil, o.err
	}
	if l.roles.set[e.name] != e {
		return nil, nil // removed or replaced
	}
	var stalled *End
	if errors.As(o.cause, &stalled) && stalled.Reason == ArchiveStalled {
		// Closed on purpose; it comes back when the archive may be moving again.
		pause := l.settings.Load().Stall / 2
		e.until, e.reason = time.Now().Add(pause), string(ArchiveStalled)
		l.o.Log.Warn().Str("role", e.name).Stringer("for", pause).Msg("archive stalled: role paused")
		return stalled, nil
	}
	var pause *Pause
	asks, woken := errors.As(o.err, &pause), e.woken
	e.woken = false
	if asks && woken && !pause.Alone {
		return nil, nil
	}
	if asks { // also at the session's end: auth-required, say, and then a close
		e.until, e.reason = time.Now().Add(pause.For), clean(pause.Reason)
		if pause.Alone {
			e.alone = cmp.Or(e.reason, e.name)
		}
		l.o.Log.Debug().Str("role", e.name).Str("reason", e.reason).Stringer("for", pause.For).Msg("role paused")
		return nil, nil
	}
	if o.cause != nil {
		return nil, nil // the session or the link ended before the role did: what it returned says nothing
	}
	if o.err == nil {
		delete(l.roles.set, e.name)
		l.o.Log.Debug().Str("role", e.name).Msg("role finished")
		return nil, nil
	}
	return nil, &End{Reason: RoleFailed, Err: o.err}
}

// cancelRoles ends the ctx of every role that is being served.
func (l *Link) cancelRoles(c *core) {
	cause := c.err()
	if cause == nil {
		cause = &End{Reason: ClosedByUs}
	}
	l.roles.mu.Lock()
	defer l.roles.mu.Unlock()
	for _, e := range l.roles.set {
		if e.cancel != nil {
			e.cancel(cause)
		}
	}
}

// refreshInfo fetches the NIP-11 document when it is due, on a goroutine that Run waits for. At a connect the roles
// wait for it, for a moment; the fetch itself may take longer.
func (l *Link) refreshInfo(ctx, infoCtx context.Context, connecting bool) {
	age := infoAge
	if !l.info.Load().Known {
		age = infoRetry
	}
	if !l.infoAt.IsZero() && time.Since(l.infoAt) < age {
		return
	}
	l.infoAt = time.Now()
	got := make(chan struct{})
	d := l.dialer(l.settings.Load())
	l.fetching.Add(1)
	go func() {
		defer l.fetching.Done()
		defer close(got)
		var err error
		defer func() {
			if err != nil {
				l.o.Log.Debug().Err(err).Msg("no NIP-11 document")
			}
		}()
		defer func() { recovered("NIP-11 of "+l.o.URL, recover(), &err) }()
		var info Info
		if info, err = d.fetchInfo(infoCtx); err == nil {
			info.Fetched = time.Now()
			l.info.Store(&info)
		}
	}()
	if !connecting {
		return
	}
	timer := time.NewTimer(l.settings.Load().Info)
	defer timer.Stop()
	select {
	case <-got:
	case <-timer.C:
	case <-ctx.Done():
	}
}
