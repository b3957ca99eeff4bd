//go:build !libsecp256k1 || !cgo

package main

import (
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
)

// bareName says what bareVerify calls.
const bareName = "btcec's schnorr.Verify with the key parsed"

// bareVerify counts the genuine ones.
func bareVerify(list []proof) (good int) {
	for i := range list {
		p := &list[i]
		key, err := schnorr.ParsePubKey(p.Key[:])
		if err != nil {
			continue
		}
		sig, err := schnorr.ParseSignature(p.Sig[:])
		if err == nil && sig.Verify(p.ID[:], key) {
			good++
		}
	}
	return good
}
