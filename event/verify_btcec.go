package event

import (
	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
)

// verifyBTCEC is the pure Go verifier, about four times slower than libsecp256k1.
func verifyBTCEC(key *PubKey, sig *[64]byte, message *[32]byte) bool {
	pub, err := schnorr.ParsePubKey(key[:])
	if err != nil {
		return false
	}
	// btcec reduces s modulo the group's order where BIP-340 refuses it.
	var s btcec.ModNScalar
	if s.SetByteSlice(sig[32:]) {
		return false
	}
	parsed, err := schnorr.ParseSignature(sig[:])
	return err == nil && parsed.Verify(message[:], pub)
}
