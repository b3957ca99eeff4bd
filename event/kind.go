package event

import "math"

// Kinds with a meaning of their own here.
const (
	KindDeletion = 5    // asks to delete events of its author (NIP-09)
	KindVanish   = 62   // asks to delete all events of its author (NIP-62)
	KindGiftWrap = 1059 // belongs to whom its p tag names, too (NIP-59)
)

// IsEphemeral reports whether relays are not expected to store the kind (NIP-01).
func IsEphemeral(kind int) bool { return 20000 <= kind && kind <= 29999 }

// IsReplaceable reports whether only an author's newest event of the kind counts (NIP-01).
func IsReplaceable(kind int) bool {
	return kind == 0 || kind == 3 || 10000 <= kind && kind <= 19999
}

// IsAddressable reports whether only an author's newest event of the kind and first d tag counts (NIP-01).
func IsAddressable(kind int) bool { return 30000 <= kind && kind <= 39999 }

// Expiration is when the event expires, in unix seconds (NIP-40). Only the first expiration tag with a value counts;
// one that is not digits is none. A time beyond int64 is its maximum.
func Expiration(e *Event) (unix int64, ok bool) {
	value, ok := e.Tag("expiration")
	if !ok || len(value) == 0 {
		return 0, false
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, false
		}
		d := int64(c - '0')
		if unix > (math.MaxInt64-d)/10 {
			unix = math.MaxInt64
			continue
		}
		unix = unix*10 + d
	}
	return unix, true
}
