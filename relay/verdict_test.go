package relay

import (
	"testing"
	"time"
)

// One case per answer and spelling that relays are known to send.
func TestClassifyOK(t *testing.T) {
	for _, c := range []struct {
		name     string
		accepted bool
		text     string
		want     Verdict
		prefix   string
		cause    Cause
	}{
		{"true, no text", true, "", Delivered, "", ""},
		{"true, any text", true, "thank you: very much", Delivered, "", ""},
		{"true, a known prefix", true, "pow: difficulty 25>=24", Delivered, "pow", ""},
		{"duplicate true", true, "duplicate: already have this event", Duplicate, "duplicate", ""},
		{"duplicate false", false, "duplicate: already have this event", Duplicate, "duplicate", ""},
		{"upper case", false, "Duplicate: have it", Duplicate, "duplicate", ""},
		{"replaced (strfry)", false, "replaced: have newer event", Superseded, "replaced", ""},
		{"replaced true", true, "replaced: have newer event", Superseded, "replaced", ""},
		{"deleted (strfry)", false, "deleted: user requested deletion", Rejected, "deleted", CauseDeleted},
		{"deleted (khatru)", false, "blocked: this event has been deleted", Rejected, "blocked", CauseDeleted},
		{"future (strfry)", false, "invalid: created_at too late", Later, "invalid", CauseTooNew},
		{"future", false, "invalid: event creation date is too far off from the current time", Later, "invalid", CauseTooNew},
		{"future, other words", false, "invalid: created_at in the future", Later, "invalid", CauseTooNew},
		{"future (khatru)", false, "blocked: event too much in the future", Later, "blocked", CauseTooNew},
		{"too old (strfry)", false, "invalid: created_at too early", Rejected, "invalid", CauseTooOld},
		{"too old (khatru)", false, "blocked: event too old", Rejected, "blocked", CauseTooOld},
		{"bad id", false, "invalid: bad event id", Rejected, "invalid", ""},
		{"too large", false, "invalid: event too large: 70000", Rejected, "invalid", CauseTooLarge},
		{"too many tags", false, "invalid: too many tags: 2001", Rejected, "invalid", CauseTooLarge},
		{"tag value", false, "invalid: tag val too large: 1025", Rejected, "invalid", CauseTooLarge},
		{"fixed size tag", false, "invalid: unexpected size for fixed-size tag: p", Rejected, "invalid", ""},
		{"pow", false, "pow: difficulty 26 is less than 30", Rejected, "pow", CausePoW},
		{"blocked", false, "blocked: not on white-list", Rejected, "blocked", ""},
		{"restricted", false, "restricted: not an active member", Rejected, "restricted", ""},
		{"auth", false, "auth-required: we only accept events from registered users", Paused, "auth-required", CauseAuth},
		{"auth behind strfry's ERROR", false, "ERROR: auth-required: log in", Paused, "auth-required", CauseAuth},
		{"payment", false, "payment-required: 21 sats", Paused, "payment-required", CausePayment},
		{"rate-limited", false, "rate-limited: slow down", Slower, "rate-limited", ""},
		{"rate-limit (broadcastr)", false, "rate-limit: slow down", Slower, "rate-limited", ""},
		{"mute", false, "mute: no one was listening to your ephemeral event", Rejected, "mute", ""},
		{"error", false, "error: could not connect to the database", Transient, "error", ""},
		{"write error (strfry)", false, "Write error: MDB_MAP_FULL", Transient, "error", ""},
		{"permanent error (eventstore)", false, "error: event with values out of expected boundaries", Rejected, "error", ""},
		{"no text", false, "", Unclear, "", ""},
		{"unknown prefix", false, "nope: not today", Unclear, "", ""},
		{"prefix with a space", false, "not blocked: really", Unclear, "", ""},
		{"no colon", false, "blocked", Unclear, "", ""},
	} {
		got := Classify(c.accepted, c.text)
		if got.Verdict != c.want || got.Prefix != c.prefix || got.Cause != c.cause {
			t.Errorf("%s: Classify(%v, %q) = %v, prefix %q, cause %q; want %v, %q, %q",
				c.name, c.accepted, c.text, got.Verdict, got.Prefix, got.Cause, c.want, c.prefix, c.cause)
		}
	}
}

func TestOnlyRefusalsOfPolicyFeedTheBreaker(t *testing.T) {
	for text, want := range map[string]bool{
		"blocked: you are banned": true, "restricted: members only": true,
		"blocked: event too old": false, "blocked: this event has been deleted": false, "invalid: bad id": false, "pow: 20": false,
	} {
		if got := Classify(false, text).Breaker; got != want {
			t.Errorf("Classify(false, %q).Breaker = %v, want %v", text, got, want)
		}
	}
}

func TestWhatARelayAsksFor(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"rate-limited: retry in 30 seconds":          30 * time.Second,
		"rate-limited: wait 2m":                      2 * time.Minute,
		"rate-limited: wait 2 min please":            2 * time.Minute,
		"rate-limited: 500ms":                        500 * time.Millisecond,
		"rate-limited: (10)":                         10 * time.Second,
		"rate-limited: come back in 3 hours":         time.Hour,
		"rate-limited: 10 events per minute":         0,
		"rate-limited: max 5/s":                      0,
		"rate-limited: noted":                        0,
		"rate-limited: 99999999999999999999999":      0,
		"rate-limited: you sent 1000000000 too many": 0,
	} {
		if got := Classify(false, text).Wait; got != want {
			t.Errorf("Classify(false, %q).Wait = %s, want %s", text, got, want)
		}
	}
	for text, want := range map[string]int{"pow: difficulty 26 is less than 30": 30, "pow: 28 bits needed": 28, "pow: more": 0} {
		if got := Classify(false, text).Number; got != want {
			t.Errorf("Classify(false, %q).Number = %d, want %d", text, got, want)
		}
	}
}

func TestClassifyClosed(t *testing.T) {
	for text, want := range map[string]Verdict{
		"auth-required: log in":                      Paused,
		"ERROR: auth-required: log in":               Paused,
		"restricted: members only":                   Paused,
		"rate-limited: slow down":                    Slower,
		"unsupported: filter contains unknown parts": Narrow,
		"invalid: limit":                             Narrow,
		"ERROR: bad req: unrecognised filter item":   Narrow,
		"blocked: too many things to filter for":     Narrow,
		"error: shutting down idle subscription":     Transient,
		"":                                           Transient,
		"bye":                                        Transient,
		"error: too many concurrent REQs":            Slower,
	} {
		if got := ClassifyClosed(text); got.Verdict != want {
			t.Errorf("ClassifyClosed(%q) = %v, want %v", text, got.Verdict, want)
		}
	}
	if !TooManyREQ("ERROR: too many concurrent REQs") || TooManyREQ("too many tags") {
		t.Error("TooManyREQ does not tell strfry's notice from others")
	}
	for text, want := range map[string]bool{
		"ERROR: too many concurrent REQs": true, "rate limited": true, "rate-limited: slow down": true, "Rate limit exceeded": true,
		"too many tags": false, "error: database is busy": false, "unsupported: COUNT": false,
	} {
		if NotNow(text) != want || want && !MayAnswer(text) {
			t.Errorf("NotNow(%q) = %v, MayAnswer = %v", text, NotNow(text), MayAnswer(text))
		}
	}
}
