package sources

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/reconcile"
	"rebroadcastr/relay"
	"rebroadcastr/state"
)

const (
	// countSilence is how long a relay may think about a COUNT while somebody waits for what a backfill would do; countPatience
	// is what it gets when nobody does.
	countSilence = 5 * time.Second
	// maxCounts of one relay: at a stranger's pace 25 seconds. What is beyond is not counted.
	maxCounts = 300
)

// Survey is a role that finds out how much there is to ask a source for: it counts (NIP-45) and compares ids (NIP-77). It fetches
// no event, and changes nothing here or there.
type Survey struct {
	s       *Source // never served; what it keeps is the survey's own
	ids     Lister
	parts   []group // of which the same is missing
	refused bool    // it would not reconcile, less than a day ago

	// Serve only.
	jobs   []*job
	begun  bool
	next   int
	counts int

	mu  sync.Mutex
	out Outlook
}

// job is one window of one request's atoms.
type job struct {
	part   int // in Outlook.Parts
	group  group
	window window
}

// Outlook is what a Survey has found.
type Outlook struct {
	Done      bool       // everything was looked at
	Info      relay.Info //
	Pace      float64    // requests a second; 0: the relay was not reached
	Parts     []Prospect // what is asked for in the same windows
	NoCount   string     // why something was not counted
	NoCompare string     // why something was not compared
}

// Prospect is one part of what would be asked.
type Prospect struct {
	Words    string
	Atoms    int      // how many authors, tag values or ids it stands for
	Windows  []Window // newest first
	Requests int64    // at least
	Events   int64    // that would come, as far as known
	Known    bool     // all of Events is
	About    bool     // the relay says that it has not counted exactly
	Lacking  int64    // of Events: ids that were compared and are not archived
	Had      int64    // ids that were compared and are on both sides

	looked int // jobs
	of     int
}

// NewSurvey takes up what is proven; db may be nil, then nothing is. Of Options URL, Filters, History, Narrow, Again, Once, Limit,
// Idle, Now and Log count. ids may be nil: nothing is compared.
func NewSurvey(o Options, db *state.DB, ids Lister) (*Survey, error) {
	y := &Survey{s: New(o), ids: ids}
	p := y.s.asked.Load()
	view := make(map[atomKey]windows, len(p.atoms))
	if db != nil {
		err := db.View(func(tx *state.Tx) error {
			b := tx.Bucket(y.s.path()...)
			if b == nil {
				return nil
			}
			y.refused = y.s.refusedLately(tx)
			ws := tx.Bucket(y.s.path("windows")...)
			if ws == nil || p.wider(b.Get(keyNarrow)) {
				return nil
			}
			for _, a := range p.atoms {
				if proven, err := y.s.stored(ws.Get(a.key[:])); err == nil { // else asked again
					view[a.key] = proven
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read what is proven of %s: %w", o.URL, err)
		}
	}
	var list []atom
	for _, a := range p.atoms {
		proven := view[a.key]
		if o.Again {
			proven = nil
		}
		if a.missing = proven.missing(historyWindow(p, a)); len(a.missing) > 0 {
			list = append(list, a)
		}
	}
	if p.history.None && !o.Once {
		list = nil
	}
	y.parts = gather(list, math.MaxInt, missingMark)
	y.plan(relay.Info{})
	return y, nil
}

func missingMark(a atom) string { return string(a.missing.encode()) }

// plan takes what is missing apart into requests that this relay would take.
func (y *Survey) plan(info relay.Info) {
	y.jobs = nil
	out := Outlook{Info: info}
	for i, part := range y.parts {
		missing := part.atoms[0].missing
		out.Parts = append(out.Parts, Prospect{Words: Words(part.filter), Atoms: len(part.atoms), Windows: missing.open()})
		for _, g := range partsFor(info, roomFor(info, maxAuthors), part.atoms, missingMark) {
			for _, w := range missing {
				y.jobs = append(y.jobs, &job{i, g, w})
			}
		}
	}
	for _, j := range y.jobs {
		out.Parts[j.part].Requests++ // one each, at least
		out.Parts[j.part].of++
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.out = out
}

// Outlook is what was found so far. Before the relay was reached it is what is known without it.
func (y *Survey) Outlook() Outlook {
	y.mu.Lock()
	defer y.mu.Unlock()
	out := y.out
	out.Parts = append([]Prospect(nil), y.out.Parts...)
	for i := range out.Parts {
		p := &out.Parts[i]
		p.Known = p.looked == p.of
	}
	return out
}

// found is what was learned of a job.
type found struct {
	events   int64
	known    bool
	about    bool
	lacking  int64
	had      int64
	requests int64
}

// Serve is a session's work. What is known when one ends is kept; a question at which the connection ends is not asked again.
func (y *Survey) Serve(ctx context.Context, sess *relay.Session) error {
	if !y.begun {
		y.begun = true
		y.plan(sess.Info())
		y.mu.Lock()
		y.out.NoCompare, y.out.Pace = y.noCompare(sess), sess.Pace()
		y.mu.Unlock()
	}
	for ; y.next < len(y.jobs); y.next++ {
		j := y.jobs[y.next]
		f, err := y.look(ctx, sess, j)
		if err != nil {
			return err
		}
		y.mu.Lock()
		p := &y.out.Parts[j.part]
		p.Events, p.Lacking, p.Had, p.About = p.Events+f.events, p.Lacking+f.lacking, p.Had+f.had, p.About || f.about
		p.Requests += max(f.requests, 1) - 1
		if f.known {
			p.looked++
		}
		y.mu.Unlock()
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	y.out.Done = true
	return nil
}

// noCompare says why ids cannot be compared; "": they may be.
func (y *Survey) noCompare(sess *relay.Session) string {
	switch {
	case y.ids == nil:
		return "nothing is archived yet"
	case y.s.o.Limit > 0:
		return "not with --limit"
	case !sess.Settings().Negentropy:
		return "negentropy: off"
	case !mayReconcile(sess.Info()):
		return "the relay does not reconcile (NIP-77)"
	case y.refused:
		return "the relay refused to reconcile less than a day ago"
	}
	return ""
}

func (y *Survey) compares() bool { y.mu.Lock(); defer y.mu.Unlock(); return y.out.NoCompare == "" }
func (y *Survey) counted() bool  { y.mu.Lock(); defer y.mu.Unlock(); return y.out.NoCount == "" }

// stops notes why nothing more is asked in one of the two ways.
func (y *Survey) stops(why *string, reason string) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if *why == "" {
		*why = reason
	}
}

// look asks about one job, in the order in which a backfill would.
func (y *Survey) look(ctx context.Context, sess *relay.Session, j *job) (f found, err error) {
	left := windows{j.window}
	f.known = true
	clip := y.s.o.Now().Add(-y.s.o.Overlap).Unix()
	if len(j.group.filter.IDs) == 0 && min(j.window.hi, clip)-j.window.lo >= int64(worthReconciling/time.Second) && y.compares() {
		left, err = y.compare(ctx, sess, j, &f)
		switch {
		case err == nil:
		case sess.Err() != nil || ctx.Err() != nil:
			if !relay.Ours(sess.Err()) {
				y.stops(&y.out.NoCompare, "the connection ended when the relay was asked to reconcile")
			}
			return f, err
		default: // trouble of ours, such as no room for a list of ids
			y.stops(&y.out.NoCompare, err.Error())
			f, left = found{known: true}, windows{j.window}
		}
	}
	for _, w := range left {
		n, known, about, err := y.count(ctx, sess, j.group.filter, w)
		if err != nil {
			return f, err
		}
		f.known, f.about = f.known && known, f.about || about
		y.pages(sess, n, &f)
	}
	return f, nil
}

// pages books n events that would be paged.
func (y *Survey) pages(sess *relay.Session, n int64, f *found) {
	page := int64(maxPage)
	if limit := sess.Info().Limits.MaxLimit; limit > 0 {
		page = min(page, int64(limit))
	}
	f.events += n
	f.requests += max(1, (n+page-1)/page)
}

// count asks how many events the relay has in a window.
func (y *Survey) count(ctx context.Context, sess *relay.Session, filter event.Filter, w window) (n int64, known, about bool, err error) {
	if !y.counted() {
		return 0, false, false, nil
	}
	if y.counts >= maxCounts {
		y.stops(&y.out.NoCount, fmt.Sprintf("only the first %d requests were counted", maxCounts))
		return 0, false, false, nil
	}
	filter.Since, filter.Until = w.lo, w.hi
	if w.hi == openEnd {
		filter.Until = 0
	}
	for tries := 0; ; tries++ {
		y.counts++
		c, err := sess.Count(ctx, fmt.Sprintf("count-%d", y.counts), filter, min(countSilence, y.s.o.Idle), nil)
		var no *relay.NoCount
		switch {
		case err == nil:
			sess.Answered()
			return c.Events, true, c.Approximate, nil
		case !errors.As(err, &no):
			if !relay.Ours(sess.Err()) {
				y.stops(&y.out.NoCount, "the connection ended when the relay was asked to count")
			}
			return 0, false, false, err
		}
		if slower := relay.ClassifyClosed(no.Reason); no.Closed && slower.Verdict == relay.Slower && tries == 0 {
			sess.Slower(slower.Wait) // the next Request waits
			continue
		}
		y.stops(&y.out.NoCount, no.Text())
		return 0, false, false, nil
	}
}

// compare finds what the archive lacks in a job's window. left is what would be paged and is not counted yet.
func (y *Survey) compare(ctx context.Context, sess *relay.Session, j *job, f *found) (left windows, err error) {
	low, w := j.window.lo, j.window
	w.lo = max(w.lo, 1) // until 0 would mean none
	ids, release, err := y.ids.IDs(ctx, j.group.filter)
	if err != nil {
		return nil, fmt.Errorf("list what is archived: %w", err)
	}
	defer release()
	if n, err := ids.Count(w.lo, w.hi); err != nil || n == 0 { // a backfill pages it
		return windows{j.window}, err
	}
	spans := reconcile.NewSpans(ids, w.lo, w.hi, y.s.o.Now().Unix())
	for {
		lo, hi, ok, err := spans.Next()
		if err != nil || !ok {
			return left, err
		}
		session, ours, end, err := y.window(ctx, sess, ids, j.group.filter, window{lo, hi})
		if err != nil {
			return left, err
		}
		if session != nil {
			f.requests++
		}
		switch {
		case end.Kind == relay.NegSettled:
			need, have := session.Counts()
			both := ours + need
			f.had += int64(ours - have)
			if need > mostlyMissing && need > both/2 {
				y.pages(sess, int64(both-have), f) // had by paging, with what is archived already
			} else {
				f.events += int64(need)
				f.requests += int64((need + maxIDs - 1) / maxIDs)
			}
			f.lacking += int64(need)
			spans.Done(both)
		case end.Kind == relay.NegTooMany && session != nil: // more is lacking than one comparison names
			left = append(left, window{down(lo, w.lo, low), hi})
			spans.Skip()
		case end.Kind == relay.NegTooMany:
			if !spans.Smaller() {
				left = append(left, window{down(lo, w.lo, low), hi})
				spans.Skip()
			}
		default:
			y.stops(&y.out.NoCompare, end.Reason)
			return append(left, window{low, hi}), nil
		}
	}
}

// window compares one that both sides can hold; ours is how many ids of it are archived.
func (y *Survey) window(ctx context.Context, sess *relay.Session, ids IDs, f event.Filter, w window) (_ *reconcile.Session, ours int, end relay.NegEnd, err error) {
	leave, err := y.ids.Room(ctx)
	if err != nil {
		return nil, 0, end, err
	}
	defer leave()
	items, err := ids.List(w.lo, w.hi)
	if errors.Is(err, reconcile.ErrTooMany) {
		return nil, 0, relay.NegEnd{Kind: relay.NegTooMany}, nil
	}
	if err != nil {
		return nil, 0, end, err
	}
	if f.Since, f.Until = w.lo, w.hi; w.hi == openEnd {
		f.Until = 0
	}
	session, end, err := sess.Reconcile(ctx, f, items, nil, y.s.o.Idle)
	return session, len(items), end, err
}

// down is lo, or low where lo is the first second that could be compared.
func down(lo, first, low int64) int64 {
	if lo == first {
		return low
	}
	return lo
}
