package event

import (
	"bufio"
	"crypto/sha256"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
	"pgregory.net/rapid"

	"rebroadcastr/event/bip340"
)

type verifier func(key *PubKey, sig *[64]byte, message *[32]byte) bool

// verifiers are the one in use, the one of builds without a C compiler, and a second opinion on it where libsecp256k1 is not there.
var verifiers = func() map[string]verifier {
	all := map[string]verifier{verifierName: verifySchnorr, "event/bip340": verifyPure}
	if verifierName != FastVerifier {
		all["btcec"] = verifyBTCEC
	}
	return all
}()

func verifyPure(key *PubKey, sig *[64]byte, message *[32]byte) bool {
	k, ok := bip340.Lift((*[32]byte)(key))
	return ok && k.Verify(sig, message)
}

func verifyBTCEC(key *PubKey, sig *[64]byte, message *[32]byte) bool {
	pub, err := schnorr.ParsePubKey(key[:])
	if err != nil {
		return false
	}
	var s btcec.ModNScalar // btcec reduces s modulo the group's order where BIP-340 refuses it
	if s.SetByteSlice(sig[32:]) {
		return false
	}
	parsed, err := schnorr.ParseSignature(sig[:])
	return err == nil && parsed.Verify(message[:], pub)
}

// verifyAll holds every verifier to one answer.
func verifyAll(t interface{ Errorf(string, ...any) }, what string, key *PubKey, sig *[64]byte, message *[32]byte, want bool) {
	for name, verify := range verifiers {
		if got := verify(key, sig, message); got != want {
			t.Errorf("%s: %s says %t, want %t", what, name, got, want)
		}
	}
}

type vector struct {
	name    string
	key     PubKey
	message [32]byte
	sig     [64]byte
	genuine bool
}

func vectors(t testing.TB) (all []vector) {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(bip340Vectors)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 16 {
		t.Fatalf("%d rows, want a head and 15 vectors", len(rows))
	}
	for _, row := range rows[1:] {
		v := vector{name: fmt.Sprintf("vector %s (%s)", row[0], row[5]), genuine: row[4] == "TRUE"}
		decodeHex(v.key[:], strings.ToLower(row[1]))
		decodeHex(v.message[:], strings.ToLower(row[2]))
		decodeHex(v.sig[:], strings.ToLower(row[3]))
		all = append(all, v)
	}
	return all
}

// TestBIP340 holds the verifiers, whichever is in use, to each vector's listed result.
func TestBIP340(t *testing.T) {
	for _, v := range vectors(t) {
		verifyAll(t, v.name, &v.key, &v.sig, &v.message, v.genuine)
	}
}

// TestSelfTestFails shows that SelfTest can fail: a vector's listed result turned round, and a table cut short.
func TestSelfTestFails(t *testing.T) {
	if err := selfTest(strings.Replace(bip340Vectors, "TRUE", "FALSE", 1), nil); err == nil || !strings.Contains(err.Error(), "vector 0") {
		t.Errorf("with vector 0 turned round: %v, want an error that names it", err)
	}
	for _, short := range []string{"", bip340Vectors[:len(bip340Vectors)/2], strings.Replace(bip340Vectors, "FF", "F", 1)} {
		if err := selfTest(short, nil); err == nil {
			t.Errorf("a damaged table of %d bytes is accepted", len(short))
		}
	}
}

// TestVerifiersAgree compares the verifiers on real events, genuine and with one bit turned.
func TestVerifiersAgree(t *testing.T) {
	f, err := os.Open("../testdata/relay-messages.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for n := 0; n < 20 && s.Scan(); n++ { // pure Go is slow under -race
		_, raw, err := ParseFrame(s.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var e Event
		if err := Parse(raw, &e); err != nil {
			t.Fatal(err)
		}
		for _, turn := range []byte{0, 1} {
			e.Sig[n%64] ^= turn
			verifyAll(t, fmt.Sprintf("event %d, bit turned %d", n, turn), &e.PubKey, &e.Sig, (*[32]byte)(&e.ID), turn == 0)
		}
	}
}

// TestVerifiersAgreeOnForgeries: any key's signature over anything is genuine to all verifiers, and whoever has the key can
// make none of the forgeries that the equation alone would take: with a point of odd y, with the point at infinity.
func TestVerifiersAgreeOnForgeries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var secret btcec.ModNScalar
		secret.SetInt(rapid.Uint32Min(1).Draw(t, "secret"))
		if rapid.Bool().Draw(t, "any secret") {
			if secret.SetByteSlice(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "secret bytes")); secret.IsZero() {
				secret.SetInt(1)
			}
		}
		private := btcec.PrivKeyFromScalar(&secret)
		public := private.PubKey()
		key := PubKey(schnorr.SerializePubKey(public))
		message := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "message"))
		signed, err := schnorr.Sign(private, message[:])
		if err != nil {
			t.Fatal(err)
		}
		sig := [64]byte(signed.Serialize())
		verifyAll(t, "genuine", &key, &sig, &message, true)

		even := private.Key // the secret of the point of even y
		if public.SerializeCompressed()[0] == 3 {
			even.Negate()
		}
		var ed, s, odd btcec.ModNScalar
		tag := sha256.Sum256([]byte("BIP0340/challenge"))
		challenge := sha256.Sum256(slices.Concat(tag[:], tag[:], sig[:32], key[:], message[:]))
		ed.SetByteSlice(challenge[:])
		ed.Mul(&even)
		s.SetByteSlice(sig[32:])
		odd.NegateVal(&s).Add(&ed).Add(&ed)
		for what, scalar := range map[string]*btcec.ModNScalar{"point of odd y": &odd, "point at infinity": &ed, "s negated": s.Negate()} {
			forged := sig
			scalar.PutBytesUnchecked(forged[32:])
			verifyAll(t, what, &key, &forged, &message, false)
		}
		parts := [][]byte{key[:], sig[:], message[:]}
		part := parts[rapid.IntRange(0, 2).Draw(t, "part")]
		part[rapid.IntRange(0, len(part)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		verifyAll(t, "bit turned", &key, &sig, &message, false)
	})
}

// FuzzVerify: whatever the bytes, the verifiers agree.
func FuzzVerify(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add(v.key[:], v.sig[:], v.message[:])
	}
	f.Fuzz(func(t *testing.T, k, s, m []byte) {
		var key PubKey
		var sig [64]byte
		var message [32]byte
		copy(key[:], k)
		copy(sig[:], s)
		copy(message[:], m)
		verifyAll(t, "any bytes", &key, &sig, &message, verifySchnorr(&key, &sig, &message))
	})
}

// TestVerifierKnowsKeys: what it remembers of a key changes no answer, neither for the same key again nor for one that takes its place.
func TestVerifierKnowsKeys(t *testing.T) {
	all := vectors(t)
	for round := range 3 {
		for _, v := range all {
			if got := verifySchnorr(&v.key, &v.sig, &v.message); got != v.genuine {
				t.Errorf("round %d, %s: %t, want %t", round, v.name, got, v.genuine)
			}
			other := v.key
			other[0] ^= 1 // the same last bytes
			if verifySchnorr(&other, &v.sig, &v.message) {
				t.Errorf("round %d, %s: genuine by another key", round, v.name)
			}
			v.sig[40] ^= 1
			if verifySchnorr(&v.key, &v.sig, &v.message) {
				t.Errorf("round %d, %s: genuine with a bit turned", round, v.name)
			}
		}
	}
}

// TestVerifierOfKeysThatCollide: authors whose keys end alike drive each other out of the verifier's memory, on several goroutines at
// once. What one has signed is genuine, and never another's; half of them have a point of odd y behind their key.
func TestVerifierOfKeysThatCollide(t *testing.T) {
	type author struct {
		key     PubKey
		message [32]byte
		sig     [64]byte
	}
	byEnd := make(map[[2]byte][]*btcec.PrivateKey)
	for n := range 1500 {
		secret := sha256.Sum256([]byte{byte(n), byte(n >> 8)})
		s, p := btcec.PrivKeyFromBytes(secret[:])
		x := schnorr.SerializePubKey(p)
		end := [2]byte{x[30], x[31] & 15} // the slot
		byEnd[end] = append(byEnd[end], s)
	}
	var groups [][]author
	odd := 0
	for _, secrets := range byEnd {
		if len(secrets) < 3 || len(groups) == 8 {
			continue
		}
		var group []author
		for n, s := range secrets {
			a := author{message: sha256.Sum256([]byte{byte(len(groups)), byte(n)})}
			copy(a.key[:], schnorr.SerializePubKey(s.PubKey()))
			sig, err := schnorr.Sign(s, a.message[:])
			if err != nil {
				t.Fatal(err)
			}
			copy(a.sig[:], sig.Serialize())
			if s.PubKey().SerializeCompressed()[0] == 3 {
				odd++
			}
			group = append(group, a)
		}
		groups = append(groups, group)
	}
	if len(groups) < 4 || odd == 0 {
		t.Fatalf("%d groups of keys that end alike, %d keys of odd y: make more keys", len(groups), odd)
	}
	var wg sync.WaitGroup
	for n := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(n, 1))
			for range 300 {
				group := groups[rnd.IntN(len(groups))]
				a, b := group[rnd.IntN(len(group))], group[rnd.IntN(len(group))]
				forged := a.sig
				forged[rnd.IntN(64)] ^= 1 << rnd.IntN(8)
				if !verifySchnorr(&a.key, &a.sig, &a.message) {
					t.Errorf("%x: a genuine signature is refused", a.key)
				}
				if verifySchnorr(&a.key, &forged, &a.message) {
					t.Errorf("%x: genuine with a bit turned", a.key)
				}
				if a.key != b.key && verifySchnorr(&b.key, &a.sig, &a.message) {
					t.Errorf("%x: genuine by %x", a.key, b.key)
				}
			}
		})
	}
	wg.Wait()
}
