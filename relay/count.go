package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"rebroadcastr/event"
)

// Count is a relay's answer to a COUNT (NIP-45). It is the relay's claim.
type Count struct {
	Events      int64
	Approximate bool
}

// NoCount is what came instead of a count: a refusal, by CLOSED or a NOTICE, or silence. A NOTICE, and silence, may have another cause.
type NoCount struct {
	Reason string // the relay's words, or how long it was silent
	Closed bool   // Reason is a CLOSED's: see ClassifyClosed
	Notice bool   // it is a NOTICE's
}

func (e *NoCount) Error() string { return "no count: " + e.Text() }

// Text is the reason with the message that gave it.
func (e *NoCount) Text() string {
	switch {
	case e.Closed:
		return "CLOSED " + e.Reason
	case e.Notice:
		return "NOTICE " + e.Reason
	}
	return e.Reason
}

// countWhole times its patience is the longest that a COUNT may take, whatever else the relay answers meanwhile. It ends one at a
// relay that is busy for ever and does not count; ten, because that many pages of a source may be before it.
const countWhole = 10

// Count asks how many events the relay stores for f, under a subscription id that nothing else uses. patience is how long the
// relay may be silent; after a NOTICE whose words may be an answer, and may be about something else, a tenth of it. Its clock stands
// still while the reader waits for our own stages, and begins anew at what busy says: when the relay last had something else to
// answer that was asked for before, which is now while it has, and what Stalled was then. busy may be nil. The error is a *NoCount,
// ctx's, or the session's end.
func (s *Session) Count(ctx context.Context, sub string, f event.Filter, patience time.Duration, busy func() (time.Time, time.Duration)) (Count, error) {
	counts, closed, notices := make(chan Count, 1), make(chan string, 1), make(chan string, 1)
	defer s.Handle(&Handler{
		Count: func(of string, n Count) {
			if of == sub {
				first(counts, n)
			}
		},
		Closed: func(of, reason string) {
			if of == sub {
				first(closed, reason)
			}
		},
		Notice: func(text string) {
			if MayAnswer(text) {
				first(notices, text)
			}
		},
		Awaits: func() bool { return true },
	})()
	msg := append([]byte(`["COUNT","`+sub+`",`), f.AppendJSON(nil, -1)...)
	if err := s.Request(ctx, append(msg, ']')); err != nil {
		return Count{}, fmt.Errorf("count at %s: %w", s.URL(), err)
	}
	begun, stalled := time.Now(), s.Stalled()
	heard, then := begun, stalled
	quiet := func() time.Duration {
		if busy != nil {
			if at, its := busy(); at.After(heard) {
				heard, then = at, its
			}
		}
		return time.Since(heard) - (s.Stalled() - then)
	}
	no, most := &NoCount{Reason: fmt.Sprintf("silent for %s", patience)}, patience
	silence := time.NewTimer(patience)
	defer silence.Stop()
	for {
		left := min(most-quiet(), countWhole*patience-(time.Since(begun)-(s.Stalled()-stalled)))
		if left <= 0 {
			return Count{}, no
		}
		silence.Reset(left)
		select {
		case n := <-counts:
			return n, nil
		case reason := <-closed:
			return Count{}, &NoCount{Reason: reason, Closed: true}
		case text := <-notices:
			if !no.Notice {
				no, most = &NoCount{Reason: text, Notice: true}, min(most, quiet()+patience/10)
			}
		case <-silence.C:
		case <-s.Done():
			return Count{}, s.Err()
		case <-ctx.Done():
			return Count{}, context.Cause(ctx)
		}
	}
}

// first keeps v, unless something was said before.
func first[T any](c chan T, v T) {
	select {
	case c <- v:
	default:
	}
}

// countOf reads {"count": N, "approximate": bool}, also where the number comes as text.
func countOf(e []byte) (n Count, ok bool) {
	var says struct {
		Count       json.RawMessage `json:"count"`
		Approximate json.RawMessage `json:"approximate"`
	}
	if json.Unmarshal(e, &says) != nil || len(says.Count) == 0 {
		return Count{}, false
	}
	n = Count{positive(says.Count), boolOf(says.Approximate)}
	return n, n.Events > 0 || strings.Trim(string(says.Count), `"`) == "0"
}
