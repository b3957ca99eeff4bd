package relay_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// TestCount: what a relay says to a COUNT, in each of the ways in which relays say it.
func TestCount(t *testing.T) {
	for name, c := range map[string]struct {
		says []string
		want relay.Count
		no   string // what NoCount says; "": there is a count
	}{
		"a count":               {[]string{`["COUNT","count-1",{"count":17}]`}, relay.Count{Events: 17}, ""},
		"about":                 {[]string{`["COUNT","count-1",{"count":"1000","approximate":true}]`}, relay.Count{Events: 1000, Approximate: true}, ""},
		"nothing":               {[]string{`["COUNT","count-1",{"count":0}]`}, relay.Count{}, ""},
		"of something else":     {[]string{`["COUNT","count-0",{"count":3}]`, `["CLOSED","page-1","x"]`, `["COUNT","count-1",{"count":4}]`}, relay.Count{Events: 4}, ""},
		"CLOSED":                {[]string{`["CLOSED","count-1","unsupported: no NIP-45"]`}, relay.Count{}, "CLOSED unsupported: no NIP-45"},
		"a NOTICE before it":    {[]string{`["NOTICE","welcome"]`, `["COUNT","count-1",{"count":5}]`}, relay.Count{Events: 5}, ""},
		"another role's NOTICE": {[]string{`["NOTICE","error: could not save"]`}, relay.Count{}, "silent for 50ms"},
		"a NOTICE":              {[]string{`["NOTICE","ERROR: bad msg: unknown cmd"]`}, relay.Count{}, "NOTICE ERROR: bad msg: unknown cmd"},
		"silence":               {nil, relay.Count{}, "silent for 50ms"},
		"what is not a number":  {[]string{`["COUNT","count-1",{"count":"many"}]`}, relay.Count{}, "silent for 50ms"},
		"EOSE, as to a request": {[]string{`["EOSE","count-1"]`}, relay.Count{}, "silent for 50ms"},
	} {
		t.Run(name, func(t *testing.T) {
			r := relaytest.New(t, relaytest.Script{Handle: func(conn *relaytest.Conn, m relaytest.Message) bool {
				for _, frame := range c.says {
					conn.Send(frame)
				}
				return true
			}})
			type result struct {
				n   relay.Count
				err error
			}
			got := make(chan result, 1)
			patience := time.Minute
			switch {
			case strings.HasPrefix(c.no, "silent"):
				patience = 50 * time.Millisecond
			case strings.HasPrefix(c.no, "NOTICE"):
				patience = 5 * time.Second
			}
			run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
				n, err := s.Count(ctx, "count-1", event.Filter{Kinds: []int{1}, Since: 5}, patience, nil)
				got <- result{n, err}
				return nil
			}))
			res := recv(t, "the answer", got)
			var no *relay.NoCount
			if c.no == "" && (res.err != nil || res.n != c.want) || c.no != "" && (!errors.As(res.err, &no) || no.Text() != c.no || no.Closed != (name == "CLOSED")) {
				t.Errorf("%+v, %v; want %+v %q", res.n, res.err, c.want, c.no)
			}
			if asked := r.Got("COUNT"); len(asked) != 1 || asked[0].Raw != `["COUNT","count-1",{"kinds":[1],"since":5}]` {
				t.Errorf("asked %v", asked)
			}
		})
	}
}

// TestCountAtTheEndOfASession: the end of the session ends the question too.
func TestCountAtTheEndOfASession(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool { c.Drop(); return true }})
	got := make(chan error, 1)
	run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		_, err := s.Count(ctx, "count-1", event.Filter{}, time.Minute, nil)
		select {
		case got <- err:
		default:
		}
		return err
	}))
	var end *relay.End
	if err := recv(t, "the end", got); !errors.As(err, &end) {
		t.Errorf("%v, want the session's end", err)
	}
}

// TestCountWhileOursStall: while the reader waits for our own stages, a relay cannot be heard: that is not its silence.
func TestCountWhileOursStall(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "COUNT" {
			c.Send(`["EVENT","page-1",{}]`)
			c.Send(`["COUNT","count-1",{"count":7}]`)
		}
		return m.Label == "COUNT"
	}})
	wantSeven(t, r, 300*time.Millisecond, nil)
}

// TestCountBehindPages: while a relay that answers in turn is busy with what it was asked before, it is not silent.
func TestCountBehindPages(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "COUNT" {
			time.AfterFunc(600*time.Millisecond, func() { c.Send(`["COUNT","count-1",{"count":7}]`) })
		}
		return m.Label == "COUNT"
	}})
	begun := time.Now()
	wantSeven(t, r, 300*time.Millisecond, func() (time.Time, time.Duration) {
		if time.Since(begun) < 500*time.Millisecond {
			return time.Now(), 0
		}
		return begun.Add(500 * time.Millisecond), 0
	})
}

// wantSeven asks r to count, and stalls our reader at every event.
func wantSeven(t *testing.T, r *relaytest.Relay, patience time.Duration, busy func() (time.Time, time.Duration)) {
	t.Helper()
	got := make(chan string, 1)
	run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
		s.Handle(&relay.Handler{Event: func([]byte) { time.Sleep(2 * patience) }})
		n, err := s.Count(ctx, "count-1", event.Filter{}, patience, busy)
		offer(got, fmt.Sprint(n.Events, err))
		<-ctx.Done()
		return nil
	}))
	if text := recv(t, "the count", got); text != "7 <nil>" {
		t.Errorf("%s; want the 7 that the relay says", text)
	}
}
