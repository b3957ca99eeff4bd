package sources

import (
	"context"
	"fmt"
	"sync"
	"time"

	"rebroadcastr/event"
)

const idsPrefix = "ids-"

// word is what a relay says in an exchange, its events aside.
type word struct {
	kind wordKind
	text string
}

type wordKind uint8

const (
	saidClosed  wordKind = iota // CLOSED
	saidNotice                  // NOTICE, which names no subscription
	saidEOSE                    // EOSE
	saidNothing                 // silent for too long
	saidAll                     // every id that was asked for has come
)

// exchange is one subscription called ids-N, and what the relay says to it. There is one at a time; its reader side
// is the session's reader.
type exchange struct {
	sub   string
	words chan word
	over  chan struct{} // closed when nobody listens any more

	mu      sync.Mutex
	want    map[event.ID]struct{} // asked for and not come
	ended   bool                  // by the relay
	heard   time.Time             // what counts as a sign of life, or our last message
	stalled time.Duration         // the session's, at heard
}

// exchange begins one under a number that was not used on this source's sockets.
func (v *visit) exchange(want []event.ID) *exchange {
	v.s.pages++
	x := &exchange{sub: fmt.Sprintf("%s%d", idsPrefix, v.s.pages), words: make(chan word), over: make(chan struct{}), want: make(map[event.ID]struct{}, len(want))}
	for _, id := range want {
		x.want[id] = struct{}{}
	}
	x.alive(v.sess.Stalled())
	v.at.Store(x)
	return x
}

// alive starts the clock of silence anew.
func (x *exchange) alive(stalled time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.heard, x.stalled = time.Now(), stalled
}

// quiet is how long the relay has been silent. While the reader waits for our own stages, its clock stands still.
func (x *exchange) quiet(stalled time.Duration) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	return time.Since(x.heard) - (stalled - x.stalled)
}

// heardSince says that an event has come after at.
func (x *exchange) heardSince(at time.Time) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.heard.After(at)
}

// hear waits for the relay's next word, for patience at most.
func (v *visit) hear(x *exchange, patience time.Duration) (word, error) {
	for {
		left := patience - x.quiet(v.sess.Stalled())
		if left <= 0 {
			return word{kind: saidNothing, text: fmt.Sprintf("silent for %s", patience)}, nil
		}
		t := time.NewTimer(left)
		select {
		case w := <-x.words:
			t.Stop()
			return w, nil
		case <-t.C:
		case <-v.ctx.Done():
			t.Stop()
			return word{}, context.Cause(v.ctx)
		}
	}
}

// said gives the exchange a word, if it is for it; a NOTICE is for any. It runs on the reader and waits until the word is
// taken.
func (v *visit) said(sub string, w word) bool {
	x := v.at.Load()
	if x == nil || sub != x.sub && w.kind != saidNotice {
		return false
	}
	if w.kind == saidClosed {
		x.mu.Lock()
		x.ended = true
		x.mu.Unlock()
	}
	select {
	case x.words <- w:
	case <-x.over:
	case <-v.ctx.Done():
	}
	return true
}

// got counts an event that came under sub; it runs on the reader.
func (v *visit) got(sub []byte, id event.ID, ok bool) {
	x := v.at.Load()
	if x == nil || string(sub) != x.sub {
		return
	}
	x.mu.Lock()
	x.heard, x.stalled = time.Now(), v.sess.Stalled()
	before := len(x.want)
	if ok {
		delete(x.want, id)
	}
	all := before > 0 && len(x.want) == 0
	x.mu.Unlock()
	if all {
		v.said(x.sub, word{kind: saidAll})
	}
}

// missing are the ids that have not come.
func (x *exchange) missing() []event.ID {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := make([]event.ID, 0, len(x.want))
	for id := range x.want {
		out = append(out, id)
	}
	return out
}

// hangUp ends an exchange: with CLOSE, unless the relay has ended it.
func (v *visit) hangUp(x *exchange) error {
	v.at.CompareAndSwap(x, nil)
	close(x.over)
	x.mu.Lock()
	ended := x.ended
	x.mu.Unlock()
	if ended || v.sess.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.ctx), leaveTime)
	defer cancel()
	return v.sess.Send(ctx, []byte(`["CLOSE","`+x.sub+`"]`))
}
