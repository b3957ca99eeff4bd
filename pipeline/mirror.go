package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/config"
	"rebroadcastr/report"
	"rebroadcastr/sources"
)

// Options of a Mirror.
type Options struct {
	Config  *config.Config
	Store   *Store
	Version string
	Now     func() time.Time // nil: time.Now
	Log     zerolog.Logger

	Once      bool          // end by itself: sources are asked for their history, sinks get all of it
	Again     bool          // Once: ask for proven windows too
	Limit     int           // Once: events of history a source is asked for; 0: all
	NoDeliver bool          // what comes is archived and kept from every sink
	GiveUp    time.Duration // Once: how long a sink is tried without progress
	// Feed brings events in before the sources are waited for (import). Once only; may be nil.
	Feed func(ctx context.Context, m *Mirror) error
}

// Mirror is the stages wired together: links with their sources and sinks, shards, the archive and the index.
type Mirror struct {
	o      Options
	log    zerolog.Logger
	intake *intake
	seen   *seen
	since  time.Time
	begun  uint64 // events in the archive at start
	oldest sources.Oldest

	bigFrames chan struct{}
	failed    chan error // the first error of a stage
	started   chan struct{}

	applying  sync.Mutex      // one Apply at a time; over running
	running   context.Context // the links' parent while links may join; else nil
	importing sync.WaitGroup  // imports under way

	asking    asking
	asked     context.Context // parent of what operators ask for that may last
	stopAsked context.CancelFunc

	mu       sync.Mutex
	links    map[string]*link  // by URL
	left     map[string]*stage // by URL: what is leaving it
	imports  map[*importing]bool
	imported []*importing // ended ones; Once only
	closed   bool         // no more imports
	state    string
}

// bigFrames messages of more than 64 KiB are read at once, over all links.
const bigFrames = 4

// New wires a Mirror; it starts nothing and dials nobody.
func New(o Options) *Mirror {
	if o.Now == nil {
		o.Now = time.Now
	}
	b := newBudget()
	in := &intake{index: o.Store.Index, budget: b, now: o.Now, closed: make(chan struct{})}
	for range o.Store.Index.Shards() {
		in.shards = append(in.shards, newShard(o.Store.Index, o.Store.Archive, b, in.closed))
	}
	asked, stopAsked := context.WithCancel(context.Background())
	return &Mirror{
		asked: asked, stopAsked: stopAsked,
		seen: newSeen(o.Store.Archive, o.Store.Index, o.Config.Archive.Dir),
		o:    o, log: o.Log, intake: in, since: o.Now(), begun: o.Store.Archive.Status().Events, state: report.Starting,
		bigFrames: make(chan struct{}, bigFrames), failed: make(chan error, 1), started: make(chan struct{}),
		links: make(map[string]*link), left: make(map[string]*stage), imports: make(map[*importing]bool),
	}
}

// Run mirrors until ctx ends, a stage fails or, with Once, everything is done; then it stops in the order of the
// flow. hurry cuts that stop short and loses nothing: what is not answered is sent again by the next run. The error
// is nil for a stop that was asked for.
func (m *Mirror) Run(ctx, hurry context.Context) error {
	// The stages outlive ctx: they end in order, each by its own stage's cancel.
	base := context.WithoutCancel(ctx)
	index := start(base, "index", m.failed, m.o.Store.Index.Run)
	log := start(base, "archive", m.failed, m.o.Store.Archive.Run)
	shards := make([]*stage, len(m.intake.shards))
	for i, s := range m.intake.shards {
		shards[i] = start(base, fmt.Sprintf("shard %d", i), m.failed, s.run)
	}
	links, stopLinks := context.WithCancel(base)
	defer stopLinks()
	m.allowLinks(links)
	err := m.Apply(m.config())
	if err == nil {
		m.setState(report.Running)
		close(m.started)
		err = m.wait(ctx)
	}
	m.setState(report.Stopping)
	m.log.Debug().Err(err).Msg("stopping")

	m.stopAsked()
	m.refuseLinks()
	grace, cancel := context.WithTimeout(hurry, m.config().Grace)
	defer cancel()
	errs := []error{err}
	m.closeDoors()
	m.intake.close()
	for _, s := range shards { // what one has no time for was promised to nobody
		errs = append(errs, s.wait(grace))
	}
	m.o.Store.Archive.Drain()
	errs = append(errs, log.wait(grace))
	m.stopSinks(grace)
	stopLinks()
	errs = append(errs, m.waitLinks(), m.waitLeaving(), m.flush(base))
	// The index has been told of everything by now; it writes its last batches, or cannot and is brought up to the
	// log at the next start.
	index.cancel()
	<-index.done
	errs = append(errs, index.err)
	select {
	case err := <-m.failed: // of a part of the stop itself
		errs = append(errs, err)
	default:
	}
	for _, err := range errs {
		if err != nil && firstOf([]error{err}) == nil { // promised to nobody, but no secret either
			m.log.Warn().Err(err).Msg("cut short by the stop")
		}
	}
	m.asking.close() // the caller closes the store
	if err := m.seen.close(); err != nil {
		m.log.Warn().Err(err).Msg("close the sets of ids")
	}
	m.setState(report.Stopped)
	return firstOf(errs)
}

// Started is closed when Run has started every link that the config names.
func (m *Mirror) Started() <-chan struct{} { return m.started }

// wait blocks until it is time to stop.
func (m *Mirror) wait(ctx context.Context) error {
	once := &stage{} // its done is nil, and so never ready, for a daemon
	if m.o.Once {
		once = start(ctx, "one-shot", m.failed, m.untilDone)
		defer once.wait(stopped())
	}
	look := time.NewTicker(roomLook)
	defer look.Stop()
	for {
		select {
		case <-once.done:
			return once.err
		case err := <-m.failed:
			return err
		case <-ctx.Done():
			return nil
		case <-look.C:
			if a := m.o.Store.Archive.Status(); m.o.Once && a.Waiting != "" && m.o.Now().Sub(a.WaitingSince) >= roomPatience {
				return fmt.Errorf("archive: %s", a.Waiting)
			}
		}
	}
}

// A daemon waits for room on the disk as long as it takes; a one-shot command for roomPatience.
const (
	roomLook     = time.Second
	roomPatience = time.Minute
)

// untilDone returns once every source has ended, all that came is durable, and every sink has a verdict or a parked
// row for all of it or was given up.
func (m *Mirror) untilDone(ctx context.Context) error {
	if m.o.Feed != nil {
		if err := m.o.Feed(ctx, m); err != nil && ctx.Err() == nil {
			return err
		}
	}
	links := m.sorted()
	for _, l := range links {
		if err := l.sourceEnded(ctx); err != nil {
			return nil
		}
	}
	answer, err := m.intake.Barrier(ctx)
	if err != nil {
		return err
	}
	select {
	case err := <-answer:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return nil
	}
	_, end := m.o.Store.Archive.End()
	for _, l := range links {
		l.settled(ctx, end)
	}
	return nil
}

// Apply makes the running parts what cfg says: links that are new are started, those that left are closed, and those that
// stay take up filters and settings without touching their connections (but see relay.Redials). A link that has ended is
// made anew. What needs a restart (config.Config.Succeed) is the caller's to keep out.
func (m *Mirror) Apply(cfg *config.Config) error {
	m.applying.Lock()
	defer m.applying.Unlock()
	return m.applyLocked(cfg)
}

// applyLocked is Apply for who holds applying.
func (m *Mirror) applyLocked(cfg *config.Config) error {
	if m.running == nil {
		return errNotRunning
	}
	want := plan(cfg)
	m.each(func(l *link) {
		if _, stays := want[l.url]; !stays || l.over() {
			m.leave(l)
		}
	})
	// Side by side: a role may take seconds to leave its session, and the state commits all new ledgers at once.
	var all []*stage
	for url, r := range want {
		all = append(all, start(m.running, "apply", nil, func(context.Context) error { return m.applyTo(url, cfg, r) }))
	}
	var errs []error
	for _, s := range all {
		<-s.done
		errs = append(errs, s.err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	m.o.Store.Archive.Change(cfg.Archive.Sync, cfg.Archive.MinFree, cfg.Archive.Mode)
	m.mu.Lock()
	m.o.Config = cfg
	m.mu.Unlock()
	return nil
}

// applyTo makes one link what r says.
func (m *Mirror) applyTo(url string, cfg *config.Config, r roles) error {
	l := m.link(url)
	if l == nil {
		m.awaitLeft(m.running, url)
		l = newLink(m, url, cfg.Relay(url), r)
		held, err := pausedSince(m.o.Store.State, url)
		if err != nil {
			return err
		}
		if !held.IsZero() {
			l.wire.Pause(held)
		}
	}
	if err := l.apply(cfg, r); err != nil {
		return err
	}
	l.start(m.running)
	m.setLink(url, l)
	return nil
}

func (m *Mirror) link(url string) *link {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.links[url]
}

func (m *Mirror) setLink(url string, l *link) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l == nil {
		delete(m.links, url)
		return
	}
	m.links[url] = l
}

// roles is what one URL is in the config.
type roles struct {
	order  int // of first mention: rows are shown as the user wrote them
	source *config.Source
	sink   *config.Sink
}

func plan(cfg *config.Config) map[string]roles {
	want := make(map[string]roles)
	of := func(url string) roles {
		r, known := want[url]
		if !known {
			r.order = len(want)
		}
		return r
	}
	for i := range cfg.Sources {
		if s := &cfg.Sources[i]; s.Enabled {
			r := of(s.URL)
			r.source = s
			want[s.URL] = r
		}
	}
	for i := range cfg.Sinks {
		if s := &cfg.Sinks[i]; s.Enabled {
			r := of(s.URL)
			r.sink = s
			want[s.URL] = r
		}
	}
	return want
}

func (m *Mirror) sorted() []*link {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.links), func(a, b *link) int {
		return cmp.Or(cmp.Compare(a.order.Load(), b.order.Load()), cmp.Compare(a.url, b.url))
	})
}

// errNotRunning is the answer to an Apply before or after the time in which links may join.
var errNotRunning = errors.New("rebroadcastr is not running, or is stopping")

// allowLinks lets Apply start links below ctx.
func (m *Mirror) allowLinks(ctx context.Context) {
	m.applying.Lock()
	m.running = ctx
	m.applying.Unlock()
}

// refuseLinks ends that. It waits for an Apply under way, so that what it starts is stopped with the rest.
func (m *Mirror) refuseLinks() {
	m.applying.Lock()
	m.running = nil
	m.applying.Unlock()
}

func (m *Mirror) setState(s string) {
	m.mu.Lock()
	m.state = s
	m.mu.Unlock()
}

// closeDoors ends every source role and import, all at once; their sockets stay while a sink lives on them.
func (m *Mirror) closeDoors() {
	m.mu.Lock()
	m.closed = true
	for i := range m.imports {
		i.cancel()
	}
	m.mu.Unlock()
	m.importing.Wait()
	m.each(func(l *link) { l.closeSource() })
}

func (m *Mirror) addImport(i *importing) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.imports[i] = true
	m.importing.Add(1)
	return true
}

func (m *Mirror) removeImport(i *importing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.imports, i)
	m.importing.Done()
	// The summary of a one-shot import shows it after its end too.
	if m.o.Once {
		m.imported = append(m.imported, i)
	}
}

func (m *Mirror) config() *config.Config {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.o.Config
}

// stopSinks lets every sink hear the answers to what it has sent.
func (m *Mirror) stopSinks(ctx context.Context) {
	m.each(func(l *link) { l.drainSink(ctx) })
}

func (m *Mirror) waitLinks() error {
	var errs []error
	for _, l := range m.sorted() {
		errs = append(errs, l.wait())
	}
	return firstOf(errs)
}

// flushTime bounds the last commit of a ledger on a disk that refuses it: what is lost is sent again.
const flushTime = 2 * time.Second

func (m *Mirror) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	var errs []error
	for _, l := range m.sorted() {
		if _, sink := l.roles(); sink != nil {
			errs = append(errs, sink.Flush(ctx))
		}
	}
	return firstOf(errs)
}

// each runs f for every link at the same time and waits for all.
func (m *Mirror) each(f func(*link)) {
	var all []*stage
	for _, l := range m.sorted() {
		all = append(all, start(context.Background(), l.url, m.failed, func(context.Context) error {
			f(l)
			return nil
		}))
	}
	for _, s := range all {
		<-s.done
	}
}

// firstOf is the first error that is not a mere stop.
func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
	return nil
}

// Status tells how everything stands. Safe from any goroutine.
func (m *Mirror) Status() report.Status {
	m.mu.Lock()
	s := report.Status{State: m.state, Version: m.o.Version, PID: os.Getpid(), Since: m.since, Now: m.o.Now(), Asked: m.o.Config.Asked}
	for _, i := range slices.AppendSeq(slices.Clone(m.imported), maps.Keys(m.imports)) {
		s.Sources = append(s.Sources, i.report())
	}
	m.mu.Unlock()
	a := m.o.Store.Archive.Status()
	_, issued := m.o.Store.Archive.End()
	s.Archive = report.Archive{Dir: a.Dir, Lines: a.Events, Added: a.Events - min(a.Events, m.begun), Issued: issued, Bytes: a.Bytes, Segments: a.Segments, Free: a.Free, Waiting: a.Waiting, Unsynced: a.Unsynced}
	if a.Waiting != "" {
		s.Problems = append(s.Problems, "archive: "+a.Waiting)
	}
	for _, l := range m.sorted() {
		l.report(&s)
	}
	return s
}
