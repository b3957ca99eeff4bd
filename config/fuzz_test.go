package config

import (
	"strings"
	"testing"
)

// FuzzLoad: any file gives a configuration or problems; never a panic, never a line with a private key, and what is
// accepted can be shown and loaded again.
func FuzzLoad(f *testing.F) {
	f.Add(Example)
	for _, text := range []string{
		simple, "sinks: [" + nsec + "]", "nsec: " + nsec, "\"\\x6esec1" + nsec[5:] + "\": {a: [", "a: &x [*x]\n", "{<<: *a}", "? [a]\n: b", "--- !!binary |\n " + nsec,
		"sources: [\"${KEY}\", \"${KEY}.example.com\", ws://me:x@a.example.com]", "filters: [{tags: {t: [a]}, since: 1}]", "relay_settings: {wss://${KEY}: {}}",
		"all: true\nhistory: 3w\nsinks: [{url: \"[::1]:7\", start: now, send: dm}]", "kinds: [007]\nkinds: ~", "\xef\xbb\xbfall: true", "\xff\xfea\x00",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		in := given("show", nil, envMap{"KEY": nsec})
		in.File = file
		c, err := load(in, text)
		if err != nil {
			said := strings.ToLower(err.Error())
			if HoldsPrivateKey(said) {
				t.Fatal("the message holds a private key")
			}
			// A part of one, which nobody could know for what it is if it stood alone.
			part := nsec[10:26]
			if strings.Contains(said, part) && !strings.Contains(strings.ToLower(Redact(string(text))), part) {
				t.Fatal("the message holds a part of a private key")
			}
			return
		}
		shown, err := c.YAML()
		if err != nil {
			t.Fatalf("show what was loaded: %v", err)
		}
		if HoldsPrivateKey(string(shown)) || HoldsPrivateKey(c.Asked+strings.Join(c.Notes, " ")) {
			t.Fatal("the shown configuration holds a private key")
		}
		if _, err := load(in, shown); err != nil {
			t.Fatalf("load what was shown: %v\n%s", err, shown)
		}
	})
}
