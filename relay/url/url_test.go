package url

import (
	"errors"
	"strings"
	"testing"
)

func TestOneFormPerRelay(t *testing.T) {
	for in, want := range map[string]string{
		"relay.damus.io":                     "wss://relay.damus.io",
		" relay.damus.io\n":                  "wss://relay.damus.io",
		"RELAY.Damus.IO/":                    "wss://relay.damus.io",
		"relay.damus.io.":                    "wss://relay.damus.io",
		"relay.damus.io:443":                 "wss://relay.damus.io",
		"relay.damus.io:0443":                "wss://relay.damus.io",
		"relay.damus.io:8443/":               "wss://relay.damus.io:8443",
		"WSS://relay.damus.io":               "wss://relay.damus.io",
		"wss://relay.damus.io:443/":          "wss://relay.damus.io",
		"ws://relay.damus.io:80":             "ws://relay.damus.io",
		"ws://relay.damus.io:443":            "ws://relay.damus.io:443",
		"wss://relay.damus.io:80":            "wss://relay.damus.io:80",
		"ws://relay:7777":                    "ws://relay:7777",
		"wss://localhost":                    "wss://localhost",
		"localhost:7777":                     "ws://localhost:7777",
		"a.localhost":                        "ws://a.localhost",
		"127.0.0.1:7777":                     "ws://127.0.0.1:7777",
		"[::1]:7777":                         "ws://[::1]:7777",
		"ws://[0:0:0:0:0:0:0:1]:80/":         "ws://[::1]",
		"ws://[::ffff:127.0.0.1]":            "ws://127.0.0.1",
		"192.168.1.4":                        "ws://192.168.1.4",
		"10.0.0.1/chat":                      "ws://10.0.0.1/chat",
		"8.8.8.8":                            "wss://8.8.8.8",
		"[2001:db8::1]":                      "wss://[2001:db8::1]",
		"[fd00::1]":                          "ws://[fd00::1]",
		"abcdefghijklmnop.onion":             "ws://abcdefghijklmnop.onion",
		"wss://abcdefghijklmnop.onion":       "wss://abcdefghijklmnop.onion",
		"haven.example.com/Inbox":            "wss://haven.example.com/Inbox",
		"haven.example.com/inbox/":           "wss://haven.example.com/inbox/",
		"filter.example.com/npub1abc?x=1#fr": "wss://filter.example.com/npub1abc?x=1",
		"example.com/?x=1":                   "wss://example.com/?x=1",
		"example.com/a%2Fb":                  "wss://example.com/a%2Fb",
		"bücher.example":                     "wss://xn--bcher-kva.example",
	} {
		got, err := Normalize(in)
		if err != nil || got != want {
			t.Errorf("Normalize(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestWhatIsNoRelay(t *testing.T) {
	for in, want := range map[string]string{
		"":                                       "empty",
		"relay":                                  "needs a dot",
		"https://relay.damus.io":                 `scheme must be ws or wss, not "https"`,
		"://x.y":                                 `not ""`,
		"wss://":                                 "host is missing",
		"wss://user:pw@relay.damus.io":           "name or password",
		"user@relay.damus.io":                    "name or password",
		"relay.damus.io:0":                       "port",
		"relay.damus.io:70000":                   "port",
		"relay.damus.io:":                        "port",
		"relay.damus.io:abc":                     "port",
		"relay .damus.io":                        "space",
		"a..b":                                   "empty",
		"ws://[::1":                              "missing",
		"exa$mple.com":                           "not a host name",
		"npub1sg6plzptd64u62a878hep2kev8":        "a person, not a relay",
		"nostr:NPUB1sg6plzptd64u62a878he":        "a person, not a relay",
		"nprofile1qqsw3dy8cpumpanud9dwd":         "a person, not a relay",
		"wss://x.y/" + strings.Repeat("a", 3000): "longer",
	} {
		got, err := Normalize(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Normalize(%q) = %q, %v; want an error with %q", in, got, err, want)
		}
	}
	const key = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
	for _, in := range []string{key, "nostr:" + key, strings.ToUpper(key), "wss://relay.x/" + key, "wss://" + key + "@relay.x"} {
		got, err := Normalize(in)
		if !errors.Is(err, ErrKey) || strings.Contains(strings.ToLower(err.Error()), "vl029") {
			t.Errorf("a private key gives %q, %v; want ErrKey without the key", got, err)
		}
	}
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"relay.damus.io", "wss://[::1]:80/x?y#z", "bücher.example", "ws://a:b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once, err := Normalize(s)
		if err != nil {
			return
		}
		if twice, err := Normalize(once); err != nil || twice != once {
			t.Errorf("Normalize(%q) = %q, and of that %q, %v: not one form", s, once, twice, err)
		}
	})
}
