package sources

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/state"
)

// History says how far back a new source is asked.
type History struct {
	None  bool
	Since int64 // unix seconds; 0: everything
}

// Options of a Source. The zero durations are their defaults.
type Options struct {
	URL       string // normalised
	Door      *Door
	Intake    Intake
	State     *state.DB
	Seen      Seen           // nil: no relay is asked to reconcile
	Filters   []event.Filter // as in Wish, with History and Narrow: what Ask changes later. Door has its Want
	History   History
	Narrow    []string
	Reconcile Reconcile // what SetReconcile changes later; not with Once
	Once      bool      // backfill: no live subscription; Serve returns nil when history is done
	Again     bool      // ask for what is proven too
	Limit     int       // Once: stop after so many events of history; 0: none
	Oldest    *Oldest   // what the sources of one command know together, for Status.Share; may be nil

	CatchUpEvery time.Duration // while live; 1 h
	Rest         time.Duration // live alone after maxCuts, before history is tried again; doubles up to CatchUpEvery; 10 s
	Overlap      time.Duration // asked again by each catch-up; 20 min: more than the 15 that relays let created_at run ahead
	Idle         time.Duration // silence that ends a page; 30 s
	Backoff      relay.Backoff // between tries of a page and of a live subscription; zero: relay.DefaultSettings
	Now          func() time.Time
	Log          zerolog.Logger
}

const (
	maxPage    = 500 // events; what strfry gives at most, and what no relay dislikes
	maxAuthors = 500 // or tag values of one request; strfry's frames end at 1,900
	maxIDs     = 100 // of one request; so few fit on one page of any relay
	// A request's size in bytes, where a relay says what it takes: 64 hex digits and punctuation an author, the rest once.
	roomForValue, roomForRest = 67, 1 << 10
	leastPage                 = 20 // events, however often a connection was cut
	maxTries                  = 8  // of a page in a row, then its walk is given up until the next session
	maxCuts                   = 8  // sessions in a row that the relay ended in the middle and that brought no proof, then one rests from history
	// probe is how often a relay that wants login or money is asked again.
	probe = 24 * time.Hour
)

// Source is the role of a source relay. It keeps what holds beyond one session; a visit is one session's work.
type Source struct {
	o       Options
	asking  sync.Mutex                         // one Ask at a time
	asked   atomic.Pointer[plan]               // what is asked for
	joined  atomic.Pointer[map[atomKey]uint64] // plan.joined of asked; while Ask is at work, of what asked becomes
	changed chan struct{}                      // 1: asked has changed; keepLive's

	backoff    atomic.Pointer[relay.Backoff]
	chunk      atomic.Int64 // most atoms of one request; halved when a relay finds that too wide
	kinds      atomic.Int64 // most kinds of one request; 0: the relay has refused none
	fewest     atomic.Int64 // pages at once that the relay takes, as far as it has complained; 0: it has not
	noRoom     atomic.Bool  // for a page beside the live subscriptions
	oneFilter  atomic.Bool  // a REQ of several was refused
	liveLimit  atomic.Int64 // 0, or 1 where 0 is disliked
	lastEvent  atomic.Int64 // unix ns
	inTurn     atomic.Bool  // events have come before a page's EOSE
	told       atomic.Bool  // the relay has answered a COUNT, perhaps too late
	hasty      atomic.Bool  // events have come after the EOSE of a page that was empty: so they may again
	reconcile  atomic.Pointer[Reconcile]
	auditAsked atomic.Int64  // how often Reconcile was called
	auditMet   int64         // of that, what was met by a full audit; the session's
	nudged     chan struct{} // 1: one of these two has changed; a visit's run
	garbage    garbage

	mu     sync.Mutex
	st     Status
	worst  Completeness   // of this plan's walks so far
	kept   map[string]Gap // by row in the state
	unkept int            // gaps found since kept was loaded that there was no room for

	// Serve only, from here on.
	limit     int                 // what is left of Options.Limit
	manners   *manners            // of the relay
	counts    int                 // so far; as pages
	secret    map[int]bool        // kinds that the relay was asked about: it shows them after a login only
	pages     int                 // so far; a number is used once, for an answer to an earlier visit may still be on its way on this socket
	mine      map[atomKey]windows // proven by this process, up to oldClip
	oldClip   int64
	withdrawn bool          // mine was
	loaded    uint64        // number of the last plan that a visit took up
	cuts      int           // sessions in a row that the relay ended in the middle of catch-up or history and that brought nothing to go on from
	halved    int           // how often the page was, because of cuts
	rest      time.Duration // the next session that rests from history does so for so long
	audits    int           // begun in a row and not come to their end
	drops     relay.NegDrops
	notNow    time.Time // until then it is not asked to reconcile, see busyFor
	catch     catch
	headway   headway
}

// New makes a Source; it starts nothing.
func New(o Options) *Source {
	if o.CatchUpEvery <= 0 {
		o.CatchUpEvery = time.Hour
	}
	if o.Rest <= 0 {
		o.Rest = 10 * time.Second
	}
	if o.Overlap <= 0 {
		o.Overlap = 20 * time.Minute
	}
	if o.Idle <= 0 {
		o.Idle = 30 * time.Second
	}
	if o.Backoff == (relay.Backoff{}) {
		o.Backoff = relay.DefaultSettings().Backoff
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Source{o: o, limit: o.Limit, mine: make(map[atomKey]windows), kept: make(map[string]Gap), rest: o.Rest, changed: make(chan struct{}, 1), nudged: make(chan struct{}, 1)}
	s.reconcile.Store(&o.Reconcile)
	p := newPlan(Wish{Filters: o.Filters, History: o.History, Narrow: o.Narrow}, nil)
	s.asked.Store(p)
	s.backoff.Store(&o.Backoff)
	s.joined.Store(&p.joined)
	s.chunk.Store(maxAuthors)
	s.st.Phase, s.st.Text = Idle, "not asked yet"
	if o.History.None {
		s.st.Text = "history is not asked for"
	}
	return s
}

// SetBackoff changes the waits between tries of a page and of a live subscription, from the next one on.
func (s *Source) SetBackoff(b relay.Backoff) { s.backoff.Store(&b) }

// Serve runs the role on one session. It returns nil when a one-shot source has asked for everything.
func (s *Source) Serve(ctx context.Context, sess *relay.Session) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := &visit{
		s: s, sess: sess, ctx: ctx, cancel: cancel, log: s.o.Log, began: s.o.Now().Unix(), pages: s.pages,
		signals: make(chan signal, 64), catchUpNow: make(chan struct{}, 1), yields: make(chan struct{}, 1), liveNews: make(chan struct{}, 1),
	}
	v.saver.init(s)
	var running sync.WaitGroup
	defer running.Wait() // after v.leave and cancel below
	goes := func(what string, f func() error) {
		running.Go(func() {
			if err := relay.Guard(what, f); err != nil {
				cancel(err)
			}
		})
	}
	goes("save proven windows", v.saver.run)
	defer sess.Handle(v.handler())()
	if !s.o.Once {
		goes("keep the live subscription", v.keepLive)
	}
	cuts, halved := s.cuts, s.halved
	if s.cuts++; s.cuts > 1 {
		s.halved++ // sessions that end before a page is whole: a smaller one may be
	}
	err := relay.Guard("source "+s.o.URL, v.run)
	if relay.Ours(sess.Err()) {
		s.cuts, s.halved = min(s.cuts, cuts), min(s.halved, halved)
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	v.saver.close(err == nil)
	cancel(nil)
	v.leave()
	return s.ended(err)
}

// further notes that a session brought something to go on from: the cuts before it were no obstacle.
func (s *Source) further() { s.cuts, s.rest = 0, s.o.Rest }

// ended brings an error into the form that the link expects, and notes it.
func (s *Source) ended(err error) error {
	var paused *relay.Pause
	if errors.As(err, &paused) {
		s.cuts = 0 // not the connection's end
	}
	if paused != nil && s.o.Once && paused.For > 0 { // waiting is of no use to a command that ends
		s.conclude(outcome{complete: No, reason: paused.Reason})
		err, paused = nil, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.st.Note, s.st.Waits = "", time.Time{}
	switch {
	case err == nil:
		s.st.Phase = Done
	case paused != nil && paused.For > 0:
		s.st.Phase, s.st.Note = Paused, paused.Reason
		s.o.Log.Warn().Str("source", s.o.URL).Str("reason", paused.Reason).Stringer("for", paused.For).Msg("the source is left alone for a while")
	default:
		s.st.Phase = Idle
	}
	return err
}

// narrower halves the requests of a relay that refused one of n atoms; false if that one cannot be made smaller.
func (s *Source) narrower(n int) bool {
	if n < 2 {
		return false
	}
	lower(&s.chunk, n)
	return true
}

// lower makes a bound, 0 being none, half of what was refused. What was sent before it was learned may be refused after: it raises nothing.
func lower(bound *atomic.Int64, refused int) {
	half := int64(refused+1) / 2
	for {
		now := bound.Load()
		if now > 0 && now <= half || bound.CompareAndSwap(now, half) {
			return
		}
	}
}

// wait is the pause before a try, from 0; at least what the relay asked for.
func (s *Source) wait(try int, wanted time.Duration) time.Duration {
	b := s.backoff.Load()
	return max(min(wanted, b.Max), b.Wait(try, rand.Float64))
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
