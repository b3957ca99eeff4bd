package sinks

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

// TestHalt: at whatever step of its sending a sink is halted, what is not on its way by then is not sent.
func TestHalt(t *testing.T) {
	for at := range int64(40) {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			r := newRig(t, relaytest.Script{})
			var looks atomic.Int64
			var sink atomic.Pointer[Sink]
			sent := make(chan uint64, 1)
			r.o.Now = func() time.Time {
				if s := sink.Load(); s != nil && s.mu.TryLock() {
					n, now := s.counts.Sent, looks.Add(1) == at+1
					s.draining = s.draining || now
					s.mu.Unlock()
					if now {
						s.Halt()
						sent <- n
					}
				}
				return time.Now()
			}
			r.start()
			r.await("a session", func(st Status) bool { return st.Session.Sessions == 1 })
			sink.Store(r.sink)
			r.log.add(t, record.Origin{}, notes(60)...)
			n := <-sent
			if err := r.sink.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.stop()
			if st := r.sink.Status(); st.Session.Sent != n {
				t.Errorf("%d were sent before, %d in all", n, st.Session.Sent)
			}
		})
	}
}
