package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/relaytest"
)

// Rows that other events decide, and what may be said of a request to vanish.
const (
	deletedRow    = "deleted"
	supersededRow = "superseded"
	allRelays     = "ALL_RELAYS"
)

// past is what some events say of others.
type past struct {
	requests map[string][]*fact // to delete or vanish, by who asks
	versions map[string][]*fact // by address
}

// pastOf gathers what the facts that in takes say.
func pastOf(facts map[string]*fact, in func(id string) bool) past {
	p := past{map[string][]*fact{}, map[string][]*fact{}}
	for id, f := range facts {
		if !in(id) {
			continue
		}
		if f.e.Kind == 5 || f.e.Kind == 62 {
			p.requests[f.e.PubKey] = append(p.requests[f.e.PubKey], f)
		}
		if key := addressOf(f.e); key != "" {
			p.versions[key] = append(p.versions[key], f)
		}
	}
	return p
}

// deleted says whether a request covers an event, for one sink (NIP-09, NIP-62; for a gift wrap its receiver may ask too).
func (p past) deleted(e *nostr.Event, sink string) bool {
	if e.Kind == 5 || e.Kind == 62 {
		return false
	}
	by := func(who string) bool {
		return slices.ContainsFunc(p.requests[who], func(f *fact) bool {
			if f.e.Kind == 62 {
				return names(f.e, sink) && e.CreatedAt <= f.e.CreatedAt
			}
			return slices.ContainsFunc(f.e.Tags, func(t nostr.Tag) bool {
				switch {
				case len(t) < 2:
					return false
				case t[0] == "e":
					return t[1] == e.ID
				case t[0] == "a" && who == e.PubKey:
					return t[1] == addressOf(e) && e.CreatedAt <= f.e.CreatedAt
				}
				return false
			})
		})
	}
	return by(e.PubKey) || e.Kind == 1059 && slices.ContainsFunc(e.Tags, func(t nostr.Tag) bool { return len(t) > 1 && t[0] == "p" && by(t[1]) })
}

// names says whether a request to vanish is for a relay.
func names(e *nostr.Event, url string) bool {
	return slices.ContainsFunc(e.Tags, func(t nostr.Tag) bool { return len(t) > 1 && t[0] == "relay" && (t[1] == url || t[1] == allRelays) })
}

// newer lists the versions that take an event's place.
func (p past) newer(e *nostr.Event) (out []*fact) {
	for _, f := range p.versions[addressOf(e)] {
		if older(e, f.e) {
			out = append(out, f)
		}
	}
	return out
}

// life is what held while the program ran once, or until it took up another config.
type life struct {
	setups []*setup        // that may have been in force
	known  map[string]bool // archived at its start
	past   past            // of that
}

// begins notes what a life begins with.
func (r *round) begins() {
	ids, err := archivedIDs(r.archive)
	r.must(err)
	r.history = append(r.history, life{[]*setup{r.setup}, ids, pastOf(r.facts, func(id string) bool { return ids[id] })})
	for _, s := range r.stations {
		s.begins(len(r.history) - 1)
	}
}

// departed says whether a sink need not have got an event, because of what other events say.
func (r *round) departed(s *station, e *nostr.Event, all past) bool {
	send := r.setup.sinks[s].send
	if !slices.Contains(send, deletedRow) && all.deleted(e, s.url) {
		return true
	}
	return !slices.Contains(send, supersededRow) && slices.ContainsFunc(all.newer(e), func(f *fact) bool {
		return slices.ContainsFunc(r.setups, func(c *setup) bool { return c.holds(s, f.e) == "" })
	})
}

// tooLate says why an event should not have been sent in one of the program's lives: its last setup or what was archived then
// spoke against it. What a dying program left in a socket may be read in the next life, so both have to speak against it.
func (r *round) tooLate(s *station, f *fact, in int, got map[string]sendings) string {
	now, before := r.history[in], r.history[max(in-1, 0)]
	setups, why := slices.Concat(now.setups, before.setups), ""
	if !slices.ContainsFunc(setups, func(c *setup) bool { why = c.holds(s, f.e); return why == "" }) {
		return why
	}
	lets := func(row string) bool {
		return slices.ContainsFunc(setups, func(c *setup) bool { return slices.Contains(c.sinks[s].send, row) })
	}
	if !lets(deletedRow) && now.past.deleted(f.e, s.url) && before.past.deleted(f.e, s.url) {
		return "it was deleted"
	}
	if lets(supersededRow) {
		return ""
	}
	all := r.all()
	for _, n := range before.past.newer(f.e) {
		if len(all.newer(n.e)) > 0 || r.passed(s, n) {
			continue // the newest may be one that the sink does not get: then this one does not count
		}
		w := got[n.e.ID]
		// Sent is not enough: one that was not answered waits, and the older one goes ahead of it.
		took := w.took > 0 && w.took <= in && strings.HasPrefix(w.final, "true")
		_, own := n.at[s]
		if took && now.known[n.e.ID] && !own && expiry(n.e) == 0 && int64(n.e.CreatedAt) <= r.clock.earliest.Load() &&
			!slices.ContainsFunc(setups, func(c *setup) bool { return c.holds(s, n.e) != "" }) && !all.deleted(n.e, s.url) {
			return fmt.Sprintf("it was superseded by %s, sent in lives %v, accepted in life %d", n.e.ID, w.lives, w.took-1)
		}
	}
	return ""
}

// all is what all events of the world say.
func (r *round) all() past { return pastOf(r.facts, func(string) bool { return true }) }

// TestTooLate: an older version may go to a sink that took the newest only where its ledger has lost sight of that one: it was lost
// itself, and begins behind what is archived.
func TestTooLate(t *testing.T) {
	m := maker{}
	secret := relaytest.Key(1)
	older := m.fact(relaytest.Sign(secret, 0, 1000, nil, "older"))
	newest := m.fact(relaytest.Sign(secret, 0, 2000, nil, "newest"))
	for _, tt := range []struct {
		name      string
		now, lost bool
		took      int // the life in which the newest was accepted
		want      string
	}{
		{"its ledger is kept", true, false, 0, "it was superseded by " + newest.e.ID},
		{"lost, start: all", false, true, 0, "it was superseded by " + newest.e.ID},
		{"lost, start: now", true, true, 0, ""},
		{"accepted in the life before", true, false, 1, "it was superseded by " + newest.e.ID},
		{"accepted no sooner", true, false, 2, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &station{name: "sink"}
			c := &setup{sinks: map[*station]sinkSetup{s: {now: tt.now}}}
			r := &round{
				t: t, setup: c, facts: map[string]*fact{older.e.ID: older, newest.e.ID: newest},
				before: map[*station]map[string]bool{s: {}},
			}
			var err error
			r.clock, err = newClock(filepath.Join(t.TempDir(), "clock"))
			r.must(err)
			known := map[string]bool{newest.e.ID: true}
			said := pastOf(r.facts, func(id string) bool { return known[id] })
			r.history = []life{{setups: []*setup{c}}, {[]*setup{c}, known, said}, {[]*setup{c}, known, said}}
			if tt.lost {
				r.before[s] = known
			}
			got := map[string]sendings{newest.e.ID: {final: "true", lives: []int{0}, took: tt.took + 1}, older.e.ID: {final: "true", lives: []int{2}}}
			if why := r.tooLate(s, older, 2, got); !strings.HasPrefix(why, tt.want) || why != "" && tt.want == "" {
				t.Errorf("%q, want %q", why, tt.want)
			}
		})
	}
}
