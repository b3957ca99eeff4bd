package event

import "errors"

// Reason is why an event was refused, in lower-case words. Counters are keyed by it.
type Reason string

// The reasons.
const (
	BadFrame     Reason = "frame"         // not an ["EVENT",sub,{…}] message
	BadJSON      Reason = "json"          // not JSON, not an object, or nested too deep
	BadField     Reason = "field"         // missing, null, or of another type or form than NIP-01 says
	DuplicateKey Reason = "duplicate key" // a key twice, as decoded
	BadEncoding  Reason = "encoding"      // invalid UTF-8, a lone surrogate, a raw control character
	OutOfRange   Reason = "range"         // created_at or kind
	BadID        Reason = "id"            // the id is not the hash of the event
	BadSignature Reason = "signature"
)

// Error is a refused event.
type Error struct {
	Reason Reason
	Detail string // for people; repeats nothing of the event's text
}

func (e *Error) Error() string { return string(e.Reason) + ": " + e.Detail }

// ReasonOf gives the reason of a refusal, "" for an error that is none.
func ReasonOf(err error) Reason {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func refuse(r Reason, detail string) error { return &Error{r, detail} }
