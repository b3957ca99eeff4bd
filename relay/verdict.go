package relay

import (
	"strconv"
	"strings"
	"time"
)

// Verdict is what a relay's answer means for an event (OK) or a subscription (CLOSED). The table
// was gathered from NIP-01, 11, 20, 42 and from what strfry, khatru and broadcastr send.
type Verdict uint8

const (
	// Unclear: refused with no reason that we know. Two spaced retries, then refused.
	Unclear Verdict = iota
	// Delivered: the relay has taken it.
	Delivered
	// Duplicate: the relay had it already; counts as success.
	Duplicate
	// Superseded: the relay has a newer version; counts as success.
	Superseded
	// Rejected for good by this relay: kept with its reason, never sent there again by itself.
	Rejected
	// Later: dated too far in the future; to be sent again when its time has come.
	Later
	// Slower: too fast for the relay. The pace is lowered; nothing is charged to the event.
	Slower
	// Paused: nothing can be done without a key or an operator. The queue is kept, the relay probed rarely.
	Paused
	// Transient: the relay's own trouble. To be tried again, a bounded number of times.
	Transient
	// Narrow (CLOSED only): the filter is too wide or not supported; to be asked in smaller parts.
	Narrow
)

var verdictNames = [...]string{
	"unclear", "delivered", "duplicate", "superseded", "rejected", "later", "slower", "paused", "transient", "narrow",
}

func (v Verdict) String() string { return verdictNames[v] }

// Cause says more about a judgement where something can be learned from it.
type Cause string

// The causes.
const (
	CauseDeleted    Cause = "deleted"      // the relay holds a deletion of it (NIP-09, NIP-62)
	CauseTooNew     Cause = "too new"      // dated in the future, by the relay's clock
	CauseTooOld     Cause = "too old"      // the relay has a floor for created_at
	CauseTooLarge   Cause = "too large"    // size, number of tags, length of a tag's value
	CausePoW        Cause = "pow"          // too little work; Number is the bits wanted, 0 if not said
	CauseAuth       Cause = "auth"         // a login is wanted; for a protected event this is a refusal
	CausePayment    Cause = "payment"      // money is wanted
	CauseTooManyREQ Cause = "too many REQ" // more subscriptions at once than the relay allows
)

// Judgement is a relay's answer, understood.
type Judgement struct {
	Verdict Verdict
	Prefix  string // lower case, "" if there is none that we know; what counters are keyed by
	Detail  string // the text after the prefix, as the relay wrote it
	Cause   Cause
	Number  int           // CausePoW: bits
	Wait    time.Duration // Slower: what the relay asks for, 0 if it does not say
	Breaker bool          // Rejected, but many of these in a row from several authors mean that we are banned: Paused
}

// prefixes that NIP-01, NIP-42 and relays use before a colon.
var prefixes = map[string]bool{
	"duplicate": true, "replaced": true, "deleted": true, "invalid": true, "pow": true, "blocked": true, "restricted": true,
	"auth-required": true, "rate-limited": true, "rate-limit": true, "mute": true, "error": true, "unsupported": true,
	"payment-required": true,
}

// split cuts a known prefix off. One leading "error: " goes when a known prefix follows (strfry: "ERROR: auth-required: …").
func split(text string) (prefix, detail string) {
	before, after, found := strings.Cut(text, ":")
	before = strings.ToLower(strings.TrimSpace(before))
	if !found || !prefixes[before] {
		return "", strings.TrimSpace(text)
	}
	after = strings.TrimSpace(after)
	if before == "error" {
		if inner, rest := split(after); inner != "" {
			return inner, rest
		}
	}
	return before, after
}

// Classify says what an OK means: by the prefix of its text first, by its flag second.
func Classify(accepted bool, text string) Judgement {
	prefix, detail := split(text)
	j := Judgement{Prefix: prefix, Detail: detail}
	low := strings.ToLower(detail)
	switch prefix {
	case "duplicate":
		j.Verdict = Duplicate
		return j
	case "replaced":
		j.Verdict = Superseded
		return j
	}
	if accepted {
		j.Verdict = Delivered
		return j
	}
	switch prefix {
	case "deleted":
		j.Verdict, j.Cause = Rejected, CauseDeleted
	case "invalid", "blocked":
		j.Verdict, j.Breaker = Rejected, prefix == "blocked"
		switch {
		case has(low, "deleted"):
			j.Cause, j.Breaker = CauseDeleted, false
		case has(low, "too late", "future", "too far off"):
			j.Verdict, j.Cause, j.Breaker = Later, CauseTooNew, false
		case has(low, "too early", "too old"):
			j.Cause, j.Breaker = CauseTooOld, false
		case has(low, "too large", "too big", "too long", "too many tags"):
			j.Cause, j.Breaker = CauseTooLarge, false
		}
	case "pow":
		j.Verdict, j.Cause, j.Number = Rejected, CausePoW, wantedBits(low)
	case "restricted":
		j.Verdict, j.Breaker = Rejected, true
	case "auth-required":
		j.Verdict, j.Cause = Paused, CauseAuth
	case "payment-required":
		j.Verdict, j.Cause = Paused, CausePayment
	case "rate-limited", "rate-limit":
		j.Verdict, j.Wait, j.Prefix = Slower, wantedWait(low), "rate-limited"
	case "mute", "unsupported":
		j.Verdict = Rejected
	case "error":
		j.Verdict = Transient
		if has(low, "out of expected boundaries") { // eventstore: created_at above 32 bits, kind above 16
			j.Verdict = Rejected
		}
	default:
		j.Verdict = Unclear
		if strings.HasPrefix(low, "write error") { // strfry; its prefix has a space
			j.Verdict, j.Prefix = Transient, "error"
		}
	}
	return j
}

// ClassifyClosed says what a CLOSED means for the subscription it ends.
func ClassifyClosed(text string) Judgement {
	prefix, detail := split(text)
	j := Judgement{Verdict: Transient, Prefix: prefix, Detail: detail}
	low := strings.ToLower(detail)
	switch prefix {
	case "auth-required":
		j.Verdict, j.Cause = Paused, CauseAuth
	case "payment-required":
		j.Verdict, j.Cause = Paused, CausePayment
	case "restricted":
		j.Verdict = Paused
	case "rate-limited", "rate-limit":
		j.Verdict, j.Wait, j.Prefix = Slower, wantedWait(low), "rate-limited"
	case "unsupported", "invalid", "blocked", "pow", "mute":
		// khatru puts "blocked: " before what its filter policies say, "too many things" among them.
		j.Verdict = Narrow
	case "error":
		if strings.HasPrefix(low, "bad req") { // strfry
			j.Verdict = Narrow
		}
	}
	if TooManyREQ(text) {
		j.Verdict, j.Cause = Slower, CauseTooManyREQ
	}
	return j
}

// TooManyREQ recognises the complaint about too many subscriptions, in a CLOSED or a NOTICE: strfry says it in a
// NOTICE without the subscription's id, and that REQ gets neither EOSE nor CLOSED.
func TooManyREQ(text string) bool {
	low := strings.ToLower(text)
	return has(low, "too many concurrent", "too many subscriptions", "too many open subscriptions", "too many reqs")
}

// NotNow says that a NOTICE or CLOSED refuses what it may take later: there is too much at once, or too soon.
func NotNow(text string) bool {
	return TooManyREQ(text) || has(strings.ToLower(text), "rate-limit", "rate limit")
}

// MayAnswer says that a NOTICE may be a relay's answer to a REQ or COUNT. It names no subscription, and may as well be about
// something else that was sent on the same connection.
func MayAnswer(text string) bool {
	low := strings.ToLower(text)
	return !AboutNeg(low) && (complains(low) || has(low, "req", "filter", "subscription", "count"))
}

func has(low string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(low, p) {
			return true
		}
	}
	return false
}

// numberIn finds the first run of digits and returns it with what follows; ok is false if there is none.
func numberIn(low string) (n int, rest string, ok bool) {
	i := strings.IndexAny(low, "0123456789")
	if i < 0 {
		return 0, "", false
	}
	end := i
	for end < len(low) && low[end] >= '0' && low[end] <= '9' {
		end++
	}
	n, err := strconv.Atoi(low[i:end])
	return n, low[end:], err == nil
}

// wantedWait reads "retry in 30 seconds", "wait 2m", "slow down (500ms)". Without a unit: seconds.
func wantedWait(low string) time.Duration {
	n, rest, ok := numberIn(low)
	if !ok || n > 86400 {
		return 0
	}
	rest = strings.TrimLeft(rest, " ")
	word := strings.TrimRight(rest[:len(rest)-len(strings.TrimLeft(rest, "abcdefghijklmnopqrstuvwxyz"))], "s")
	var unit time.Duration
	switch word {
	case "": // none, or just "s"
		if strings.HasPrefix(rest, "/") {
			return 0
		}
		unit = time.Second
	case "sec", "second":
		unit = time.Second
	case "m", "milli", "millisecond":
		unit = time.Millisecond
		if word == "m" && !strings.HasPrefix(rest, "ms") {
			unit = time.Minute
		}
	case "min", "minute":
		unit = time.Minute
	case "h", "hour":
		unit = time.Hour
	default:
		return 0 // "10 events per minute": a rate, not a wait
	}
	return min(time.Duration(n)*unit, time.Hour)
}

// wantedBits reads the difficulty out of "difficulty 26 is less than 30", "28 bits needed": the largest number.
func wantedBits(low string) (bits int) {
	for {
		n, rest, ok := numberIn(low)
		if !ok {
			return bits
		}
		if n <= 256 {
			bits = max(bits, n)
		}
		low = rest
	}
}
