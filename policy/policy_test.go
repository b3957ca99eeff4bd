package policy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"rebroadcastr/event"
	"rebroadcastr/policy"
)

// build makes an event of a kind; id and signature play no part here.
func build(t *testing.T, kind int, content string, tags ...[]string) event.Event {
	t.Helper()
	if tags == nil {
		tags = [][]string{}
	}
	text, err := json.Marshal(tags)
	if err != nil {
		t.Fatal(err)
	}
	quoted, err := json.Marshal(content)
	if err != nil {
		t.Fatal(err)
	}
	raw := fmt.Sprintf(`{"id":"%064d","pubkey":"%064d","created_at":1000,"kind":%d,"tags":%s,"content":%s,"sig":"%0128d"}`,
		1, 2, kind, text, quoted, 3)
	var e event.Event
	if err := event.Parse([]byte(raw), &e); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	return e
}

func allow(t *testing.T, names ...string) policy.Allow {
	t.Helper()
	a, err := policy.NewAllow(names)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// knowing is a context in which nothing is held for what is not known of the sink.
var knowing = policy.Context{Now: 5000, Expiry: policy.ExpirySupported}

// here is the context of one sink.
var here = policy.Context{Now: 5000, Expiry: policy.ExpirySupported, Relay: "wss://relay.example.com"}

// TestKinds tries every kind there is: which row holds it, that the row yields where it may, and only there.
func TestKinds(t *testing.T) {
	want := map[int]string{
		4: "dm", 13: "dm", 14: "dm", 15: "dm", 1059: "dm",
		7374: "wallet", 7375: "wallet", 7376: "wallet", 17375: "wallet",
		1234: "drafts", 31234: "drafts",
		443: "mls", 444: "mls", 445: "mls",
		9734: "zap_requests",
		8000: "relay-scoped", 8001: "relay-scoped", 13534: "relay-scoped", 33534: "relay-scoped",
		62: "vanish", // it names no relay
	}
	for kind := 9000; kind <= 9030; kind++ {
		want[kind] = "groups"
	}
	for kind := 39000; kind <= 39009; kind++ {
		want[kind] = "groups"
	}
	for kind := 20000; kind <= 29999; kind++ { // 21059, an ephemeral gift wrap, among them
		want[kind] = "ephemeral"
	}
	everything := allow(t, policy.Names()...)
	e := build(t, 0, "")
	for kind := 0; kind <= event.MaxKind; kind++ {
		e.Kind = kind
		row, held := policy.Check(&e, policy.Allow{}, knowing)
		if row != want[kind] || held != (want[kind] != "") {
			t.Errorf("kind %d: row %q, held %t; want row %q", kind, row, held, want[kind])
		}
		if !held {
			continue
		}
		yields := slices.Contains(policy.Names(), row)
		if got, held := policy.Check(&e, everything, knowing); held == yields {
			t.Errorf("kind %d of row %s with everything allowed: row %q, held %t; want held %t", kind, row, got, held, !yields)
		}
	}
}

// TestRows has one kind or tag for each row: it holds, it yields to its own name in `send:` and to no other.
func TestRows(t *testing.T) {
	for _, tt := range []struct {
		row  string
		e    event.Event
		c    policy.Context
		held string
	}{
		{"dm", build(t, 1059, ""), knowing, "dm"},
		{"wallet", build(t, 7375, ""), knowing, "wallet"},
		{"drafts", build(t, 31234, ""), knowing, "drafts"},
		{"mls", build(t, 445, ""), knowing, "mls"},
		{"groups by kind", build(t, 9021, ""), knowing, "groups"},
		{"groups by tag", build(t, 1, "", []string{"h", "x"}), knowing, "groups"},
		{"groups by a tag without a value", build(t, 1, "", []string{"h"}), knowing, "groups"},
		{"zap_requests", build(t, 9734, ""), knowing, "zap_requests"},
		{"expiring, sink without NIP-40", build(t, 1, "", []string{"expiration", "5001"}),
			policy.Context{Now: 5000, Expiry: policy.ExpiryIgnored}, "expiring"},
		{"expiring, sink not known", build(t, 1, "", []string{"expiration", "5001"}), policy.Context{Now: 5000}, "expiring"},
		{"expired", build(t, 1, "", []string{"expiration", "4999"}), knowing, "expired"},
		{"expired this second", build(t, 1, "", []string{"expiration", "5000"}), knowing, "expired"},
		{"expired by the first tag only", build(t, 1, "", []string{"expiration", "4999"}, []string{"expiration", "9999"}), knowing, "expired"},
		{"protected", build(t, 1, "", []string{"-"}), knowing, "protected"},
		{"ephemeral", build(t, 22242, ""), knowing, "ephemeral"},
		{"relay-scoped", build(t, 8000, ""), knowing, "relay-scoped"},
		{"vanish from another relay", build(t, 62, "", []string{"relay", "wss://other.example.com"}), here, "vanish"},
		{"vanish from no relay", build(t, 62, "", []string{"relay"}, []string{"r", "wss://relay.example.com"}), here, "vanish"},
		{"vanish from what is no relay", build(t, 62, "", []string{"relay", "relay of mine"}), here, "vanish"},
		{"vanish from all relays, in another case", build(t, 62, "", []string{"relay", "all_relays"}), here, "vanish"},
		{"ephemeral before dm", build(t, 21059, ""), knowing, "ephemeral"},
		{"expired before dm", build(t, 4, "", []string{"expiration", "1"}), knowing, "expired"},
		{"protected before expired", build(t, 4, "", []string{"expiration", "1"}, []string{"-"}), knowing, "protected"},
		{"none", build(t, 1, "hello", []string{"t", "h"}, []string{"e", "-"}), knowing, ""},
		{"vanish from this relay", build(t, 62, "", []string{"relay", "wss://other.example.com"}, []string{"relay", "WSS://Relay.example.com:443/"}), here, ""},
		{"vanish from all relays", build(t, 62, "", []string{"relay", "ALL_RELAYS"}), here, ""},
		{"none, sink not known", build(t, 1, ""), policy.Context{}, ""},
		{"expiring, sink with NIP-40", build(t, 1, "", []string{"expiration", "5001"}), knowing, ""},
		{"expiry that is no time", build(t, 1, "", []string{"expiration", "soon"}), policy.Context{Now: 5000}, ""},
	} {
		t.Run(tt.row, func(t *testing.T) {
			row, held := policy.Check(&tt.e, policy.Allow{}, tt.c)
			if row != tt.held || held != (tt.held != "") {
				t.Fatalf("Check(%s) = %q, %t; want %q", tt.e.Line, row, held, tt.held)
			}
			for _, name := range policy.Names() {
				want := tt.held
				if name == tt.held {
					want = ""
				}
				if row, _ := policy.Check(&tt.e, allow(t, name), tt.c); row != want {
					t.Errorf("with send: [%s] Check(%s) = %q, want %q", name, tt.e.Line, row, want)
				}
			}
		})
	}
}

// TestTwoRows: each row that holds an event has to be allowed.
func TestTwoRows(t *testing.T) {
	e := build(t, 4, "", []string{"h", "x"})
	for _, tt := range []struct {
		send []string
		want string
	}{
		{nil, "dm"}, {[]string{"dm"}, "groups"}, {[]string{"groups"}, "dm"}, {[]string{"groups", "dm"}, ""},
	} {
		if row, held := policy.Check(&e, allow(t, tt.send...), knowing); row != tt.want || held != (tt.want != "") {
			t.Errorf("send: %v: row %q, held %t; want %q", tt.send, row, held, tt.want)
		}
	}
}

func TestProtected(t *testing.T) {
	inner := func(tags string) string {
		return fmt.Sprintf(`{"id":"%064d","pubkey":"%064d","created_at":1000,"kind":1,"tags":%s,"content":"x","sig":"%0128d"}`, 1, 2, tags, 3)
	}
	for _, tt := range []struct {
		name string
		e    event.Event
		want bool
	}{
		{"tag", build(t, 1, "", []string{"-"}), true},
		{"tag behind others", build(t, 30023, "", []string{"d", "x"}, []string{"-"}), true},
		{"tag with a value (go-nostr lets it pass)", build(t, 1, "", []string{"-", "x"}), true},
		{"tag with an empty value", build(t, 1, "", []string{"-", ""}), true},
		{"repost of a protected event", build(t, 6, inner(`[["-"]]`)), true},
		{"generic repost of a protected event", build(t, 16, inner(`[["t","x"],["-"]]`)), true},
		{"repost, tag with a value", build(t, 6, inner(`[["-","x"]]`)), true},
		{"repost, white space", build(t, 6, inner("[ [ \"-\"\n] ]")), true},
		{"repost, tag escaped", build(t, 6, inner(`[["\u002d"]]`)), true},
		{"repost, tag escaped in capitals", build(t, 6, inner(`[["\u002D","x"]]`)), true},
		{"repost, not an event but with the tag", build(t, 6, `{"tags":[["-"]]}`), true},
		{"repost, the second of two finds", build(t, 16, `{"content":"-","tags":[["-"]]}`), true},

		{"value only", build(t, 1, "", []string{"t", "-"}), false},
		{"longer name", build(t, 1, "", []string{"--"}), false},
		{"empty tag", build(t, 1, "", []string{}), false},
		{"note that quotes a protected event", build(t, 1, inner(`[["-"]]`)), false},
		{"repost of a plain event", build(t, 6, inner(`[["t","-"],["e","\u00e9"]]`)), false},
		{"repost whose event's text looks like the tag", build(t, 6, strings.Replace(inner(`[]`), `"x"`, `"[\"-\"]"`, 1)), false},
		{"repost without content", build(t, 6, ""), false},
		{"repost of nonsense with an escape", build(t, 6, `\u002d`), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			row, held := policy.Check(&tt.e, allow(t, policy.Names()...), knowing)
			if held != tt.want || held && row != "protected" {
				t.Errorf("Check(%s) = %q, %t; want protected %t", tt.e.Line, row, held, tt.want)
			}
		})
	}
}

func TestSendNames(t *testing.T) {
	want := []string{"dm", "wallet", "drafts", "mls", "groups", "zap_requests", "expiring", "deleted", "superseded"}
	if got := policy.Names(); !slices.Equal(got, want) {
		t.Errorf("Names() = %v, want %v", got, want)
	}
	for name, says := range map[string]string{
		"protected": "never sent", "ephemeral": "never sent", "relay-scoped": "never sent", "expired": "never sent", "vanish": "never sent",
		"dms": "dm, wallet", "": "dm, wallet", "DM": "dm, wallet",
	} {
		if _, err := policy.NewAllow([]string{"dm", name}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("send: [dm %s]: %v, want an error that says %q", name, err, says)
		}
	}
}

func TestLets(t *testing.T) {
	a := allow(t, "deleted", "dm")
	for name, want := range map[string]bool{"deleted": true, "dm": true, "superseded": false, "expired": false, "nothing": false} {
		if got := a.Lets(name); got != want {
			t.Errorf("send: [deleted, dm] lets %s: %t, want %t", name, got, want)
		}
	}
}

// TestTable: what the README shows is whole.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range policy.Table() {
		if row.Name == "" || row.Rule == "" || row.NIP == "" || row.Reason == "" || seen[row.Name] {
			t.Errorf("row %+v: an empty column, or a name twice", row)
		}
		seen[row.Name] = true
		if slices.Contains(policy.Names(), row.Name) == row.Never {
			t.Errorf("row %s: never %t, but among the names of send: %t", row.Name, row.Never, !row.Never)
		}
	}
	if len(seen) != 14 {
		t.Errorf("%d rows, want 14", len(seen))
	}
}

func BenchmarkCheck(b *testing.B) {
	var e event.Event
	raw := fmt.Sprintf(`{"id":"%064d","pubkey":"%064d","created_at":1000,"kind":1,"tags":[["e","%064d"],["p","%064d"],["t","x"]],"content":"hello","sig":"%0128d"}`,
		1, 2, 3, 4, 5)
	if err := event.Parse([]byte(raw), &e); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, held := policy.Check(&e, policy.Allow{}, knowing); held {
			b.Fatal("a plain note is held")
		}
	}
}
