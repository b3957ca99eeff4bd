package event

import (
	"encoding/binary"
	"sync"
)

// pointCache keeps what a verifier makes of an author's key: a point P of the curve, which takes a square root, a tenth of the whole
// check. A key has one place. Only a genuine signature puts one in.
type pointCache[P any] struct {
	locks [64]sync.Mutex
	slots [4096]struct { // 97 bytes and more each
		key   PubKey
		point P
		used  bool
	}
}

// place is where key may stand. Its last bytes decide: people choose the first.
func (c *pointCache[P]) place(key *PubKey) int {
	return int(binary.LittleEndian.Uint16(key[len(key)-2:])) % len(c.slots)
}

func (c *pointCache[P]) get(key *PubKey, p *P) (known bool) {
	i := c.place(key)
	lock := &c.locks[i%len(c.locks)]
	lock.Lock()
	defer lock.Unlock()
	s := &c.slots[i]
	if known = s.used && s.key == *key; known {
		*p = s.point
	}
	return known
}

func (c *pointCache[P]) put(key *PubKey, p *P) {
	i := c.place(key)
	lock := &c.locks[i%len(c.locks)]
	lock.Lock()
	defer lock.Unlock()
	s := &c.slots[i]
	s.key, s.point, s.used = *key, *p, true
}
