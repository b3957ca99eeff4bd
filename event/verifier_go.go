//go:build !libsecp256k1 || !cgo

package event

import "rebroadcastr/event/bip340"

const verifierName = "secp256k1-voi (pure Go)"

func verifySchnorr(key *PubKey, sig *[64]byte, message *[32]byte) bool {
	k, known, ok := lifted(key)
	if !ok {
		return false
	}
	genuine := k.Verify(sig, message)
	if genuine && !known {
		points.put(key, &k)
	}
	return genuine
}

var points pointCache[bip340.Key]

// lifted is the key as it verifies; known says that it is from memory.
func lifted(key *PubKey) (k bip340.Key, known, ok bool) {
	if points.get(key, &k) {
		return k, true, true
	}
	k, ok = bip340.Lift((*[32]byte)(key))
	return k, false, ok
}

func batches() bool { return true }

func newBatchVerifier() batchVerifier { return &goBatch{} }

// goBatch decides all of a batch or, where one is forged that could have been genuine, only those that could not.
type goBatch struct {
	equation bip340.Batch
	keys     [MaxBatch]bip340.Key
}

// least is where signatures cost less together than one by one, also when each has its own author.
func (*goBatch) least() int { return 4 }

func (v *goBatch) verify(sigs []signature, verdicts []verdict) {
	for i := range sigs {
		s := &sigs[i]
		var ok bool
		if v.keys[i], _, ok = lifted(&s.key); !ok || !v.equation.Add(&v.keys[i], &s.sig, &s.message) {
			verdicts[i] = forged
		}
	}
	if !v.equation.Verify() {
		return
	}
	for i := range sigs {
		if verdicts[i] == undecided {
			verdicts[i] = genuine
			points.put(&sigs[i].key, &v.keys[i])
		}
	}
}
