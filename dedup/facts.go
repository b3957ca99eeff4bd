package dedup

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"sync"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/policy"
)

// A fact is what one archived event says of others: that its author wants them gone, or that it is the newest version.
type fact struct {
	at      place.Place // of the event that says so
	created int64       // of that event, where the time decides; else 0
	id      event.ID    // of that event, where it decides
}

// over reports whether f counts before g, under the same key. Of facts without a time the first in the log does: an index
// that is newer than the log then forgets none that the log still has.
func (f fact) over(g fact) bool {
	return cmp.Or(-cmp.Compare(f.created, g.created), bytes.Compare(f.id[:], g.id[:]), f.at.Compare(g.at)) < 0
}

// key of a fact: its space and what it is about, hashed where that is longer. A hash, because strangers choose the parts.
type key [1 + sha256.Size]byte

// said is a fact on its way to Badger.
type said struct {
	key
	fact
}

func hashed(space byte, parts []byte) (k key) {
	k[0] = space
	h := sha256.Sum256(parts)
	copy(k[1:], h[:])
	return k
}

// markOf is the key of "this author has asked for a deletion", or to vanish: most have not, and need no further look.
func markOf(space byte, author event.PubKey) (k key) {
	k[0] = space
	copy(k[1:], author[:])
	return k
}

func deletionKey(target event.ID, by event.PubKey) key {
	var b [len(target) + len(by)]byte
	copy(b[:], target[:])
	copy(b[len(target):], by[:])
	return hashed(spaceDeletedIDs, b[:])
}

func addressKey(space byte, a event.Address) key {
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 128), uint32(a.Kind))
	b = append(b, a.PubKey[:]...)
	return hashed(space, append(b, a.D...))
}

func vanishKey(author event.PubKey, relay string) key {
	b := append(make([]byte, 0, 128), author[:]...)
	return hashed(spaceVanish, append(b, relay...))
}

// appendFacts appends what e, archived at at, says of others.
func appendFacts(dst []said, e *event.Event, at place.Place) []said {
	before := len(dst)
	switch e.Kind {
	case event.KindDeletion:
		dst = append(dst, said{markOf(spaceDeleters, e.PubKey), fact{at: at}})
		for tag := range e.Tags() {
			switch {
			case len(tag) < 2:
			case string(tag[0]) == "e":
				if id, ok := tag.ID(); ok {
					dst = append(dst, said{deletionKey(id, e.PubKey), fact{at: at}})
				}
			case string(tag[0]) == "a":
				// Only its author may delete an event.
				if a, ok := event.ParseAddress(tag[1]); ok && a.PubKey == e.PubKey {
					dst = append(dst, said{addressKey(spaceDeletedAddresses, a), fact{at: at, created: e.CreatedAt}})
				}
			}
		}
	case event.KindVanish:
		dst = append(dst, said{markOf(spaceVanishers, e.PubKey), fact{at: at}})
		for relay := range policy.VanishFrom(e) {
			dst = append(dst, said{vanishKey(e.PubKey, relay), fact{at: at, created: e.CreatedAt}})
		}
	default:
		if a, ok := e.Address(); ok {
			dst = append(dst, said{addressKey(spaceNewest, a), fact{at, e.CreatedAt, e.ID}})
		}
		return dst
	}
	if len(dst) == before+1 {
		return dst[:before] // a request for nothing is no mark of its author's
	}
	return dst
}

// facts are those of the queue, for lookups.
type facts struct {
	mu   sync.RWMutex
	held map[key]heldFact
}

type heldFact struct {
	fact
	n int // how often the key is in the queue
}

func (f *facts) get(k key) (fact, bool) {
	f.mu.RLock()
	h, ok := f.held[k]
	f.mu.RUnlock()
	return h.fact, ok
}

func (f *facts) add(list []said) {
	f.mu.Lock()
	f.addLocked(list)
	f.mu.Unlock()
}

func (f *facts) addLocked(list []said) {
	for i := range list {
		s := &list[i]
		h, ok := f.held[s.key]
		if !ok || s.over(h.fact) {
			h.fact = s.fact
		}
		h.n++
		f.held[s.key] = h
	}
}

// remove takes out what is in Badger now.
func (f *facts) remove(list []said) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range list {
		k := list[i].key
		h := f.held[k]
		if h.n--; h.n > 0 {
			f.held[k] = h
		} else {
			delete(f.held, k)
		}
	}
}

// reset holds exactly list.
func (f *facts) reset(list []said) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held = make(map[key]heldFact, len(list))
	f.addLocked(list)
}

// markSlots of 8 bytes: 1 MiB.
const markSlots = 1 << 17

// marks remembers of whose marks it is known whether they are there. An author has one slot, for both marks, which is lost to any
// other that needs it. A slot holds the author's hash, not the key: the hash is of this process alone, so nobody can look for a key
// that has another's, and by chance two in 131,072 authors have the same one once in 2 billion runs.
type marks struct {
	seed  maphash.Seed
	mu    sync.Mutex
	made  uint64 // marks, so far
	slots []uint64
}

func (m *marks) init() { m.seed, m.slots = maphash.MakeSeed(), make([]uint64, markSlots) }

// The lowest bits of a slot say of each mark whether it is known, and whether it is there; those of the hash are the slot's number.
const (
	markKnown = 1
	markThere = 2
	markBits  = 4 // of both marks
)

// slot is where what is known of k's author stands, what it holds if that is so, and where in it the bits of k begin.
func (m *marks) slot(k key) (at, author uint64, shift int) {
	h := maphash.Bytes(m.seed, k[1:])
	if k[0] == spaceVanishers {
		shift = markBits / 2
	}
	return h % markSlots, h &^ (1<<markBits - 1), shift
}

// ask reports whether the mark k is there, if that is remembered; made is for learn.
func (m *marks) ask(k key) (there, sure bool, made uint64) {
	at, author, shift := m.slot(k)
	m.mu.Lock()
	defer m.mu.Unlock()
	held := m.slots[at]
	if held&^(1<<markBits-1) != author {
		return false, false, m.made
	}
	held >>= shift
	return held&markThere != 0, held&markKnown != 0, m.made
}

// learn remembers that k was found, or that it was not, unless a mark was made since ask: it may be this one.
func (m *marks) learn(k key, there bool, made uint64) {
	at, author, shift := m.slot(k)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !there && m.made != made {
		return
	}
	held := m.slots[at]
	if held&^(1<<markBits-1) != author {
		held = author
	}
	held &^= (markKnown | markThere) << shift
	held |= markKnown << shift
	if there {
		held |= markThere << shift
	}
	m.slots[at] = held
}

// set notes the marks in list, which can be found now.
func (m *marks) set(list []said) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range list {
		k := list[i].key
		if k[0] != spaceDeleters && k[0] != spaceVanishers {
			continue
		}
		m.made++
		if at, author, shift := m.slot(k); m.slots[at]&^(1<<markBits-1) == author {
			m.slots[at] |= (markKnown | markThere) << shift
		}
	}
}
