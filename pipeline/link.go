package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/config"
	"rebroadcastr/relay"
	"rebroadcastr/report"
	"rebroadcastr/sinks"
	"rebroadcastr/sources"
)

// sourceTries is how often a one-shot command tries a source in a row.
const sourceTries = 3

// The names under which a link knows its roles.
const (
	sourceRole = "source"
	sinkRole   = "sink"
)

// link is one relay with its roles: one websocket, also when it is source and sink.
type link struct {
	m     *Mirror
	url   string
	order atomic.Int64 // among the links, as the user wrote them
	log   zerolog.Logger
	wire  *relay.Link

	mu     sync.Mutex // over the roles; only Apply and the stop change them, one at a time
	source *sourceRoleOf
	sink   *sinkRoleOf

	stage  *stage // nil until started, which is before the Mirror knows the link
	gaveUp atomic.Pointer[string]
}

// sourceRoleOf is a link's source; sinkRoleOf its sink.
type sourceRoleOf struct {
	*watched
	name string
	door *sources.Door
	from *sources.Source
}

type sinkRoleOf struct {
	*sinks.Sink
	name   string
	before report.Sink // the ledger at start
}

// watched is a role whose end can be waited for.
type watched struct {
	relay.Role
	once  sync.Once
	ended chan struct{}
}

func watch(r relay.Role) *watched { return &watched{Role: r, ended: make(chan struct{})} }

// Serve runs the role; nil is its end for good.
func (w *watched) Serve(ctx context.Context, s *relay.Session) error {
	err := w.Role.Serve(ctx, s)
	if err == nil {
		w.end()
	}
	return err
}

func (w *watched) end() { w.once.Do(func() { close(w.ended) }) }

func newLink(m *Mirror, url string, settings relay.Settings, r roles) *link {
	o := relay.LinkOptions{URL: url, Settings: settings, Log: m.log, BigFrames: m.bigFrames, UserAgent: "rebroadcastr/" + m.o.Version}
	if m.o.Once {
		// A relay that is a sink too is worth waiting for as long as a sink is.
		if r.sink != nil {
			o.GiveUpAfter = m.o.GiveUp
		} else {
			o.MaxTries = sourceTries
		}
	}
	return &link{m: m, url: url, log: m.log.With().Str("relay", url).Logger(), wire: relay.NewLink(o)}
}

// apply makes the link's roles what r says.
func (l *link) apply(cfg *config.Config, r roles) error {
	l.order.Store(int64(r.order))
	l.wire.SetSettings(cfg.Relay(l.url))
	// What joins goes before what leaves: a link without a role ends.
	if r.source != nil {
		l.applySource(cfg, r.source)
	}
	if r.sink != nil {
		if err := l.applySink(cfg, r.sink); err != nil {
			return err
		}
	}
	if r.source == nil {
		l.closeSource()
		l.setSource(nil)
	}
	if _, sink := l.roles(); sink != nil && r.sink == nil {
		l.m.leaveSink(l, sink)
	}
	return nil
}

// over says whether the link has ended: given up, or left by its last role. The status says the same.
func (l *link) over() bool { return l.wire.Status().State == relay.StateEnded }

func (l *link) applySource(cfg *config.Config, c *config.Source) {
	wish := sources.Wish{
		Filters: asked(cfg, c.Only), History: sources.History{None: c.History.None, Since: c.History.Since},
		Want: wanted(cfg, c.Only, c.Except).Compile(), Narrow: narrowing(cfg, c.Only, c.Except),
	}
	backoff := cfg.Relay(l.url).Backoff
	reconcile := sources.Reconcile(c.Reconcile)
	if now, _ := l.roles(); now != nil {
		now.from.Ask(wish)
		now.from.SetBackoff(backoff)
		now.from.SetReconcile(reconcile)
		l.setSource(&sourceRoleOf{watched: now.watched, name: c.Name, door: now.door, from: now.from})
		return
	}
	door := sources.NewDoor(l.url, wish.Want)
	door.NoDeliver = l.m.o.NoDeliver
	from := sources.New(sources.Options{
		URL: l.url, Door: door, Intake: l.m.intake, State: l.m.o.Store.State, Seen: l.m.seen, Filters: wish.Filters, History: wish.History, Narrow: wish.Narrow,
		Reconcile: reconcile, Once: l.m.o.Once, Again: l.m.o.Again, Limit: l.m.o.Limit, Oldest: &l.m.oldest, Backoff: backoff, Now: l.m.o.Now, Log: l.m.log,
	})
	role := &sourceRoleOf{watched: watch(from), name: c.Name, door: door, from: from}
	l.setSource(role)
	l.wire.Add(sourceRole, role)
}

func (l *link) applySink(cfg *config.Config, c *config.Sink) error {
	o, err := l.m.sinkOptions(cfg, c)
	if err != nil {
		return err
	}
	if _, now := l.roles(); now != nil {
		now.SetSettings(o.Settings)
		now.SetRules(o.Want, o.FilterKey, o.Allow)
		now.SetReconcile(o.Filters, o.Reconcile)
		l.setSink(&sinkRoleOf{Sink: now.Sink, name: c.Name, before: now.before})
		return nil
	}
	l.m.awaitLeft(l.m.running, l.url)
	sink, err := sinks.New(o)
	if err != nil {
		return fmt.Errorf("open sink %s: %w", l.url, err)
	}
	l.setSink(&sinkRoleOf{Sink: sink, name: c.Name, before: sinkRow(sink.Status())})
	l.wire.Add(sinkRole, sink)
	return nil
}

func (l *link) roles() (*sourceRoleOf, *sinkRoleOf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.source, l.sink
}

func (l *link) setSource(r *sourceRoleOf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.source = r
}

func (l *link) setSink(r *sinkRoleOf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sink = r
}

// start runs the link below ctx, once.
func (l *link) start(ctx context.Context) {
	if l.stage != nil {
		return
	}
	l.stage = start(ctx, l.url, l.m.failed, func(ctx context.Context) error {
		defer func() {
			if source, _ := l.roles(); source != nil {
				source.end()
			}
		}()
		if held := l.wire.Status().Held; l.m.o.Once && !held.IsZero() {
			text := "left out: " + heldText(l.url, held)
			l.gaveUp.Store(&text)
			l.log.Warn().Msg(text)
			return nil
		}
		err := l.wire.Run(ctx)
		var gave *relay.GaveUp
		if errors.As(err, &gave) {
			l.log.Error().Err(gave).Msg("given up")
			text := gave.Error()
			l.gaveUp.Store(&text)
			return nil // trouble of one relay is no failure of the others
		}
		return err
	})
}

// sourceEnded waits until the source role is done or given up.
func (l *link) sourceEnded(ctx context.Context) error {
	source, _ := l.roles()
	if source == nil {
		return nil
	}
	select {
	case <-source.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settledLook is how often a one-shot command looks whether a sink still settles anything.
const settledLook = 200 * time.Millisecond

// settled waits until the sink has a verdict or a parked row for everything below end, or nothing more can be hoped
// for: the link was given up, only an operator could help, or the sink answers and settles nothing (rate-limited, for
// ever).
func (l *link) settled(ctx context.Context, end uint64) {
	_, sink := l.roles()
	if sink == nil {
		return
	}
	waiting := start(ctx, "settle "+l.url, nil, func(ctx context.Context) error { return sink.Settled(ctx, end) })
	defer waiting.wait(stopped())
	look := time.NewTicker(settledLook)
	defer look.Stop()
	left, since := outstanding(sink.Status()), time.Now()
	for {
		select {
		case <-waiting.done:
			return
		case <-l.stage.done:
			return
		case <-look.C:
		}
		st := sink.Status()
		if n := outstanding(st); n < left {
			left, since = n, time.Now()
		}
		switch give := l.m.o.GiveUp; {
		case st.Paused != "":
			l.log.Error().Msg(pausedText(st))
			return
		case give > 0 && time.Since(since) >= give:
			text := fmt.Sprintf("given up: nothing settled within %s", give)
			l.log.Error().Msg(text)
			l.gaveUp.CompareAndSwap(nil, &text)
			return
		}
	}
}

// outstanding falls as long as a sink makes headway, with the tail or with a pass.
func outstanding(st sinks.Status) uint64 { return st.Pending + st.Recheck + st.Again }

func (l *link) closeSource() {
	if source, _ := l.roles(); source != nil {
		l.wire.Remove(sourceRole)
		source.end()
	}
}

// drainSink lets the sink hear the answers to what is out; nothing new is sent.
func (l *link) drainSink(ctx context.Context) {
	if _, sink := l.roles(); sink != nil {
		l.drain(ctx, sink)
	}
}

func (l *link) drain(ctx context.Context, sink *sinkRoleOf) {
	if err := sink.Drain(ctx); err != nil {
		l.log.Info().Msg("stopped before every answer came: what is unanswered is sent again by the next run")
	}
}

// close ends the link for good.
func (l *link) close() {
	if l.stage != nil {
		l.stage.cancel()
		<-l.stage.done
	}
}

func (l *link) wait() error {
	if l.stage == nil {
		return nil
	}
	<-l.stage.done
	return l.stage.err
}
