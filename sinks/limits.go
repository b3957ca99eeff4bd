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
//
// What was learned can be wrong: a relay says "too early" for reasons of its own, or makes exceptions. So some of what a limit
// refuses is sent all the same (try), and once one is accepted the limit is believed no more and what it kept from the relay is
// offered again. Each limit is proven wrong at most once in a run, so that ends.
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
	oldBound  = claimLimits     // limits.old
	workBound = claimLimits + 1 // limits.work
)

const (
	// knownFor is how long what was learned holds.
	knownFor = 24 * time.Hour
	// maxBounds is how many kinds bounds are learned for.
	maxBounds = 256
	// checkEvery is how many events a limit keeps from the relay, at most, before the next one is sent to see whether it still
	// holds: 1.6 % of the sends that it saves.
	checkEvery = 64
)

// checks chooses what is sent although a limit refuses it: the first event, the one after the next, after two more, four more, and
// so on up to checkEvery. A limit that is wrong is found out early, and one that is right costs next to nothing.
type checks struct {
	kept, gap int  // refused since the last one, and until the next one
	refused   bool // anything, ever
}

// next says whether the event at hand is one.
func (c *checks) next() bool {
	if c.kept == c.gap {
		c.kept, c.gap = 0, min(max(1, 2*c.gap), checkEvery)
		return true
	}
	c.kept++
	c.refused = true
	return false
}

// claim is what became of the last value claimed.
type claim struct {
	value  int64
	proven time.Time // an event beyond it was refused
	wrong  bool      // one was accepted
	checks checks
}

// bound is the highest value of an event that was refused.
type bound struct {
	value int64
	at    time.Time // learned
	first event.PubKey
	sure  bool // of two authors
	wrong bool // an event within it was accepted

	checks checks
}

// lesson is what the answer to an event can teach.
type lesson struct {
	kind    int
	created int64
	work    int
	beyond  limit // the claim that the event tests
	value   int64
	by      limit // what the event is refused by, if it is
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

// check says what the relay is known to refuse e for; an empty prefix: nothing. Then, or if try says so, e is sent and learn
// wants the lesson.
func (l *limits) check(e *event.Event, claimed *relay.Limits, now time.Time) (prefix, text string, ls lesson) {
	ls = lesson{kind: e.Kind, created: e.CreatedAt, work: work(e.ID)}
	beyond := func(which limit, value int64) bool {
		c := l.claims[which]
		if c.value == value && c.wrong {
			return false
		}
		holds := c.value == value && now.Sub(c.proven) < knownFor
		if ls.beyond == noLimit || holds {
			ls.beyond, ls.value = which, value
		}
		if holds {
			ls.by = which
		}
		return holds
	}
	if most := claimed.MaxEventTags; most > 0 && len(e.Line) > most && tags(e) > most && beyond(tagsLimit, int64(most)) {
		return "too large", claimText(tagsLimit, int64(most)), ls
	}
	if most := claimed.MaxContentLength; most > 0 && len(e.Line) > most && utf8.RuneCountInString(e.Content()) > most && beyond(contentLimit, int64(most)) {
		return "too large", claimText(contentLimit, int64(most)), ls
	}
	if least := claimed.MinPoW; ls.work < least && beyond(workLimit, int64(least)) {
		return "pow", claimText(workLimit, int64(least)) + fmt.Sprintf(", the event has %d", ls.work), ls
	}
	if most := claimed.CreatedAtLower; most > 0 && e.CreatedAt < now.Unix()-most && beyond(ageLimit, most) {
		return "too old", claimText(ageLimit, most), ls
	}
	if b := l.old[e.Kind]; b.holds(e.CreatedAt, now) {
		ls.by = oldBound
		return "too old", oldText(e.Kind) + date(b.value) + " as too old", ls
	}
	if b := l.work[e.Kind]; b.holds(int64(ls.work), now) {
		ls.by = workBound
		return "pow", workText(e.Kind) + fmt.Sprintf("%d bits of work", b.value), ls
	}
	return "", "", ls
}

// How the rows begin that a limit refused, by which they are found again.

func claimText(which limit, value int64) string {
	return fmt.Sprintf([claimLimits]string{
		tagsLimit: "the relay takes %d tags (NIP-11)", contentLimit: "the relay takes %d characters of content (NIP-11)",
		workLimit: "the relay wants %d bits of work (NIP-11)", ageLimit: "the relay takes events of the last %d s (NIP-11)",
	}[which], value)
}

func oldText(kind int) string  { return fmt.Sprintf("the relay refused events of kind %d dated ", kind) }
func workText(kind int) string { return fmt.Sprintf("the relay refused events of kind %d with ", kind) }

// try says whether an event that check refuses is sent all the same, to see whether the limit still holds.
func (l *limits) try(ls lesson) bool {
	next := func(bounds map[int]bound) bool {
		b, known := bounds[ls.kind]
		if !known {
			return true // forgotten since
		}
		due := b.checks.next()
		bounds[ls.kind] = b
		return due
	}
	switch ls.by {
	case noLimit:
		return false
	case oldBound:
		return next(l.old)
	case workBound:
		return next(l.work)
	}
	return l.claims[ls.by].checks.next()
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

// learn takes the relay's answer to an event that was sent. It returns how the texts of refused rows begin that must be offered
// again, for what they were refused by is not so.
func (l *limits) learn(ls lesson, author event.PubKey, j relay.Judgement, now time.Time) (again []string) {
	switch j.Verdict {
	case relay.Delivered:
		if ls.beyond != noLimit {
			if c := l.claims[ls.beyond]; c.value == ls.value && c.checks.refused {
				again = append(again, claimText(ls.beyond, ls.value))
			}
			l.claims[ls.beyond] = claim{value: ls.value, wrong: true}
		}
		if unlearn(l.old, ls.kind, ls.created) {
			again = append(again, oldText(ls.kind))
		}
		if unlearn(l.work, ls.kind, int64(ls.work)) {
			again = append(again, workText(ls.kind))
		}
	case relay.Rejected:
		large := j.Cause == relay.CauseTooLarge || j.Cause == "" && j.Prefix == "invalid"
		switch {
		case ls.beyond == ageLimit && j.Cause == relay.CauseTooOld, ls.beyond == workLimit && j.Cause == relay.CausePoW,
			(ls.beyond == tagsLimit || ls.beyond == contentLimit) && large:
			c := &l.claims[ls.beyond]
			if c.value != ls.value {
				*c = claim{value: ls.value}
			}
			c.proven = now
		}
		switch j.Cause {
		case relay.CauseTooOld:
			l.old = refused(l.old, ls.kind, ls.created, author, now)
		case relay.CausePoW:
			l.work = refused(l.work, ls.kind, int64(ls.work), author, now)
		}
	}
	return again
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
		b = bound{value: value, at: now, first: author, checks: b.checks}
	default:
		b.value, b.at, b.sure = max(b.value, value), now, b.sure || author != b.first
	}
	bounds[kind] = b
	return bounds
}

// unlearn marks a bound that an accepted event has shown to be none. It says whether the bound has kept anything from the relay.
func unlearn(bounds map[int]bound, kind int, value int64) (kept bool) {
	b, known := bounds[kind]
	if !known || b.wrong || value > b.value {
		return false
	}
	b.wrong = true
	bounds[kind] = b
	return b.checks.refused
}
