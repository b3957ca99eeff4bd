package relaytest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/nbd-wtf/go-nostr"
)

// Query is one REQ's filter.
type Query struct {
	N      int // of the REQs that the relay has answered, from 1
	Sub    string
	Filter nostr.Filter
}

// Paging is how a relay chooses the stored events of an answer. Its zero value: newest first, as many as the filter's limit
// and Script.Cap let through.
type Paging struct {
	Most                        func(q Query, hits []nostr.Event) int // instead of Script.Cap and limit: how many of hits, which are newest first
	NoLimit, NoSince, NoAuthors bool                                  // these are ignored
	UntilExclusive              bool
	Hits                        func(q Query, hits []nostr.Event) []nostr.Event // what is stored, as far as this answer knows; a copy
	Order                       func(q Query, page []nostr.Event)               // of the page, in place
	Withheld                    []int                                           // kinds that are taken out of a page after it was chosen, as strfry does with 4 and 1059 for those who have not logged in
	Hint                        func(q Query, more bool) string                 // raw third element of EOSE
}

// Shuffled is an Order that is another on every page.
func Shuffled(seed uint64) func(Query, []nostr.Event) {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 0))
	return func(_ Query, page []nostr.Event) {
		mu.Lock()
		defer mu.Unlock()
		random.Shuffle(len(page), func(i, j int) { page[i], page[j] = page[j], page[i] })
	}
}

// TiesShuffled is what Hits may do: newest first, and in each second another order every time.
func TiesShuffled(seed uint64) func(Query, []nostr.Event) []nostr.Event {
	shuffle := Shuffled(seed)
	return func(q Query, hits []nostr.Event) []nostr.Event {
		shuffle(q, hits)
		slices.SortStableFunc(hits, func(a, b nostr.Event) int { return int(b.CreatedAt - a.CreatedAt) })
		return hits
	}
}

// OldestFirst is what Hits may do.
func OldestFirst(_ Query, hits []nostr.Event) []nostr.Event {
	slices.Reverse(hits)
	return hits
}

// page returns what a filter takes, within limits and the cap; more says that it is not everything.
func (r *Relay) page(s Script, q Query) (page []string, more bool) {
	r.mu.Lock()
	if r.sorted == nil {
		r.sorted = slices.Clone(r.stored)
		slices.SortStableFunc(r.sorted, func(a, b stored) int { return int(b.event.CreatedAt - a.event.CreatedAt) })
	}
	all := r.sorted
	r.mu.Unlock()
	f, p := q.Filter, s.Paging
	if s.UntilIgnored {
		f.Until = nil
	}
	if p.NoAuthors {
		f.Authors = nil
	}
	if p.NoSince {
		f.Since = nil
	}
	most := len(all)
	if (f.Limit > 0 || f.LimitZero) && !p.NoLimit {
		most = min(most, f.Limit)
	}
	if s.Cap > 0 {
		most = min(most, s.Cap)
	}
	raw := make(map[string]string)
	var hits []nostr.Event
	for i := 0; i < len(all) && (p.Hits != nil || p.Most != nil || len(hits) <= most); i++ {
		e := &all[i].event
		if f.Matches(e) && !(p.UntilExclusive && f.Until != nil && e.CreatedAt == *f.Until) {
			hits = append(hits, *e)
			raw[e.ID] = all[i].raw
		}
	}
	if p.Hits != nil {
		hits = p.Hits(q, hits)
	}
	if p.Most != nil {
		most = p.Most(q, hits)
	}
	most = min(most, len(hits))
	more, hits = most < len(hits), hits[:most]
	if p.Order != nil {
		p.Order(q, hits)
	}
	for i := range hits {
		if !p.withheld(hits[i].Kind) {
			page = append(page, raw[hits[i].ID])
		}
	}
	return page, more
}

// loginFirst is how strfry says it.
const loginFirst = "ERROR: auth-required: requested filter requires authentication"

func (p Paging) withheld(kind int) bool { return slices.Contains(p.Withheld, kind) }

// locked says that a filter asks for nothing but what is withheld.
func (p Paging) locked(f nostr.Filter) bool {
	return len(f.Kinds) > 0 && !slices.ContainsFunc(f.Kinds, func(kind int) bool { return !p.withheld(kind) })
}

// count answers a COUNT (NIP-45): all that the filter takes, what is withheld included.
func (c *Conn) count(s Script, parts []json.RawMessage) {
	var f nostr.Filter
	if err := json.Unmarshal(parts[2], &f); err != nil {
		c.Send(`["CLOSED",` + quote(text(parts[1])) + `,` + quote("invalid: "+err.Error()) + `]`)
		return
	}
	if slices.ContainsFunc(f.Kinds, s.Paging.withheld) {
		c.Send(`["CLOSED",` + quote(text(parts[1])) + `,` + quote(loginFirst) + `]`)
		return
	}
	n := 0
	c.relay.mu.Lock()
	for _, e := range c.relay.stored {
		if f.Matches(&e.event) {
			n++
		}
	}
	c.relay.mu.Unlock()
	c.Send(fmt.Sprintf(`["COUNT",%s,{"count":%d}]`, quote(text(parts[1])), n))
}

// Cut is what Script.Answer puts where the connection ends. What was sent before arrives.
const Cut = "cut"

// answer is all frames of the answer to a REQ.
func (r *Relay) answer(s Script, sub string, filters []nostr.Filter) (frames []string) {
	r.mu.Lock()
	r.asked++
	q := Query{N: r.asked, Sub: sub}
	r.mu.Unlock()
	event := func(raw string) { frames = append(frames, `["EVENT",`+quote(sub)+`,`+raw+`]`) }
	for _, raw := range s.First {
		event(raw)
	}
	seen, more := map[string]bool{}, false
	for _, q.Filter = range filters {
		page, cut := r.page(s, q)
		more = more || cut
		for _, raw := range page {
			if !seen[raw] {
				seen[raw] = true
				event(raw)
			}
		}
	}
	q.Filter = filters[0]
	if !s.NoEOSE {
		hint := ""
		switch {
		case s.Paging.Hint != nil:
			hint = s.Paging.Hint(q, more)
		case s.Hint != "":
			hint = quote(s.Hint)
		}
		if hint != "" {
			hint = "," + hint
		}
		frames = append(frames, `["EOSE",`+quote(sub)+hint+`]`)
	}
	if s.Answer != nil {
		frames = s.Answer(q, frames)
	}
	return frames
}
