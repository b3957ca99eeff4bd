package relay_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// What the connection does not depend on is taken up by it: it stays.
func TestSetSettings(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	sessions := make(chan *relay.Session, 10)
	notices := make(chan string, 10)
	l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		defer s.Handle(&relay.Handler{Notice: func(text string) { notices <- text }})()
		sessions <- s
		<-ctx.Done()
		return nil
	}))
	sess := recv(t, "a session", sessions)
	s := quick()
	s.PingEvery, s.PingTimeout, s.MaxFrame, s.OK, s.Pace, s.Connect = 20*time.Millisecond, 10*time.Second, 100, time.Minute, 1, time.Minute
	l.SetSettings(s)
	if got := sess.Settings(); got.OK != time.Minute || got.MaxFrame != 100 {
		t.Errorf("the session's settings are %+v, want the new ones", got)
	}
	r.Wait("pings at the new pace", func() bool { return r.Pings() >= 3 })
	r.Send(`["NOTICE","` + strings.Repeat("x", 200) + `"]`)
	l.until(t, "that a frame was too long", func(s relay.LinkStatus) bool { return s.Unknown[relay.UnknownTooBig] == 1 })
	s.MaxFrame, s.PingEvery = 0, time.Hour // 0: the default again
	before := r.Pings()
	l.SetSettings(s)
	r.Send(`["NOTICE","` + strings.Repeat("x", 200) + `"]`)
	recv(t, "the long notice", notices)
	r.Wait("a ping at once, for the read that still has the short deadline", func() bool { return r.Pings() > before })
	if n := r.Accepted(); n != 1 {
		t.Errorf("%d connections, want one", n)
	}
}

// What the connection is made of wants another one: left with a close frame, dialled without a wait, and no failure.
func TestSetSettingsRedials(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Compress: true})
	ended := make(chan error, 10)
	l := run(t, r.URL, relay.Settings{Backoff: relay.Backoff{Initial: time.Hour, Max: time.Hour}}, ends(ended))
	r.Wait("a connection", func() bool { return r.Accepted() == 1 })
	l.until(t, "connected", func(s relay.LinkStatus) bool { return s.State == relay.StateConnected })
	s := relay.Settings{Compression: true}
	l.SetSettings(s)
	r.Wait("a second connection", func() bool { return r.Accepted() == 2 })
	l.SetSettings(s)
	r.Wait("the end of the first one", func() bool { return len(r.Closes()) > 0 })
	if c := r.Closes(); len(c) != 1 || c[0].Code != 1000 {
		t.Errorf("left with %+v, want one close frame with code 1000", c)
	}
	if st := l.until(t, "connected", func(s relay.LinkStatus) bool { return s.State == relay.StateConnected }); st.Tries != 0 || st.LastError != "" {
		t.Errorf("after %d tries, last error %q; want none", st.Tries, st.LastError)
	}
	if h := r.Conns()[0].Header.Get("Sec-WebSocket-Extensions"); !strings.Contains(h, "permessage-deflate") {
		t.Errorf("the second dial offers %q, want compression", h)
	}
}

// A wait for the next try ends with a change: a wrong CA file must not cost an hour.
func TestSetSettingsEndsAWait(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{TLS: true})
	served := make(chan struct{}, 1)
	l := run(t, r.URL, relay.Settings{}, roleFunc(func(ctx context.Context, s *relay.Session) error {
		served <- struct{}{}
		<-ctx.Done()
		return nil
	}))
	l.until(t, "that the certificate is bad", func(s relay.LinkStatus) bool { return s.Reason == relay.BadCertificate })
	l.SetSettings(relay.Settings{TLS: relay.TLS{CAFile: r.CAFile()}})
	recv(t, "the role served", served)
}

func TestRedials(t *testing.T) {
	const plain, onion = "ws://10.0.0.1", "wss://x.onion"
	for _, c := range []struct {
		what string
		url  string
		b    relay.Settings
		want bool
	}{
		{"nothing", onion, relay.Settings{}, false},
		{"what a running connection takes up", onion, relay.Settings{Window: 1, Pace: 2, PingEvery: 3, OK: 4, Connect: 5, MaxFrame: 6, Negentropy: true}, false},
		{"TLS", onion, relay.Settings{TLS: relay.TLS{ServerName: "x"}}, true},
		{"TLS of a relay without", plain, relay.Settings{TLS: relay.TLS{ServerName: "x"}}, false},
		{"compression", plain, relay.Settings{Compression: true}, true},
		{"proxy", plain, relay.Settings{Proxy: "socks5h://p:1"}, true},
		{"another network's proxy", plain, relay.Settings{OnionProxy: "socks5h://p:1"}, false},
		{"onion proxy", onion, relay.Settings{OnionProxy: "socks5h://p:1"}, true},
	} {
		if got := relay.Redials(c.url, relay.Settings{}, c.b); got != c.want {
			t.Errorf("%s of %s: redials %v, want %v", c.what, c.url, got, c.want)
		}
	}
}
