package sinks

import (
	"fmt"
	"math/bits"
	"time"
	"unicode/utf8"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

// limits is what a relay is known to refuse, so that no send is spent on it. Its owner locks. It is kept in memory only, and
// what it refuses is a rejected row like any other, which Retry offers again.
//
// A limit that the relay claims (NIP-11) is believed once the relay has refused an event beyond it; until then such events
// are sent, and one that is accepted shows that the claim is not so. What the relay refused as too old or for want of work it is
// taken to refuse of other events of that kind too that are as old, or have as little work, once two authors were refused: an
// author may be an exception, and a kind. Everything known is forgotten after a day, so that a relay that has changed is heard
// again. Only the length of a message is believed at once (decide): beyond it relays close the connection.
type limits struct {
	claims [claimLimits]claim
	old    map[int]bound // by kind: dated at or before
	work   map[int]bound // by kind: bits of work
}

// limit is one that a relay can claim.
type limit uint8

const (
	noLimit limit = iota
	tagsLimit
	contentLimit
	workLimit
	ageLimit
	claimLimits
)

const (
	// knownFor is how long what was learned holds.
	knownFor = 24 * time.Hour
	// maxBounds is how many kinds bounds are learned for.
	maxBounds = 256
)

// claim is what became of the last value claimed.
type claim struct {
	value  int64
	proven time.Time // an event beyond it was refused
	wrong  bool      // one was accepted
}

// bound is the highest value of an event that was refused.
type bound struct {
	value int64
	at    time.Time // learned
	first event.PubKey
	sure  bool // of two authors
	wrong bool // an event within it was accepted
}

// lesson is what the answer to an event can teach.
type lesson struct {
	kind    int
	created int64
	work    int
	beyond  limit // the claim that the event tests
	value   int64
}

// work counts the leading zero bits of an id (NIP-13).
func work(id event.ID) (n int) {
	for _, b := range id {
		n += bits.LeadingZeros8(b)
		if b != 0 {
			break
		}
	}
	return n
}

// check says what the relay is known to refuse e for; an empty prefix: nothing. Otherwise learn wants the lesson.
func (l *limits) check(e *event.Event, claimed *relay.Limits, now time.Time) (prefix, text string, ls lesson) {
	ls = lesson{kind: e.Kind, created: e.CreatedAt, work: work(e.ID)}
	beyond := func(which limit, value int64) bool {
		c := l.claims[which]
		if c.value == value && c.wrong {
			return false
		}
		if c.value == value && now.Sub(c.proven) < knownFor {
			return true
		}
		if ls.beyond == noLimit {
			ls.beyond, ls.value = which, value
		}
		return false
	}
	if most := claimed.MaxEventTags; most > 0 && len(e.Line) > most && tags(e) > most && beyond(tagsLimit, int64(most)) {
		return "too large", fmt.Sprintf("the relay takes %d tags (NIP-11)", most), ls
	}
	if most := claimed.MaxContentLength; most > 0 && len(e.Line) > most && utf8.RuneCountInString(e.Content()) > most && beyond(contentLimit, int64(most)) {
		return "too large", fmt.Sprintf("the relay takes %d characters of content (NIP-11)", most), ls
	}
	if least := claimed.MinPoW; ls.work < least && beyond(workLimit, int64(least)) {
		return "pow", fmt.Sprintf("the relay wants %d bits of work (NIP-11), the event has %d", least, ls.work), ls
	}
	if most := claimed.CreatedAtLower; most > 0 && e.CreatedAt < now.Unix()-most && beyond(ageLimit, most) {
		return "too old", fmt.Sprintf("the relay takes events of the last %d s (NIP-11)", most), ls
	}
	if b := l.old[e.Kind]; b.holds(e.CreatedAt, now) {
		return "too old", fmt.Sprintf("the relay refused events of kind %d dated %s as too old", e.Kind, date(b.value)), ls
	}
	if b := l.work[e.Kind]; b.holds(int64(ls.work), now) {
		return "pow", fmt.Sprintf("the relay refused events of kind %d with %d bits of work", e.Kind, b.value), ls
	}
	return "", "", ls
}

func date(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.DateTime) }

func tags(e *event.Event) (n int) {
	for range e.Tags() {
		n++
	}
	return n
}

func (b bound) holds(value int64, now time.Time) bool {
	return b.sure && !b.wrong && value <= b.value && now.Sub(b.at) < knownFor
}

// learn takes the relay's answer to an event that check let through.
func (l *limits) learn(ls lesson, author event.PubKey, j relay.Judgement, now time.Time) {
	switch j.Verdict {
	case relay.Delivered:
		if ls.beyond != noLimit {
			l.claims[ls.beyond] = claim{value: ls.value, wrong: true}
		}
		l.old = unlearn(l.old, ls.kind, ls.created)
		l.work = unlearn(l.work, ls.kind, int64(ls.work))
	case relay.Rejected:
		large := j.Cause == relay.CauseTooLarge || j.Cause == "" && j.Prefix == "invalid"
		switch {
		case ls.beyond == ageLimit && j.Cause == relay.CauseTooOld, ls.beyond == workLimit && j.Cause == relay.CausePoW,
			(ls.beyond == tagsLimit || ls.beyond == contentLimit) && large:
			l.claims[ls.beyond] = claim{value: ls.value, proven: now}
		}
		switch j.Cause {
		case relay.CauseTooOld:
			l.old = refused(l.old, ls.kind, ls.created, author, now)
		case relay.CausePoW:
			l.work = refused(l.work, ls.kind, int64(ls.work), author, now)
		}
	}
}

func refused(bounds map[int]bound, kind int, value int64, author event.PubKey, now time.Time) map[int]bound {
	if bounds == nil {
		bounds = make(map[int]bound)
	}
	b, known := bounds[kind]
	switch {
	case b.wrong, !known && len(bounds) >= maxBounds:
		return bounds
	case !known, now.Sub(b.at) >= knownFor:
		b = bound{value: value, at: now, first: author}
	default:
		b.value, b.at, b.sure = max(b.value, value), now, b.sure || author != b.first
	}
	bounds[kind] = b
	return bounds
}

// unlearn marks a bound that an accepted event has shown to be none.
func unlearn(bounds map[int]bound, kind int, value int64) map[int]bound {
	if b, known := bounds[kind]; known && value <= b.value {
		b.wrong = true
		bounds[kind] = b
	}
	return bounds
}
