// Package event is one Nostr event (NIP-01): found in a frame, parsed, brought into its canonical form, checked and
// matched against filters. It does no I/O.
//
// The canonical line is {"id":…,"pubkey":…,"created_at":…,"kind":…,"tags":…,"content":…,"sig":…} without spaces,
// with NIP-01's escapes and nothing that id and signature do not cover. Parse builds it; the id is the hash over
// parts of it, so an Event proves itself.
package event

import "encoding/hex"

// ID is an event's id: the SHA-256 of its canonical serialization (NIP-01).
type ID [32]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// PubKey is an author's x-only secp256k1 public key (BIP-340).
type PubKey [32]byte

func (p PubKey) String() string { return hex.EncodeToString(p[:]) }

// MaxCreatedAt is the first created_at that is refused, in seconds: 2^53, beyond which JSON numbers lose precision
// in most languages and negentropy encodings reserve values.
const MaxCreatedAt = 1 << 53

// MaxKind is the highest kind (NIP-01).
const MaxKind = 65535

// Event is a parsed event. Its slices are never changed after Parse.
type Event struct {
	ID        ID
	PubKey    PubKey
	Sig       [64]byte
	CreatedAt int64 // unix seconds, the author's claim
	Kind      int
	// Line is the canonical form, without a newline.
	Line []byte

	tags    span // the tags array within Line
	content span // the content string with its quotes within Line
}

type span struct{ from, to uint32 }
