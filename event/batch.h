// What batch.c checks at once, filled in by batch_c.go.

#include <stddef.h>
#include <stdint.h>

#define BATCH_MAX 64

enum { BATCH_UNDECIDED, BATCH_GENUINE, BATCH_FORGED };

struct batch_signature {
	unsigned char sig[64];
	unsigned char e[32];           // the challenge
	unsigned char a[16];           // two random numbers b and c, big-endian: the coefficient is b + c lambda
	int32_t key;                   // index of the author's
	int32_t verdict;
};

struct batch_key {
	unsigned char x[32];
	unsigned char point[64];       // as in secp256k1_xonly_pubkey; set if known, and by batch_verify if it is on the curve
	int32_t known;
};

struct batch {
	int32_t signatures, keys;
	struct batch_signature signature[BATCH_MAX];
	struct batch_key key[BATCH_MAX];
};

// batch_scratch is how many bytes batch_verify works in; 0: this build has no batches.
size_t batch_scratch(void);

// batch_verify sets the verdicts. A signature of which it cannot say that it is genuine stays undecided.
void batch_verify(struct batch *b, void *scratch);
