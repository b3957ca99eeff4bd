package pipeline

import (
	"context"
	"maps"
	"slices"
	"time"
)

// A sink that leaves the config hears the answers to what is out, and its ledger is committed: what it took is not sent
// again when it comes back. That takes a moment, or leaveGrace where the relay does not answer, and nobody waits for it but
// who wants the same relay again: two must not hold one ledger.

const (
	// leaveGrace is how long a sink that leaves may wait for its answers.
	leaveGrace = 5 * time.Second
	// rejoinWait is how much of that is left once the relay is to come back.
	rejoinWait = time.Second
)

// leave closes l: its source at once, the rest when its sink has heard its answers. The Mirror does not know l any more.
func (m *Mirror) leave(l *link) {
	m.setLink(l.url, nil)
	l.closeSource()
	if _, sink := l.roles(); sink != nil {
		m.leaving(l, sink, l.close)
		return
	}
	m.awaitLeft(m.running, l.url) // a sink that has left it before
	l.close()
}

// leaveSink takes the sink role from l, whose connection stays.
func (m *Mirror) leaveSink(l *link, sink *sinkRoleOf) {
	l.setSink(nil)
	m.leaving(l, sink, func() { l.wire.Remove(sinkRole) })
}

// leaving stops sink's sending at once; later it has heard its answers, is ended, and its ledger committed. Apply is under way,
// and has waited for a sink that left the same relay before.
func (m *Mirror) leaving(l *link, sink *sinkRoleOf, end func()) {
	sink.Halt()
	m.mu.Lock()
	defer m.mu.Unlock()
	var s *stage
	s = start(m.running, "leave "+l.url, m.failed, func(ctx context.Context) error {
		grace, cancel := context.WithTimeout(ctx, leaveGrace)
		defer cancel()
		l.drain(grace, sink)
		end()
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		defer cancel()
		if err := sink.Flush(flush); err != nil {
			l.log.Warn().Err(err).Msg("what the sink that was removed answered last is not kept: it would be sent again")
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.left[l.url] == s {
			delete(m.left, l.url)
		}
		return nil
	})
	m.left[l.url] = s
}

// awaitLeft waits until nothing is leaving url any more.
func (m *Mirror) awaitLeft(ctx context.Context, url string) {
	m.mu.Lock()
	s := m.left[url]
	m.mu.Unlock()
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, rejoinWait)
	defer cancel()
	s.wait(ctx)
}

// waitLeaving waits for everything that is leaving. The links' context has ended, which cuts it short.
func (m *Mirror) waitLeaving() error {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.left))
	m.mu.Unlock()
	var errs []error
	for _, s := range all {
		<-s.done
		errs = append(errs, s.err)
	}
	return firstOf(errs)
}
