package event

import (
	"bytes"
	"testing"
)

// slowly is parseObject without the short way.
func slowly(b []byte, e *Event) error {
	// A space that no Line has.
	_, err := parseObject(append([]byte("{ "), b[1:]...), 0, e)
	return err
}

const plainLine = `{"id":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","pubkey":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb","created_at":1700000000,"kind":1,"tags":[["e","x"],[],["t"]],"content":"a\n\u0001\"b","sig":"` +
	`cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"}`

// The short way of parsing gives what the long one does, or leaves it to that.
func FuzzCanonical(f *testing.F) {
	f.Add([]byte(plainLine))
	for from, to := range map[string]string{
		`\u0001`: `\u000A`, `a\n`: `a\u000a`, `"x"`: "\"\xff\"", `[["e"`: `[ ["e"`, `"tags":[["e","x"],[],["t"]]`: `"tags":[]`, `\"b`: `\/b`, `"kind":1`: `"kind":01`,
		`},`: `}`, `1700000000`: `9007199254740992`, `"t"]]`: `"t"],]`, `[],`: `,`, `:1,`: `:65536,`, `\u0001\"b`: `\`, `cc"}`: `cc" }`, `"x"]`: `"x",]`,
	} {
		f.Add(bytes.Replace([]byte(plainLine), []byte(from), []byte(to), 1))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var short, long Event
		if len(raw) == 0 || raw[0] != '{' {
			return
		}
		end, ok := short.canonical(raw, 0)
		if err := slowly(raw[:max(end, 1)], &long); ok && err != nil {
			t.Fatalf("the short way takes %q, the long one says %v", raw[:end], err)
		}
		if !ok {
			if err := slowly(raw, &long); err == nil && bytes.HasPrefix(raw, long.Line) {
				t.Fatalf("the short way does not take %q", long.Line)
			}
			return
		}
		if !bytes.Equal(short.Line, long.Line) || !bytes.Equal(short.Line, raw[:end]) {
			t.Fatalf("the lines are\n%s\n%s, want both\n%s", short.Line, long.Line, raw[:end])
		}
		short.Line, long.Line = nil, nil
		if short.ID != long.ID || short.PubKey != long.PubKey || short.Sig != long.Sig || short.CreatedAt != long.CreatedAt || short.Kind != long.Kind || short.tags != long.tags || short.content != long.content {
			t.Fatalf("the short way gives %+v, the long one %+v", short, long)
		}
	})
}

func TestCanonicalTakesALine(t *testing.T) {
	var e Event
	if end, ok := e.canonical([]byte("x"+plainLine+"x"), 1); !ok || end != 1+len(plainLine) {
		t.Errorf("a line as Parse makes it is not taken the short way: %d, %t", end, ok)
	}
}
