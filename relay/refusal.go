package relay

import (
	"regexp"
	"slices"
	"strings"
)

// What a relay does after a NEG-OPEN may be its answer, or be about something else on the same connection: a NOTICE names nothing,
// and neither does the end of a connection, or silence.

// subject is what a NOTICE is about.
type subject uint8

const (
	aboutAnything subject = iota // it does not say
	aboutThis                    // the NEG-OPEN that is to be answered
	aboutAnother                 // another reconciliation, or the end of one
)

// negSub is one of our subscriptions in a NOTICE.
var negSub = regexp.MustCompile(`\bneg-[0-9]+`)

// AboutNeg says that a NOTICE is about a reconciliation: strfry says "too many concurrent NEG requests".
func AboutNeg(text string) bool {
	return has(strings.ToLower(text), "negentropy", "neg-", "neg request")
}

// subjectOf says what a NOTICE is about that came after the NEG-OPEN of sub and before any answer to it.
func subjectOf(text, sub string) subject {
	low := strings.ToLower(text)
	named := negSub.FindAllString(low, -1)
	switch {
	case slices.Contains(named, sub):
		return aboutThis
	case len(named) > 0:
		return aboutAnother
	case has(low, "negentropy", "neg-open"):
		return aboutThis
	case has(low, "neg-close", "neg-msg"): // neither was sent for this one
		return aboutAnother
	case AboutNeg(low):
		return aboutThis
	}
	return aboutAnything
}

// complains says that a NOTICE may be about something that the relay does not understand, or has no room for: an answer, if to what is
// not said, so what it means depends on what comes next. The words are those of the relays in
// https://github.com/hoytech/strfry/issues/124, of strfry's and of khatru's ("failed to parse envelope"), and of nostream's, which drops a
// message and says "rate limited".
func complains(text string) bool {
	low := strings.ToLower(text)
	return NotNow(low) || has(low, "command", "cmd", "message", "msg", "envelope", "parse", "invalid", "recogni", "unknown", "support")
}

// judgeNeg says what anything but a NEG-MSG means; ends is false where it means nothing. Relays refuse in many ways: by
// NEG-ERR, CLOSED, a NOTICE that names no subscription, or silence. does: the relay has answered, or what it says cannot tell that it
// does not reconcile.
func judgeNeg(w negWord, does bool) (end NegEnd, ends bool) {
	low := strings.ToLower(w.text)
	busy := NotNow(low) || strings.Contains(low, "too many negentropy")
	switch {
	case w.kind == kindNegErr && !busy && (w.most > 0 || strings.Contains(low, "too many")):
		return NegEnd{Kind: NegTooMany, Reason: w.text}, true
	case w.kind == kindNotice && does:
		return end, false
	case does, busy:
		return NegEnd{Kind: NegBroken, Reason: w.text}, true
	}
	return NegEnd{Kind: NegRefused, Reason: w.text}, true
}

// maxDrops connections in a row that ended at a NEG-OPEN, then that is what ends them; maxBeside where some of them owed other
// answers too. A connection that an EVENT or a REQ ends does not end at the NEG-OPENs of so many.
const maxDrops, maxBeside = 2, 5

// NegDrops counts the connections in a row that ended when the relay should have answered a NEG-OPEN. The zero NegDrops is ready
// for use.
type NegDrops struct{ all, beside int }

// Add takes in how a reconciliation ended.
func (d *NegDrops) Add(end NegEnd, err error) {
	switch {
	case err == nil || end.Answered:
		*d = NegDrops{}
	case end.Kind == NegDropped:
		d.all++
		if end.Beside {
			d.beside++
		}
	}
}

// Refuse says that the relay refuses to reconcile by ending the connection. It is to be remembered: the count begins anew.
func (d *NegDrops) Refuse() bool {
	if d.all-d.beside < maxDrops && d.all < maxBeside {
		return false
	}
	*d = NegDrops{}
	return true
}
