//go:build libsecp256k1 && cgo

package event

/*
#include "batch.h"

#cgo noescape batch_verify
#cgo nocallback batch_verify
*/
import "C"

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	mathrand "math/rand/v2"
	"unsafe"
)

// leastTogether signatures cost less together than one by one, also when each has its own author.
const leastTogether = 3

// batches is false in a build that could not include libsecp256k1's source: see batch.c.
func batches() bool { return C.batch_scratch() > 0 }

func newBatchVerifier() batchVerifier {
	if !batches() {
		return nil
	}
	v := &cBatch{scratch: make([]uint64, (C.batch_scratch()+7)/8)}
	rand.Read(v.secret[:])
	return v
}

// cBatch crosses into C once per batch.
type cBatch struct {
	batch   C.struct_batch
	scratch []uint64
	secret  [32]byte // fresh for each process, so that nobody can look for signatures that fit the coefficients
	seed    [sha256.Size]byte
	random  mathrand.ChaCha8
}

// C's sizes are Go's.
var (
	_ [MaxBatch - C.BATCH_MAX]struct{}
	_ [C.BATCH_MAX - MaxBatch]struct{}
)

func (v *cBatch) least() int { return leastTogether }

func (v *cBatch) verify(sigs []signature, verdicts []verdict) {
	b := &v.batch
	b.signatures, b.keys = C.int32_t(len(sigs)), 0
	v.random.Seed(v.draw(sigs))
	for i := range sigs {
		s, c := &sigs[i], &b.signature[i]
		*(*[64]byte)(unsafe.Pointer(&c.sig)) = s.sig
		*(*[32]byte)(unsafe.Pointer(&c.e)) = challenge(s)
		a := (*[16]byte)(unsafe.Pointer(&c.a))
		binary.BigEndian.PutUint64(a[:], v.random.Uint64())
		binary.BigEndian.PutUint64(a[8:], v.random.Uint64())
		c.key = v.author(&s.key)
		c.verdict = C.BATCH_UNDECIDED
	}
	C.batch_verify(b, unsafe.Pointer(&v.scratch[0]))
	for i := range sigs {
		switch c := &b.signature[i]; c.verdict {
		case C.BATCH_GENUINE:
			verdicts[i] = genuine
			if k := &b.key[c.key]; k.known == 0 {
				k.known = 1
				points.put(&sigs[i].key, (*point)(unsafe.Pointer(&k.point)))
			}
		case C.BATCH_FORGED:
			verdicts[i] = forged
		}
	}
}

// draw makes the seed of the coefficients of everything that is checked with them and of the secret: they differ for any other
// batch, and nobody can know them before.
func (v *cBatch) draw(sigs []signature) [sha256.Size]byte {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)
	h.Reset()
	h.Write(v.secret[:])
	h.Write(unsafe.Slice((*byte)(unsafe.Pointer(&sigs[0])), len(sigs)*int(unsafe.Sizeof(sigs[0]))))
	h.Sum(h.sum[:0])
	return h.sum
}

// author is the index of key among the batch's, where it is put when it is new.
func (v *cBatch) author(key *PubKey) C.int32_t {
	b := &v.batch
	for i := b.keys - 1; i >= 0; i-- {
		if *(*PubKey)(unsafe.Pointer(&b.key[i].x)) == *key {
			return i
		}
	}
	k := &b.key[b.keys]
	*(*PubKey)(unsafe.Pointer(&k.x)) = *key
	k.known = 0
	if points.get(key, (*point)(unsafe.Pointer(&k.point))) {
		k.known = 1
	}
	b.keys++
	return b.keys - 1
}

// challengeTag is BIP-340's, twice the hash of its name.
var challengeTag = func() []byte {
	h := sha256.Sum256([]byte("BIP0340/challenge"))
	return bytes.Repeat(h[:], 2)
}()

// challenge is e of BIP-340's verification, before it is taken modulo the group's order. Go's SHA-256 uses the processor's
// instructions where there are some, libsecp256k1's does not.
func challenge(s *signature) [sha256.Size]byte {
	var b [160]byte
	copy(b[:], challengeTag)
	copy(b[64:], s.sig[:32])
	copy(b[96:], s.key[:])
	copy(b[128:], s.message[:])
	return sha256.Sum256(b[:])
}
