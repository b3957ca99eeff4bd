package sources

import (
	"context"
	"fmt"
	"sync"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/record"
)

const (
	// linger is how long an empty page stays open after its EOSE, until one has shown that nothing follows, and another that events
	// come before: it ends a walk and proves much, and some relays (proxies, mostly) send EOSE too early.
	linger = 300 * time.Millisecond
	// longest is how many times Options.Idle a page may take in all. A relay that never sends EOSE but what is new would
	// keep a page open for ever.
	longest = 20
)

// page is one request for history and what came of it.
type page struct {
	number   int   // of the source's
	fewest   int64 // Source.fewest when it was asked for
	sub      string
	aside    bool // what comes is counted and left out
	how      record.How
	since    int64
	authors  map[event.PubKey]struct{} // asked for; nil: any
	asked    int64                     // until as asked, with the walk's edge; 0: none
	until    int64                     // the walk's
	recent   int64                     // see answer.add
	finished chan struct{}

	mu          sync.Mutex
	answer      answer
	prev        int64 // created_at of the event before
	ended       pageEnd
	isEnded     bool
	empty       bool          // at its EOSE
	outside     int           // of the window
	heard       time.Time     // an event, or the request
	stalled     time.Duration // the session's, at heard
	begun       time.Time     // the request
	before      time.Duration // stalled at begun
	complaint   string        // a NOTICE while nothing had come, that may stand for an answer
	noticedAt   time.Time     // when that came
	stalledThen time.Duration // the session's stalled, then
}

// pageEnd is how a page ended; the zero value: by silence.
type pageEnd struct {
	eose   bool
	hint   string
	closed bool
	reason string
}

func newPage(number int, how record.How, w *walk, r request, recent int64, stalled time.Duration) *page {
	p := &page{number: number, sub: fmt.Sprintf("%s%d", pagePrefix, number), how: how, since: r.since, asked: r.until, until: r.to, recent: recent,
		aside: r.step == stepProbe, finished: make(chan struct{}), prev: openEnd, heard: time.Now(), stalled: stalled, begun: time.Now(), before: stalled}
	if !p.aside {
		p.authors = w.authors
	}
	p.answer.ids, p.answer.strange = make(map[event.ID]struct{}), openEnd
	return p
}

func (p *page) tooBig(stalled time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard, p.stalled = time.Now(), stalled
	p.answer.tooBig++
}

// stranger reports whether a bare event is plainly of an author that was not asked for.
func (p *page) stranger(raw []byte) bool {
	if p.authors == nil {
		return false
	}
	key, ok := event.ScanPubKey(raw)
	_, asked := p.authors[key]
	return ok && !asked
}

// started sets the clock once the request is out: waiting for our own pace is not the relay's silence.
func (p *page) started(stalled time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard, p.stalled = time.Now(), stalled
	p.begun, p.before = p.heard, stalled
}

// event counts one that was taken in; readable says that id and at were found. late: it came after the EOSE of a page
// that was not empty, and is not counted.
func (p *page) event(id event.ID, at int64, readable, stranger bool, stalled time.Duration) (late bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard, p.stalled = time.Now(), stalled
	if p.complaint = ""; p.isEnded && !p.empty { // what was complained of is not this page
		return true
	}
	switch {
	case !readable:
		p.answer.unread++
	case stranger: // such as an advertisement at the end of each page: it must not lead the walk past what was asked for
		p.outside++
		if p.asked != 0 && at > p.asked {
			p.answer.stray = true
		} else if at >= p.since {
			p.answer.strange = min(at, p.answer.strange)
			p.answer.strangers++
		}
	case p.asked != 0 && at > p.asked:
		p.answer.above++
		p.answer.beside(id)
		p.outside++
	case at < p.since:
		p.answer.addBelow(at, p.recent, &p.prev)
		p.answer.beside(id)
		p.outside++
	default:
		p.answer.add(id, at, p.until, p.recent, &p.prev)
	}
	return false
}

// counted takes an event of a page whose events are left out.
func (p *page) counted(id event.ID, stalled time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard, p.stalled, p.complaint = time.Now(), stalled, ""
	p.answer.n++
	if len(p.answer.ids) < maxRepeated {
		p.answer.ids[id] = struct{}{}
	}
}

func (p *page) end(e pageEnd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isEnded {
		return
	}
	p.isEnded, p.ended = true, e
	p.empty = p.answer.n+p.answer.strangers == 0
	p.answer.finish, p.answer.more = e.hint == "finish", e.hint == "more"
	close(p.finished)
}

// noticed remembers a NOTICE that may stand for this page's EOSE: some relays refuse a REQ so. false: it cannot.
func (p *page) noticed(text string, stalled time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isEnded || p.complaint != "" || p.answer.n > 0 || p.answer.unread > 0 || p.outside > 0 {
		return false
	}
	p.complaint, p.noticedAt, p.stalledThen = text, time.Now(), stalled
	return true
}

// silent says how long to wait before the page counts as ended by silence; 0: now. heard is when an event came for a page
// that was asked for earlier: a relay may answer one after the other. After a NOTICE a tenth of idle is enough, from then on.
func (p *page) silent(idle, stalled time.Duration, heard time.Time, stalledThen time.Duration) (left time.Duration, complaint string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if whole := longest * idle; time.Since(p.begun)-(stalled-p.before) > whole {
		return 0, fmt.Sprintf("no EOSE within %s", whole)
	}
	if heard.Before(p.heard) || p.complaint != "" {
		heard, stalledThen = p.heard, p.stalled
	}
	// While the reader waits for our own stages, the relay's clock stands still.
	left = idle - (time.Since(heard) - (stalled - stalledThen))
	if p.complaint != "" {
		left = min(left, idle/10-(time.Since(p.noticedAt)-(stalled-p.stalledThen)))
	}
	return left, p.complaint
}

// done says that the page has come to its EOSE.
func (p *page) done() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isEnded && p.ended.eose
}

// lastHeard is when something came for the page.
func (p *page) lastHeard() (time.Time, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.heard, p.stalled
}

// await waits for the page's end.
func (v *visit) await(ctx context.Context, p *page) (pageEnd, error) {
	tick := v.s.o.Idle / 20
	for {
		heard, then := v.open.heard(p)
		left, complaint := p.silent(v.s.o.Idle, v.sess.Stalled(), heard, then)
		if left <= 0 {
			e := pageEnd{reason: fmt.Sprintf("silent for %s", v.s.o.Idle)}
			if complaint != "" {
				e.reason = complaint
			}
			return e, nil
		}
		t := time.NewTimer(min(left, tick)) // a NOTICE shortens it
		select {
		case <-p.finished:
			t.Stop()
			return p.ended, v.lingers(ctx, p)
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return pageEnd{}, context.Cause(ctx)
		}
	}
}

// lingers gives a page that looks empty a moment more.
func (v *visit) lingers(ctx context.Context, p *page) error {
	p.mu.Lock()
	eose, empty, finish := p.ended.eose, p.empty, p.answer.finish
	p.mu.Unlock()
	if eose && !empty {
		v.s.inTurn.Store(true)
	}
	if !eose || !empty || finish || v.honest.Load() {
		return nil
	}
	for left := v.patience(); left > 0; left -= linger {
		if err := sleep(ctx, linger); err != nil {
			return err
		}
		p.mu.Lock()
		came, quiet := p.answer.n+p.answer.strangers > 0, time.Since(p.heard)
		p.mu.Unlock()
		if !came {
			continue
		}
		if !v.s.hasty.Swap(true) {
			left = v.patience()
		}
		if v.honest.Store(false); quiet >= linger {
			return nil
		}
	}
	// A relay with nothing to give shows nothing.
	v.honest.Store(v.s.inTurn.Load() && !v.s.hasty.Load())
	return nil
}

// patience is how long a page that is empty is waited for. Where that is known to be of use, a slow machine or line must not look
// like a relay that has nothing.
func (v *visit) patience() time.Duration {
	if v.s.hasty.Load() {
		return 10 * linger
	}
	return linger
}

// result takes what has come so far; the reader may still bring more.
func (p *page) result() (a answer, outside int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a = p.answer
	p.answer.ids = make(map[event.ID]struct{}) // the walk's now
	p.empty = false
	return a, p.outside
}
