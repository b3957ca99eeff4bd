//go:build libsecp256k1 && cgo

package event

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
)

// coefficients are those that v would check sigs with.
func coefficients(v *cBatch, sigs []signature) (all [][16]byte) {
	v.verify(sigs, make([]verdict, len(sigs)))
	for i := range sigs {
		var a [16]byte
		for j, b := range v.batch.signature[i].a {
			a[j] = byte(b)
		}
		all = append(all, a)
	}
	return all
}

// Who could know a coefficient before, or keep it while he changes what it is for, could make forgeries whose errors cancel: all of them
// differ, and change with every part of every signature, with the number of signatures, and with the process's secret.
func TestCoefficientsAreBoundToTheBatch(t *testing.T) {
	v, ok := newBatchVerifier().(*cBatch)
	if !ok {
		t.Skip("no batches in this build")
	}
	const n = 5
	sigs := signatures(t, n, 2)
	if first := coefficients(v, sigs); !slices.Equal(first, coefficients(v, sigs)) {
		t.Fatal("coefficients that nothing was changed for differ: the rest of this test says nothing")
	}
	seen := make(map[[16]byte]string)
	note := func(what string, all [][16]byte) {
		t.Helper()
		for i, a := range all {
			if before, there := seen[a]; there {
				t.Errorf("%s: coefficient %d is one of %s", what, i, before)
			}
			seen[a] = what
		}
	}
	note("the batch", coefficients(v, sigs))
	note("one less", coefficients(v, sigs[:n-1]))
	note("the same one again and again", coefficients(v, slices.Repeat(sigs[:1], n)))
	for at := range n {
		for part, change := range []func(*signature){
			func(s *signature) { s.key[31] ^= 1 },
			func(s *signature) { s.message[31] ^= 1 },
			func(s *signature) { s.sig[31] ^= 1 },
			func(s *signature) { s.sig[63] ^= 1 },
		} {
			other := slices.Clone(sigs)
			change(&other[at])
			note(fmt.Sprintf("part %d of %d changed", part, at), coefficients(v, other))
		}
	}
	note("another secret", coefficients(newBatchVerifier().(*cBatch), sigs))
}

// What a batch remembers of a key is what the single check makes of it; forgeries make it remember nothing, whatever decides on them.
func TestBatchRemembersKeysOfGenuine(t *testing.T) {
	v := newBatchVerifier()
	if v == nil {
		t.Skip("no batches in this build")
	}
	var bad, good []signature
	for i := range 12 {
		s := withNonce(7000+i, 1+i%3, sha256.Sum256([]byte{byte(i)}), false)
		good = append(good, s)
		s = withNonce(8000+i, 1+i%3, s.message, false)
		spoilers[i%len(spoilers)].spoil(&s, i)
		bad = append(bad, s)
	}
	forget := func() {
		for i := range points.slots {
			points.slots[i].used = false
		}
	}
	forget()
	v.verify(slices.Concat(bad, good), make([]verdict, len(bad)+len(good)))
	for i := range bad {
		if points.get(&bad[i].key, new(point)) {
			t.Errorf("a key is known by a forgery (%s)", spoilers[i].name)
		}
	}
	forget()
	v.verify(good, make([]verdict, len(good)))
	together := make([]point, len(good))
	for i := range good {
		if !points.get(&good[i].key, &together[i]) {
			t.Errorf("the author of genuine signature %d is not known by its batch", i)
		}
	}
	forget()
	for i := range good {
		var alone point
		if !verifySchnorr(&good[i].key, &good[i].sig, &good[i].message) || !points.get(&good[i].key, &alone) {
			t.Fatal("a genuine one is refused")
		}
		if together[i] != alone {
			t.Errorf("key %x: %x by its batch, %x by the single check", good[i].key, together[i], alone)
		}
	}
}
