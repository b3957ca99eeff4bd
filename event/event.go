// Package event is one Nostr event (NIP-01): found in a frame, parsed, brought into its canonical form, checked and
// matched against filters. It does no I/O.
//
// The canonical line is {"id":…,"pubkey":…,"created_at":…,"kind":…,"tags":…,"content":…,"sig":…} without spaces,
// with NIP-01's escapes and nothing that id and signature do not cover. Parse builds it; the id is the hash over
// parts of it, so an Event proves itself.
package event

import (
	"encoding/hex"
	"fmt"
	"iter"
)

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
	// Line is the canonical form, without a newline. Parse reuses its capacity.
	Line []byte

	tags    span // the tags array within Line
	content span // the content string with its quotes within Line
}

type span struct{ from, to uint32 }

// bytes is the text of s within line; empty for an event that was never parsed.
func (s span) bytes(line []byte) []byte {
	if int(s.to) > len(line) {
		return nil
	}
	return line[s.from:s.to]
}

// ParseID reads an id written as exactly 64 lower-case hex digits. The error does not repeat the text.
func ParseID(hex string) (ID, error) {
	var id ID
	if !decodeHex(id[:], hex) {
		return ID{}, fmt.Errorf("read an event id: want 64 digits of 0-9a-f, got %d characters", len(hex))
	}
	return id, nil
}

// ParsePubKey reads a public key written as exactly 64 lower-case hex digits. The error does not repeat the text,
// which may be a private key put in the wrong place.
func ParsePubKey(hex string) (PubKey, error) {
	var key PubKey
	if !decodeHex(key[:], hex) {
		return PubKey{}, fmt.Errorf("read a public key: want 64 digits of 0-9a-f, got %d characters", len(hex))
	}
	return key, nil
}

// Tag is one tag of an event: its strings without quotes, still escaped as in the canonical form (see Unescape).
type Tag [][]byte

// Tags yields the tags in order. A Tag shares memory with the next one and with Line: it is good until the next
// step of the loop.
func (e *Event) Tags() iter.Seq[Tag] {
	return func(yield func(Tag) bool) {
		var room [8][]byte
		b := e.tags.bytes(e.Line)
		for i := 1; i < len(b) && b[i] == '['; i++ { // the step passes the comma
			tag := Tag(room[:0])
			for i++; b[i] != ']'; {
				if b[i] == ',' {
					i++
				}
				end := skipString(b, i+1)
				tag = append(tag, b[i+1:end-1])
				i = end
			}
			i++
			if !yield(tag) {
				return
			}
		}
	}
}

// nextTag reads name and value (nil where there is none) of the tag at b[i], b being a canonical tags array, and
// says where the next one begins. It is the loop of Tags without a call per tag: start at 1, stop at ok false.
func nextTag(b []byte, i int) (name, value []byte, next int, ok bool) {
	if i >= len(b) || b[i] != '[' {
		return nil, nil, 0, false
	}
	i++
	for n := 0; b[i] != ']'; n++ {
		if b[i] == ',' {
			i++
		}
		end := skipString(b, i+1)
		switch n {
		case 0:
			name = b[i+1 : end-1]
		case 1:
			value = b[i+1 : end-1]
		}
		i = end
	}
	return name, value, i + 2, true
}

// Tag gives the value of the first tag called name that has one, still escaped.
func (e *Event) Tag(name string) (value []byte, ok bool) {
	b := e.tags.bytes(e.Line)
	for i := 1; ; {
		n, v, next, more := nextTag(b, i)
		if !more {
			return nil, false
		}
		if v != nil && string(n) == name {
			return v, true
		}
		i = next
	}
}

// HasTag reports whether a tag is called name, with a value or without.
func (e *Event) HasTag(name string) bool {
	b := e.tags.bytes(e.Line)
	for i := 1; ; {
		n, _, next, more := nextTag(b, i)
		if !more {
			return false
		}
		if n != nil && string(n) == name {
			return true
		}
		i = next
	}
}

// Content is the decoded content.
func (e *Event) Content() string {
	b := e.content.bytes(e.Line)
	if len(b) < 2 {
		return ""
	}
	return Unescape(b[1 : len(b)-1])
}
