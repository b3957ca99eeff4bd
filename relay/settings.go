package relay

import (
	"net/url"
	"strings"
	"time"

	relayurl "rebroadcastr/relay/url"
)

// Settings of one link, from relay_settings. DefaultSettings has the defaults.
type Settings struct {
	Backoff    Backoff
	TLS        TLS
	Proxy      string  // socks5h://host:port, or empty
	OnionProxy string  // used for .onion hosts
	Pace       float64 // requests (REQ, NEG-OPEN) a second; 0: 12, and 1,000 at a relay on this machine or a private network
	Negentropy bool
	// Subscriptions open at once; 0: what the relay says, at most 10.
	Subscriptions int
	PingEvery     time.Duration
	PingTimeout   time.Duration
	Connect       time.Duration // dial and upgrade
	OK            time.Duration // wait for the answer to an EVENT
	Window        int           // events sent and unanswered
	MaxFrame      int64         // bytes; a longer message is passed over
	// Compression offers permessage-deflate. Off by default: in BenchmarkCopies it takes real events from 1,494 bytes on the wire
	// to 866, and a copy from 0.5 µs of CPU to 17 (with 8 small allocations in gorilla's reader), a new event 16 µs more too. So it
	// pays where the line is what holds us up: 10 Mbit/s bring 1,470 events a second instead of 810.
	Compression bool

	// Not in the config file.
	Pong      time.Duration // between unasked pongs while the reader waits in a handler
	Stall     time.Duration // a handler that waits longer ends its role's session
	FrameTime time.Duration // for the whole of a message, from its first byte on
	Write     time.Duration // a write that the relay does not take in this time ends the session
	Info      time.Duration // most that roles wait for the NIP-11 document after a connect
	Probe     time.Duration // between attempts where only an operator can help: 403, no such host, bad certificate
}

// MaxSubscriptions is the most that Settings.Subscriptions may be.
const MaxSubscriptions = 100

// Backoff between attempts: full jitter, reset by progress (an event, an OK), not by a bare connect.
type Backoff struct {
	Initial    time.Duration
	Max        time.Duration
	Multiplier float64
	MaxRetries int // 0: for ever (one-shot commands: 3); -1: never
}

// TLS of one link.
type TLS struct {
	CAFile             string
	ServerName         string
	InsecureSkipVerify bool
}

// DefaultSettings are the defaults of relay_settings.
func DefaultSettings() Settings {
	return Settings{
		Backoff:     Backoff{Initial: time.Second, Max: 5 * time.Minute, Multiplier: 2},
		OnionProxy:  "socks5h://127.0.0.1:9050",
		Negentropy:  true,
		PingEvery:   30 * time.Second,
		PingTimeout: 15 * time.Second,
		Connect:     10 * time.Second,
		OK:          15 * time.Second,
		Window:      500,
		MaxFrame:    4 << 20,
		Pong:        15 * time.Second,
		Stall:       time.Minute,
		FrameTime:   30 * time.Second,
		Write:       15 * time.Second,
		Info:        3 * time.Second,
		Probe:       time.Hour,
	}
}

// filled returns the settings with the defaults where a zero would make no sense.
func (s Settings) filled() Settings {
	d := DefaultSettings()
	fill := func(to *time.Duration, from time.Duration) {
		if *to <= 0 {
			*to = from
		}
	}
	fill(&s.Backoff.Initial, d.Backoff.Initial)
	fill(&s.Backoff.Max, d.Backoff.Max)
	if s.Backoff.Multiplier < 1 {
		s.Backoff.Multiplier = d.Backoff.Multiplier
	}
	fill(&s.PingEvery, d.PingEvery)
	fill(&s.PingTimeout, d.PingTimeout)
	fill(&s.Connect, d.Connect)
	fill(&s.OK, d.OK)
	fill(&s.Pong, d.Pong)
	fill(&s.Stall, d.Stall)
	fill(&s.FrameTime, d.FrameTime)
	fill(&s.Write, d.Write)
	fill(&s.Info, d.Info)
	fill(&s.Probe, d.Probe)
	s.Pace = max(s.Pace, 0)
	if s.Window <= 0 {
		s.Window = d.Window
	}
	if s.MaxFrame <= 0 {
		s.MaxFrame = d.MaxFrame
	}
	return s
}

// Redials says whether a connection with the relay at url that was made with the settings a must be made anew for b.
// Everything else is taken up by the connection that is there; Connect by the next one.
func Redials(url string, a, b Settings) bool {
	if a.TLS != b.TLS && strings.HasPrefix(url, "wss:") || a.Compression != b.Compression {
		return true
	}
	return a.through(url) != b.through(url)
}

// through is the proxy for the relay at to; empty: none.
func (s Settings) through(to string) string {
	if u, err := url.Parse(to); err == nil && relayurl.Onion(u.Hostname()) && s.OnionProxy != "" {
		return s.OnionProxy
	}
	return s.Proxy
}

// SetSettings changes the settings of the link while it runs. The connection stays unless it depends on what has
// changed (Redials): then the roles leave it, as at a stop, and it is made anew at once. A wait between two attempts
// ends, for the change may be what was missing.
func (l *Link) SetSettings(s Settings) {
	s = s.filled()
	old := l.settings.Swap(&s)
	if *old == s {
		return
	}
	if s.Pace != old.Pace {
		l.pace.change(s.Pace)
	}
	l.board.change(func(st *LinkStatus) { st.Insecure = s.TLS.InsecureSkipVerify })
	l.roles.hasten()
}

// burst is how many requests may go at once at a pace, in requests a second.
func burst(pace float64) int { return max(1, int(pace)) }

// tries is after how many fruitless attempts in a row the link gives up, 0: never.
func (l *Link) tries(s *Settings) int {
	switch n := s.Backoff.MaxRetries; {
	case n < 0:
		return 1
	case n > 0:
		return n
	}
	return l.o.MaxTries
}

func (l *Link) dialer(s *Settings) *dialer {
	return &dialer{url: l.o.URL, settings: *s, userAgent: l.o.UserAgent, direct: l.o.Dial}
}
