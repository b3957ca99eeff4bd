package sources

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/reconcile"
	"rebroadcastr/record"
	"rebroadcastr/relay"
)

const (
	livePrefix  = "live-"
	pagePrefix  = "page-"
	countPrefix = "count-"
)

// leaveTime is the most that the CLOSE messages may take.
const leaveTime = time.Second

// session is what a visit needs of a relay.Session.
type session interface {
	Send(ctx context.Context, msg []byte) error
	Request(ctx context.Context, msg []byte) error
	Progress()
	Slower(wait time.Duration)
	Answered()
	Count(ctx context.Context, sub string, f event.Filter, patience time.Duration, busy func() (time.Time, time.Duration)) (relay.Count, error)
	Reconcile(ctx context.Context, f event.Filter, items []reconcile.Item, have func(event.ID), idle time.Duration) (*reconcile.Session, relay.NegEnd, error)
	Stalled() time.Duration
	Info() relay.Info
	Settings() relay.Settings
	Err() error
}

// visit is one session's work. Its handler runs on the session's reader, run on Serve's goroutine, keepLive and the
// saver on their own.
type visit struct {
	s      *Source
	sess   session
	ctx    context.Context // the role's
	cancel context.CancelCauseFunc
	log    zerolog.Logger

	open   openPages
	at     atomic.Pointer[exchange] // under way
	late   atomic.Int64             // old events after their page's EOSE
	pages  int                      // the number of the last one that was asked for before
	frames int                      // reader only
	began  int64                    // unix seconds

	signals    chan signal   // to keepLive
	stands     atomic.Uint64 // number of the last plan whose live subscriptions have all answered, or had their time
	liveNews   chan struct{} // 1: stands has grown, or the plan has changed
	yields     chan struct{} // 1: alone has changed
	alone      atomic.Bool   // pages are asked for without live subscriptions beside them
	catchUpNow chan struct{} // 1: a live subscription had a hole

	mu    sync.Mutex
	asked map[string]struct{} // subscriptions that are open as far as we know

	plan   *plan               // run only: what it works on
	view   map[atomKey]windows // run only: what is proven or asked in this visit
	caught bool                // run only: it has caught up, or does without
	dueAt  time.Time           // run only: the next catch-up
	goesOn bool                // run only: the catch-up under way is one that an earlier session began
	whole  int                 // run only: complete pages, half full at least
	walked map[atomKey]windows // run only: asked for by this visit's catch-up
	honest atomic.Bool         // an empty page has stayed empty after its EOSE, and Source.inTurn
	saver  saver
}

// signal is what the relay says of a live subscription.
type signal struct {
	sub    string
	closed bool   // else EOSE
	reason string // of CLOSED
	notice bool   // a NOTICE, which names no subscription
}

func (v *visit) handler() *relay.Handler {
	return &relay.Handler{Event: v.event, EOSE: v.eose, Closed: v.closed, Notice: v.notice, Count: v.told, TooBig: v.tooBig, Awaits: v.awaits}
}

// awaits says whether the relay owes an answer to a page, a request for ids, or a plan's live subscriptions.
func (v *visit) awaits() bool {
	return v.open.any() || v.at.Load() != nil || !v.s.o.Once && v.stands.Load() < v.s.asked.Load().number
}

// event takes one EVENT message in and waits while the stages are full.
func (v *visit) event(frame []byte) {
	f := Frame{Raw: frame, Door: v.s.o.Door, How: record.Page}
	var sub []byte
	f.Scan, f.Simple = event.ScanFrame(frame)
	raw := frame[min(f.Scan.Event, len(frame)):]
	if sub = f.Scan.Sub; !f.Simple {
		name, bare, err := event.ParseFrame(frame)
		if err != nil {
			name, bare = "", nil
		}
		sub, raw = []byte(name), bare
	}
	var p *page
	if bytes.HasPrefix(sub, []byte(livePrefix)) {
		f.Live, f.How = true, record.Live
	} else if bytes.HasPrefix(sub, []byte(idsPrefix)) {
		f.How = record.Negentropy
	} else if p = v.open.of(sub); p != nil {
		f.How = p.how
	}
	if p != nil && p.aside {
		p.counted(f.Scan.ID, v.sess.Stalled()) // zero where the frame is written in an unusual way
		return
	}

	f.Door.Tally.Received.Add(1)
	if err := v.s.o.Intake.Offer(v.ctx, f); err != nil {
		f.Door.Tally.Received.Add(-1)
		for _, p := range v.open.all() {
			p.end(pageEnd{reason: "interrupted"}) // its EOSE may be the next message, and must prove nothing now
		}
		v.cancel(fmt.Errorf("hand over an event of %s: %w", v.s.o.URL, err))
		return
	}
	v.s.lastEvent.Store(v.s.o.Now().UnixNano())
	if f.Simple {
		v.sess.Progress()
	}
	switch f.How {
	case record.Live:
	case record.Negentropy:
		id, ok := f.Scan.ID, f.Simple
		if !ok {
			id, _, ok = slowly(raw)
		}
		v.got(sub, id, ok)
	default:
		v.paged(p, f, sub, raw)
	}
	if v.frames++; v.frames%garbageEvery == 0 {
		if pause := v.s.garbage.judge(&f.Door.Tally); pause != nil {
			v.cancel(pause)
		}
	}
}

// paged counts an event for its page p, nil if that is over or was never asked for.
func (v *visit) paged(p *page, f Frame, sub, raw []byte) {
	id := f.Scan.ID
	at, ok := event.ScanCreatedAt(raw)
	if !f.Simple {
		id, at, ok = slowly(raw)
	}
	late := p == nil && !v.open.gaveUp(sub, v.pages)
	if p != nil {
		late = p.event(id, at, ok, p.stranger(raw), v.sess.Stalled())
	}
	// What is new comes on an open page too, as on any subscription. What is old should have come before the EOSE.
	if late && ok && at < v.recent() {
		v.late.Add(1)
	}
}

// recent is the created_at from which an event may have been published during this visit.
func (v *visit) recent() int64 { return v.began - int64(v.s.o.Overlap/time.Second) }

// slowly reads what the scan cannot; ok is false where Parse refuses the event.
func slowly(raw []byte) (id event.ID, at int64, ok bool) {
	var e event.Event
	if raw == nil || event.Parse(raw, &e) != nil {
		return id, 0, false
	}
	return e.ID, e.CreatedAt, true
}

func (v *visit) eose(sub, hint string) {
	if v.said(sub, word{kind: saidEOSE}) {
		return
	}
	if p := v.open.of([]byte(sub)); p != nil {
		p.end(pageEnd{eose: true, hint: hint})
		return
	}
	v.tell(signal{sub: sub})
}

func (v *visit) closed(sub, reason string) {
	v.mu.Lock()
	delete(v.asked, sub)
	v.mu.Unlock()
	if v.said(sub, word{kind: saidClosed, text: reason}) {
		return
	}
	if p := v.open.of([]byte(sub)); p != nil {
		p.end(pageEnd{closed: true, reason: reason})
		return
	}
	v.tell(signal{sub: sub, closed: true, reason: reason})
}

// tooBig notes that a message was left out, which may have been an event of the page.
func (v *visit) tooBig() {
	for _, p := range v.open.all() { // any of them
		p.tooBig(v.sess.Stalled())
	}
}

func (v *visit) notice(text string) {
	if relay.MayAnswer(text) {
		if p := v.open.noticed(text, v.sess.Stalled()); p != nil && relay.TooManyREQ(text) {
			v.s.fewer(p.fewest)
		}
		v.said("", word{kind: saidNotice, text: text})
	}
	v.tell(signal{notice: true, reason: text})
}

// tell passes on what concerns a live subscription.
func (v *visit) tell(s signal) {
	if v.s.o.Once || !s.notice && !strings.HasPrefix(s.sub, livePrefix) {
		return
	}
	select {
	case v.signals <- s:
	case <-v.ctx.Done():
	}
}

// req asks for what any of filters takes, at most limit of each.
func (v *visit) req(ctx context.Context, sub string, limit int, filters ...event.Filter) error {
	msg := []byte(`["REQ","` + sub + `"`)
	for _, f := range filters {
		msg = f.AppendJSON(append(msg, ','), limit)
	}
	v.mu.Lock()
	if v.asked == nil {
		v.asked = make(map[string]struct{})
	}
	v.asked[sub] = struct{}{}
	v.mu.Unlock()
	if err := v.sess.Request(ctx, append(msg, ']')); err != nil {
		return fmt.Errorf("ask %s: %w", v.s.o.URL, err)
	}
	return nil
}

// close ends a subscription, unless the relay has.
func (v *visit) close(ctx context.Context, sub string) error {
	v.mu.Lock()
	_, isOpen := v.asked[sub]
	delete(v.asked, sub)
	v.mu.Unlock()
	if !isOpen {
		return nil
	}
	msg, err := json.Marshal([]string{"CLOSE", sub})
	if err != nil {
		return err
	}
	return v.sess.Send(ctx, msg)
}

// leave closes what is open, if the session still lives.
func (v *visit) leave() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.ctx), leaveTime)
	defer cancel()
	v.mu.Lock()
	subs := make([]string, 0, len(v.asked))
	for sub := range v.asked {
		subs = append(subs, sub)
	}
	v.mu.Unlock()
	for _, sub := range subs {
		if v.sess.Err() != nil || v.close(ctx, sub) != nil {
			return // a session that has ended has no subscriptions
		}
	}
}

// run is the order of a session: live, catch-up, history; then a catch-up every hour.
func (v *visit) run() error {
	if err := v.load(); err != nil {
		return err
	}
	cut := v.s.cuts > maxCuts // a frame too big for us, say, that is on the same page each time
	if cut {
		v.s.cuts = 0
		v.s.conclude(outcome{complete: No, reason: fmt.Sprintf("the connection ended %d times before anything was proven", maxCuts)})
	}
	if v.s.o.Once {
		if !cut {
			if err := v.history(openEnd); err != nil {
				return err
			}
		}
		return v.saver.drain(v.ctx)
	}
	for {
		err := v.pursue(cut)
		if !errors.Is(err, errReplanned) {
			return err
		}
		if err := v.load(); err != nil {
			return err
		}
		cut = false
	}
}

// errReplanned interrupts what was begun for another plan.
var errReplanned = errors.New("something else is asked for now")

// pursue works on one plan. cut: it is live alone for a while before catch-up and history.
func (v *visit) pursue(cut bool) error {
	// What is published from here on comes live, so nothing falls between live and what is asked for now.
	for v.stands.Load() < v.plan.number {
		select {
		case <-v.liveNews:
		case <-v.ctx.Done():
			return context.Cause(v.ctx)
		}
	}
	if cut { // live goes before history: a relay that cannot give the one must not cost us the other
		v.caught, v.dueAt = true, time.Now().Add(v.s.rest)
		v.s.phase(Live)
		if err := v.untilDue(false); err != nil {
			return err
		}
		v.s.rest = min(2*v.s.rest, v.s.o.CatchUpEvery)
		v.caught = false
	}
	if !v.caught {
		if v.s.catch.lapped && !v.plan.history.None { // it may never come to its end: what can be proven must not wait for that
			v.dueAt = time.Now().Add(v.s.o.CatchUpEvery)
			if err := v.history(v.s.o.Now().Add(-v.s.o.Overlap).Unix()); err != nil {
				return err
			}
		}
		if err := v.catchUp(); err != nil {
			return err
		}
	}
	if !v.plan.history.None {
		if err := v.history(openEnd); err != nil {
			return err
		}
	}
	for {
		v.s.further()
		v.s.halved = 0
		v.s.phase(Live)
		if err := v.untilDue(true); err != nil {
			return err
		}
		if err := v.catchUp(); err != nil {
			return err
		}
	}
}

// untilDue waits for the next catch-up; audits: and compares with the archive when that is due meanwhile.
func (v *visit) untilDue(audits bool) error {
	t, audit := time.NewTimer(time.Until(v.dueAt)), time.NewTimer(time.Hour)
	defer t.Stop()
	defer audit.Stop()
	for !v.replanned() {
		wait := time.Hour // which only looks again
		if audits {
			at, full, err := v.auditDue()
			if err != nil {
				return err
			}
			if !at.IsZero() && at.Sub(v.s.o.Now()) <= 0 {
				if err := v.audit(full); err != nil {
					return err
				}
				v.s.phase(Live)
				continue
			}
			if !at.IsZero() {
				wait = at.Sub(v.s.o.Now())
			}
		}
		audit.Reset(wait)
		select {
		case <-t.C:
			return nil
		case <-v.catchUpNow:
			return nil
		case <-audit.C:
		case <-v.s.nudged:
		case <-v.liveNews:
		case <-v.ctx.Done():
			return context.Cause(v.ctx)
		}
	}
	return errReplanned
}

// due says whether a catch-up must not wait for history's end.
func (v *visit) due() bool {
	select {
	case <-v.catchUpNow:
		return true
	default:
		return !v.s.o.Once && !time.Now().Before(v.dueAt)
	}
}

// smaller ends the visit; the link serves the role again at once, on the same socket, with smaller requests.
func smaller() error { return &relay.Pause{Reason: "the relay wants smaller requests"} }
