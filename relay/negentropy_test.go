package relay_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// TestNoticesBesideNegOpen: a NOTICE names no subscription. One that comes after a NEG-OPEN may be its refusal, or be about
// something else on the same connection: an EVENT that a sink was just sent.
func TestNoticesBesideNegOpen(t *testing.T) {
	const whole, brief = time.Minute, 300 * time.Millisecond
	for name, c := range map[string]struct {
		says   []string // to NEG-OPEN
		silent bool     // after that it says nothing; otherwise it answers
		idle   time.Duration
		want   relay.NegKind
		reason string // a part of it
	}{
		"about an EVENT":                    {[]string{"error: could not save"}, false, whole, relay.NegSettled, ""},
		"about an EVENT, in doubtful words": {[]string{"ERROR: bad msg: failed to parse event"}, false, whole, relay.NegSettled, ""},
		"too many REQs, and it answers":     {[]string{"ERROR: too many concurrent REQs"}, false, whole, relay.NegSettled, ""},
		"a refusal":                         {[]string{"ERROR: bad msg: negentropy disabled"}, true, whole, relay.NegRefused, "negentropy disabled"},
		"a refusal that names the message":  {[]string{"hello", "unknown command: NEG-OPEN"}, true, whole, relay.NegRefused, "unknown command"},
		"a refusal that may be something else's": {
			[]string{"could not parse command"}, true, 2 * time.Second, relay.NegRefused, "could not parse command"},
		"too many REQs":                {[]string{"ERROR: too many concurrent REQs"}, true, 2 * time.Second, relay.NegBroken, "too many"},
		"too many sessions":            {[]string{"ERROR: too many negentropy sessions"}, true, whole, relay.NegBroken, "too many"},
		"about an EVENT, then silence": {[]string{"error: could not save"}, true, brief, relay.NegRefused, "silent for 300ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := relaytest.New(t, relaytest.Script{Negentropy: true, Handle: func(conn *relaytest.Conn, m relaytest.Message) bool {
				if m.Label != "NEG-OPEN" {
					return false
				}
				for _, text := range c.says {
					conn.Send(`["NOTICE","` + text + `"]`)
				}
				return c.silent
			}})
			got := make(chan relay.NegEnd, 1)
			run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
				_, end, err := s.Reconcile(ctx, event.Filter{Kinds: []int{1}, Since: 5}, nil, nil, c.idle)
				if err != nil {
					t.Error(err)
				}
				offer(got, end)
				<-ctx.Done()
				return nil
			}))
			if end := recv(t, "its end", got); end.Kind != c.want || !strings.Contains(end.Reason, c.reason) || end.Answered == c.silent {
				t.Errorf("%+v; want kind %d, %q", end, c.want, c.reason)
			}
		})
	}
}

// TestEndsAtNegOpen: in whatever way a relay ends the connection when it should answer a NEG-OPEN, that may be how it refuses. An
// end of ours is not.
func TestEndsAtNegOpen(t *testing.T) {
	for name, c := range map[string]struct {
		ends  func(*relaytest.Conn)
		fails bool // another role does
		want  relay.NegKind
	}{
		"dropped":          {ends: (*relaytest.Conn).Drop, want: relay.NegDropped},
		"a close frame":    {ends: func(c *relaytest.Conn) { c.Close(1008, "negentropy") }, want: relay.NegDropped},
		"garbage":          {ends: func(c *relaytest.Conn) { c.Write([]byte{0xff, 0x05, 'a', 'b', 'c', 'd', 'e'}) }, want: relay.NegDropped},
		"an endless frame": {ends: func(c *relaytest.Conn) { c.Write([]byte{0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0}) }, want: relay.NegDropped},
		"another role":     {ends: func(*relaytest.Conn) {}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan struct{})
			r := relaytest.New(t, relaytest.Script{Handle: func(conn *relaytest.Conn, m relaytest.Message) bool {
				if m.Label == "NEG-OPEN" {
					select {
					case <-asked:
					default:
						close(asked)
					}
					c.ends(conn)
				}
				return true
			}})
			got := make(chan relay.NegEnd, 1)
			l := run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
				_, end, err := s.Reconcile(ctx, event.Filter{Kinds: []int{1}, Since: 5}, nil, nil, time.Minute)
				if err == nil || end.Answered {
					t.Errorf("%+v, %v; want an error, and no answer", end, err)
				}
				offer(got, end)
				<-ctx.Done()
				return nil
			}))
			if c.fails {
				l.Add("sink", roleFunc(func(ctx context.Context, s *relay.Session) error {
					select {
					case <-asked:
						return errors.New("no disk")
					case <-ctx.Done():
						return nil
					}
				}))
			}
			if end := recv(t, "its end", got); end.Kind != c.want {
				t.Errorf("%+v; want kind %d", end, c.want)
			}
		})
	}
}
