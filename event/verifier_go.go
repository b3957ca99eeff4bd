//go:build !libsecp256k1 || !cgo

package event

const verifierName = "btcec (pure Go)"

func verifySchnorr(key *PubKey, sig *[64]byte, message *[32]byte) bool {
	return verifyBTCEC(key, sig, message)
}
