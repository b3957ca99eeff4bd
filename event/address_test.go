package event_test

import (
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
)

func TestAddress(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind int
		tags nostr.Tags
		d    string
		none bool
	}{
		{name: "note", kind: 1, none: true},
		{name: "deletion", kind: 5, none: true},
		{name: "undefined below replaceable", kind: 9999, none: true},
		{name: "ephemeral", kind: 20000, none: true},
		{name: "undefined above addressable", kind: 40000, none: true},
		{name: "profile", kind: 0},
		{name: "follows, whatever d says", kind: 3, tags: nostr.Tags{{"d", "x"}}},
		{name: "first replaceable", kind: 10000},
		{name: "last replaceable", kind: 19999},
		{name: "addressable without d", kind: 30000},
		{name: "first d counts", kind: 30023, tags: nostr.Tags{{"t", "y"}, {"d", "one"}, {"d", "two"}}, d: "one"},
		{name: "escaped", kind: 39999, tags: nostr.Tags{{"d", "a\n\"b:c"}}, d: `a\n\"b:c`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := parse(t, signed(t, nostr.Event{Kind: tt.kind, CreatedAt: 1000, Tags: tt.tags}).line())
			a, ok := e.Address()
			if ok == tt.none {
				t.Fatalf("Address of kind %d: %t, want %t", tt.kind, ok, !tt.none)
			}
			if !ok {
				return
			}
			if a.Kind != tt.kind || a.PubKey != e.PubKey || string(a.D) != tt.d {
				t.Errorf("Address = %s, want kind %d and d %q", a, tt.kind, tt.d)
			}
			back, ok := event.ParseAddress([]byte(a.String()))
			if !ok || back.String() != a.String() {
				t.Errorf("ParseAddress(%s) = %s, %t", a, back, ok)
			}
		})
	}
}

func TestParseAddress(t *testing.T) {
	key := strings.Repeat("ab", 32)
	for value, want := range map[string]bool{
		"0:" + key + ":":           true,
		"10002:" + key + ":":       true,
		"30023:" + key + ":":       true,
		"30023:" + key + ":a:b:c":  true,
		"30023:" + key:             false, // NIP-01: the colon stays
		"0:" + key + ":x":          false,
		"1:" + key + ":":           false,
		"20000:" + key + ":":       false,
		"99999999:" + key + ":":    false,
		"-1:" + key + ":":          false,
		":" + key + ":":            false,
		"30023:" + key[1:] + ":":   false,
		"30023:A" + key[1:] + ":x": false,
		"":                         false,
		"30023":                    false,
	} {
		if _, ok := event.ParseAddress([]byte(value)); ok != want {
			t.Errorf("ParseAddress(%q): %t, want %t", value, ok, want)
		}
	}
}

func TestSupersedes(t *testing.T) {
	low, high := event.ID{1}, event.ID{2}
	for _, tt := range []struct {
		name string
		a, b event.Event
		want bool
	}{
		{"later", event.Event{CreatedAt: 2, ID: high}, event.Event{CreatedAt: 1, ID: low}, true},
		{"earlier", event.Event{CreatedAt: 1, ID: low}, event.Event{CreatedAt: 2, ID: high}, false},
		{"same second, lower id", event.Event{CreatedAt: 1, ID: low}, event.Event{CreatedAt: 1, ID: high}, true},
		{"same second, higher id", event.Event{CreatedAt: 1, ID: high}, event.Event{CreatedAt: 1, ID: low}, false},
		{"itself", event.Event{CreatedAt: 1, ID: low}, event.Event{CreatedAt: 1, ID: low}, false},
	} {
		if got := tt.a.Supersedes(&tt.b); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestTagValues(t *testing.T) {
	id := strings.Repeat("0f", 32)
	for _, tt := range []struct {
		tag  event.Tag
		want bool
	}{
		{event.Tag{[]byte("e"), []byte(id)}, true},
		{event.Tag{[]byte("e"), []byte(id), []byte("wss://x")}, true},
		{event.Tag{[]byte("e"), []byte(strings.ToUpper(id))}, false},
		{event.Tag{[]byte("e"), []byte(id[2:])}, false},
		{event.Tag{[]byte("e")}, false},
		{event.Tag{}, false},
	} {
		id, isID := tt.tag.ID()
		key, isKey := tt.tag.PubKey()
		if isID != tt.want || isKey != tt.want || tt.want && (id[31] != 0x0f || key[0] != 0x0f) {
			t.Errorf("tag %s: id %t, key %t; want %t", tt.tag, isID, isKey, tt.want)
		}
	}
}
