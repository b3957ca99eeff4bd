package sources

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rebroadcastr/relay"
)

// openPages are the pages under way, the one first asked for first.
type openPages struct {
	mu      sync.RWMutex
	list    []*page
	ended   time.Time     // when the last one that is over was
	stalled time.Duration // the session's, then
	over    int           // its number
	cut     []int         // the numbers of the last that are over without an EOSE
}

// maxCut pages that are over without an EOSE are remembered: what still comes for one did not come after it. A relay has no more under
// way at once than there may be subscriptions; the rest is for those that were asked for again.
const maxCut = 4 * relay.MaxSubscriptions

func (o *openPages) add(p *page) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, p)
}

func (o *openPages) remove(p *page, stalled time.Duration) {
	eose := p.done()
	o.mu.Lock()
	defer o.mu.Unlock()
	if !eose {
		if o.cut = append(o.cut, p.number); len(o.cut) > maxCut {
			o.cut = slices.Delete(o.cut, 0, len(o.cut)-maxCut)
		}
	}
	o.list = slices.DeleteFunc(slices.Clone(o.list), func(q *page) bool { return q == p })
	o.ended, o.stalled, o.over = time.Now(), stalled, p.number
}

// of finds the page of a subscription; nil: it is over, or was never asked for.
func (o *openPages) of(sub []byte) *page {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for _, p := range o.list {
		if p.sub == string(sub) {
			return p
		}
	}
	return nil
}

// gaveUp says that sub is of a page that was over before its EOSE. Numbers up to before are of earlier visits' pages, whose answers
// may still be on their way on the same socket.
func (o *openPages) gaveUp(sub []byte, before int) bool {
	digits, ok := strings.CutPrefix(string(sub), pagePrefix)
	number, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return false
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	return number > 0 && number <= before || slices.Contains(o.cut, number)
}

func (o *openPages) all() []*page {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return slices.Clone(o.list)
}

// any says whether there is one.
func (o *openPages) any() bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return len(o.list) > 0
}

// heard is when the relay last answered a page that was asked for before p.
func (o *openPages) heard(p *page) (at time.Time, stalled time.Duration) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.over < p.number {
		at, stalled = o.ended, o.stalled
	}
	for _, q := range o.list {
		if q.number >= p.number {
			break
		}
		if t, s := q.lastHeard(); t.After(at) {
			at, stalled = t, s
		}
	}
	return at, stalled
}

// busy tells when the relay last had a page to answer, and the session's Stalled then. One that answers in turn comes to what was asked
// for after them when it is done with these.
func (o *openPages) busy(stalled func() time.Duration) func() (time.Time, time.Duration) {
	return func() (time.Time, time.Duration) {
		o.mu.RLock()
		defer o.mu.RUnlock()
		if len(o.list) > 0 {
			return time.Now(), stalled()
		}
		return o.ended, o.stalled
	}
}

// noticed gives a NOTICE to the newest page that it may stand for; nil: there is none.
func (o *openPages) noticed(text string, stalled time.Duration) *page {
	for _, p := range slices.Backward(o.all()) {
		if p.noticed(text, stalled) {
			return p
		}
	}
	return nil
}
