package relay_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// waits is a role that does nothing.
var waits = roleFunc(func(ctx context.Context, s *relay.Session) error { <-ctx.Done(); return nil })

func TestStatusOfARefusedUpgrade(t *testing.T) {
	for status, want := range map[int]relay.State{
		429: relay.StateWaiting, 500: relay.StateWaiting, 502: relay.StateWaiting, 503: relay.StateWaiting, 504: relay.StateWaiting,
		302: relay.StateWaiting, 400: relay.StateWaiting, 426: relay.StateWaiting,
		401: relay.StatePaused, 402: relay.StatePaused, 403: relay.StatePaused, 404: relay.StatePaused, 410: relay.StatePaused,
	} {
		r := relaytest.New(t, relaytest.Script{Status: status})
		s := quick()
		s.Backoff.Initial, s.Backoff.Max = time.Hour, time.Hour
		l := run(t, r.URL, s, waits)
		got := l.until(t, "a refusal", func(s relay.LinkStatus) bool { return s.Reason != "" })
		wantText := fmt.Sprintf("refused (%d %s)", status, http.StatusText(status))
		if got.State != want || got.Reason != relay.Refused || got.LastError != wantText {
			t.Errorf("HTTP %d: %s, %s, %q; want %s, %s, %q", status, got.State, got.Reason, got.LastError, want, relay.Refused, wantText)
		}
		l.stop()
		if err := l.wait(t); err != nil {
			t.Error(err)
		}
	}
}

func TestALastingRefusalIsProbedAndComesBack(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Status: 403})
	s := quick()
	s.Probe = 20 * time.Millisecond
	l := run(t, r.URL, s, waits)
	r.Wait("the third probe", func() bool { return r.Dials() >= 3 })
	r.Update(func(s *relaytest.Script) { s.Status = 0 })
	l.until(t, "connected", func(s relay.LinkStatus) bool { return s.State == relay.StateConnected })
}

func TestRetryAfterIsHeeded(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Status: 429, RetryAfter: "7"})
	s := quick()
	s.Backoff.Max = time.Minute
	l := run(t, r.URL, s, waits)
	got := l.until(t, "a refusal", func(s relay.LinkStatus) bool { return s.State == relay.StateWaiting })
	if wait := got.Next.Sub(got.Since); wait < 6900*time.Millisecond || wait > 8*time.Second {
		t.Errorf("after Retry-After: 7 the next try is in %s", wait)
	}
}

func TestOneShotGivesUp(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Status: 403})
	l := runWith(t, relay.LinkOptions{URL: r.URL, Settings: quick(), MaxTries: 3}, waits)
	var gave *relay.GaveUp
	if err := l.wait(t); !errors.As(err, &gave) || gave.Tries != 3 || gave.Error() != "3 tries: refused (403 Forbidden)" {
		t.Errorf("Run returned %v, want that it gave up after 3 tries", gave)
	}
	wantEnd(t, l.err, relay.Refused)
	if n := r.Dials(); n != 3 {
		t.Errorf("%d dials, want 3", n)
	}
	s := quick()
	s.Backoff.MaxRetries = -1
	l = run(t, r.URL, s, waits)
	if err := l.wait(t); !errors.As(err, &gave) || gave.Tries != 1 {
		t.Errorf("with max_retries -1 Run returned %v", err)
	}
}

// Sessions that connect and bring nothing are tries; progress sets the count back.
func TestTriesAreCountedFromTheLastProgress(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	var n atomic.Int32
	l := runWith(t, relay.LinkOptions{URL: r.URL, Settings: quick(), MaxTries: 3}, roleFunc(func(ctx context.Context, s *relay.Session) error {
		if n.Add(1) <= 5 {
			s.Progress()
		}
		return errors.New("page-1: dropped")
	}))
	err := l.wait(t)
	var gave *relay.GaveUp
	if !errors.As(err, &gave) || n.Load() != 8 {
		t.Errorf("served %d times, then %v; want 5 with progress and 3 without", n.Load(), err)
	}
}

func TestUnreachable(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	l := runWith(t, relay.LinkOptions{URL: "ws://" + closed.Addr().String(), Settings: quick(), MaxTries: 2}, waits)
	wantEnd(t, l.wait(t), relay.Unreachable)

	nobody := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "relay.invalid", Server: "127.0.0.53:53", IsNotFound: true}}
	}
	l = runWith(t, relay.LinkOptions{URL: "wss://relay.invalid", Settings: quick(), MaxTries: 3, Dial: nobody}, waits)
	if err := l.wait(t); err == nil || err.Error() != "3 tries: lookup relay.invalid: no such host" {
		t.Errorf("Run returned %v", err)
	}
	l = runWith(t, relay.LinkOptions{URL: "wss://relay.invalid", Settings: quick(), Dial: nobody}, waits)
	if s := l.until(t, "a pause", func(s relay.LinkStatus) bool { return s.State == relay.StatePaused }); s.Reason != relay.NoSuchHost {
		t.Errorf("a name that does not exist has reason %q", s.Reason)
	}
}

func TestSlowHandshakes(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts by the kernel, answers nothing
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	held := relaytest.New(t, relaytest.Script{Handshake: make(chan struct{})})
	none := relaytest.New(t, relaytest.Script{NoAccept: true})
	for name, url := range map[string]string{
		"upgrade held back": held.URL, "no answer": none.URL,
		"TCP only": "ws://" + mute.Addr().String(), "no TLS": "wss://" + mute.Addr().String(),
	} {
		s := quick()
		s.Connect = 50 * time.Millisecond
		l := runWith(t, relay.LinkOptions{URL: url, Settings: s, MaxTries: 2}, waits)
		err := l.wait(t)
		wantEnd(t, err, relay.Unreachable)
		if !strings.Contains(err.Error(), "no answer within 50ms") {
			t.Errorf("%s: %v", name, err)
		}
		// Being stopped does not wait for the timeout.
		s.Connect = time.Hour
		l = run(t, url, s, waits)
		l.until(t, "connecting", func(s relay.LinkStatus) bool { return s.State == relay.StateConnecting })
		l.stop()
		if err := l.wait(t); err != nil {
			t.Errorf("%s: stopped while connecting: %v", name, err)
		}
	}
	// Late is not never.
	open := make(chan struct{})
	late := relaytest.New(t, relaytest.Script{Handshake: open})
	l := run(t, late.URL, quick(), waits)
	late.Wait("the dial", func() bool { return late.Dials() == 1 })
	close(open)
	l.until(t, "connected", func(s relay.LinkStatus) bool { return s.State == relay.StateConnected })
}

func TestTLS(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{TLS: true, Info: `{"name":"secret"}`})
	noPEM := filepath.Join(t.TempDir(), "no.pem")
	if err := os.WriteFile(noPEM, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tls  relay.TLS
		want relay.Reason // "": connects
	}{
		"unknown authority": {relay.TLS{}, relay.BadCertificate},
		"own authority":     {relay.TLS{CAFile: r.CAFile()}, ""},
		"another name":      {relay.TLS{CAFile: r.CAFile(), ServerName: "example.com"}, ""},
		"wrong name":        {relay.TLS{CAFile: r.CAFile(), ServerName: "relay.example.org"}, relay.BadCertificate},
		"unchecked":         {relay.TLS{InsecureSkipVerify: true}, ""},
		"no CA file":        {relay.TLS{CAFile: filepath.Join(t.TempDir(), "gone.pem")}, relay.Misconfigured},
		"no PEM":            {relay.TLS{CAFile: noPEM}, relay.Misconfigured},
	} {
		s := quick()
		s.TLS = c.tls
		l := run(t, r.URL, s, waits)
		got := l.until(t, "connected or paused", func(s relay.LinkStatus) bool {
			return s.State == relay.StateConnected || s.State == relay.StatePaused
		})
		if got.Reason != c.want || (got.State == relay.StateConnected) != (c.want == "") {
			t.Errorf("%s: %s, reason %q (%s); want reason %q", name, got.State, got.Reason, got.LastError, c.want)
		}
		if c.want == "" && got.Info.Name != "secret" {
			t.Errorf("%s: the NIP-11 document was not fetched over TLS: %+v", name, got.Info)
		}
		if got.Insecure != c.tls.InsecureSkipVerify {
			t.Errorf("%s: the status says insecure: %v", name, got.Insecure)
		}
		l.stop()
		_ = l.wait(t)
	}
}

// socks is a SOCKS5 proxy without login (RFC 1928) that connects everything to one address and notes what was asked for.
func socks(t *testing.T, to string) (addr string, asked *list) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked = newList()
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		conns := make(chan struct{}, 100)
		n := 0
		for {
			c, err := l.Accept()
			if err != nil {
				for range n {
					<-conns
				}
				return
			}
			n++
			go func() {
				defer func() { c.Close(); conns <- struct{}{} }()
				buf := make([]byte, 300)
				if _, err := io.ReadFull(c, buf[:2]); err != nil {
					return
				}
				_, _ = io.ReadFull(c, buf[:buf[1]])
				_, _ = c.Write([]byte{5, 0})
				if _, err := io.ReadFull(c, buf[:5]); err != nil {
					return
				}
				if buf[3] != 3 { // not a domain name: the name was resolved here
					asked.add(fmt.Sprintf("address type %d", buf[3]))
					return
				}
				name := buf[5 : 5+int(buf[4])+2]
				_, _ = io.ReadFull(c, name)
				asked.add(fmt.Sprintf("%s:%d", name[:len(name)-2], int(name[len(name)-2])<<8|int(name[len(name)-1])))
				up, err := net.Dial("tcp", to)
				if err != nil {
					_, _ = c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
					return
				}
				defer up.Close()
				_, _ = c.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 0})
				half := make(chan struct{})
				go func() { defer close(half); _, _ = io.Copy(up, c); up.Close() }()
				_, _ = io.Copy(c, up)
				c.Close()
				<-half
			}()
		}
	}()
	return l.Addr().String(), asked
}

func TestProxies(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Info: `{"name":"behind"}`})
	plain, plainAsked := socks(t, strings.TrimPrefix(r.URL, "ws://"))
	onion, onionAsked := socks(t, strings.TrimPrefix(r.URL, "ws://"))
	for url, asked := range map[string]*list{
		"ws://relay.invalid:7777":     plainAsked,
		"ws://abcdefghijklmnop.onion": onionAsked,
	} {
		s := quick()
		s.Proxy, s.OnionProxy = "socks5h://"+plain, "socks5h://"+onion
		l := run(t, url, s, waits)
		got := l.until(t, "connected", func(s relay.LinkStatus) bool { return s.State == relay.StateConnected })
		if got.Info.Name != "behind" {
			t.Errorf("%s: the NIP-11 document did not come through the proxy: %+v", url, got.Info)
		}
		want := strings.TrimPrefix(url, "ws://")
		if !strings.Contains(want, ":") {
			want += ":80"
		}
		if all := asked.first(t, 2); all[0] != want || all[1] != want {
			t.Errorf("%s: the proxy was asked for %q", url, all)
		}
		l.stop()
		_ = l.wait(t)
	}
	if len(plainAsked.all()) != 2 || len(onionAsked.all()) != 2 {
		t.Errorf("asked: %q and %q", plainAsked.all(), onionAsked.all())
	}
	for proxy, want := range map[string]relay.Reason{"http://127.0.0.1:1": relay.Misconfigured, "socks5h://127.0.0.1:1": relay.Unreachable} {
		s := quick()
		s.Proxy = proxy
		l := runWith(t, relay.LinkOptions{URL: "ws://relay.invalid", Settings: s, MaxTries: 1}, waits)
		wantEnd(t, l.wait(t), want)
	}
}

// Where no pace is set, the other end of the connection decides, not the name; through a proxy that says nothing.
func TestPaceFollowsTheConnection(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	proxy, _ := socks(t, strings.TrimPrefix(r.URL, "ws://"))
	for name, c := range map[string]struct {
		set  float64
		by   string
		want float64
	}{
		"a relay on this machine": {0, "", 1000},
		"behind a proxy":          {0, "socks5h://" + proxy, 12},
		"a number":                {3, "", 3},
	} {
		s := relay.DefaultSettings()
		s.Pace, s.Proxy = c.set, c.by
		url := r.URL
		if c.by != "" {
			url = "ws://relay.invalid:7777"
		}
		l := run(t, url, s, waits)
		l.until(t, "connected", func(s relay.LinkStatus) bool { return s.State == relay.StateConnected })
		if got := l.Pace(); got != c.want {
			t.Errorf("%s: the pace is %v, want %v", name, got, c.want)
		}
		l.stop()
		_ = l.wait(t)
	}
}

func TestInfoIsFetchedOnceAndNeverHoldsUpForLong(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Info: `{"supported_nips":["40"],"limitation":{"max_limit":300}}`})
	infos := make(chan relay.Info, 10)
	var n atomic.Int32
	l := runWith(t, relay.LinkOptions{URL: r.URL, Settings: quick(), UserAgent: "rebroadcastr/1.2.3"},
		roleFunc(func(ctx context.Context, s *relay.Session) error {
			infos <- s.Info()
			if n.Add(1) < 4 {
				return errors.New("again")
			}
			return nil
		}))
	for range 4 {
		if i := recv(t, "the document", infos); !i.Known || !i.Supports(40) || i.Limits.MaxLimit != 300 {
			t.Errorf("the session has %+v", i)
		}
	}
	_ = l.wait(t)
	if n := r.InfoRequests(); n != 1 {
		t.Errorf("over four sessions the document was fetched %d times, want once", n)
	}

	hold := make(chan struct{})
	slow := relaytest.New(t, relaytest.Script{Info: `{"name":"late"}`, HoldInfo: hold})
	s := quick()
	s.Info = 10 * time.Millisecond
	l = run(t, slow.URL, s, roleFunc(func(ctx context.Context, s *relay.Session) error {
		infos <- s.Info()
		<-ctx.Done()
		return nil
	}))
	if i := recv(t, "the session", infos); i.Known {
		t.Errorf("a document that was not sent is known: %+v", i)
	}
	close(hold)
	l.until(t, "the late document", func(s relay.LinkStatus) bool { return s.Info.Name == "late" })

	for name, doc := range map[string]string{"too long": `{"name":"` + strings.Repeat("x", 1<<20) + `"}`, "HTML": "<html>", "none": ""} {
		r := relaytest.New(t, relaytest.Script{Info: doc})
		l := run(t, r.URL, quick(), waits)
		if s := l.until(t, "connected", func(s relay.LinkStatus) bool { return s.State == relay.StateConnected }); s.Info.Known {
			t.Errorf("%s: got %+v", name, s.Info)
		}
		l.stop()
		_ = l.wait(t)
	}
}

func TestUserAgent(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{})
	l := runWith(t, relay.LinkOptions{URL: r.URL, Settings: quick(), UserAgent: "rebroadcastr/1.2.3"}, waits)
	l.until(t, "connected", func(s relay.LinkStatus) bool { return s.State == relay.StateConnected })
	r.Wait("the connection", func() bool { return len(r.Conns()) == 1 })
	if ua := r.Conns()[0].Header.Get("User-Agent"); ua != "rebroadcastr/1.2.3" {
		t.Errorf("the upgrade's User-Agent is %q", ua)
	}
}

func TestNothingOfAMessageIsLostInTheOutbox(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Silent: true})
	const n = 1000
	l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		for i := range n {
			if err := s.Send(ctx, fmt.Appendf(nil, `["EVENT",%d]`, i)); err != nil {
				return err
			}
		}
		return nil // leaves at once: what is queued must still be sent
	}))
	if err := l.wait(t); err != nil {
		t.Fatal(err)
	}
	r.Wait("the close", func() bool { return len(r.Closes()) == 1 })
	got := r.Got("EVENT")
	for i, m := range got {
		if want := fmt.Sprintf(`["EVENT",%d]`, i); m.Raw != want {
			t.Fatalf("message %d is %s, want %s", i, m.Raw, want)
		}
	}
	if len(got) != n || !bytes.Equal([]byte(got[n-1].Raw), fmt.Appendf(nil, `["EVENT",%d]`, n-1)) {
		t.Errorf("%d messages arrived, want %d", len(got), n)
	}
}
