package event

import (
	"bufio"
	"crypto/sha256"
	"encoding/csv"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/btcsuite/btcd/btcec/v2"
	"github.com/btcsuite/btcd/btcec/v2/schnorr"
)

// TestBIP340 holds both verifiers, whichever is in use, to each vector's listed result.
func TestBIP340(t *testing.T) {
	rows, err := csv.NewReader(strings.NewReader(bip340)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 16 {
		t.Fatalf("%d rows, want a head and 15 vectors", len(rows))
	}
	for _, row := range rows[1:] {
		var key PubKey
		var message [32]byte
		var sig [64]byte
		decodeHex(key[:], strings.ToLower(row[1]))
		decodeHex(message[:], strings.ToLower(row[2]))
		decodeHex(sig[:], strings.ToLower(row[3]))
		want := row[4] == "TRUE"
		if got := verifySchnorr(&key, &sig, &message); got != want {
			t.Errorf("%s: vector %s (%s): %t, want %t", verifierName, row[0], row[5], got, want)
		}
		if got := verifyBTCEC(&key, &sig, &message); got != want {
			t.Errorf("btcec: vector %s (%s): %t, want %t", row[0], row[5], got, want)
		}
	}
}

// TestSelfTestFails shows that SelfTest can fail: a vector's listed result turned round, and a table cut short.
func TestSelfTestFails(t *testing.T) {
	if err := selfTest(strings.Replace(bip340, "TRUE", "FALSE", 1)); err == nil || !strings.Contains(err.Error(), "vector 0") {
		t.Errorf("with vector 0 turned round: %v, want an error that names it", err)
	}
	for _, short := range []string{"", bip340[:len(bip340)/2], strings.Replace(bip340, "FF", "F", 1)} {
		if err := selfTest(short); err == nil {
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
			c, g := verifySchnorr(&e.PubKey, &e.Sig, (*[32]byte)(&e.ID)), verifyBTCEC(&e.PubKey, &e.Sig, (*[32]byte)(&e.ID))
			if c != g || c != (turn == 0) {
				t.Errorf("event %d, bit turned %d: %s says %t, btcec %t", n, turn, verifierName, c, g)
			}
		}
	}
}

// TestVerifierKnowsKeys: what it remembers of a key changes no answer, neither for the same key again nor for one that takes its place.
func TestVerifierKnowsKeys(t *testing.T) {
	rows, err := csv.NewReader(strings.NewReader(bip340)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 3 {
		for _, row := range rows[1:] {
			var key, other PubKey
			var message [32]byte
			var sig [64]byte
			decodeHex(key[:], strings.ToLower(row[1]))
			decodeHex(message[:], strings.ToLower(row[2]))
			decodeHex(sig[:], strings.ToLower(row[3]))
			if got, want := verifySchnorr(&key, &sig, &message), row[4] == "TRUE"; got != want {
				t.Errorf("round %d, vector %s (%s): %t, want %t", round, row[0], row[5], got, want)
			}
			other = key
			other[0] ^= 1 // the same last bytes
			if verifySchnorr(&other, &sig, &message) {
				t.Errorf("round %d, vector %s: genuine by another key", round, row[0])
			}
			sig[40] ^= 1
			if verifySchnorr(&key, &sig, &message) {
				t.Errorf("round %d, vector %s: genuine with a bit turned", round, row[0])
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
