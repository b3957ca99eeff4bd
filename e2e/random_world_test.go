package e2e

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/relaytest"
)

// fact is a genuine event of a round's world.
type fact struct {
	e   *nostr.Event
	raw string
	// at are the sources that serve it once they are healed. True: whoever asks the source as NIP-01 says gets it, whatever
	// happened before. False: it was dated back and published while nobody may have listened, or listened on a line that broke.
	at map[*station]bool
	// imported: the command ended well, so it is in the archive.
	imported bool
}

func (f *fact) String() string {
	var where []string
	for s, sure := range f.at {
		if sure {
			where = append(where, s.name)
		} else {
			where = append(where, s.name+" (may be missed)")
		}
	}
	if f.imported {
		where = append(where, "imported")
	}
	slices.Sort(where)
	tags := ""
	for _, t := range f.e.Tags {
		tags += fmt.Sprintf(" %q", []string(t))
	}
	return fmt.Sprintf("%s kind %d by %.8s of %d, %.60q%s, at %s", f.e.ID, f.e.Kind, f.e.PubKey, f.e.CreatedAt, f.e.Content, tags, strings.Join(where, ", "))
}

// author makes events. The key is made from the round's seed.
type author struct {
	person
	notes []*fact // that its replies, deletions and reposts speak of
}

// maker makes a world's events.
type maker struct {
	rng     *rand.Rand
	clock   *clock
	authors []*author
	relays  []string // that somebody may want to vanish from
	n       int
}

// sign makes one event.
func (m *maker) sign(a *author, at int64, kind int, tags ...nostr.Tag) *fact {
	m.n++
	list := make([][]string, len(tags))
	for i, t := range tags {
		list[i] = t
	}
	content := fmt.Sprintf("event %d", m.n)
	switch m.rng.IntN(12) {
	case 0:
		content = strings.Repeat("long ", 100+m.rng.IntN(1500)) + content
	case 1:
		content = "quotes \" and \\, lines \n\r\t, é, 漢, \U0001F642, <&>, \u007f\u2028: " + content
	}
	return m.fact(relaytest.Sign(a.secret, kind, at, list, content))
}

func (m *maker) fact(raw string) *fact {
	e := new(nostr.Event)
	if err := e.UnmarshalJSON([]byte(raw)); err != nil {
		panic(err)
	}
	return &fact{e: e, raw: raw, at: map[*station]bool{}}
}

// expiries in seconds from an event's date: over at once, soon, or after the end of every round.
var expiries = []int64{-3600, 2, 1800, 86400 * 3, 86400 * 400}

// event makes any event dated at, with a little of everything that the rules know.
func (m *maker) event(at int64) *fact {
	rng := m.rng
	a := m.authors[rng.IntN(len(m.authors))]
	d := nostr.Tag{"d", strconv.Itoa(rng.IntN(3))}
	var tags []nostr.Tag
	if rng.IntN(4) == 0 {
		tags = append(tags, nostr.Tag{"t", []string{"nostr", "x"}[rng.IntN(2)]})
	}
	if rng.IntN(5) == 0 {
		tags = append(tags, nostr.Tag{"p", m.authors[rng.IntN(len(m.authors))].pubkey})
	}
	if rng.IntN(14) == 0 {
		tags = append(tags, nostr.Tag{"expiration", strconv.FormatInt(at+expiries[rng.IntN(len(expiries))], 10)})
	}
	if rng.IntN(20) == 0 {
		tags = append(tags, nostr.Tag{"-"})
	}
	kind := 1
	switch k := rng.IntN(40); {
	case k < 20:
	case k < 24:
		kind = []int{0, 3, 10002}[rng.IntN(3)]
	case k < 28:
		kind, tags = []int{30023, 30000}[rng.IntN(2)], append(tags, d)
	case k < 30:
		kind = []int{4, 1059, 13, 14}[rng.IntN(4)]
	case k < 32:
		kind = []int{7, 6, 1984, 1063}[rng.IntN(4)]
	case k == 32:
		kind = []int{20001, 22242, 25000, 21059}[rng.IntN(4)]
	case k == 33:
		kind, tags = []int{7375, 17375, 31234, 445, 9734, 8000, 33534, 13534}[rng.IntN(8)], append(tags, d)
	case k == 39 && rng.IntN(12) == 0 && len(m.relays) > 0:
		kind, tags = 62, append(tags, nostr.Tag{"relay", append(m.relays, allRelays)[rng.IntN(len(m.relays)+1)]})
	case k == 34:
		kind, tags = []int{9, 1, 9021, 39000}[rng.IntN(4)], append(tags, nostr.Tag{"h", "group"}, d)
	case k < 38 && len(a.notes) > 0:
		kind = 5
		for range 1 + rng.IntN(2) {
			about := a.notes[rng.IntN(len(a.notes))].e
			if rng.IntN(4) == 0 { // somebody else's: no deletion
				if other := m.authors[rng.IntN(len(m.authors))]; len(other.notes) > 0 {
					about = other.notes[rng.IntN(len(other.notes))].e
				}
			}
			if key := addressOf(about); key != "" && rng.IntN(2) == 0 {
				tags = append(tags, nostr.Tag{"a", key})
			} else {
				tags = append(tags, nostr.Tag{"e", about.ID})
			}
		}
	}
	f := m.sign(a, at, kind, tags...)
	a.notes = append(a.notes, f)
	return f
}

// events makes n of them between from and to, some in bursts of one second.
func (m *maker) events(n int, from, to int64) []*fact {
	var out []*fact
	for len(out) < n {
		at := from + m.rng.Int64N(max(to-from, 1))
		burst := 1
		if m.rng.IntN(12) == 0 {
			burst = 1 + m.rng.IntN(15)
		}
		for range burst {
			out = append(out, m.event(at))
		}
	}
	return out
}

// live is what a relay is sent just now: most of it honestly dated, some in the future.
func (m *maker) live() *fact {
	now := m.clock.now()
	switch m.rng.IntN(10) {
	case 0:
		return m.event(now + m.rng.Int64N(3*86400))
	case 1:
		return m.event(now - m.rng.Int64N(600))
	default:
		return m.event(now - m.rng.Int64N(3))
	}
}

// late is dated back.
func (m *maker) late() *fact { return m.event(m.clock.now() - 3600 - m.rng.Int64N(86400*500)) }

// addressOf is NIP-01's name of a replaceable or addressable event, "" for others.
func addressOf(e *nostr.Event) string {
	switch {
	case e.Kind == 0 || e.Kind == 3 || e.Kind >= 10000 && e.Kind < 20000:
		return fmt.Sprintf("%d:%s:", e.Kind, e.PubKey)
	case e.Kind >= 30000 && e.Kind < 40000:
		return fmt.Sprintf("%d:%s:%s", e.Kind, e.PubKey, e.Tags.GetD())
	}
	return ""
}

// older reports whether b takes the place of a.
func older(a, b *nostr.Event) bool {
	return a.CreatedAt < b.CreatedAt || a.CreatedAt == b.CreatedAt && a.ID > b.ID
}
