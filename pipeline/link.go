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
	"rebroadcastr/place"
	"rebroadcastr/policy"
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
	m    *Mirror
	url  string
	log  zerolog.Logger
	wire *relay.Link

	name   string
	door   *sources.Door
	source *watched // nil without one
	from   *sources.Source
	sink   *sinks.Sink // nil without one
	before report.Sink // the sink's ledger at start

	stage  *stage // nil until started
	gaveUp atomic.Pointer[string]
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
	l.applySource(cfg, r.source)
	return l.applySink(cfg, r.sink)
}

func (l *link) applySource(cfg *config.Config, c *config.Source) {
	if c == nil {
		if l.source != nil {
			l.closeSource()
		}
		return
	}
	l.name = c.Name
	want := wanted(cfg, c.Only, c.Except).Compile()
	if l.source != nil {
		l.door.SetWant(want)
		return
	}
	l.door = sources.NewDoor(l.url, want)
	l.door.NoDeliver = l.m.o.NoDeliver
	l.from = sources.New(sources.Options{
		URL: l.url, Door: l.door, Intake: l.m.intake, State: l.m.o.Store.State, Filters: asked(cfg, c.Only),
		History: sources.History(c.History), Once: l.m.o.Once, Again: l.m.o.Again, Limit: l.m.o.Limit,
		Backoff: cfg.Relay(l.url).Backoff, Now: l.m.o.Now, Log: l.log,
	})
	l.source = watch(l.from)
	l.wire.Add(sourceRole, l.source)
}

func (l *link) applySink(cfg *config.Config, c *config.Sink) error {
	if c == nil {
		if l.sink != nil {
			l.wire.Remove(sinkRole)
			l.sink = nil
		}
		return nil
	}
	l.name = c.Name
	selection := wanted(cfg, c.Only, c.Except)
	allow, err := policy.NewAllow(c.Send)
	if err != nil {
		return fmt.Errorf("sink %s: %w", l.url, err)
	}
	if l.sink != nil {
		l.sink.SetWant(selection.Compile(), selectionKey(selection))
		return nil
	}
	a := l.m.o.Store.Archive
	sink, err := sinks.New(sinks.Options{
		URL: l.url, Want: selection.Compile(), FilterKey: selectionKey(selection), Allow: allow,
		Start: sinks.Start(c.Start), State: l.m.o.Store.State, Settings: cfg.Relay(l.url), Now: l.m.o.Now, Log: l.log,
		Open: func(from place.Place) (sinks.Reader, error) { return a.Reader(from), nil }, End: a.End,
	})
	if err != nil {
		return fmt.Errorf("open sink %s: %w", l.url, err)
	}
	l.sink = sink
	l.before = sinkRow(sink.Status())
	l.wire.Add(sinkRole, sink)
	return nil
}

// start runs the link below ctx, once.
func (l *link) start(ctx context.Context) {
	if l.stage != nil {
		return
	}
	l.stage = start(ctx, l.url, l.m.failed, func(ctx context.Context) error {
		defer func() {
			if l.source != nil {
				l.source.end()
			}
		}()
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
	if l.source == nil {
		return nil
	}
	select {
	case <-l.source.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// settled waits until the sink has a verdict or a parked row for everything below end, or the link was given up.
func (l *link) settled(ctx context.Context, end uint64) {
	if l.sink == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting := start(ctx, "settle "+l.url, nil, func(ctx context.Context) error { return l.sink.Settled(ctx, end) })
	select {
	case <-waiting.done:
	case <-l.stage.done:
	}
	waiting.cancel()
	<-waiting.done
}

func (l *link) closeSource() {
	if l.source != nil {
		l.wire.Remove(sourceRole)
		l.source.end()
	}
}

// drainSink lets the sink hear the answers to what is out; nothing new is sent.
func (l *link) drainSink(ctx context.Context) {
	if l.sink == nil {
		return
	}
	if err := l.sink.Drain(ctx); err != nil {
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

// report adds the link's rows to s.
func (l *link) report(s *report.Status) {
	w := l.wire.Status()
	if l.door != nil {
		row := l.sourceRow(w)
		s.Sources = append(s.Sources, row)
		l.problem(s, "source", w, row.Note)
	}
	if l.sink != nil {
		k := sinkRow(l.sink.Status())
		run := k.Minus(l.before)
		k.Run = &run
		k.URL, k.Name, k.State, k.Since, k.Tries, k.Next = l.url, l.name, string(w.State), w.Since, w.Tries, w.Next
		if why := l.gaveUp.Load(); why != nil {
			k.Note = *why
		} else if k.Note == "" && k.State != report.Connected {
			k.Note = w.LastError
		}
		l.problem(s, "sink", w, k.Note)
		s.Sinks = append(s.Sinks, k)
	}
}

// problem adds what an operator should look at: a daemon's relay that cannot be reached, or that wants something.
func (l *link) problem(s *report.Status, role string, w relay.LinkStatus, note string) {
	if l.m.o.Once || note == "" {
		return
	}
	s.Problems = append(s.Problems, fmt.Sprintf("%s %s: %s", role, l.url, note))
}

func (l *link) sourceRow(w relay.LinkStatus) report.Source {
	f := l.from.Status()
	r := doorRow(l.door)
	r.URL, r.Name, r.State, r.Since, r.Tries, r.Next = l.url, l.name, string(w.State), w.Since, w.Tries, w.Next
	r.BadFrames, r.LastEvent, r.Note = w.Unknown, f.LastEvent, w.LastError
	r.Complete, r.CompleteNote = report.Complete(f.Complete.String()), f.Text
	if f.Proven && f.ProvenBack > 0 {
		r.ProvenBack = time.Unix(f.ProvenBack, 0).UTC()
	}
	if why := l.gaveUp.Load(); why != nil && r.Complete != report.Yes {
		r.Complete, r.CompleteNote = report.No, *why
	}
	return r
}

// doorRow is what a door has counted.
func doorRow(d *sources.Door) report.Source {
	t := &d.Tally
	r := report.Source{
		Received: t.Received.Load(), New: t.New.Load(), Copies: t.Copies.Load(), Invalid: t.Invalid(), Unasked: t.Unasked.Load(),
		InFlight: t.InFlight(), InvalidBy: make(map[string]int64),
	}
	for reason, n := range t.InvalidBy() {
		r.InvalidBy[string(reason)] += n
	}
	return r
}

// sinkRow is what a ledger has counted.
func sinkRow(st sinks.Status) report.Sink {
	c := st.Counters
	k := report.Sink{
		URL: st.URL, Delivered: int64(c.Delivered + c.Duplicate), Duplicate: int64(c.Duplicate), Superseded: int64(c.Superseded),
		Rejected: int64(c.RejectedTotal()), RejectedBy: signed(c.Rejected), Skipped: int64(c.SkippedTotal()), SkippedBy: signed(c.Skipped),
		Pending: int64(st.Pending), Parked: int64(c.Parked), Issued: st.Issued, Start: c.Before, Note: st.Paused,
	}
	if st.Pace > 0 {
		k.Pace = fmt.Sprintf("%.3g/s", st.Pace)
	}
	if st.Failing != "" {
		k.Note = "ledger not committed: " + st.Failing
	}
	return k
}

func signed(m map[string]uint64) map[string]int64 {
	s := make(map[string]int64, len(m))
	for k, v := range m {
		s[k] = int64(v)
	}
	return s
}
