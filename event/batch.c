//go:build libsecp256k1 && cgo

// BIP-340's batch verification on libsecp256k1's field and group, whose functions are static: its source, which go-nostr
// brings, is included where the include path holds go-nostr's folder (the Makefile sees to that). Without it there are no batches.
//
// All signatures of a batch are genuine if sum(a s) G - sum(a R) - sum(a e P) = 0 for coefficients a that nobody could know
// before; with 2^128 of them to choose from, one that is not genuine passes once in 2^128 times. Taking b + c lambda for a, with
// b and c of 64 bits, loses none of that (no two of them are equal: lambda's lattice has no vector that short), and b and c
// are at once the halves that the curve's endomorphism wants: a R = b R + c (beta x, y).
//
// The sum is taken bit by bit: each half, in a signed form with few digits (wNAF), says which small odd multiple of its point is
// added at which bit. What is to be added at one bit is summed up in affine coordinates, two and two, with one inversion for
// all pairs of all bits (Montgomery's trick): 6 multiplications for an addition instead of 11.

#include "batch.h"

#if defined(__has_include)
#if __has_include("libsecp256k1/src/ecmult_impl.h")
#define HAVE_LIBSECP256K1
#endif
#endif

#ifndef HAVE_LIBSECP256K1

size_t batch_scratch(void) { return 0; }
void batch_verify(struct batch *b, void *scratch) { (void)b; (void)scratch; }

#else

#define SECP256K1_BUILD
#ifndef ECMULT_WINDOW_SIZE
#define ECMULT_WINDOW_SIZE 15 // go-nostr's; SelfTest fails with another
#endif
#include "libsecp256k1/src/assumptions.h"
#include "libsecp256k1/src/util.h"
#include "libsecp256k1/src/field_impl.h"
#include "libsecp256k1/src/scalar_impl.h"
#include "libsecp256k1/src/group_impl.h"
#include "libsecp256k1/src/int128_impl.h"
#include "libsecp256k1/src/scratch_impl.h"
#include "libsecp256k1/src/ecmult_impl.h"

// The tables of G's multiples are in go-nostr's object. Weak, because cgo links this file once without it.
extern const secp256k1_ge_storage secp256k1_pre_g[ECMULT_TABLE_SIZE(WINDOW_G)] __attribute__((weak));
extern const secp256k1_ge_storage secp256k1_pre_g_128[ECMULT_TABLE_SIZE(WINDOW_G)] __attribute__((weak));

typedef secp256k1_fe fe;

// An affine point that is not infinity. Both coordinates have magnitude 1.
typedef struct { fe x, y; } point;

enum {
	WINDOW = 4,                                 // 4 bits a digit: 1, 3, 5, 7 and their negatives
	ODD = 1 << (WINDOW - 2),
	BITS = 129,
	LISTS = 2 * BITS,                           // what is added at each bit, as it is and by lambda
	POINTS = 2 * BATCH_MAX,                     // each R, each key
	G_DIGITS = 2 * (BITS / WINDOW_G + 1),
	R_DIGITS = 2 * (65 / WINDOW + 1),
	KEY_DIGITS = 2 * (BITS / WINDOW + 1),
	DIGITS = BATCH_MAX * (R_DIGITS + KEY_DIGITS) + G_DIGITS,
	SUMS = DIGITS / 2 + LISTS,
	INVERSES = SUMS > POINTS ? SUMS : POINTS,
	LANES = 2,                                  // products that are made side by side: a multiplication waits for the one before
	FEW_PAIRS = 32,                             // of which an inversion costs more than it saves
	FEW_SIGNATURES = 4,                         // that are cheaper to check singly than to halve
	FAILURES = 4                                // after which halving is given up; one forged signature among 64 is found with these
};

typedef struct {
	secp256k1_scalar as, ae;                    // by coefficient
	uint64_t b, c;
} term;

typedef struct {
	point odd[POINTS + G_DIGITS][ODD];          // R's, keys' and, one each, G's multiples
	term terms[BATCH_MAX];
	secp256k1_scalar sums[BATCH_MAX];           // by key
	uint16_t digit_list[DIGITS];
	uint32_t digit[DIGITS], sorted[DIGITS];     // index of the multiple * 2, 1 more if it is negated
	int digits;
	int count[LISTS], from[LISTS];
	point sum[SUMS];
	fe den[INVERSES], inverse[INVERSES];
	unsigned char kind[INVERSES];
	fe lift_x[POINTS];
	int lift_of[POINTS];
	unsigned char on_curve[POINTS];
} work;

size_t batch_scratch(void) { return sizeof(work); }

// invert puts the inverses of n elements of den, none of them 0, into inverse.
static void invert(fe *inverse, const fe *den, int n) {
	fe product[LANES], left, u[LANES];
	int i, l;
	for (l = 0; l < LANES; l++) secp256k1_fe_set_int(&product[l], 1);
	for (i = 0; i < n; i++) {
		inverse[i] = product[i % LANES];
		secp256k1_fe_mul(&product[i % LANES], &product[i % LANES], &den[i]);
	}
	u[0] = product[0];
	for (l = 1; l < LANES; l++) secp256k1_fe_mul(&u[l], &u[l - 1], &product[l]);
	secp256k1_fe_inv_var(&left, &u[LANES - 1]);
	for (l = LANES - 1; l > 0; l--) {
		secp256k1_fe_mul(&u[l], &left, &u[l - 1]);
		secp256k1_fe_mul(&left, &left, &product[l]);
	}
	u[0] = left;
	for (i = n - 1; i >= 0; i--) {
		secp256k1_fe_mul(&inverse[i], &inverse[i], &u[i % LANES]);
		secp256k1_fe_mul(&u[i % LANES], &u[i % LANES], &den[i]);
	}
}

enum { ADD, DOUBLE, NOTHING };

// prepare_add says what kind of an addition p + q is and sets what it divides by.
static int prepare_add(fe *den, const point *p, const point *q) {
	fe t;
	secp256k1_fe_negate(den, &p->x, 1);
	secp256k1_fe_add(den, &q->x);
	if (!secp256k1_fe_normalizes_to_zero_var(den)) return ADD;
	secp256k1_fe_negate(&t, &p->y, 1);
	secp256k1_fe_add(&t, &q->y);
	if (secp256k1_fe_normalizes_to_zero_var(&t)) {
		*den = p->y;
		secp256k1_fe_add(den, &p->y);
		return DOUBLE; // there is no point of order 2, so this is not 0
	}
	secp256k1_fe_set_int(den, 1);
	return NOTHING;
}

// finish_add sets r = p + q, by the slope's divisor's inverse. r may be p or q.
static void finish_add(point *r, const point *p, const point *q, int kind, const fe *inverse) {
	fe slope, x, y, t;
	if (kind == DOUBLE) {
		secp256k1_fe_sqr(&slope, &p->x);
		secp256k1_fe_mul_int(&slope, 3);
	} else {
		secp256k1_fe_negate(&slope, &p->y, 1);
		secp256k1_fe_add(&slope, &q->y);
	}
	secp256k1_fe_mul(&slope, &slope, inverse);
	secp256k1_fe_sqr(&x, &slope);
	secp256k1_fe_negate(&t, &p->x, 1);
	secp256k1_fe_add(&x, &t);
	secp256k1_fe_negate(&y, &q->x, 1);
	secp256k1_fe_add(&x, &y);
	secp256k1_fe_normalize_weak(&x);
	secp256k1_fe_negate(&y, &x, 1);
	secp256k1_fe_add(&y, &p->x);
	secp256k1_fe_mul(&y, &y, &slope);
	secp256k1_fe_negate(&t, &p->y, 1);
	secp256k1_fe_add(&y, &t);
	secp256k1_fe_normalize_weak(&y);
	r->x = x;
	r->y = y;
}

// square squares each of n elements of r times times.
static void square(fe *r, int n, int times) {
	int i;
	for (; times > 0; times--) {
		for (i = 0; i < n; i++) secp256k1_fe_sqr(&r[i], &r[i]);
	}
}

static void multiply(fe *r, const fe *a, int n) {
	int i;
	for (i = 0; i < n; i++) secp256k1_fe_mul(&r[i], &r[i], &a[i]);
}

// roots sets r to the elements of a, LANES of them, to the power (p+1)/4, which is the square root of those that have one. The
// exponent is 223 ones, a zero, 22 ones, four zeros, two ones, two zeros. LANES at once, because a squaring waits for the one before.
static void roots(fe *r, const fe *a) {
	fe x2[LANES], x3[LANES], x22[LANES], x44[LANES], t[LANES];
	const size_t size = sizeof t;
#define COPY(to, of) memcpy(to, of, size)
	COPY(x2, a);   square(x2, LANES, 1);   multiply(x2, a, LANES);
	COPY(x3, x2);  square(x3, LANES, 1);   multiply(x3, a, LANES);
	COPY(t, x3);   square(t, LANES, 3);    multiply(t, x3, LANES);   // 6 ones
	square(t, LANES, 3);                   multiply(t, x3, LANES);   // 9
	square(t, LANES, 2);                   multiply(t, x2, LANES);   // 11
	COPY(x22, t);  square(x22, LANES, 11); multiply(x22, t, LANES);
	COPY(x44, x22); square(x44, LANES, 22); multiply(x44, x22, LANES);
	COPY(t, x44);  square(t, LANES, 44);   multiply(t, x44, LANES);  // 88
	COPY(r, t);    square(r, LANES, 88);   multiply(r, t, LANES);    // 176
	square(r, LANES, 44);                  multiply(r, x44, LANES);  // 220
	square(r, LANES, 3);                   multiply(r, x3, LANES);   // 223
	square(r, LANES, 23);                  multiply(r, x22, LANES);
	square(r, LANES, 6);                   multiply(r, x2, LANES);
	square(r, LANES, 2);
#undef COPY
}

// lift makes points of even y of the first n of lift_x (BIP-340's lift_x), each into where lift_of says.
static void lift(work *w, int n) {
	int from, i;
	for (from = 0; from < n; from += LANES) {
		fe right[LANES], y[LANES], t;
		for (i = 0; i < LANES; i++) {
			const fe *x = &w->lift_x[from + i < n ? from + i : from];
			secp256k1_fe_sqr(&right[i], x);
			secp256k1_fe_mul(&right[i], &right[i], x);
			secp256k1_fe_add_int(&right[i], SECP256K1_B);
		}
		roots(y, right);
		for (i = 0; i < LANES && from + i < n; i++) {
			int at = w->lift_of[from + i];
			point *p = &w->odd[at][0];
			secp256k1_fe_sqr(&t, &y[i]);
			secp256k1_fe_negate(&t, &t, 1);
			secp256k1_fe_add(&t, &right[i]);
			w->on_curve[at] = secp256k1_fe_normalizes_to_zero_var(&t);
			secp256k1_fe_normalize_var(&y[i]);
			if (secp256k1_fe_is_odd(&y[i])) {
				secp256k1_fe_negate(&y[i], &y[i], 1);
				secp256k1_fe_normalize_weak(&y[i]);
			}
			p->x = w->lift_x[from + i];
			p->y = y[i];
		}
	}
}

// odd_multiples fills in 3, 5, 7 times each point that is on the curve. No two of p, 2p, 3p, 5p have the same x.
static void odd_multiples(work *w, int points) {
	int at[POINTS], n = 0, i, k;
	point twice[POINTS];
	for (i = 0; i < points; i++) {
		if (w->on_curve[i]) at[n++] = i;
	}
	for (i = 0; i < n; i++) prepare_add(&w->den[i], &w->odd[at[i]][0], &w->odd[at[i]][0]);
	invert(w->inverse, w->den, n);
	for (i = 0; i < n; i++) finish_add(&twice[i], &w->odd[at[i]][0], &w->odd[at[i]][0], DOUBLE, &w->inverse[i]);
	for (k = 1; k < ODD; k++) {
		for (i = 0; i < n; i++) prepare_add(&w->den[i], &w->odd[at[i]][k - 1], &twice[i]);
		invert(w->inverse, w->den, n);
		for (i = 0; i < n; i++) finish_add(&w->odd[at[i]][k], &w->odd[at[i]][k - 1], &twice[i], ADD, &w->inverse[i]);
	}
}

// digit notes that a multiple is added at a bit.
static void digit(work *w, int list, int multiple, int negated) {
	w->digit_list[w->digits] = list;
	w->digit[w->digits++] = 2 * multiple + negated;
	w->count[list]++;
}

// half notes the digits of hi 2^64 + lo, which is below 2^128 - 8, times a point.
static void half(work *w, int lambda, int at, uint64_t lo, uint64_t hi, int negated) {
	int bit = lambda * BITS;
	while (lo | hi) {
		int low, zeros;
		if (!lo) {
			lo = hi;
			hi = 0;
			bit += 64;
		}
		zeros = secp256k1_ctz64_var(lo);
		if (zeros) {
			lo = lo >> zeros | hi << (64 - zeros);
			hi >>= zeros;
			bit += zeros;
		}
		low = lo & (2 * (1 << (WINDOW - 1)) - 1);
		lo -= low;
		if (low >= 1 << (WINDOW - 1)) {
			low -= 1 << WINDOW;
			lo += 1 << WINDOW;
			hi += lo < 1 << WINDOW;
		}
		digit(w, bit, at * ODD + ((low < 0 ? -low : low) >> 1), negated ^ (low < 0));
	}
}

// whole notes the digits of k times a point.
static void whole(work *w, int at, const secp256k1_scalar *k) {
	secp256k1_scalar part[2];
	int i;
	secp256k1_scalar_split_lambda(&part[0], &part[1], k);
	for (i = 0; i < 2; i++) {
		int negated = secp256k1_scalar_is_high(&part[i]);
		uint64_t word[4];
		int j;
		if (negated) secp256k1_scalar_negate(&part[i], &part[i]);
		for (j = 0; j < 4; j++) word[j] = secp256k1_scalar_get_bits_limb32(&part[i], 32 * j, 32);
		half(w, i, at, word[0] | word[1] << 32, word[2] | word[3] << 32, negated);
	}
}

// generator notes the digits of k G, each with a multiple of its own from the tables.
static void generator(work *w, const secp256k1_scalar *k) {
	secp256k1_scalar part[2];
	int i, bit, wnaf[BITS], at = POINTS;
	secp256k1_scalar_split_128(&part[0], &part[1], k);
	for (i = 0; i < 2; i++) {
		int bits = secp256k1_ecmult_wnaf(wnaf, BITS, &part[i], WINDOW_G);
		for (bit = 0; bit < bits; bit++) {
			if (wnaf[bit]) {
				secp256k1_ge g;
				secp256k1_ecmult_table_get_ge_storage(&g, i ? secp256k1_pre_g_128 : secp256k1_pre_g, wnaf[bit], WINDOW_G);
				secp256k1_fe_normalize_weak(&g.y);
				w->odd[at][0].x = g.x;
				w->odd[at][0].y = g.y;
				digit(w, bit, at * ODD, 0);
				at++;
			}
		}
	}
}

// sort brings the digits of each list together.
static void sort(work *w) {
	int next[LISTS], i, at = 0;
	for (i = 0; i < LISTS; i++) {
		w->from[i] = next[i] = at;
		at += w->count[i];
	}
	for (i = 0; i < w->digits; i++) w->sorted[next[w->digit_list[i]]++] = w->digit[i];
}

// multiple is what a digit says.
static void multiple(work *w, point *p, uint32_t digit) {
	*p = (&w->odd[0][0])[digit / 2];
	if (digit & 1) {
		secp256k1_fe_negate(&p->y, &p->y, 1);
		secp256k1_fe_normalize_weak(&p->y);
	}
}

// add_pairs adds two and two of each list, first from the digits, then from the sums before. It tells how many pairs are left.
static int add_pairs(work *w, int first) {
	point p, q;
	int list, i, n = 0, to = 0, left = 0;
	for (list = 0; list < LISTS; list++) {
		for (i = 0; i + 1 < w->count[list]; i += 2, n++) {
			int at = w->from[list] + i;
			if (first) {
				multiple(w, &p, w->sorted[at]);
				multiple(w, &q, w->sorted[at + 1]);
				w->kind[n] = prepare_add(&w->den[n], &p, &q);
			} else {
				w->kind[n] = prepare_add(&w->den[n], &w->sum[at], &w->sum[at + 1]);
			}
		}
	}
	invert(w->inverse, w->den, n);
	n = 0;
	for (list = 0; list < LISTS; list++) { // a list's sums stand before what they are made of
		int begin = to;
		for (i = 0; i < w->count[list]; i += 2) {
			int at = w->from[list] + i, alone = i + 1 == w->count[list];
			if (first) {
				multiple(w, &p, w->sorted[at]);
				if (!alone) multiple(w, &q, w->sorted[at + 1]);
			} else {
				p = w->sum[at];
				if (!alone) q = w->sum[at + 1];
			}
			if (alone) {
				w->sum[to++] = p;
			} else {
				if (w->kind[n] != NOTHING) finish_add(&w->sum[to++], &p, &q, w->kind[n], &w->inverse[n]);
				n++;
			}
		}
		w->from[list] = begin;
		w->count[list] = to - begin;
		left += w->count[list] / 2;
	}
	return left;
}

// total adds the lists, each at its bit, and tells whether the result is infinity.
static int total(work *w) {
	secp256k1_gej r;
	secp256k1_ge p;
	int bit, lambda, i;
	secp256k1_gej_set_infinity(&r);
	for (bit = BITS - 1; bit >= 0; bit--) {
		secp256k1_gej_double_var(&r, &r, NULL);
		for (lambda = 0; lambda < 2; lambda++) {
			int list = lambda * BITS + bit;
			for (i = 0; i < w->count[list]; i++) {
				const point *s = &w->sum[w->from[list] + i];
				secp256k1_ge_set_xy(&p, &s->x, &s->y);
				if (lambda) secp256k1_fe_mul(&p.x, &p.x, &secp256k1_const_beta);
				secp256k1_gej_add_ge_var(&r, &r, &p, NULL);
			}
		}
	}
	return r.infinity;
}

// holds tells whether the equation holds for the undecided ones of [from,to).
static int holds(const struct batch *b, work *w, int from, int to) {
	secp256k1_scalar g;
	int i, first = 1;
	w->digits = 0;
	memset(w->count, 0, sizeof w->count);
	g = secp256k1_scalar_zero;
	for (i = 0; i < b->keys; i++) w->sums[i] = secp256k1_scalar_zero;
	for (i = from; i < to; i++) {
		const struct batch_signature *s = &b->signature[i];
		if (s->verdict != BATCH_UNDECIDED) continue;
		secp256k1_scalar_add(&g, &g, &w->terms[i].as);
		secp256k1_scalar_add(&w->sums[s->key], &w->sums[s->key], &w->terms[i].ae);
		half(w, 0, i, w->terms[i].b, 0, 1);
		half(w, 1, i, w->terms[i].c, 0, 1);
	}
	for (i = 0; i < b->keys; i++) {
		if (secp256k1_scalar_is_zero(&w->sums[i])) continue;
		secp256k1_scalar_negate(&w->sums[i], &w->sums[i]);
		whole(w, BATCH_MAX + i, &w->sums[i]);
	}
	generator(w, &g);
	sort(w);
	do {
		i = add_pairs(w, first);
		first = 0;
	} while (i >= FEW_PAIRS);
	return total(w);
}

// genuine gives the undecided ones of [from,to) their verdict.
static void genuine(struct batch *b, int from, int to) {
	for (; from < to; from++) {
		if (b->signature[from].verdict == BATCH_UNDECIDED) b->signature[from].verdict = BATCH_GENUINE;
	}
}

// halve looks for those that spoil [from,to), of which the equation does not hold, as long as that finds genuine ones.
static void halve(struct batch *b, work *w, int from, int to, int *failures) {
	int middle = from + (to - from) / 2;
	if (to - from <= FEW_SIGNATURES) return;
	if (holds(b, w, from, middle)) {
		genuine(b, from, middle);
		halve(b, w, middle, to, failures);
		return;
	}
	if (++*failures > FAILURES) return;
	halve(b, w, from, middle, failures);
	if (*failures > FAILURES) return;
	if (holds(b, w, middle, to)) {
		genuine(b, middle, to);
	} else if (++*failures <= FAILURES) {
		halve(b, w, middle, to, failures);
	}
}

// read takes the numbers of one signature and tells whether they are in their ranges.
static int read(struct batch_signature *s, term *t, fe *rx) {
	secp256k1_scalar a, c;
	unsigned char b32[32] = {0};
	int i, overflow;
	if (!secp256k1_fe_set_b32_limit(rx, s->sig)) return 0;
	secp256k1_scalar_set_b32(&t->as, s->sig + 32, &overflow);
	if (overflow) return 0;
	t->b = t->c = 0;
	for (i = 0; i < 8; i++) {
		t->b = t->b << 8 | s->a[i];
		t->c = t->c << 8 | s->a[8 + i];
	}
	memcpy(b32 + 24, s->a, 8);
	secp256k1_scalar_set_b32(&a, b32, NULL);
	memcpy(b32 + 24, s->a + 8, 8);
	secp256k1_scalar_set_b32(&c, b32, NULL);
	secp256k1_scalar_mul(&c, &c, &secp256k1_const_lambda);
	secp256k1_scalar_add(&a, &a, &c);
	secp256k1_scalar_set_b32(&t->ae, s->e, NULL);
	secp256k1_scalar_mul(&t->ae, &t->ae, &a);
	secp256k1_scalar_mul(&t->as, &t->as, &a);
	return 1;
}

void batch_verify(struct batch *b, void *scratch) {
	work *w = scratch;
	int i, n = 0, failures = 0;
	if (!&secp256k1_pre_g || !&secp256k1_pre_g_128) return;
	memset(w->on_curve, 0, sizeof w->on_curve);
	for (i = 0; i < b->signatures; i++) {
		if (!read(&b->signature[i], &w->terms[i], &w->lift_x[n])) {
			b->signature[i].verdict = BATCH_FORGED;
		} else {
			w->lift_of[n++] = i;
		}
	}
	for (i = 0; i < b->keys; i++) {
		struct batch_key *k = &b->key[i];
		if (k->known) {
			secp256k1_ge p;
			secp256k1_ge_from_bytes(&p, k->point);
			w->odd[BATCH_MAX + i][0].x = p.x;
			w->odd[BATCH_MAX + i][0].y = p.y;
			w->on_curve[BATCH_MAX + i] = 1;
		} else if (secp256k1_fe_set_b32_limit(&w->lift_x[n], k->x)) {
			w->lift_of[n++] = BATCH_MAX + i;
		}
	}
	lift(w, n);
	for (i = 0; i < b->signatures; i++) {
		if (!w->on_curve[i] || !w->on_curve[BATCH_MAX + b->signature[i].key]) b->signature[i].verdict = BATCH_FORGED;
	}
	for (i = 0; i < b->keys; i++) {
		if (w->on_curve[BATCH_MAX + i] && !b->key[i].known) {
			secp256k1_ge p;
			secp256k1_ge_set_xy(&p, &w->odd[BATCH_MAX + i][0].x, &w->odd[BATCH_MAX + i][0].y);
			secp256k1_ge_to_bytes(b->key[i].point, &p);
		}
	}
	odd_multiples(w, POINTS);
	if (holds(b, w, 0, b->signatures)) {
		genuine(b, 0, b->signatures);
	} else {
		halve(b, w, 0, b->signatures, &failures);
	}
}

#endif
