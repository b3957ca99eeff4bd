package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"rebroadcastr/archive"
	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/reconcile"
	"rebroadcastr/relay"
	"rebroadcastr/report"
	"rebroadcastr/sinks"
	"rebroadcastr/sources"
	"rebroadcastr/state"
)

// DryRun tells what a backfill with o would ask its sources for and what its sinks would get. It connects to them, counts and
// compares; it fetches nothing, sends nothing, and writes nothing, here or there. The archive need not exist. The error is
// state.ErrInUse while somebody writes to it. What was found before ctx ended is told.
func DryRun(ctx context.Context, fsys archive.FS, o Options) (r report.DryRun, err error) {
	cfg := o.Config
	r = report.DryRun{Dir: cfg.Archive.Dir, Now: o.Now(), Asked: cfg.Asked, Limit: o.Limit}
	l := &listing{fs: fsys, dir: cfg.Archive.Dir, places: make(chan struct{}, atOnce), sets: make(map[[16]byte]*reconcile.Set)}
	defer func() { err = errors.Join(err, l.close()) }()
	probes, err := makeProbes(o, fsys, l)
	if err != nil {
		return r, err
	}
	var running []*stage
	for _, p := range probes {
		if p.paused == "" {
			running = append(running, start(ctx, p.url, nil, p.run))
		}
	}
	for _, s := range running {
		<-s.done
		err = errors.Join(err, s.err)
	}
	for _, p := range probes {
		p.report(&r)
	}
	r.Interrupted = ctx.Err() != nil
	return r, err
}

// probe is one relay of a dry run.
type probe struct {
	url          string
	source, sink string // their names
	survey       *sources.Survey
	greeting     *greeting
	pending      sinks.Status
	fresh        bool   // the sink has no ledger yet
	paused       string // by the operator; "": it is not
	wire         *relay.Link
	unreached    string
}

// makeProbes reads what the state says of every relay of the config. The state is open for no longer than that.
func makeProbes(o Options, fsys archive.FS, l *listing) (probes []*probe, err error) {
	cfg := o.Config
	db, err := state.Read(filepath.Join(cfg.Archive.Dir, "state.db"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		db = nil
	case err != nil:
		return nil, err
	default:
		defer func() { err = errors.Join(err, db.Close()) }()
	}
	next, err := archive.NextOrdinal(cfg.Archive.Dir, fsys)
	if err != nil {
		return nil, err
	}
	var ids sources.Lister = l
	if next == 0 {
		ids = nil
	}
	want := plan(cfg)
	probes = make([]*probe, len(want))
	for url, r := range want {
		p := &probe{url: url, wire: relay.NewLink(relay.LinkOptions{
			URL: url, Settings: cfg.Relay(url), Log: o.Log, UserAgent: "rebroadcastr/" + o.Version, MaxTries: sourceTries,
		})}
		probes[r.order] = p
		if db != nil {
			since, err := pausedSince(db, url)
			if err != nil {
				return nil, err
			}
			if !since.IsZero() {
				p.paused = heldText(url, since)
			}
		}
		if c := r.source; c != nil {
			p.source = c.Name
			p.survey, err = sources.NewSurvey(sources.Options{
				URL: url, Filters: asked(cfg, c.Only), History: sources.History{None: c.History.None, Since: c.History.Since}, Narrow: narrowing(cfg, c.Only, c.Except),
				Once: true, Again: o.Again, Limit: o.Limit, Now: o.Now, Log: o.Log,
			}, db, ids)
			if err != nil {
				return nil, err
			}
			p.wire.Add(sourceRole, p.survey)
		}
		if c := r.sink; c != nil {
			p.sink, p.greeting = c.Name, new(greeting)
			if p.pending, p.fresh, err = pendingAt(db, cfg, c, next, o); err != nil {
				return nil, err
			}
			p.wire.Add(sinkRole, p.greeting)
		}
	}
	return probes, nil
}

// pendingAt is what a sink's ledger says, and whether there is none.
func pendingAt(db *state.DB, cfg *config.Config, c *config.Sink, next uint64, o Options) (st sinks.Status, fresh bool, err error) {
	err = sinks.ErrNoLedger
	if db != nil {
		var sink *sinks.Sink
		sink, err = sinks.Look(sinks.Options{
			URL: c.URL, State: db, Settings: cfg.Relay(c.URL), Now: o.Now, Log: o.Log,
			End: func() (place.Place, uint64) { return place.Place{}, next },
		})
		if err == nil {
			return sink.Status(), false, nil
		}
	}
	if !errors.Is(err, sinks.ErrNoLedger) {
		return st, false, err
	}
	if st.Issued = next; !c.Start.Now {
		st.Pending = next
	}
	return st, true, nil
}

// run visits the relay. That it cannot be reached is no error of the program.
func (p *probe) run(ctx context.Context) error {
	err := p.wire.Run(ctx)
	if gave := new(relay.GaveUp); errors.As(err, &gave) {
		p.unreached = gave.Error()
		return nil
	}
	return err
}

func (p *probe) report(r *report.DryRun) {
	reach := report.Reach{URL: p.url, Unreached: p.unreached, Paused: p.paused, Info: infoOf(p.wire.Status().Info)}
	if p.survey != nil {
		out := p.survey.Outlook()
		row := report.SourceOutlook{Reach: reach, Pace: out.Pace, NoCount: out.NoCount, NoCompare: out.NoCompare}
		row.Name = p.source
		for _, part := range out.Parts {
			row.Parts = append(row.Parts, report.Prospect{
				Asked: part.Words, Atoms: part.Atoms, Windows: windowRows(part.Windows), Requests: part.Requests,
				Events: part.Events, Known: part.Known, About: part.About, Lacking: part.Lacking, Had: part.Had,
			})
		}
		r.Sources = append(r.Sources, row)
	}
	if p.greeting != nil {
		row := report.SinkOutlook{Reach: reach, Fresh: p.fresh, Pending: int64(p.pending.Pending), Parked: int64(p.pending.Counters.Parked)}
		row.Name = p.sink
		r.Sinks = append(r.Sinks, row)
	}
}

// greeting is the role of a sink in a dry run: that it is there, and what it says of itself, is all.
type greeting struct{}

func (*greeting) Serve(context.Context, *relay.Session) error { return nil }

// listing lists the ids of an archive that nobody has open, from its files alone. Its lists are kept elsewhere.
type listing struct {
	fs     archive.FS
	dir    string
	places chan struct{} // a token for each window that is compared now

	mu   sync.Mutex // held while the archive is read: the next relay mostly asks for the same
	sets map[[16]byte]*reconcile.Set
}

// IDs is part of sources.Lister.
func (l *listing) IDs(ctx context.Context, f event.Filter) (sources.IDs, func(), error) {
	set, err := l.set(ctx, f)
	if err != nil {
		return nil, nil, err
	}
	return set, func() {}, nil
}

// Room is part of sources.Lister.
func (l *listing) Room(ctx context.Context) (leave func(), err error) {
	if err := take(ctx, l.places); err != nil {
		return nil, err
	}
	return func() { <-l.places }, nil
}

func (l *listing) set(ctx context.Context, f event.Filter) (_ *reconcile.Set, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f.Since, f.Until = 0, 0
	key := f.Key()
	if set := l.sets[key]; set != nil {
		return set, nil
	}
	set := reconcile.NewSet(os.TempDir())
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("list the ids of %s: %w", f, err), set.Close())
		}
	}()
	want := event.Selection{All: [][]event.Filter{{f}}}.Compile()
	for rec, err := range archive.Scan(ctx, l.dir, archive.ScanOptions{FS: l.fs}) {
		var damage *archive.Damage
		switch {
		case errors.As(err, &damage):
		case err != nil:
			return nil, err
		case want.Match(&rec.Event):
			if err := set.Add(reconcile.Item{CreatedAt: rec.Event.CreatedAt, ID: rec.Event.ID}); err != nil {
				return nil, err
			}
		}
	}
	if err := set.Flush(); err != nil {
		return nil, err
	}
	l.sets[key] = set
	return set, nil
}

func (l *listing) close() error {
	var errs []error
	for _, set := range l.sets {
		errs = append(errs, set.Close())
	}
	return errors.Join(errs...)
}
