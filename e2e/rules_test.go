package e2e

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nbd-wtf/go-nostr"
)

// rules are what one sink of a test is configured to take, read from the README's table and the NIPs it names.
type rules struct {
	only nostr.Filters // empty: everything
	send []string      // rows let through
	// nip40 says that the sink's information document names NIP-40.
	nip40 bool
}

// takes says whether the sink gets an event that is archived.
func (r rules) takes(e *nostr.Event) bool {
	if len(r.only) > 0 && !r.only.Match(e) {
		return false
	}
	if never(e) || expired(e) {
		return false
	}
	for _, row := range rows {
		if !row.holds(e) || slices.Contains(r.send, row.name) {
			continue
		}
		if row.name == "expiring" && r.nip40 {
			continue
		}
		return false
	}
	return true
}

// rows are those that a config can let through.
var rows = []struct {
	name  string
	holds func(*nostr.Event) bool
}{
	{"dm", kinds(4, 13, 14, 15, 1059, 21059)},                        // NIP-04, 17, 59
	{"wallet", kinds(7374, 7375, 7376, 17375)},                       // NIP-60
	{"drafts", kinds(1234, 31234)},                                   // NIP-37
	{"mls", kinds(443, 444, 445)},                                    // NIP-EE
	{"groups", group},                                                // NIP-29
	{"zap_requests", kinds(9734)},                                    // NIP-57
	{"expiring", func(e *nostr.Event) bool { return expiry(e) > 0 }}, // NIP-40
}

// archivable says whether an event that was asked for is archived: all but ephemeral ones are.
func archivable(e *nostr.Event) bool { return e.Kind < 20000 || e.Kind > 29999 }

// never holds for what no config lets through.
func never(e *nostr.Event) bool {
	switch e.Kind {
	case 8000, 8001, 13534, 33534: // NIP-43
		return true
	case 6, 16: // NIP-70: a repost that carries a protected event
		var inner nostr.Event
		if json.Unmarshal([]byte(e.Content), &inner) == nil && protected(&inner) {
			return true
		}
	}
	return !archivable(e) || protected(e)
}

// protected is NIP-70.
func protected(e *nostr.Event) bool {
	return slices.ContainsFunc(e.Tags, func(t nostr.Tag) bool { return len(t) > 0 && t[0] == "-" })
}

// expiry is NIP-40's time in unix seconds, 0 without one. Only the first tag counts.
func expiry(e *nostr.Event) int64 {
	for _, t := range e.Tags {
		if len(t) > 1 && t[0] == "expiration" {
			n, err := strconv.ParseInt(t[1], 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

func expired(e *nostr.Event) bool {
	x := expiry(e)
	return x > 0 && x <= time.Now().Unix()
}

func group(e *nostr.Event) bool {
	return e.Kind >= 9000 && e.Kind <= 9030 || e.Kind >= 39000 && e.Kind <= 39009 ||
		slices.ContainsFunc(e.Tags, func(t nostr.Tag) bool { return len(t) > 1 && t[0] == "h" })
}

func kinds(list ...int) func(*nostr.Event) bool {
	return func(e *nostr.Event) bool { return slices.Contains(list, e.Kind) }
}

// kept is what a relay that follows the NIPs holds after it was sent these events in any order: of each replaceable or
// addressable event the newest (NIP-01: of two of one second the lower id). Deletion requests are the caller's business.
func kept(sent set) set {
	newest := map[string]*nostr.Event{}
	for _, e := range sent {
		key := e.ID
		switch {
		case e.Kind == 0 || e.Kind == 3 || e.Kind >= 10000 && e.Kind < 20000:
			key = strings.Join([]string{strconv.Itoa(e.Kind), e.PubKey}, ":")
		case e.Kind >= 30000 && e.Kind < 40000:
			key = strings.Join([]string{strconv.Itoa(e.Kind), e.PubKey, e.Tags.GetD()}, ":")
		}
		if old := newest[key]; old == nil || old.CreatedAt < e.CreatedAt || old.CreatedAt == e.CreatedAt && old.ID > e.ID {
			newest[key] = e
		}
	}
	out := set{}
	for _, e := range newest {
		out[e.ID] = e
	}
	return out
}

// departed holds for what a sink that gets all of sent need not have got: a request in the archive deletes it, or sent has a newer
// version of it. It may have got it all the same, before that was archived.
func departed(archived, sent set) map[string]bool {
	out := map[string]bool{}
	newest := map[string]*nostr.Event{}
	for _, e := range sent {
		if key := addressOf(e); key != "" && (newest[key] == nil || older(newest[key], e)) {
			newest[key] = e
		}
	}
	deletes := map[string]int64{} // author and what an e or a tag names: until when
	for _, e := range archived {
		if e.Kind != 5 {
			continue
		}
		for _, t := range e.Tags {
			if len(t) > 1 && (t[0] == "e" || t[0] == "a") {
				key := e.PubKey + t[1]
				deletes[key] = max(deletes[key], int64(e.CreatedAt))
			}
		}
	}
	for id, e := range sent {
		key := addressOf(e)
		_, byID := deletes[e.PubKey+id]
		until, byKey := deletes[e.PubKey+key]
		out[id] = e.Kind != 5 && (byID || key != "" && byKey && int64(e.CreatedAt) <= until) || key != "" && newest[key].ID != id
	}
	return out
}
