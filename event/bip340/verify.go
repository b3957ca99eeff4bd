// Package bip340 verifies signatures of BIP-340 in pure Go, for builds without a C compiler.
//
// The group is that of secp256k1-voi: its field arithmetic is generated and proven by fiat-crypto, its addition has no exceptions, and
// it makes no point off the curve. What follows BIP-340 stands here. It is a package of its own because secp256k1-voi makes
// its tables when a program starts (13 ms, 0.6 MB), and a program that has libsecp256k1 needs none.
package bip340

import (
	"bytes"
	"crypto/sha256"

	secp256k1 "gitlab.com/yawning/secp256k1-voi"
)

// Key is a public key as it verifies: the point of even y behind its x, which takes a square root.
type Key struct {
	x     [32]byte
	point secp256k1.Point
}

// Lift makes a key of its 32 bytes. It is false if no point of the curve has this x.
func Lift(x *[32]byte) (k Key, ok bool) {
	even := evenPoint(x[:])
	_, err := k.point.SetCompressedBytes(even[:])
	k.x = *x
	return k, err == nil
}

// Verify says whether sig is the key's signature over message.
func (k *Key) Verify(sig *[64]byte, message *[32]byte) bool {
	var s, e secp256k1.Scalar
	if _, err := s.SetCanonicalBytes((*[32]byte)(sig[32:])); err != nil { // not below the group's order
		return false
	}
	challenge := k.challenge(sig, message)
	e.SetBytes(&challenge) // modulo the order
	var r secp256k1.Point
	r.DoubleScalarMultBasepointVartime(&s, e.Negate(&e), &k.point)
	// The point at infinity is written in another way, and no point's x is the field's order or above.
	even := evenPoint(sig[:32])
	return bytes.Equal(r.CompressedBytes(), even[:])
}

// evenPoint is the compressed form of the point with this x and an even y.
func evenPoint(x []byte) (compressed [secp256k1.CompressedPointSize]byte) {
	compressed[0] = 2
	copy(compressed[1:], x)
	return compressed
}

// tag stands before what is hashed to a challenge: the hash of the tag's name, twice.
var tag = func() (b [2 * sha256.Size]byte) {
	name := sha256.Sum256([]byte("BIP0340/challenge"))
	copy(b[copy(b[:], name[:]):], name[:])
	return b
}()

func (k *Key) challenge(sig *[64]byte, message *[32]byte) [32]byte {
	var b [len(tag) + 3*32]byte
	n := copy(b[:], tag[:])
	n += copy(b[n:], sig[:32])
	n += copy(b[n:], k.x[:])
	copy(b[n:], message[:])
	return sha256.Sum256(b[:])
}
