package sinks

import (
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/policy"
	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

// TestSetSettings: window, OK timeout and what is let through change on the session that is there.
func TestSetSettings(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { <-release; return relaytest.Accept() }})
	r.o.Settings.Window = 5
	lines := notes(60)
	dm := relaytest.Sign(relaytest.Key(1), 4, day+1000, nil, "?iv=")
	r.log.add(t, record.Origin{}, lines...)
	r.start()
	r.await("a full window", func(st Status) bool { return st.InFlight == 5 })
	wider := r.o.Settings
	wider.Window, wider.OK = 40, time.Hour
	r.sink.SetSettings(wider)
	r.await("a full window of the new width", func(st Status) bool { return st.InFlight == 40 && st.Window == 40 })
	narrow := wider
	narrow.Window = 2
	r.sink.SetSettings(narrow)
	if st := r.sink.Status(); st.Window != 2 {
		t.Errorf("window %d, want 2", st.Window)
	}
	close(release)
	r.settled()
	allow, err := policy.NewAllow([]string{"dm"})
	if err != nil {
		t.Fatal(err)
	}
	r.sink.SetRules(nil, r.o.FilterKey, allow)
	r.log.add(t, record.Origin{}, dm)
	r.settled()
	r.has(append(lines, dm))
	if st := r.sink.Status(); st.Session.Sessions != 1 || st.Session.Sent != 61 {
		t.Errorf("%d sends over %d sessions, want 61 over 1", st.Session.Sent, st.Session.Sessions)
	}
}

// TestResize: a window that is finding its width again does not jump to the new one.
func TestResize(t *testing.T) {
	for _, c := range []struct{ most, now, to, want int }{
		{500, 500, 100, 100},
		{500, 500, 1000, 1000},
		{500, 62, 1000, 62},
		{500, 62, 10, 10},
		{500, 1, 0, 1},
	} {
		w := window{most: c.most, now: c.now}
		if w.resize(c.to); w.now != c.want || w.most != max(c.to, 1) {
			t.Errorf("window %d of %d becomes %d of %d for %d, want %d", c.now, c.most, w.now, w.most, c.to, c.want)
		}
	}
}
