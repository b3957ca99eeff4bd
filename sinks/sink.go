package sinks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/policy"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/state"
)

// Defaults of what relay_settings does not say.
const (
	// windowBytes bounds what is sent and unanswered, together with relay.Settings.Window. An event that is larger goes
	// alone.
	windowBytes = 4 << 20
	// commitEvery and commitAfter say when the ledger is committed. After a kill at most commitAfter answered events and
	// the window are sent again, unless the disk takes longer for a commit than the sink for as many answers.
	commitEvery = 200 * time.Millisecond
	commitAfter = 1000
	// commitMost is where sends wait for a commit that is under way. A commit is two fsyncs, and may begin when one has
	// just begun: where each takes 200 ms, 2,000 answers a second are 1,600 when it ends, 3,200 if somebody else's
	// commit (a window, a mark) was between them.
	commitMost = 4000
	// retryFirst is the wait of a parked event's first retry; it doubles up to retryMost.
	retryFirst = 30 * time.Second
	retryMost  = time.Hour
	// probeEvery is how often a relay that wants a login, money or nothing of us is tried.
	probeEvery = 24 * time.Hour
)

// State is the part of *state.DB that a ledger needs.
type State interface {
	View(fn func(tx *state.Tx) error) error
	Update(fn func(tx *state.Tx) error) error
}

// Reader gives the archive's records in order.
type Reader interface {
	// Next waits at the written end.
	Next(ctx context.Context) (record.Record, error)
	// TryNext does not: false at the written end.
	TryNext() (record.Record, bool, error)
	Close() error
}

// Start says where a new sink begins. The zero Start is the beginning of the archive. It is resolved once: a sink that
// has a ledger goes on from there.
type Start struct {
	Now   bool
	Since int64 // events dated before are skipped; unix seconds
}

// Options of a Sink.
type Options struct {
	URL       string         // normalised: the ledger's key
	Want      *event.Matcher // nil: everything
	FilterKey string         // of Want: another one than before begins a second pass
	Allow     policy.Allow   // rows of the policy table that may pass; the same holds
	Start     Start
	State     State
	Open      func(from place.Place) (Reader, error)
	End       func() (place.Place, uint64) // the archive's written end and next ordinal
	// Resume is the place from which a ledger goes on that is at p and has met every ordinal below ordinal, asked when it is first
	// served. An error ends that session. nil: p.
	Resume    func(p place.Place, ordinal uint64) (place.Place, error)
	Past      Past           // asked at each send; nil: nothing was deleted or replaced
	Seen      Seen           // nil: the sink is never compared with the archive
	Filters   []event.Filter // what it is compared by: they take at least what Want does
	Reconcile Reconcile      // what SetReconcile changes later
	Settings  relay.Settings // Window and OK
	Retry     time.Duration  // 0: retryFirst
	Probe     time.Duration  // 0: probeEvery
	Trial     time.Duration  // 0: trialEvery
	Now       func() time.Time
	Log       zerolog.Logger
}

// Sink is the role of a sink relay. Its methods may be called from any goroutine; at most one Serve runs at a time.
type Sink struct {
	o      Options
	log    zerolog.Logger
	ledger *ledger
	rules  atomic.Pointer[rules]
	okTime atomic.Int64  // ns that an event may wait for its OK
	wake   chan struct{} // 1: something changed that the running attempt should look at
	made   time.Time

	comparer comparer

	mu       sync.Mutex
	now      func() time.Time
	window   window
	poison   suspicion
	limits   limits
	pace     pace
	recent   verdicts
	refused  refusals
	paused   string // why nothing is sent but probes; empty: it is
	since    time.Time
	accepted bool // the relay has taken something, now or before
	draining bool
	serving  bool
	attempt  *attempt // while serving
	inFlight int
	idle     chan struct{} // closed and replaced when inFlight falls to 0 or Serve ends
	counts   SessionCounts
	lastOK   time.Time
	slowSaid time.Time // when a slower pace was logged last
	failing  string    // the last commit's error
	said     time.Time // when it was logged last
}

// over makes a Sink with the ledger l.
func (o Options) over(l *ledger) *Sink {
	s := &Sink{
		o: o, log: o.Log.With().Str("sink", o.URL).Logger(), ledger: l, now: o.Now, made: o.Now(), wake: make(chan struct{}, 1),
		idle: make(chan struct{}), window: newWindow(o.Settings.Window), poison: suspicion{every: o.Trial},
	}
	s.rules.Store(&rules{o.Want, o.Allow})
	s.comparer.init(o.Filters, o.Reconcile)
	if err := s.readComparing(); err != nil {
		s.log.Error().Err(err).Msg("when the sink was compared with the archive is not known any more")
	}
	c, _, _, _ := l.Account()
	s.accepted = c.Delivered+c.Duplicate+c.Superseded > 0
	return s
}

func (o Options) filled() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Retry == 0 {
		o.Retry = retryFirst
	}
	if o.Probe == 0 {
		o.Probe = probeEvery
	}
	if o.Trial == 0 {
		o.Trial = trialEvery
	}
	return o
}

// New loads the sink's ledger, or makes and commits one that begins at o.Start.
func New(o Options) (*Sink, error) {
	o = o.filled()
	var start mark
	if o.Start.Now {
		start.Place, start.Ordinal = o.End()
	}
	r := &rules{o.Want, o.Allow}
	l, lost, err := openLedger(o.State, o.URL, start, o.Start.Since, r.key(o.FilterKey))
	if err != nil {
		return nil, err
	}
	s := o.over(l)
	s.okTime.Store(int64(o.Settings.OK))
	if lost != nil {
		s.log.Error().Err(lost).Msg("the sink's ledger cannot be read: it starts anew and everything is offered to the sink again")
	}
	s.setRules(r, o.FilterKey)
	// Committed at once: "now" must mean the same after a crash.
	if err := l.Commit(); err != nil {
		return nil, err
	}
	return s, nil
}

// rules say which events a sink wants and may have. They are never changed, only swapped.
type rules struct {
	want  *event.Matcher
	allow policy.Allow
}

// key names r in the ledger: equal rules have equal keys in every run.
func (r *rules) key(filterKey string) string {
	return filterKey + " " + strings.Join(r.allow.Names(), ",")
}

// SetRules swaps the filter and the rows of the policy table that may pass. They hold for every event that is not on its
// way yet. What the rules before held back and these do not is sent behind the tail. filterKey is as in Options.
func (s *Sink) SetRules(want *event.Matcher, filterKey string, allow policy.Allow) {
	if s.setRules(&rules{want, allow}, filterKey) {
		s.commit()
	}
}

func (s *Sink) setRules(r *rules, filterKey string) (changed bool) {
	s.rules.Store(r) // before the ledger: what it says of them holds then
	changed, held := s.ledger.SetRules(r.key(filterKey))
	if changed {
		s.log.Info().Uint64("held_back", held).Msg("the sink's filter changed: what it held back so far is looked at again, behind what is new")
	}
	return changed
}

// SetSettings changes the window and the time for an OK while the sink runs.
func (s *Sink) SetSettings(settings relay.Settings) {
	s.okTime.Store(int64(settings.OK))
	s.mu.Lock()
	s.window.resize(settings.Window)
	s.mu.Unlock()
	s.nudge()
}

// nudge makes the running attempt look again.
func (s *Sink) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Settled waits until every ordinal below ordinal is settled or parked, by the rules of now, and that is committed. The
// error is ctx's.
func (s *Sink) Settled(ctx context.Context, ordinal uint64) error {
	for {
		at, passing, advanced := s.ledger.Committed()
		if at.Ordinal >= ordinal && !passing {
			return nil
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Halt stops sending for good: what is not on its way when Halt returns is not sent by this Sink any more.
func (s *Sink) Halt() {
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	s.nudge()
}

// Drain is Halt, and waits until every event that was sent is answered, the session has ended, or ctx ends.
func (s *Sink) Drain(ctx context.Context) error {
	s.Halt()
	for {
		s.mu.Lock()
		done, idle := !s.serving || s.inFlight == 0, s.idle
		s.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Flush commits what was answered and not committed yet, trying again until ctx ends.
func (s *Sink) Flush(ctx context.Context) error {
	for {
		err := s.ledger.Commit()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(commitEvery):
		}
	}
}

// Forget removes everything that is known of the sink at url. It has no effect on one that is open.
func Forget(db State, url string) error {
	err := db.Update(func(tx *state.Tx) error {
		b := tx.Bucket(sinksBucket)
		if b.Bucket([]byte(url)) == nil {
			return nil
		}
		return b.DeleteBucket([]byte(url))
	})
	if err != nil {
		return fmt.Errorf("forget the sink %s: %w", url, err)
	}
	return nil
}

// Highest is the furthest place and ordinal that any ledger in db has met: the archive issues none below them again.
func Highest(db State) (place.Place, uint64, error) {
	var at place.Place
	var ordinal uint64
	err := db.View(func(tx *state.Tx) error {
		all := tx.Bucket(sinksBucket)
		if all == nil {
			return nil
		}
		return all.ForEachBucket(func(url []byte) error {
			r, _, err := decodeRecord(all.Bucket(url).Get(recordKey))
			if err != nil {
				return nil // New says so, and starts it anew
			}
			ordinal = max(ordinal, r.Frontier.Ordinal)
			if at.Before(r.Frontier.Place) {
				at = r.Frontier.Place
			}
			return nil
		})
	})
	if err != nil {
		return at, 0, fmt.Errorf("read the ledgers: %w", err)
	}
	return at, ordinal, nil
}

// errSilent ends a session on which nothing is answered.
var errSilent = errors.New("no OK for anything sent")

// Serve runs the sink on one session: it sends what is open, what is due and what the archive has, until the session or ctx
// ends, or the relay must be left alone for a while (*relay.Pause). It never ends for good.
func (s *Sink) Serve(ctx context.Context, sess *relay.Session) error {
	s.mu.Lock()
	if s.serving {
		s.mu.Unlock()
		return errors.New("serve a sink: it is served already")
	}
	s.serving, s.inFlight = true, 0
	s.counts.Sessions++
	s.mu.Unlock()

	a := newAttempt(s, sess)
	s.mu.Lock()
	s.attempt = a
	s.mu.Unlock()
	remove := sess.Handle(&relay.Handler{OK: a.heard, Notice: a.notice, Awaits: a.awaits})
	inner, cancel := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer cancel()
	failed := make(chan error, 3)
	for _, run := range []func(context.Context) error{s.commitLoop, a.follow, a.compares} {
		helpers.Add(1)
		go func() {
			defer helpers.Done()
			if err := relay.Guard("sink "+s.o.URL, func() error { return run(inner) }); err != nil {
				failed <- err
				cancel()
			}
		}()
	}
	err := relay.Guard("sink "+s.o.URL, func() error { return a.run(inner) })
	remove()
	end, pause := a.close()
	cancel()
	helpers.Wait()
	if a.reader != nil {
		a.reader.Close() // after follow, which used it
	}
	a.pass.close()
	a.revive.close()
	again := s.ended(sess, end)
	var broken *relay.PanicError
	switch {
	case errors.As(err, &broken):
	case len(failed) > 0:
		err = <-failed
	case pause != nil:
		err = pause // also if the relay closed right after it refused us
	case again != nil:
		err = again
	}
	return err
}

// ended accounts for the end of a session; not nil: how the sink should come back.
func (s *Sink) ended(sess *relay.Session, e ending) (again *relay.Pause) {
	// Only a connection that broke can have been broken by an event.
	e.broken = relay.BrokenOff(sess.Err())
	var end *relay.End
	errors.As(sess.Err(), &end)
	defer s.commit()
	s.mu.Lock()
	defer s.mu.Unlock()
	again = s.judgeLocked(e, end)
	if e.broken && e.unanswered > 0 {
		s.window.died()
	}
	s.serving, s.attempt, s.inFlight = false, nil, 0
	close(s.idle)
	s.idle = make(chan struct{})
	return again
}

// commitLoop commits every commitEvery and after commitAfter answers, and tries again after an error.
func (s *Sink) commitLoop(ctx context.Context) error {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // Serve's end commits the rest
		case <-tick.C:
		case <-s.ledger.full:
			s.mu.Lock()
			failing := s.failing
			s.mu.Unlock()
			if failing != "" {
				continue // the tick tries again: a full disk is not asked a thousand times a second
			}
		}
		s.commit()
	}
}

// commit commits and logs the first of a row of errors, then one every 30 s, then the recovery.
func (s *Sink) commit() {
	err := s.ledger.Commit()
	s.mu.Lock()
	now := s.now()
	recovered := err == nil && s.failing != ""
	say := err != nil && (s.failing == "" || now.Sub(s.said) >= 30*time.Second)
	if s.failing = ""; err != nil {
		s.failing = err.Error()
	}
	if say {
		s.said = now
	}
	s.mu.Unlock()
	if recovered {
		s.log.Info().Msg("the sink's ledger is committed again")
	}
	if say {
		s.log.Error().Err(err).Int("answers", s.ledger.Uncommitted()).Msg("answers are kept in memory; sends wait at 1,000")
	}
	s.nudge()
}
