package bip340

import (
	"encoding/hex"
	"testing"
)

// BenchmarkStageVerify is one signature of a known key, as in a build without a C compiler.
func BenchmarkStageVerify(b *testing.B) {
	var x, message [32]byte
	var sig [64]byte
	decode(b, x[:], "dff1d77f2a671c5f36183726db2341be58feae1da2deced843240f7b502ba659") // BIP-340's vector 1
	decode(b, message[:], "243f6a8885a308d313198a2e03707344a4093822299f31d0082efa98ec4e6c89")
	decode(b, sig[:], "6896bd60eeae296db48a229ff71dfe071bde413e6d43f917dc8dcf8c78de33418906d11ac976abccb20b091292bff4ea897efcb639ea871cfa95f6de339e4b0a")
	k, ok := Lift(&x)
	if !ok {
		b.Fatal("no such key")
	}
	b.ReportAllocs()
	for b.Loop() {
		if !k.Verify(&sig, &message) {
			b.Fatal("not genuine")
		}
	}
}

func decode(b *testing.B, dst []byte, digits string) {
	b.Helper()
	if n, err := hex.Decode(dst, []byte(digits)); err != nil || n != len(dst) {
		b.Fatal(n, err)
	}
}
