package reconcile

import (
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/nbd-wtf/go-nostr/nip77/negentropy"

	"rebroadcastr/event"
)

const (
	// DefaultFrame in bytes of a message of ours, twice that as hex: strfry drops a connection that sends a frame above 131,072,
	// and takes 60,000 itself.
	DefaultFrame = 60_000
	// MinFrame is the least that the core takes.
	MinFrame = 4096
	// MostItems of ours in one window, and most that the peer may name which we lack: 1.3 MiB, and 2.5 MiB as a map. The core
	// makes room for 64 bytes more of each of ours while it opens.
	MostItems = 1 << 15
	// maxRounds of one session. 100,000 items with nothing in common take some 50 rounds at DefaultFrame, 851 at MinFrame.
	maxRounds = 2000
)

var (
	// ErrTooMany: the peer names more ids than MostItems that we lack. A smaller window holds fewer.
	ErrTooMany = errors.New("too many ids in one window")
	// ErrEndless: the peer has an answer to everything, and nothing gets settled.
	ErrEndless = fmt.Errorf("not reconciled after %d rounds", maxRounds)
)

// Session compares one window with one peer, as the one who asks. One goroutine uses it.
type Session struct {
	core   *negentropy.Negentropy
	need   map[event.ID]struct{}
	onlyUs map[event.ID]struct{} // of the window's: a peer may say of each of them as often as it likes that it lacks it
	have   func(event.ID)
	rounds int
	over   bool // more needed than MostItems
}

// NewSession compares sorted, distinct items of one window, at most MostItems. frame is the size in bytes of our messages (half
// of their hex), at least MinFrame; 0: DefaultFrame. have is called once with each id that the peer lacks; it may be nil.
func NewSession(window []Item, frame int, have func(event.ID)) (*Session, error) {
	if frame == 0 {
		frame = DefaultFrame
	}
	if frame < MinFrame {
		return nil, fmt.Errorf("reconcile in frames of %d bytes: at least %d", frame, MinFrame)
	}
	if len(window) > MostItems {
		return nil, fmt.Errorf("reconcile %d items: %w", len(window), ErrTooMany)
	}
	if err := items(window).check(); err != nil {
		return nil, fmt.Errorf("reconcile: %w", err)
	}
	if have == nil {
		have = func(event.ID) {}
	}
	return &Session{core: negentropy.New(items(window), frame), need: make(map[event.ID]struct{}), onlyUs: make(map[event.ID]struct{}), have: have}, nil
}

// Open gives the first message, in hex.
func (s *Session) Open() (msg string, err error) {
	return s.run(func() (string, error) { return s.core.Start(), nil })
}

// Answer takes the peer's message and gives ours; done: there is none, need is complete.
func (s *Session) Answer(msg string) (reply string, done bool, err error) {
	msg = strings.ToLower(msg) // the core compares ids as text
	b, err := hex.DecodeString(msg)
	if err != nil {
		return "", false, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if err := check(b); err != nil {
		return "", false, err
	}
	if s.rounds++; s.rounds > maxRounds {
		return "", false, ErrEndless
	}
	reply, err = s.run(func() (string, error) { return s.core.Reconcile(msg) })
	switch {
	case err != nil:
		return "", false, fmt.Errorf("reconcile: %w", err)
	case s.over:
		return "", false, ErrTooMany
	}
	return reply, reply == "", nil
}

// Need gives what the peer has and we lack, so far, in no order.
func (s *Session) Need() []event.ID {
	out := make([]event.ID, 0, len(s.need))
	for id := range s.need {
		out = append(out, id)
	}
	return out
}

// Counts are the numbers of what we lack, and of what the peer lacks, so far.
func (s *Session) Counts() (need, have int) { return len(s.need), len(s.onlyUs) }

// run lets the core work and takes what it finds from both its channels meanwhile: it waits while either is full.
func (s *Session) run(work func() (string, error)) (msg string, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil {
				err = fmt.Errorf("negentropy: panic: %v\n%s", r, debug.Stack())
			}
		}()
		msg, err = work()
	}()
	haves, needs := s.core.Haves, s.core.HaveNots
	for {
		select {
		case id, ok := <-haves:
			if ok {
				s.found(id, s.addHave)
			} else {
				haves = nil // at the end it closes both
			}
		case id, ok := <-needs:
			if ok {
				s.found(id, s.addNeed)
			} else {
				needs = nil
			}
		case <-done:
			for range len(s.core.Haves) {
				s.found(<-s.core.Haves, s.addHave)
			}
			for range len(s.core.HaveNots) {
				s.found(<-s.core.HaveNots, s.addNeed)
			}
			return msg, err
		}
	}
}

func (s *Session) found(text string, add func(event.ID)) {
	if id, err := event.ParseID(text); err == nil { // it was checked
		add(id)
	}
}

func (s *Session) addHave(id event.ID) {
	if _, known := s.onlyUs[id]; !known {
		s.onlyUs[id] = struct{}{}
		s.have(id)
	}
}

func (s *Session) addNeed(id event.ID) {
	if len(s.need) >= MostItems {
		if _, ok := s.need[id]; !ok {
			s.over = true
		}
		return
	}
	s.need[id] = struct{}{}
}
