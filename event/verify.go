package event

import (
	"crypto/sha256"
	_ "embed"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// hasher is a SHA-256 with room for what is written to it and read from it, pooled so that Hash allocates nothing.
type hasher struct {
	hash.Hash
	head []byte
	sum  [sha256.Size]byte
}

var hashers = sync.Pool{New: func() any { return &hasher{Hash: sha256.New()} }}

// Hash is the id that the event has by NIP-01: SHA-256 over [0,pubkey,created_at,kind,tags,content], whose parts
// stand in Line as they are hashed.
func (e *Event) Hash() ID {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)
	h.Reset()
	b := append(h.head[:0], `[0,"`...)
	b = hex.AppendEncode(b, e.PubKey[:])
	b = append(b, `",`...)
	b = strconv.AppendInt(b, e.CreatedAt, 10)
	b = append(b, ',')
	b = strconv.AppendInt(b, int64(e.Kind), 10)
	b = append(b, ",,]"...)
	last := len(b) - 2
	h.head = b
	h.Write(b[:last])
	h.Write(e.tags.bytes(e.Line))
	h.Write(b[last : last+1])
	h.Write(e.content.bytes(e.Line))
	h.Write(b[last+1:])
	h.Sum(h.sum[:0])
	return h.sum
}

// Verify checks that the id is the event's hash and then the author's signature over it (BIP-340). The error is
// an *Error with BadID or BadSignature.
func (e *Event) Verify() error {
	if e.Hash() != e.ID {
		return refuse(BadID, "not the hash of the event")
	}
	if !verifySchnorr(&e.PubKey, &e.Sig, (*[32]byte)(&e.ID)) {
		return refuse(BadSignature, "not the author's over this id")
	}
	return nil
}

// FastVerifier begins the name of the verifier that a build with a C compiler has, three times faster than pure Go.
const FastVerifier = "libsecp256k1"

// VerifierName says which implementation checks signatures, and whether a Batch checks them together.
func VerifierName() string {
	if Batches() {
		return verifierName + ", in batches"
	}
	return verifierName
}

// Batches reports whether a Batch costs less than its single checks in this build.
func Batches() bool { return batches() }

// bip340Vectors holds the official test vectors with messages of 32 bytes (bips/bip-0340/test-vectors.csv, 0 to 14),
// without the columns that only signing needs.
//
//go:embed testdata/bip340.csv
var bip340Vectors string

// SelfTest runs BIP-340's test vectors through the verifier in use, one by one and in batches. A program whose verifier fails
// must not start.
func SelfTest() error { return selfTest(bip340Vectors, newBatchVerifier()) }

func selfTest(vectors string, together batchVerifier) error {
	rows, err := csv.NewReader(strings.NewReader(vectors)).ReadAll()
	if err != nil {
		return fmt.Errorf("read the BIP-340 test vectors: %w", err)
	}
	if len(rows) != 1+15 {
		return fmt.Errorf("read the BIP-340 test vectors: %d rows, want a head and 15 vectors", len(rows))
	}
	var valid, forgeries []signature
	for _, row := range rows[1:] {
		var s signature
		if !decodeHex(s.key[:], strings.ToLower(row[1])) || !decodeHex(s.message[:], strings.ToLower(row[2])) ||
			!decodeHex(s.sig[:], strings.ToLower(row[3])) {
			return fmt.Errorf("read BIP-340 test vector %s: not hex of the right length", row[0])
		}
		want := row[4] == "TRUE"
		if got := verifySchnorr(&s.key, &s.sig, &s.message); got != want {
			return fmt.Errorf("verifier %s: BIP-340 test vector %s (%s): says %t, must say %t",
				verifierName, row[0], row[5], got, want)
		}
		if want {
			valid = append(valid, s)
		} else {
			forgeries = append(forgeries, s)
		}
	}
	if together == nil {
		return nil
	}
	return testTogether(together, valid, forgeries)
}

// testTogether checks that the valid ones are found genuine together, so that the equation holds, and with each of the forgeries at
// each place among them the forgery is not.
func testTogether(together batchVerifier, valid, forgeries []signature) error {
	verdicts := make([]verdict, len(valid)+1)
	together.verify(valid, verdicts)
	for i := range valid {
		if verdicts[i] != genuine {
			return fmt.Errorf("verifier %s: BIP-340's valid test vectors are not valid in a batch", verifierName)
		}
	}
	for _, f := range forgeries {
		for at := range len(valid) + 1 {
			clear(verdicts)
			together.verify(slices.Insert(slices.Clone(valid), at, f), verdicts)
			for i, v := range verdicts {
				if i == at && v == genuine || i != at && v == forged {
					return fmt.Errorf("verifier %s: a batch of BIP-340's test vectors takes a valid one for a forgery or a forgery for valid",
						verifierName)
				}
			}
		}
	}
	return nil
}
