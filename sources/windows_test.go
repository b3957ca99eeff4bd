package sources

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestWindows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 40
		var ws windows
		var in [most]bool
		for range rapid.IntRange(0, 8).Draw(t, "windows") {
			lo := rapid.Int64Range(0, most-1).Draw(t, "lo")
			hi := rapid.Int64Range(lo, most-1).Draw(t, "hi")
			ws = ws.add(window{lo, hi})
			for s := lo; s <= hi; s++ {
				in[s] = true
			}
		}
		ask := window{rapid.Int64Range(0, most-1).Draw(t, "from"), rapid.Int64Range(0, most-1).Draw(t, "to")}
		var missing [most]bool
		prev := int64(most)
		for _, w := range ws.missing(ask) {
			if w.hi >= prev {
				t.Fatalf("missing %v is not newest first", ws.missing(ask))
			}
			prev = w.lo
			for s := w.lo; s <= w.hi; s++ {
				missing[s] = true
			}
		}
		for s := range int64(most) {
			if want := !in[s] && ask.lo <= s && s <= ask.hi; missing[s] != want {
				t.Fatalf("%v of %v: second %d is missing: %v, want %v", ask, ws, s, missing[s], want)
			}
		}
		back, err := decodeWindows(ws.encode())
		if err != nil || !slices.Equal(back, ws) {
			t.Fatalf("%v came back as %v, %v", ws, back, err)
		}
	})
	for _, bad := range [][]byte{make([]byte, 15), windows{{5, 4}}.encode(), windows{{9, 10}, {3, 4}}.encode(), windows{{-1, 4}}.encode()} {
		if ws, err := decodeWindows(bad); err == nil {
			t.Errorf("%x was read as %v, want an error", bad, ws)
		}
	}
}
