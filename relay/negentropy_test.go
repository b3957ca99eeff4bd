package relay_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
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
		"about another reconciliation":      {[]string{"error: unknown subscription neg-12"}, false, whole, relay.NegSettled, ""},
		"about the end of one":              {[]string{"error: bad NEG-CLOSE, not open"}, false, whole, relay.NegSettled, ""},
		"a refusal":                         {[]string{"ERROR: bad msg: negentropy disabled"}, true, whole, relay.NegRefused, "negentropy disabled"},
		"a refusal that names the message":  {[]string{"hello", "unknown command: NEG-OPEN"}, true, whole, relay.NegRefused, "unknown command"},
		"a refusal that names this one":     {[]string{"error: unknown subscription neg-1"}, true, whole, relay.NegRefused, "neg-1"},
		"a refusal that names all of it":    {[]string{"no NEG-OPEN, NEG-MSG and NEG-CLOSE here"}, true, whole, relay.NegRefused, "no NEG-OPEN"},
		"a refusal that may be something else's": {
			[]string{"could not parse command"}, true, 2 * time.Second, relay.NegRefused, "could not parse command"},
		"too many REQs":                {[]string{"ERROR: too many concurrent REQs"}, true, 2 * time.Second, relay.NegBroken, "too many"},
		"too many at once":             {[]string{"ERROR: too many concurrent NEG requests"}, true, whole, relay.NegBroken, "too many"},
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
		owes  bool // an answer to something else, which may be what ended it
		want  relay.NegKind
	}{
		"dropped":                      {ends: (*relaytest.Conn).Drop, want: relay.NegDropped},
		"dropped, and owing something": {ends: (*relaytest.Conn).Drop, owes: true, want: relay.NegDropped},
		"a close frame":                {ends: func(c *relaytest.Conn) { c.Close(1008, "negentropy") }, want: relay.NegDropped},
		"garbage":                      {ends: func(c *relaytest.Conn) { c.Write([]byte{0xff, 0x05, 'a', 'b', 'c', 'd', 'e'}) }, want: relay.NegDropped},
		"an endless frame":             {ends: func(c *relaytest.Conn) { c.Write([]byte{0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0}) }, want: relay.NegDropped},
		"another role":                 {ends: func(*relaytest.Conn) {}, fails: true},
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
				s.Handle(&relay.Handler{Awaits: func() bool { return c.owes }})
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
			if end := recv(t, "its end", got); end.Kind != c.want || end.Beside != c.owes {
				t.Errorf("%+v; want kind %d, beside something else %v", end, c.want, c.owes)
			}
		})
	}
}

// TestSilentAtNegOpen: a relay that owes answers to what it was sent before the NEG-OPEN, or has reconciled just now, does not refuse
// by its silence. While it answers in turn it is waited for.
func TestSilentAtNegOpen(t *testing.T) {
	const idle, slow = 300 * time.Millisecond, 100 * time.Millisecond
	ok := `["OK","` + strings.Repeat("0", 64) + `",true,""]`
	for name, c := range map[string]struct {
		first bool // one window is reconciled before
		owes  bool // when the NEG-OPEN is sent
		later bool // only after that
		turns int  // so many answers to other things, slowly, then its own
		says  string
		want  relay.NegKind
	}{
		"nothing else":            {want: relay.NegRefused},
		"owing":                   {owes: true, want: relay.NegBroken},
		"owing, with a complaint": {owes: true, says: "ERROR: bad msg: invalid event", want: relay.NegBroken},
		"owing, with a refusal":   {owes: true, says: "negentropy disabled", want: relay.NegRefused},
		"owing, a moment later":   {later: true, want: relay.NegBroken},
		"answering in turn":       {owes: true, turns: 12, want: relay.NegSettled},
		"reconciled":              {first: true, want: relay.NegBroken},
		"reconciled, a complaint": {first: true, says: "ERROR: bad msg: invalid event", want: relay.NegBroken},
		"reconciled, a refusal":   {first: true, says: "negentropy disabled", want: relay.NegRefused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var owes atomic.Bool
			opens := 0
			r := relaytest.New(t, relaytest.Script{Negentropy: true, Handle: func(conn *relaytest.Conn, m relaytest.Message) bool {
				if m.Label != "NEG-OPEN" {
					return false
				}
				if opens++; c.first && opens == 1 {
					return false
				}
				owes.Store(c.owes || c.later)
				if c.says != "" {
					conn.Send(`["NOTICE","` + c.says + `"]`)
				}
				for range c.turns {
					time.Sleep(slow)
					conn.Send(ok)
				}
				return c.turns == 0
			}})
			got := make(chan relay.NegEnd, 2)
			run(t, r.URL, quick(), roleFunc(func(ctx context.Context, s *relay.Session) error {
				s.Handle(&relay.Handler{Awaits: owes.Load})
				owes.Store(c.owes)
				for i := range 2 {
					if i == 0 && !c.first {
						continue
					}
					_, end, err := s.Reconcile(ctx, event.Filter{Kinds: []int{1}, Since: 5}, nil, nil, idle)
					if err != nil {
						t.Error(err)
					}
					offer(got, end)
				}
				<-ctx.Done()
				return nil
			}))
			if c.first {
				if end := recv(t, "the first one's end", got); end.Kind != relay.NegSettled {
					t.Errorf("the first one: %+v; want it settled", end)
				}
			}
			end := recv(t, "its end", got)
			beside := c.want == relay.NegBroken && (c.owes || c.later)
			if end.Kind != c.want || end.Beside != beside || end.Answered != (c.turns > 0) {
				t.Errorf("%+v; want kind %d, beside something else %v", end, c.want, beside)
			}
		})
	}
}

// TestNegDrops: two connections in a row that end at a NEG-OPEN alone tell that it is what ends them, or five of any kind.
func TestNegDrops(t *testing.T) {
	for seen, want := range map[string]bool{"": false, "a": false, "aa": true, "ab": false, "aba": true, "bbbb": false, "bbbbb": true,
		"abbbb": true, "a.a": false, "bbbb.b": false, "a?a": true} {
		var d relay.NegDrops
		for _, end := range seen {
			switch end {
			case 'a':
				d.Add(relay.NegEnd{Kind: relay.NegDropped}, io.EOF)
			case 'b':
				d.Add(relay.NegEnd{Kind: relay.NegDropped, Beside: true}, io.EOF)
			case '.':
				d.Add(relay.NegEnd{Kind: relay.NegSettled, Answered: true}, nil)
			case '?':
				d.Add(relay.NegEnd{}, io.EOF) // an end of ours
			}
		}
		if got := d.Refuse(); got != want {
			t.Errorf("%q: refuses %v, want %v", seen, got, want)
		}
	}
}
