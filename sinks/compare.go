package sinks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/reconcile"
	"rebroadcastr/relay"
)

// A sink is compared with the archive (NIP-77) beside the sending: window by window it is found out which ids the relay lacks, and
// only when the last reconciliation has ended the ledger is told. Nothing is published by a comparison.

// Seen is what the archive has ever had, as comparing with it wants it.
type Seen interface {
	// IDs gives the ids of all archived events that f takes, its since and until aside, up to now; release is called when they
	// are not needed any more. It may take as long as reading the archive does. The error is reconcile.ErrNoRoom where the disk
	// has none for them.
	IDs(ctx context.Context, f event.Filter) (ids reconcile.IDs, release func(), err error)
	// Room waits until one window more can be held in memory, over all relays, and is left when that is let go.
	Room(ctx context.Context) (leave func(), err error)
	// Place is where an event is archived.
	Place(id event.ID) (at place.Place, found bool, err error)
}

const (
	// maxOffered events are offered by one comparison, each a parked row. What is lacked beyond that is offered by the next one,
	// moreAfter the last of these was answered.
	maxOffered = 10_000
	moreAfter  = 10 * time.Minute
	// offerAtOnce are parked in one commit.
	offerAtOnce = 500
	// maxSurplus ids that the relay has and the archive lacks, then a comparison is given up: naming them takes 128 bytes each.
	maxSurplus = 1_000_000
	// compareTries of one window whose reconciliation broke off, and comparisons in a row that the relay ended with the session.
	compareTries = 3
	// refusedFor is how long a relay that does not reconcile is not asked again.
	refusedFor = 24 * time.Hour
	// notNow is how long a comparison that is due and cannot be is put off.
	notNow = 5 * time.Second
	// maxAuthors, or tag values, of one filter.
	maxAuthors = 500
)

// comparison is one under way.
type comparison struct {
	a        *attempt
	ctx      context.Context
	start    time.Time
	insist   bool
	frontier uint64              // everything from here on had still to be sent when it began
	open     map[uint64]struct{} // and these below
	res      Compared
	judged   int                 // of the lacked ones, looked up
	marks    []mark              // to be offered
	lacked   map[uint64]struct{} // of the looked up ones: what the relay had by its own word
	surplus  int
}

// errStopped ends a comparison before its end; res.Text says why.
var errStopped = errors.New("stopped")

// compare compares once. The error is ctx's, or of the session: nothing has come of it.
func (a *attempt) compare(ctx context.Context, full, insist bool) (Compared, error) {
	s := a.s
	c := &comparison{a: a, ctx: ctx, start: s.now(), insist: insist, open: make(map[uint64]struct{}), lacked: make(map[uint64]struct{})}
	c.res = Compared{At: c.start, Full: full}
	_, _, frontier, _ := s.ledger.Account()
	c.frontier = frontier.Ordinal
	for _, it := range s.ledger.Open() { // after the frontier: what is opened between the two lies behind it
		c.open[it.Ordinal] = struct{}{}
	}
	setting := s.comparer.setting.Load()
	since := max(0, s.ledger.Since())
	if !full {
		since = max(since, c.start.Add(-setting.Depth).Unix())
	}
	why, err := a.incomparable(insist)
	if err == nil && why == "" {
		for _, f := range setting.filters {
			if err = c.filter(f, since); err != nil {
				break
			}
		}
	} else {
		c.stop(why)
	}
	if err != nil && !errors.Is(err, errStopped) {
		if ctx.Err() != nil || a.sess.Err() != nil {
			return c.res, err
		}
		c.stop(err.Error())
	}
	if err := c.hand(); err != nil {
		if ctx.Err() != nil {
			return c.res, err
		}
		c.stop(err.Error())
	}
	return c.res, nil
}

// stop notes why not everything was compared. The first reason holds.
func (c *comparison) stop(why string) error {
	c.res.Text = cmp.Or(c.res.Text, why)
	return errStopped
}

// filter compares what one filter takes.
func (c *comparison) filter(f event.Filter, since int64) error {
	s := c.a.s
	lo, hi := max(since, f.Since), int64(reconcile.OpenEnd)
	if f.Until > 0 {
		hi = f.Until
	}
	if lo > hi || len(f.IDs) > 0 {
		return nil
	}
	ids, release, err := s.o.Seen.IDs(c.ctx, f)
	if errors.Is(err, reconcile.ErrNoRoom) {
		return c.stop(err.Error())
	}
	if err != nil {
		return fmt.Errorf("list what is archived: %w", err)
	}
	defer release()
	spans := reconcile.NewSpans(ids, lo, hi, s.now().Unix())
	var lists relay.Lists
	for tries := 0; ; {
		lo, hi, ok, err := spans.Next()
		if err != nil || !ok {
			return err
		}
		d, ours, end, err := c.window(&lists, f, lo, hi, ids)
		if err != nil {
			return err
		}
		c.surplus += len(d.Need)
		if c.surplus > maxSurplus {
			return c.stop(fmt.Sprintf("the relay has more than %d events that are not archived", maxSurplus))
		}
		switch end.Kind {
		case relay.NegSettled:
			tries = 0
			spans.Done(ours + len(d.Need))
			c.res.Listed += ours
			if err := c.take(d.Have); err != nil {
				return err
			}
		case relay.NegTooMany, relay.NegCut:
			if end.Kind == relay.NegCut {
				spans.Fewer(lists.Most())
			}
			switch {
			case spans.Smaller():
			case !d.Begun: // it would say so of each second
				return c.stop(c.a.doesNotReconcile(end.Reason))
			default:
				_ = c.stop(fmt.Sprintf("more than can be compared is dated %s", date(lo)))
				spans.Skip()
			}
		case relay.NegRefused:
			return c.stop(c.a.doesNotReconcile(end.Reason))
		default:
			if tries++; tries >= compareTries {
				return c.stop(end.Reason)
			}
			if err := sleep(c.ctx, s.o.Retry<<(tries-1)); err != nil {
				return err
			}
		}
	}
}

// window finds which of our ids in one window the relay lacks; ours is how many we have.
func (c *comparison) window(lists *relay.Lists, f event.Filter, lo, hi int64, ids reconcile.IDs) (d relay.Difference, ours int, end relay.NegEnd, err error) {
	s := c.a.s
	leave, err := s.o.Seen.Room(c.ctx)
	if err != nil {
		return d, 0, end, err
	}
	defer leave()
	items, err := ids.List(lo, hi)
	switch {
	case errors.Is(err, reconcile.ErrTooMany):
		return relay.Difference{Begun: true}, 0, relay.NegEnd{Kind: relay.NegTooMany}, nil
	case err != nil || len(items) == 0:
		return d, 0, end, err
	}
	// No wider than what we have: what only the relay has is of no use here. But for a second, for until is exclusive at some relays.
	f.Since, f.Until = items[0].CreatedAt, items[len(items)-1].CreatedAt+1
	d, end, err = lists.Compare(c.ctx, c.a.sess, f, items, 0)
	s.comparer.drops.Add(end, err)
	if end.Kind == relay.NegSettled && err == nil {
		s.comparer.refuse(time.Time{}, "")
	}
	return d, len(items), end, err
}

// take looks up what the relay lacks: which of it was sent, and would be by the rules of now. Beyond maxOffered it only counts.
func (c *comparison) take(lacks []event.ID) error {
	s := c.a.s
	c.res.Lacked += len(lacks)
	if len(c.marks) >= maxOffered {
		return nil
	}
	var sent []mark
	for i, id := range lacks {
		if i%offerAtOnce == 0 && c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		at, found, err := s.o.Seen.Place(id)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		rec, ok, err := s.readAt(at)
		if err != nil {
			return err
		}
		if _, open := c.open[rec.Ordinal]; !ok || rec.Event.ID != id || open || rec.Ordinal >= c.frontier {
			continue
		}
		d, err := s.decide(&rec, c.a.sess)
		if err != nil {
			return err
		}
		if d.sends() {
			sent = append(sent, mark{rec.Ordinal, rec.Place})
		}
	}
	c.judged += len(lacks)
	slices.SortFunc(sent, func(a, b mark) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	out, err := s.ledger.Lacking(sent, c.start, c.insist)
	if err != nil {
		return err
	}
	for _, m := range slices.Concat(out.rest, out.marks) {
		c.lacked[m.Ordinal] = struct{}{}
	}
	c.res.Resting += len(out.rest)
	c.marks = append(c.marks, out.marks...)
	return nil
}

// hand tells the ledger.
func (c *comparison) hand() error {
	s := c.a.s
	whole := c.res.Full && c.res.Text == ""
	counters, _, _, _ := s.ledger.Account()
	count, _, _ := s.ledger.Lack()
	had := counters.Delivered + counters.Duplicate + counters.Superseded
	lacked := uint64(len(c.marks))
	if c.judged > 0 {
		lacked = lacked * uint64(c.res.Lacked) / uint64(c.judged)
	}
	many := len(c.marks) >= maxOffered
	if next, _ := s.comparer.allAt(); !many && whole && !c.start.Before(next) { // not sooner, for a relay may show its events every other time
		s.comparer.all(time.Time{}, 0)
	}
	switch {
	case !many:
	case 2*lacked > had, lacked+count.Rows > maxLacked: // rows cannot be kept of so many, so nothing else would end this
		return c.all()
	case !c.res.Full && 2*c.res.Lacked > c.res.Listed: // perhaps of what is older too
		c.res.Deeper = true
		return nil
	}
	slices.SortFunc(c.marks, func(a, b mark) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	c.marks = slices.Compact(c.marks) // two filters may take one event
	if len(c.marks) > maxOffered {
		c.res.More = true
		c.marks = c.marks[len(c.marks)-maxOffered:]
	}
	c.res.More = c.res.More || many && c.res.Lacked > c.judged
	if len(c.marks) > 0 {
		s.ledger.NewLack()
	}
	for chunk := range slices.Chunk(c.marks, offerAtOnce) {
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx) // the rest comes up again
		}
		n, err := s.ledger.OfferLacked(chunk, s.now(), c.insist)
		if err != nil {
			return err
		}
		c.res.Offered += n
		if err := s.ledger.Commit(); err != nil {
			return err
		}
		s.nudge()
	}
	if whole && !c.res.More {
		return s.ledger.KeepLacked(func(ordinal uint64) bool { _, lacks := c.lacked[ordinal]; return lacks })
	}
	return nil
}

// all has everything offered that the relay ever had: it has lost most of that, or very much. Not each time, for a relay may delete what it takes.
func (c *comparison) all() error {
	s := c.a.s
	next, wait := s.comparer.allAt()
	if c.start.Before(next) && next.Before(c.start.Add(2*lastLack)) && !c.insist {
		_ = c.stop(fmt.Sprintf("it lacks much of what it was sent, again: offered after %s", date(next.Unix())))
		return nil
	}
	wait = min(max(2*wait, firstLack), lastLack)
	s.comparer.all(c.start.Add(wait), wait)
	s.ledger.NewLack()
	n := s.ledger.OfferAll()
	if err := s.ledger.Commit(); err != nil {
		return err
	}
	c.res.All = true
	s.log.Warn().Int("lacked", c.res.Lacked).Int("of", c.res.Listed).Uint64("archived", n).Msg(
		"the sink lacks most, or very much, of what it was sent: all of it is offered again, behind what is new")
	s.nudge()
	return nil
}

// incomparable says why the relay cannot be compared, if it cannot. insist: what it refused before it is asked again.
func (a *attempt) incomparable(insist bool) (why string, err error) {
	s := a.s
	info := a.sess.Info()
	until, reason := s.comparer.refused()
	now := s.now()
	switch {
	case !a.sess.Settings().Negentropy:
		return "relay_settings say negentropy: off", nil
	case !insist && now.Before(until) && !until.After(now.Add(refusedFor)): // a time further ahead was made by a clock that ran ahead
		return reason, nil
	case info.Known && len(info.NIPs) > 0 && !info.Supports(77):
		return a.doesNotReconcile("its NIP-11 document does not name it"), nil
	case s.comparer.drops.Refuse():
		return a.doesNotReconcile("the connection ends when it is asked to"), nil
	}
	return "", nil
}

// doesNotReconcile remembers that the relay refuses, and says so once.
func (a *attempt) doesNotReconcile(reason string) (why string) {
	s := a.s
	s.log.Info().Str("reason", reason).Stringer("for", refusedFor).Msg("the relay does not reconcile (NIP-77): what it lacks cannot be found out")
	why = "the relay does not reconcile (NIP-77): " + reason
	s.comparer.refuse(s.now().Add(refusedFor), why)
	return why
}

// cut makes filters that relays take of f.
func cut(f event.Filter) []event.Filter {
	var out []event.Filter
	if len(f.Authors) > maxAuthors {
		for part := range slices.Chunk(f.Authors, maxAuthors) {
			g := f
			g.Authors = part
			out = append(out, g)
		}
		return out
	}
	return []event.Filter{f}
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
