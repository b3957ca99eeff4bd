package bip340_test

import (
	"encoding/csv"
	"encoding/hex"
	"os"
	"slices"
	"testing"

	"rebroadcastr/event/bip340"
)

type vector struct {
	name       string
	x, message [32]byte
	sig        [64]byte
	genuine    bool
}

// vectors are BIP-340's, of event.SelfTest.
func vectors(t testing.TB) (all []vector) {
	t.Helper()
	f, err := os.Open("../testdata/bip340.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows[1:] {
		v := vector{name: row[0] + " " + row[5], genuine: row[4] == "TRUE"}
		for i, dst := range [][]byte{v.x[:], v.message[:], v.sig[:]} {
			if n, err := hex.Decode(dst, []byte(row[1+i])); err != nil || n != len(dst) {
				t.Fatalf("vector %s: %d bytes, %v", v.name, n, err)
			}
		}
		all = append(all, v)
	}
	return all
}

func verify(v *vector) bool {
	k, ok := bip340.Lift(&v.x)
	return ok && k.Verify(&v.sig, &v.message)
}

// together is false also if Add refuses one.
func together(t *testing.T, b *bip340.Batch, all []vector) bool {
	t.Helper()
	added := true
	for i := range all {
		k, ok := bip340.Lift(&all[i].x)
		added = ok && b.Add(&k, &all[i].sig, &all[i].message) && added
	}
	return b.Verify() && added
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		if got := verify(&v); got != v.genuine {
			t.Errorf("vector %s: %t, want %t", v.name, got, v.genuine)
		}
	}
}

// TestBatch: one Batch, used again and again, takes the genuine vectors together, some of them twice, and none of the others among them.
func TestBatch(t *testing.T) {
	var b bip340.Batch
	var genuine []vector
	all := vectors(t)
	for _, v := range all {
		if v.genuine {
			genuine = append(genuine, v, v)
		}
	}
	if !together(t, &b, nil) || !together(t, &b, genuine[:1]) || !together(t, &b, genuine) {
		t.Error("genuine ones are refused together")
	}
	for _, v := range all {
		if !v.genuine && together(t, &b, append(slices.Clone(genuine), v)) {
			t.Errorf("taken among genuine ones: vector %s", v.name)
		}
	}
	for i := range genuine {
		other := slices.Clone(genuine)
		other[i].message[5] ^= 1
		if together(t, &b, other) {
			t.Errorf("taken among genuine ones: %s over another message", other[i].name)
		}
	}
	if !together(t, &b, genuine) {
		t.Error("genuine ones are refused after forged ones")
	}
}

// BenchmarkStageVerify is one signature of a known key, as in a build without a C compiler.
func BenchmarkStageVerify(b *testing.B) {
	v := vectors(b)[1]
	k, _ := bip340.Lift(&v.x)
	b.ReportAllocs()
	for b.Loop() {
		if !k.Verify(&v.sig, &v.message) {
			b.Fatal("not genuine")
		}
	}
}

// BenchmarkStageVerifyBatch is one signature of 64 that are checked together, of three authors.
func BenchmarkStageVerifyBatch(b *testing.B) {
	all := vectors(b)[:3]
	keys := make([]bip340.Key, len(all))
	for i := range all {
		keys[i], _ = bip340.Lift(&all[i].x)
	}
	var batch bip340.Batch
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		v := &all[n%len(all)]
		batch.Add(&keys[n%len(all)], &v.sig, &v.message)
		if n%64 == 63 && !batch.Verify() {
			b.Fatal("not genuine")
		}
	}
}
