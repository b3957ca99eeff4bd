package relay

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// LinkOptions are what a link is made of.
type LinkOptions struct {
	URL       string // normalised, see relay/url
	Settings  Settings
	Log       zerolog.Logger
	BigFrames chan struct{} // slots for messages above 64 KiB, shared by all links; nil: four of its own
	UserAgent string        // "rebroadcastr/VERSION"; empty: without a version

	// One-shot commands end by themselves: the link gives up after MaxTries attempts in a row that brought no progress
	// (0: any number), or when there was none for GiveUpAfter since the first of such attempts (0: any time). A session
	// that lives is never given up. With either set nothing is probed rarely. Settings.Backoff.MaxRetries, where not 0,
	// goes before MaxTries; -1 means one try.
	MaxTries    int
	GiveUpAfter time.Duration

	Dial   DialFunc       // nil: net.Dialer's
	Random func() float64 // in [0, 1), for the jitter; nil: math/rand's
}

// Link is the loop that survives: it keeps one websocket with one relay and serves roles on it.
type Link struct {
	o        LinkOptions
	settings atomic.Pointer[Settings] // in force; o.Settings is what it was made with
	pace     *pace
	board    board
	roles    roles
	unknown  [len(unknownReasons)]atomic.Int64

	info     atomic.Pointer[Info]
	infoAt   time.Time      // of the last attempt to fetch it; Run's own
	fetching sync.WaitGroup // of fetches under way

	loggedAt time.Time // of the last failure that was logged; Run's own
	quiet    bool      // failures since then were not all logged
}

// failureLog is how often a steady failure is logged.
const failureLog = 30 * time.Second

// NewLink makes a link without roles. It starts nothing.
func NewLink(o LinkOptions) *Link {
	o.Settings = o.Settings.filled()
	if o.BigFrames == nil {
		o.BigFrames = make(chan struct{}, 4)
	}
	if o.UserAgent == "" {
		o.UserAgent = "rebroadcastr"
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{}).DialContext
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	o.Log = o.Log.With().Str("relay", o.URL).Logger()
	l := &Link{
		o:    o,
		pace: newPace(o.Settings.Pace),
	}
	l.settings.Store(&o.Settings)
	l.roles.set = map[string]*entry{}
	l.roles.changed = make(chan struct{}, 1)
	l.board.status = LinkStatus{URL: o.URL, State: StateNew, Since: time.Now(), Insecure: o.Settings.TLS.InsecureSkipVerify}
	l.info.Store(&Info{})
	return l
}

// Add gives the link a role to serve, before Run or while it runs. A role of the same name is replaced. After Run has
// returned it has no effect.
func (l *Link) Add(name string, r Role) { l.roles.put(name, r) }

// Remove takes a role away. It returns when the role's Serve has returned and none of its handlers runs; so a role must
// not call it from there. Without roles, Run ends.
func (l *Link) Remove(name string) {
	if left := l.roles.remove(name); left != nil {
		<-left
	}
}

// Pause leaves every role, and with the last one the relay, until Resume: the operator's wish, given before Run or while it
// runs. since is shown in the status. It returns when the roles' Serve have returned, as Remove does; the close frame follows.
func (l *Link) Pause(since time.Time) {
	for _, left := range l.roles.hold(since) {
		<-left
	}
}

// Resume ends Pause, and any other wait at once: a backoff, a probe that is a day away, a role's own pause.
func (l *Link) Resume() {
	l.board.change(func(s *LinkStatus) { s.Reason, s.LastError = "", "" })
	l.roles.wake()
}

// Status tells what the link is doing.
func (l *Link) Status() LinkStatus {
	s := l.board.read()
	s.Info = *l.info.Load()
	s.Unknown = map[string]int64{}
	for i, reason := range unknownReasons {
		if n := l.unknown[i].Load(); n > 0 {
			s.Unknown[reason] = n
		}
	}
	s.Roles, s.Held, s.Pace = l.roles.status(), l.roles.heldSince(), l.pace.slowed()
	s.Slowed, s.Quiet = l.pace.complaints()
	return s
}

// Run keeps the link until ctx ends or no role is left (nil), it gives up (*GaveUp), or something of ours panics
// (*PanicError). It may be called once.
func (l *Link) Run(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			recovered("link to "+l.o.URL, p, &err)
		}
		var gave *GaveUp
		errors.As(err, &gave)
		l.board.change(func(s *LinkStatus) {
			s.State, s.Next = StateEnded, time.Time{}
			if gave != nil {
				s.Tries, s.Reason, s.LastError = gave.Tries, endOf(gave).Reason, gave.Error()
			}
		})
	}()
	infoCtx, stopInfo := context.WithCancel(ctx)
	defer l.fetching.Wait()
	defer stopInfo()
	f := failures{backoff: backoff{random: l.o.Random}}
	for ctx.Err() == nil {
		l.roles.heard() // outlook sees every change up to here
		n, ready, next, reason := l.roles.outlook()
		if n == 0 {
			return nil
		}
		if !ready {
			switch held := !l.roles.heldSince().IsZero(); {
			case held: // no error, and not to be read as one after its end
				l.board.change(func(s *LinkStatus) { s.State, s.Next = StatePaused, time.Time{} })
			case !next.IsZero():
				l.board.change(func(s *LinkStatus) { s.State, s.Next, s.LastError = StatePaused, next, reason })
			}
			l.wait(ctx, next, true)
			continue
		}
		l.roles.hurried() // it was for a wait that is over
		began := time.Now()
		progress, err := l.attempt(ctx, infoCtx, f.failures)
		var p *PanicError
		if errors.As(err, &p) {
			return err
		}
		lived := l.o.GiveUpAfter > 0 && time.Since(began) >= l.o.GiveUpAfter
		if progress {
			f.progress()
			f.fruitless = 0
		}
		if progress || lived {
			f.since = time.Time{}
		}
		if ctx.Err() != nil || err == nil {
			continue
		}
		l.board.change(func(s *LinkStatus) { s.LastEnd, s.LastEndAt = endOf(err).Error(), time.Now() })
		if !progress {
			f.fruitless++
		}
		if f.since.IsZero() {
			f.since = began
			if progress || lived {
				f.since = time.Now()
			}
		}
		wait, lasting, err := l.judge(&f, endOf(err))
		if err != nil {
			return err
		}
		l.wait(ctx, time.Now().Add(wait), lasting)
	}
	return nil
}

// failures of a link in a row.
type failures struct {
	backoff
	fruitless int       // attempts without progress
	since     time.Time // the first of them began; zero: none
}

// judge says how long to wait after a failure, or that it was the last one (*GaveUp). lasting: that long because only
// an operator can help.
func (l *Link) judge(f *failures, end *End) (wait time.Duration, lasting bool, err error) {
	settings := l.settings.Load()
	f.Backoff = settings.Backoff
	wait = f.next()
	tries := l.tries(settings)
	oneShot := tries > 0 || l.o.GiveUpAfter > 0
	gaveUp := &GaveUp{Tries: f.failures, After: time.Since(f.since), Err: end}
	if tries > 0 && f.fruitless >= tries || settings.Backoff.MaxRetries < 0 {
		return 0, false, gaveUp
	}
	if end.RetryAfter > 0 {
		wait = max(wait, min(end.RetryAfter, settings.Backoff.Max))
	}
	state := StateWaiting
	if !oneShot && end.Lasting() {
		lasting = true
		// Jitter here too: links that an outage of DNS has paused must not all come back in one second.
		state, wait = StatePaused, time.Duration((0.75+l.o.Random()/2)*float64(settings.Probe))
	}
	if l.o.GiveUpAfter > 0 {
		left := l.o.GiveUpAfter - gaveUp.After
		if left <= 0 {
			return 0, false, gaveUp
		}
		wait = min(wait, left)
	}
	l.board.change(func(s *LinkStatus) {
		s.State, s.Next, s.Tries = state, time.Now().Add(wait), f.failures
		s.Reason, s.LastError = end.Reason, end.Error()
	})
	l.logFailure(f.failures, wait, end)
	return wait, lasting, nil
}

// logFailure logs the first failure at once, a steady one from time to time.
func (l *Link) logFailure(tries int, wait time.Duration, end *End) {
	if tries > 1 && time.Since(l.loggedAt) < failureLog {
		l.quiet = true
		return
	}
	l.loggedAt, l.quiet = time.Now(), true
	l.o.Log.Warn().Str("reason", string(end.Reason)).Err(end).Int("try", tries).Stringer("next_in", wait.Round(time.Millisecond)).Msg("no session")
}

// wait returns at the given time (zero: never), when ctx ends, when no role is left, or, if early, when a role has come
// that can be served. A backoff is not cut short by that, but by Pause, Resume and SetSettings.
func (l *Link) wait(ctx context.Context, until time.Time, early bool) {
	var timer <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		timer = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer:
			return
		case <-l.roles.changed:
			if n, ready, _, _ := l.roles.outlook(); n == 0 || early && ready || l.roles.hurried() {
				return
			}
		}
	}
}

// attempt dials and serves the roles on the session. progress: the relay has brought something. err is nil when there
// is nothing left to do on it for now, or ctx has ended.
func (l *Link) attempt(ctx, infoCtx context.Context, failures int) (progress bool, err error) {
	l.board.change(func(s *LinkStatus) { s.State, s.Next = StateConnecting, time.Time{} })
	dialed := l.settings.Load()
	ws, frames, err := l.dialer(dialed).websocket(ctx)
	if err != nil {
		return false, err
	}
	l.pace.connected(dialed.through(l.o.URL) == "" && near(frames.RemoteAddr())) // a proxy is not the relay
	c := &core{
		url: l.o.URL, dialed: dialed, settings: &l.settings, log: l.o.Log, ws: ws,
		frames: frames, wire: frames.wire, clock: frames.wire.clock,
		pace: l.pace, big: l.o.BigFrames, unknown: &l.unknown,
		info: func() Info { return *l.info.Load() },
		notice: func(text string) {
			l.board.notice(text)
			l.o.Log.Debug().Str("notice", text).Msg("notice")
		},
	}
	l.refreshInfo(ctx, infoCtx, true)
	l.board.change(func(s *LinkStatus) { s.State, s.Sessions = StateConnected, s.Sessions+1 })
	if l.quiet || failures > 0 {
		l.o.Log.Info().Int("after_tries", failures).Msg("connected again")
		l.quiet = false
	} else {
		l.o.Log.Info().Msg("connected")
	}
	c.start()
	err = l.attend(ctx, infoCtx, c)
	return c.progress.Load(), err
}
