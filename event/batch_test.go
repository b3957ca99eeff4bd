package event

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/nbd-wtf/go-nostr"
)

// secretOf is an author's private key. The first ones are as small as can be, so that their points and those of small nonces meet.
func secretOf(author int) *btcec.PrivateKey {
	secret := sha256.Sum256(fmt.Append(nil, "author ", author))
	if author < 3 {
		secret = [32]byte{31: byte(author + 1)}
	}
	key, _ := btcec.PrivKeyFromBytes(secret[:])
	return key
}

// signatures makes n genuine ones by some authors. go-nostr signs, in C where the verifier is in C: pure Go takes 30 ms under -race.
func signatures(t testing.TB, n, authors int) []signature {
	t.Helper()
	sigs := make([]signature, n)
	for i := range sigs {
		secret := secretOf(10 + i%authors).Serialize()
		e := nostr.Event{Kind: 1, CreatedAt: nostr.Timestamp(i), Content: "message"}
		if err := e.Sign(hex.EncodeToString(secret)); err != nil {
			t.Fatal(err)
		}
		s := &sigs[i]
		if !decodeHex(s.key[:], e.PubKey) || !decodeHex(s.message[:], e.ID) || !decodeHex(s.sig[:], e.Sig) {
			t.Fatalf("go-nostr signs in another form: %v", e)
		}
	}
	return sigs
}

// withNonce signs with a nonce of 1 to 3, so that R is a multiple of G that stands elsewhere too; wrong takes the root of odd y for R
// where BIP-340 wants the other one.
func withNonce(author, nonce int, message [32]byte, wrong bool) (s signature) {
	d, k := secretOf(author).Key, new(btcec.ModNScalar).SetInt(uint32(nonce))
	var p, r btcec.JacobianPoint
	btcec.ScalarBaseMultNonConst(&d, &p)
	p.ToAffine()
	if p.Y.IsOdd() {
		d.Negate()
	}
	btcec.ScalarBaseMultNonConst(k, &r)
	r.ToAffine()
	if r.Y.IsOdd() != wrong {
		k.Negate()
	}
	s.message = message
	s.key = *p.X.Bytes()
	copy(s.sig[:], r.X.Bytes()[:])
	tag := sha256.Sum256([]byte("BIP0340/challenge"))
	e := sha256.Sum256(slices.Concat(tag[:], tag[:], s.sig[:32], s.key[:], message[:]))
	var es btcec.ModNScalar
	es.SetBytes(&e)
	last := es.Mul(&d).Add(k).Bytes()
	copy(s.sig[32:], last[:])
	return s
}

// order is the group's, field the size of the field.
var order, field [32]byte

func init() {
	decodeHex(order[:], "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141")
	decodeHex(field[:], "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f")
}

// spoilers change a signature so that it is not genuine any more.
var spoilers = []struct {
	name  string
	spoil func(s *signature, at int)
}{
	{"bit of R", func(s *signature, at int) { s.sig[at%32] ^= 1 << (at % 8) }},
	{"bit of s", func(s *signature, at int) { s.sig[32+at%32] ^= 1 << (at % 8) }},
	{"bit of the key", func(s *signature, at int) { s.key[at%32] ^= 1 << (at % 8) }},
	{"bit of the message", func(s *signature, at int) { s.message[at%32] ^= 1 << (at % 8) }},
	{"R of 0", func(s *signature, _ int) { clear(s.sig[:32]) }},
	{"R not below the field's size", func(s *signature, _ int) { copy(s.sig[:], field[:]) }},
	{"R of ones", func(s *signature, _ int) { copy(s.sig[:], slices.Repeat([]byte{255}, 32)) }},
	{"s of 0", func(s *signature, _ int) { clear(s.sig[32:]) }},
	{"s not below the order", func(s *signature, _ int) { copy(s.sig[32:], order[:]) }},
	{"s of ones", func(s *signature, _ int) { copy(s.sig[32:], slices.Repeat([]byte{255}, 32)) }},
	{"key of 0", func(s *signature, _ int) { clear(s.key[:]) }},
	{"key not below the field's size", func(s *signature, _ int) { s.key = field }},
	{"R of odd y", func(s *signature, at int) { *s = withNonce(at%13, 1+at%3, s.message, true) }},
	{"negated", func(s *signature, _ int) {
		var n btcec.ModNScalar
		n.SetByteSlice(s.sig[32:])
		b := n.Negate().Bytes()
		copy(s.sig[32:], b[:])
	}},
}

// shift adds delta to s.
func shift(s *signature, delta uint32, negated bool) {
	var n, d btcec.ModNScalar
	n.SetByteSlice(s.sig[32:])
	d.SetInt(delta)
	if negated {
		d.Negate()
	}
	b := n.Add(&d).Bytes()
	copy(s.sig[32:], b[:])
}

// agree fails unless b says of each signature what the single check says; it returns how many are genuine.
func agree(t testing.TB, b *Batch, sigs []signature) (genuine int) {
	t.Helper()
	b.n = copy(b.sigs[:], sigs)
	for i, got := range b.Verify() {
		want := verifySchnorr(&sigs[i].key, &sigs[i].sig, &sigs[i].message)
		if got != want {
			t.Fatalf("%d of %d: %t in a batch, %t alone: key %x message %x signature %x", i, len(sigs), got, want, sigs[i].key, sigs[i].message, sigs[i].sig)
		}
		if want {
			genuine++
		}
	}
	return genuine
}

// decided fails unless all of sigs were found genuine together, by one equation.
func decided(t testing.TB, b *Batch, sigs []signature) {
	t.Helper()
	if b.together == nil {
		return
	}
	verdicts := make([]verdict, len(sigs))
	b.together.verify(sigs, verdicts)
	for i, v := range verdicts {
		if v != genuine {
			t.Fatalf("%d of %d is genuine, but not together with the others", i, len(sigs))
		}
	}
}

// trusting is a Batch that checks together whatever it has seen.
func trusting(b *Batch) *Batch {
	b.alone, b.backoff = 0, 0
	return b
}

func TestBatchOfGenuine(t *testing.T) {
	b := NewBatch()
	for n := 1; n <= MaxBatch; n += 1 + n/4 {
		for _, authors := range []int{1, 2, n} {
			sigs := signatures(t, n, authors)
			decided(t, b, sigs)
			if got := agree(t, b, sigs); got != n {
				t.Fatalf("%d of %d genuine", got, n)
			}
		}
	}
	if b.alone != 0 {
		t.Error("after genuine ones the next are checked singly")
	}
}

// Points that are equal or opposite meet in the sum: the same signature again and again, R = P = G, nonces that are used again.
func TestBatchOfPointsThatMeet(t *testing.T) {
	b := NewBatch()
	one := signatures(t, 1, 1)[0]
	decided(t, b, slices.Repeat([]signature{one}, MaxBatch))
	var sigs []signature
	for i := range MaxBatch {
		sigs = append(sigs, withNonce(i%3, 1+i/3%3, sha256.Sum256([]byte{byte(i / 9)}), false))
	}
	for n := 1; n <= MaxBatch; n++ {
		decided(t, b, sigs[:n])
		agree(t, trusting(b), slices.Repeat(sigs[n-1:n], 5))
	}
	if got := agree(t, b, sigs); got != MaxBatch {
		t.Errorf("%d genuine, want all %d: the test's own signatures are wrong", got, MaxBatch)
	}
}

// Each way to spoil one, at each place of a batch.
func TestBatchFindsTheForgery(t *testing.T) {
	b := NewBatch()
	for _, n := range []int{4, 7, MaxBatch} {
		sigs := signatures(t, n, 5)
		for how, s := range spoilers {
			for at := range n {
				if n == MaxBatch && at%7 != how%7 {
					continue
				}
				one := slices.Clone(sigs)
				s.spoil(&one[at], at+how)
				if got := agree(t, trusting(b), one); got != n-1 {
					t.Errorf("%s at %d of %d: %d genuine", s.name, at, n, got)
				}
			}
		}
	}
}

// What cannot be genuine, whatever the message, is known for that before the equation: it spoils no batch, and makes no other signature
// cost more.
func TestBatchIsNotSpoiledByTheImpossible(t *testing.T) {
	b := NewBatch()
	if b.together == nil {
		t.Skip("no batches in this build")
	}
	impossible := 0
	for _, s := range spoilers {
		switch s.name {
		case "R of 0", "R not below the field's size", "R of ones", "s not below the order", "s of ones", "key of 0", "key not below the field's size":
		default:
			continue
		}
		impossible++
		sigs := signatures(t, 12, 12)
		verdicts := make([]verdict, len(sigs))
		for i := 0; i < len(sigs); i += 2 {
			s.spoil(&sigs[i], i)
		}
		b.together.verify(sigs, verdicts)
		for i, got := range verdicts {
			if want := []verdict{forged, genuine}[i%2]; got != want {
				t.Errorf("%s: %d of %d has the verdict %d, want %d", s.name, i, len(sigs), got, want)
			}
		}
	}
	if impossible != 7 {
		t.Errorf("%d ways to spoil were tried, want 7", impossible)
	}
}

// Two that are wrong by the same amount, in opposite directions, cancel in a sum with equal coefficients.
func TestBatchOfForgeriesThatCancel(t *testing.T) {
	b := NewBatch()
	for _, authors := range []int{1, 8} {
		sigs := signatures(t, 16, authors)
		for at := range 15 {
			two := slices.Clone(sigs)
			shift(&two[at], 1+uint32(at), false)
			shift(&two[at+1], 1+uint32(at), true)
			if got := agree(t, trusting(b), two); got != 14 {
				t.Errorf("%d genuine of 14 and two that cancel", got)
			}
		}
		// The same one twice, changed.
		two := slices.Clone(sigs)
		two[1] = two[0]
		shift(&two[0], 7, false)
		shift(&two[1], 7, true)
		if got := agree(t, trusting(b), two); got != 14 {
			t.Errorf("%d genuine of 14 and two that cancel", got)
		}
	}
}

// Any mix, any size, one Batch for all: the same answers as one by one, also while it distrusts.
func TestBatchAgrees(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	rounds := 150
	if !strings.HasPrefix(VerifierName(), FastVerifier) {
		rounds = 100
	}
	all := signatures(t, 200, 20)
	b := NewBatch()
	for round := range rounds {
		sigs := make([]signature, 1+rnd.IntN(MaxBatch))
		bad := []int{0, 0, 1, 2, 50}[rnd.IntN(5)] // percent
		few := 1 + rnd.IntN(len(all))
		for i := range sigs {
			sigs[i] = all[rnd.IntN(few)]
			if rnd.IntN(100) < bad {
				spoilers[rnd.IntN(len(spoilers))].spoil(&sigs[i], rnd.IntN(1000))
			}
		}
		if round%2 == 0 {
			trusting(b)
		}
		agree(t, b, sigs)
	}
}

func FuzzBatch(f *testing.F) {
	all := signatures(f, 40, 9)
	for i := range 3 {
		all = append(all, withNonce(i, 1+i, sha256.Sum256([]byte{byte(i)}), false))
	}
	b := NewBatch()
	f.Add([]byte{0, 0, 0, 1, 2, 3})
	f.Add(slices.Repeat([]byte{1, 0, 0, 2, 0, 0}, 30))
	f.Add(slices.Repeat([]byte{42, 0, 0, 41, 0, 0, 40, 13, 2, 40, 2, 9}, 8))
	f.Fuzz(func(t *testing.T, script []byte) { // three bytes a signature: which, how it is spoiled, where
		var sigs []signature
		for ; len(script) >= 3 && len(sigs) < MaxBatch; script = script[3:] {
			s := all[int(script[0])%len(all)]
			if how := int(script[1]); how > 0 && how <= len(spoilers) {
				spoilers[how-1].spoil(&s, int(script[2]))
			} else if how > 128 {
				shift(&s, uint32(script[2]), how > 192)
			}
			sigs = append(sigs, s)
		}
		agree(t, trusting(b), sigs)
	})
}

// TestSelfTestFindsABadBatch: verifiers of batches that take all, none, or one too many.
func TestSelfTestFindsABadBatch(t *testing.T) {
	for name, verify := range map[string]batchFunc{
		"takes all":   func(sigs []signature, verdicts []verdict) { fillWith(verdicts[:len(sigs)], genuine) },
		"takes none":  func([]signature, []verdict) {},
		"refuses all": func(sigs []signature, verdicts []verdict) { fillWith(verdicts[:len(sigs)], forged) },
		"misses the end": func(sigs []signature, verdicts []verdict) {
			singly(sigs[:len(sigs)-1], verdicts)
			verdicts[len(sigs)-1] = genuine
		},
	} {
		if err := selfTest(bip340Vectors, verify); err == nil {
			t.Errorf("a verifier that %s passes", name)
		}
	}
	if err := selfTest(bip340Vectors, batchFunc(singly)); err != nil {
		t.Errorf("a verifier that is right: %v", err)
	}
}

type batchFunc func(sigs []signature, verdicts []verdict)

func (f batchFunc) verify(sigs []signature, verdicts []verdict) { f(sigs, verdicts) }
func (batchFunc) least() int                                    { return 1 }

func singly(sigs []signature, verdicts []verdict) {
	for i := range sigs {
		verdicts[i] = forged
		if verifySchnorr(&sigs[i].key, &sigs[i].sig, &sigs[i].message) {
			verdicts[i] = genuine
		}
	}
}

func fillWith(verdicts []verdict, v verdict) {
	for i := range verdicts {
		verdicts[i] = v
	}
}

// TestBatchDistrusts: after a spoiled batch as many are checked singly, after one of forgeries more each time, and a good one ends that.
func TestBatchDistrusts(t *testing.T) {
	sigs := signatures(t, MaxBatch, 1)
	var asked int
	b := NewBatch()
	b.together = batchFunc(func(sigs []signature, verdicts []verdict) { // as one that gives up halving at 8
		asked++
		for i := 0; i < len(sigs); i += 8 {
			singly(sigs[i:i+8], verdicts[i:])
			if slices.Contains(verdicts[i:i+8], forged) {
				fillWith(verdicts[i:i+8], undecided)
			}
		}
	})
	run := func(sigs []signature, want int) {
		t.Helper()
		if agree(t, b, sigs); asked != want {
			t.Fatalf("%d batches were checked together, want %d", asked, want)
		}
	}
	run(sigs, 1)
	one := slices.Clone(sigs)
	one[5].message[0]++
	run(one, 2)
	run(one, 2)
	run(one, 3)
	bad := slices.Clone(sigs)
	for i := range bad {
		bad[i].message[0]++
	}
	run(bad, 3)
	run(bad, 4)
	for range 4 {
		run(sigs, 4)
	}
	run(bad, 5)
	for range 8 {
		run(sigs, 5)
	}
	run(sigs, 6)
	run(sigs, 7)
}

func TestBatchChecksIDs(t *testing.T) {
	var e Event
	if err := NewBatch().Add(&e); ReasonOf(err) != BadID {
		t.Errorf("an id that is not the hash: %v", err)
	}
}

func BenchmarkBatch(b *testing.B) {
	for _, n := range []int{1, 2, 4, 8, 16, 32, 64} {
		for _, authors := range slices.Compact([]int{1, min(n, 10), n}) {
			b.Run(fmt.Sprintf("%d by %d", n, authors), func(b *testing.B) { benchBatch(b, signatures(b, n, authors)) })
		}
	}
}

// BenchmarkBatchForged has one forged signature in each batch, and ever so many.
func BenchmarkBatchForged(b *testing.B) {
	for _, authors := range []int{1, MaxBatch} {
		for _, bad := range []int{0, 1, 2, 5, MaxBatch} {
			b.Run(fmt.Sprintf("%d by %d", bad, authors), func(b *testing.B) {
				sigs := signatures(b, MaxBatch, authors)
				for i := range bad {
					sigs[(37+11*i)%MaxBatch].message[0]++
				}
				benchBatch(b, sigs)
			})
		}
	}
}

func benchBatch(b *testing.B, sigs []signature) {
	batch := NewBatch()
	b.ReportAllocs()
	for b.Loop() {
		batch.n = copy(batch.sigs[:], sigs)
		batch.Verify()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(sigs)), "ns/sig")
}
