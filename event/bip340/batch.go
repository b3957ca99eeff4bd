package bip340

import (
	"crypto/rand"

	secp256k1 "gitlab.com/yawning/secp256k1-voi"
)

// Batch checks signatures together, by BIP-340's batch verification: each one's equation times a random number, added up into one.
// An author is one term of that sum, however many of the signatures are his. It is for one goroutine at a time.
type Batch struct {
	scalars []*secp256k1.Scalar
	points  []*secp256k1.Point
	of      map[[32]byte]*secp256k1.Scalar // by key: what its point is multiplied by
	g       secp256k1.Scalar               // what G is multiplied by
}

// Add takes a signature into the sum. It is false, and adds nothing, if no key has it over any message.
func (b *Batch) Add(k *Key, sig *[64]byte, message *[32]byte) bool {
	s, err := secp256k1.NewScalarFromCanonicalBytes((*[32]byte)(sig[32:]))
	if err != nil {
		return false
	}
	even := evenPoint(sig[:32])
	r, err := secp256k1.NewPointFromBytes(even[:])
	if err != nil {
		return false
	}
	// A genuine one adds nothing: a·R + a·e·P − a·s·G is the point at infinity. What forged ones add comes to that with a probability of
	// 2^-128, because nobody knows the 128 bits of each a before the signatures are there.
	var random [32]byte
	rand.Read(random[16:])
	a, _ := secp256k1.NewScalarFromBytes(&random)
	b.term(a, r)
	b.g.Subtract(&b.g, s.Multiply(s, a))
	challenge := k.challenge(sig, message)
	e, _ := secp256k1.NewScalarFromBytes(&challenge) // modulo the order
	e.Multiply(e, a)
	if sum, there := b.of[k.x]; there {
		sum.Add(sum, e)
		return true
	}
	if b.of == nil {
		b.of = make(map[[32]byte]*secp256k1.Scalar)
	}
	b.of[k.x] = e
	b.term(e, secp256k1.NewPointFrom(&k.point))
	return true
}

func (b *Batch) term(s *secp256k1.Scalar, p *secp256k1.Point) {
	b.scalars, b.points = append(b.scalars, s), append(b.points, p)
}

// Verify says whether all that was added is genuine, and empties the batch.
func (b *Batch) Verify() bool {
	b.term(&b.g, secp256k1.NewGeneratorPoint())
	var sum secp256k1.Point
	sum.MultiScalarMultVartime(b.scalars, b.points)
	clear(b.scalars)
	clear(b.points)
	clear(b.of)
	b.g.Zero()
	b.scalars, b.points = b.scalars[:0], b.points[:0]
	return sum.IsIdentity() == 1
}
