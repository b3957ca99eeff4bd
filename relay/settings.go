package relay

import "time"

// Settings of one link, from relay_settings. DefaultSettings has the defaults.
type Settings struct {
	Backoff       Backoff
	TLS           TLS
	Proxy         string  // socks5h://host:port, or empty
	OnionProxy    string  // used for .onion hosts
	Pace          float64 // requests (REQ, NEG-OPEN) a second
	Subscriptions int     // most open at once; 0: from NIP-11, at most 10
	Negentropy    bool
	PingEvery     time.Duration
	PingTimeout   time.Duration
	Connect       time.Duration // dial and upgrade
	OK            time.Duration // wait for the answer to an EVENT
	Window        int           // events sent and unanswered
	MaxFrame      int64         // bytes; a longer message ends the session
	Compression   bool          // offer permessage-deflate
}

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
		Pace:        10,
		Negentropy:  true,
		PingEvery:   30 * time.Second,
		PingTimeout: 15 * time.Second,
		Connect:     10 * time.Second,
		OK:          15 * time.Second,
		Window:      500,
		MaxFrame:    4 << 20,
	}
}
