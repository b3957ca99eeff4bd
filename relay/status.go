package relay

import (
	"sync"
	"time"
)

// State of a link.
type State string

// The states.
const (
	StateNew        State = "new" // Run has not been called
	StateConnecting State = "connecting"
	StateConnected  State = "connected"
	StateWaiting    State = "waiting" // between attempts
	StatePaused     State = "paused"  // until Next; only an operator can help, all roles want a pause, or (Held) the operator does
	StateEnded      State = "ended"
)

// maxNotices is how many of a relay's notices are kept.
const maxNotices = 20

// LinkStatus is what a link is doing.
type LinkStatus struct {
	URL       string
	State     State
	Since     time.Time // of State
	Tries     int       // in a row without progress
	Next      time.Time // the next attempt, where State is waiting or paused
	Reason    Reason    // of the last end or failed attempt
	LastError string    // its text; stays until there is progress
	LastEnd   string    // how the last session or attempt that was not left on purpose ended; it stays
	LastEndAt time.Time //
	Held      time.Time // since when the operator's Pause holds; zero: it does not
	Sessions  int       // so far
	Info      Info
	Notices   []Notice         // the last 20, oldest first
	Unknown   map[string]int64 // frames that were not understood, by reason
	Roles     []RoleStatus     // by name
	Insecure  bool             // its certificate is not checked
	Pace      float64          // requests a second, while the relay finds the pace that was set too fast; 0: as set
	Slowed    int              // how often the pace was halved
	Quiet     time.Time        // nothing is asked before, as the relay wanted it; zero or past: something may be
}

// Notice is a NOTICE of the relay.
type Notice struct {
	At   time.Time
	Text string
}

// RoleStatus is what a link does with a role.
type RoleStatus struct {
	Name    string
	Serving bool
	Until   time.Time // paused until then, if set
	Reason  string    // of the pause; without Until: another role has the link for itself, for this reason
}

// board holds what LinkStatus shows.
type board struct {
	mu      sync.Mutex
	status  LinkStatus // without Info, Unknown, Roles
	notices []Notice   // a ring once full
	next    int        // place of the oldest in a full ring
}

func (b *board) change(f func(s *LinkStatus)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.status.State
	f(&b.status)
	if b.status.State != was {
		b.status.Since = time.Now()
	}
}

func (b *board) notice(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := Notice{time.Now(), text}
	if len(b.notices) < maxNotices {
		b.notices = append(b.notices, n)
		return
	}
	b.notices[b.next] = n
	b.next = (b.next + 1) % maxNotices
}

func (b *board) read() LinkStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Notices = append(append([]Notice(nil), b.notices[b.next:]...), b.notices[:b.next]...)
	return s
}
