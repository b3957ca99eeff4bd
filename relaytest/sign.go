package relaytest

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/nbd-wtf/go-nostr"
)

// Key returns the n-th test key (n ≥ 1), as 64 hex digits: the number n itself.
func Key(n int) string {
	if n < 1 {
		panic("relaytest.Key: n must be at least 1")
	}
	return fmt.Sprintf("%064x", n)
}

// Pub returns the public key of a test key, as 64 hex digits.
func Pub(key string) string {
	pub, err := nostr.GetPublicKey(key)
	if err != nil {
		panic("relaytest.Pub: " + err.Error())
	}
	return pub
}

// Sign returns a genuine event as JSON, in the order of keys of the canonical line. createdAt is in unix seconds.
func Sign(key string, kind int, createdAt int64, tags [][]string, content string) string {
	e := nostr.Event{
		PubKey: Pub(key), Kind: kind, CreatedAt: nostr.Timestamp(createdAt), Content: content, Tags: make(nostr.Tags, len(tags)),
	}
	for i, t := range tags {
		e.Tags[i] = t
	}
	if err := e.Sign(key); err != nil {
		panic("relaytest.Sign: " + err.Error())
	}
	return line(e)
}

// line writes an event as its canonical line: the serialization that was hashed has tags and content as they belong.
func line(e nostr.Event) string {
	s := string(e.Serialize())
	head := fmt.Sprintf(`[0,"%s",%d,%d,`, e.PubKey, e.CreatedAt, e.Kind)
	rest := strings.TrimSuffix(strings.TrimPrefix(s, head), "]") // tags,"content"
	n := arrayEnd(rest)
	return fmt.Sprintf(`{"id":"%s","pubkey":"%s","created_at":%d,"kind":%d,"tags":%s,"content":%s,"sig":"%s"}`,
		e.ID, e.PubKey, e.CreatedAt, e.Kind, rest[:n], rest[n+1:], e.Sig)
}

// arrayEnd returns the length of the JSON array at the start of s.
func arrayEnd(s string) int {
	depth, inString := 0, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[':
			depth++
		case c == ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

func parse(ev string) nostr.Event {
	var e nostr.Event
	if err := json.Unmarshal([]byte(ev), &e); err != nil {
		panic(fmt.Sprintf("relaytest: not an event: %v: %.200s", err, ev))
	}
	return e
}

// ID returns the id field of an event, as 64 hex digits.
func ID(ev string) string { return parse(ev).ID }

// BadSig returns the event with one bit of its signature changed.
func BadSig(ev string) string {
	e := parse(ev)
	last := byte('0')
	if e.Sig[127] == '0' {
		last = '1'
	}
	e.Sig = e.Sig[:127] + string(last)
	return line(e)
}

// BadID returns the event under another id: its signature is still good for the content.
func BadID(ev string) string {
	e := parse(ev)
	first := byte('0')
	if e.ID[0] == '0' {
		first = '1'
	}
	e.ID = string(first) + e.ID[1:]
	return line(e)
}

// Forged returns an event with the same id, author and signature but another content.
func Forged(ev string) string {
	e := parse(ev)
	e.Content += " (forged)"
	return line(e)
}

// UpperID returns the event with its id in upper case.
func UpperID(ev string) string {
	e := parse(ev)
	return strings.Replace(ev, e.ID, strings.ToUpper(e.ID), 1)
}

// TwoIDs returns the event with a second key "id" in front, with the id of other.
func TwoIDs(ev, other string) string { return `{"id":"` + ID(other) + `",` + ev[1:] }

// NestedID returns the event with an object in front that holds the id of other.
func NestedID(ev, other string) string { return `{"x":{"id":"` + ID(other) + `"},` + ev[1:] }

// EscapedID returns the event with its key "id" written with an escape.
func EscapedID(ev string) string { return strings.Replace(ev, `"id":`, `"\u0069d":`, 1) }
