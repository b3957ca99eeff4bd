package event_test

import (
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
)

func TestVerify(t *testing.T) {
	plain := signed(t, nostr.Event{Kind: 1, Content: "genuine"})
	other := signed(t, nostr.Event{Kind: 1, Content: "another"})
	flip := func(hex string) string { // the last digit
		d := "0"
		if strings.HasSuffix(hex, `0"`) {
			d = "1"
		}
		return hex[:len(hex)-2] + d + `"`
	}
	for _, tt := range []struct {
		name string
		raw  string
		want event.Reason
	}{
		{"genuine", plain.line(), ""},
		{"forged id over a valid signature (go-nostr's relay loop lets it pass)", plain.with("id", other["id"]).line(), event.BadID},
		{"id of one digit more or less", plain.with("id", flip(plain["id"])).line(), event.BadID},
		{"content changed", plain.with("content", `"Genuine"`).line(), event.BadID},
		{"created_at changed", plain.with("created_at", "1").line(), event.BadID},
		{"kind changed", plain.with("kind", "2").line(), event.BadID},
		{"tags changed", plain.with("tags", `[[]]`).line(), event.BadID},
		{"signature of another event", plain.with("sig", other["sig"]).line(), event.BadSignature},
		{"signature changed", plain.with("sig", flip(plain["sig"])).line(), event.BadSignature},
		{"signature of zeros", plain.with("sig", quote(strings.Repeat("0", 128))).line(), event.BadSignature},
		{"signature of ones", plain.with("sig", quote(strings.Repeat("f", 128))).line(), event.BadSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := parse(t, tt.raw)
			if err := e.Verify(); event.ReasonOf(err) != tt.want || (err == nil) != (tt.want == "") {
				t.Errorf("Verify = %v, want reason %q", err, tt.want)
			}
		})
	}
	t.Run("pubkey not on the curve", func(t *testing.T) {
		e := parse(t, plain.line())
		e.PubKey[0] ^= 0xff
		e.ID = e.Hash()
		if err := e.Verify(); event.ReasonOf(err) != event.BadSignature {
			t.Errorf("Verify = %v, want reason %q", err, event.BadSignature)
		}
	})
}

func TestSelfTest(t *testing.T) {
	if err := event.SelfTest(); err != nil {
		t.Error(err)
	}
	t.Logf("verifier: %s", event.VerifierName())
}

func TestParseIDAndPubKey(t *testing.T) {
	good := strings.Repeat("0123456789abcdef", 4)
	id, err := event.ParseID(good)
	if err != nil || id.String() != good {
		t.Errorf("ParseID(%s) = %s, %v", good, id, err)
	}
	key, err := event.ParsePubKey(good)
	if err != nil || key.String() != good {
		t.Errorf("ParsePubKey(%s) = %s, %v", good, key, err)
	}
	for _, bad := range []string{"", good[1:], good + "0", strings.ToUpper(good), "0x" + good[2:], "g" + good[1:], " " + good[1:], "é" + good[2:]} {
		if _, err := event.ParseID(bad); err == nil {
			t.Errorf("ParseID accepts %q", bad)
		}
		_, err := event.ParsePubKey(bad)
		if err == nil {
			t.Errorf("ParsePubKey accepts %q", bad)
		} else if bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("ParsePubKey repeats what it was given: %v", err)
		}
	}
}
