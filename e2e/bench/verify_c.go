//go:build libsecp256k1 && cgo

package main

/*
#include <stddef.h>

// libsecp256k1 is compiled into go-nostr's cgo object; weak, because cgo links this file by itself once.
typedef struct { unsigned char data[64]; } xonly_pubkey;
extern const void *const secp256k1_context_static __attribute__((weak));
extern int secp256k1_xonly_pubkey_parse(const void *ctx, xonly_pubkey *key, const unsigned char *in32) __attribute__((weak));
extern int secp256k1_schnorrsig_verify(const void *ctx, const unsigned char *sig64, const unsigned char *msg, size_t msglen,
	const xonly_pubkey *key) __attribute__((weak));

// proofs are key, id and signature each. The number of genuine ones is returned.
static int bare_verify(const unsigned char *proofs, int n) {
	int good = 0;
	for (int i = 0; i < n; i++, proofs += 128) {
		xonly_pubkey key;
		good += secp256k1_xonly_pubkey_parse(secp256k1_context_static, &key, proofs) &&
			secp256k1_schnorrsig_verify(secp256k1_context_static, proofs + 64, proofs + 32, 32, &key);
	}
	return good;
}
*/
import "C"

import (
	"unsafe"

	_ "github.com/nbd-wtf/go-nostr" // brings libsecp256k1
)

// bareName says what bareVerify calls.
const bareName = "libsecp256k1's schnorrsig_verify with the key parsed"

// bareVerify counts the genuine ones, in C throughout.
func bareVerify(p []proof) int {
	if len(p) == 0 {
		return 0
	}
	return int(C.bare_verify((*C.uchar)(unsafe.Pointer(&p[0])), C.int(len(p))))
}
