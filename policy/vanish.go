package policy

import (
	"iter"

	"rebroadcastr/event"
	"rebroadcastr/relay/url"
)

// AllRelays is what a request to vanish names when it is for every relay (NIP-62).
const AllRelays = "ALL_RELAYS"

// VanishFrom yields what a request to vanish (kind 62) is for: normalised URLs of relays, or AllRelays. What is neither is
// passed over.
func VanishFrom(e *event.Event) iter.Seq[string] {
	return func(yield func(string) bool) {
		for tag := range e.Tags() {
			if len(tag) < 2 || string(tag[0]) != "relay" {
				continue
			}
			relay := event.Unescape(tag[1])
			if relay != AllRelays {
				var err error
				if relay, err = url.Normalize(relay); err != nil {
					continue
				}
			}
			if !yield(relay) {
				return
			}
		}
	}
}

func isVanishElsewhere(e *event.Event, c Context) bool {
	if e.Kind != event.KindVanish {
		return false
	}
	for relay := range VanishFrom(e) {
		if relay == AllRelays || relay == c.Relay {
			return false
		}
	}
	return true
}
