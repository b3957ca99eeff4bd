//go:build libsecp256k1 && cgo

package event

/*
#include <stddef.h>

// Prototypes of libsecp256k1 (secp256k1.h, secp256k1_extrakeys.h, secp256k1_schnorrsig.h), whose C source is
// compiled into go-nostr's own cgo object under the same build tag. Weak, because cgo links this file by itself
// once, without go-nostr, to find its dynamic symbols.
typedef struct { unsigned char data[64]; } xonly_pubkey;
extern const void *const secp256k1_context_static __attribute__((weak));
extern int secp256k1_xonly_pubkey_parse(const void *ctx, xonly_pubkey *key, const unsigned char *in32) __attribute__((weak));
extern int secp256k1_schnorrsig_verify(const void *ctx, const unsigned char *sig64, const unsigned char *msg, size_t msglen,
	const xonly_pubkey *key) __attribute__((weak));

// One crossing into C per signature. key is what was made of key32 before, or is made now. A missing symbol verifies nothing, so
// SelfTest fails.
static int verify_schnorr(xonly_pubkey *key, int known, const unsigned char *key32, const unsigned char *sig64, const unsigned char *msg32) {
	if (!&secp256k1_context_static || !secp256k1_xonly_pubkey_parse || !secp256k1_schnorrsig_verify) return 0;
	return (known || secp256k1_xonly_pubkey_parse(secp256k1_context_static, key, key32)) &&
		secp256k1_schnorrsig_verify(secp256k1_context_static, sig64, msg32, 32, key);
}

#cgo noescape verify_schnorr
#cgo nocallback verify_schnorr
*/
import "C"

import (
	"unsafe"

	_ "github.com/nbd-wtf/go-nostr" // brings libsecp256k1
)

const verifierName = FastVerifier

func verifySchnorr(key *PubKey, sig *[64]byte, message *[32]byte) bool {
	var p point
	known := points.get(key, &p)
	var made C.int
	if known {
		made = 1
	}
	if C.verify_schnorr((*C.xonly_pubkey)(unsafe.Pointer(&p)), made, (*C.uchar)(unsafe.Pointer(&key[0])), (*C.uchar)(unsafe.Pointer(&sig[0])),
		(*C.uchar)(unsafe.Pointer(&message[0]))) != 1 {
		return false
	}
	if !known {
		points.put(key, &p)
	}
	return true
}

// point is what libsecp256k1 makes of a key: its secp256k1_xonly_pubkey.
type point [64]byte

var points pointCache[point]
