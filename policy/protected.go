package policy

import (
	"strings"

	"rebroadcastr/event"
)

// isProtected is NIP-70 taken widely, as strfry does and go-nostr does not: a tag called "-" protects with further
// values too, and a repost (NIP-18, kinds 6 and 16) would carry the protected event inside.
func isProtected(e *event.Event, _ Context) bool {
	if e.HasTag("-") {
		return true
	}
	return (e.Kind == 6 || e.Kind == 16) && embedsProtected(e.Content())
}

// embedsProtected looks for an array that begins with "-" anywhere in a repost's content, as relays do, whatever
// else the content is. Only where the content spells characters as \u does it have to be parsed.
func embedsProtected(content string) bool {
	for rest := content; ; {
		before, after, found := strings.Cut(rest, `"-"`)
		if !found {
			break
		}
		if strings.HasSuffix(strings.TrimRight(before, " \t\r\n"), "[") {
			return true
		}
		rest = after
	}
	if !strings.Contains(content, `\u`) {
		return false
	}
	var inner event.Event
	return event.Parse([]byte(content), &inner) == nil && inner.HasTag("-")
}
