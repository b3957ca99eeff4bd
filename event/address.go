package event

import (
	"bytes"
	"strconv"
)

// Address names what an author's newer events replace (NIP-01): the kind, the author and, of an addressable kind, the
// first d tag. D is escaped, as in the canonical form, and shares memory with what it was read from.
type Address struct {
	Kind   int
	PubKey PubKey
	D      []byte
}

// Address is e's own; false for an event that nothing replaces. A missing d tag is an empty one.
func (e *Event) Address() (a Address, ok bool) {
	switch {
	case IsReplaceable(e.Kind):
		return Address{Kind: e.Kind, PubKey: e.PubKey}, true
	case IsAddressable(e.Kind):
		d, _ := e.Tag("d")
		return Address{e.Kind, e.PubKey, d}, true
	}
	return a, false
}

// ParseAddress reads the value of an a tag, kind:pubkey:d, still escaped. It is false for what names no event: another
// form, a kind that nothing replaces, a d where the kind has none.
func ParseAddress(value []byte) (a Address, ok bool) {
	kind, rest, ok := bytes.Cut(value, []byte(":"))
	if !ok {
		return a, false
	}
	author, d, ok := bytes.Cut(rest, []byte(":"))
	if !ok || !decodeHex(a.PubKey[:], author) || len(kind) == 0 || len(kind) > 5 {
		return a, false
	}
	for _, c := range kind {
		if c < '0' || c > '9' {
			return a, false
		}
		a.Kind = 10*a.Kind + int(c-'0')
	}
	a.D = d
	if IsReplaceable(a.Kind) {
		return a, len(d) == 0
	}
	return a, IsAddressable(a.Kind)
}

// String is the value of an a tag, escaped.
func (a Address) String() string {
	return strconv.Itoa(a.Kind) + ":" + a.PubKey.String() + ":" + string(a.D)
}

// Supersedes reports whether e, of the same address as o, takes its place: the later one does, of two of the same
// second the one with the lower id (NIP-01).
func (e *Event) Supersedes(o *Event) bool {
	if e.CreatedAt != o.CreatedAt {
		return e.CreatedAt > o.CreatedAt
	}
	return bytes.Compare(e.ID[:], o.ID[:]) < 0
}

// ID is the tag's value as an event id; false if it is none.
func (t Tag) ID() (id ID, ok bool) {
	return id, len(t) > 1 && decodeHex(id[:], t[1])
}

// PubKey is the tag's value as a public key; false if it is none.
func (t Tag) PubKey() (key PubKey, ok bool) {
	return key, len(t) > 1 && decodeHex(key[:], t[1])
}
