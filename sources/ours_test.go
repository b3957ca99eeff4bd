package sources_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// Sessions that we end ourselves, for an operator, a reload or a stalled archive, say nothing of the relay: catch-up and
// history are asked for as before, in pages of the same size.
func TestOurOwnEndsAreNotTheRelays(t *testing.T) {
	var mute atomic.Bool
	mute.Store(true)
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 30, 7), Handle: func(_ *relaytest.Conn, m relaytest.Message) bool {
		return mute.Load() && strings.HasPrefix(m.Raw, `["REQ","page-`)
	}})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Idle: time.Minute})
	for i := range 12 {
		r.Wait(fmt.Sprint("page of session ", i), func() bool { return len(requests(t, r, "page-")) == i+1 })
		g.link.Pause(time.Now())
		mute.Store(i < 11)
		g.link.Resume()
	}
	in.until("history", func() bool { return in.count() == 30 })
	for _, f := range requests(t, r, "page-") {
		if f.Limit != 500 {
			t.Errorf("a page asked for %d events, want 500", f.Limit)
		}
	}
}
