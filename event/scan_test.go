package event_test

import (
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
)

func TestScanFrame(t *testing.T) {
	plain := signed(t, nostr.Event{Kind: 1, Content: `quotes " and \ and ]}`, Tags: nostr.Tags{{"t", `"]}`}, {"e", "\\"}}})
	id := strings.Trim(plain["id"], `"`)
	line := plain.line()
	last := "{" + `"content":` + plain["content"] + `,"tags":` + plain["tags"] + `,"x":{"id":"nested"},"n":-1.5,"id":` + plain["id"] + "}"
	tests := []struct {
		name, frame string
		sub         string
		simple      bool
	}{
		{"plain", `["EVENT","live-0",` + line + `]`, "live-0", true},
		{"white space", " [ \"EVENT\"\t,\r\n\"live-0\" , " + strings.ReplaceAll(line, ",", " , ") + " ] ", "live-0", true},
		{"empty subscription id", `["EVENT","",` + line + `]`, "", true},
		{"id last, nested id before it", `["EVENT","s",` + last + `]`, "s", true},
		{"trailing elements", `["EVENT","s",` + line + `,1,[]]`, "s", true},
		{"cut behind the id", `["EVENT","s",{"id":` + plain["id"], "s", true},

		{"escaped label", `["EV\u0045NT","s",` + line + `]`, "", false},
		{"escaped subscription id", `["EVENT","\u0073",` + line + `]`, "", false},
		{"subscription id not ASCII", `["EVENT","é",` + line + `]`, "", false},
		{"escaped key before the id", `["EVENT","s",{"\u0069d":1,` + line[1:] + `]`, "", false},
		{"no id", `["EVENT","s",` + plain.without("id").line() + `]`, "", false},
		{"nested id only", `["EVENT","s",{"x":` + line + `}]`, "", false},
		{"upper-case id", `["EVENT","s",` + strings.Replace(line, id, strings.ToUpper(id), 1) + `]`, "", false},
		{"short id", `["EVENT","s",` + strings.Replace(line, id, id[1:], 1) + `]`, "", false},
		{"empty id (go-nostr panics)", `["EVENT","s",{"id":""}]`, "", false},
		{"escaped id", `["EVENT","s",` + strings.Replace(line, id, `\u0030`+id[1:], 1) + `]`, "", false},
		{"id null", `["EVENT","s",{"id":null}]`, "", false},
		{"another message", `["EOSE","s"]`, "", false},
		{"client's form", `["EVENT",` + line + `]`, "", false},
		{"bare event", line, "", false},
		{"unclosed string", `["EVENT","s",{"content":"`, "", false},
		{"unclosed tags", `["EVENT","s",{"tags":[["x"`, "", false},
		{"unclosed key", `["EVENT","s",{"ta`, "", false},
		{"unclosed subscription id", `["EVENT","s`, "", false},
		{"empty object", `["EVENT","s",{}]`, "", false},
		{"empty", "", "", false},
		{"bracket", "[", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, ok := event.ScanFrame([]byte(tt.frame))
			if ok != tt.simple {
				t.Fatalf("ScanFrame(%s) says simple = %t, want %t", tt.frame, ok, tt.simple)
			}
			if !ok {
				return
			}
			if s.ID.String() != id || string(s.Sub) != tt.sub || s.Sub == nil || tt.frame[s.Event] != '{' {
				t.Errorf("ScanFrame(%s) = id %s, sub %q, event at %d; want id %s, sub %q", tt.frame, s.ID, s.Sub, s.Event, id, tt.sub)
			}
			line := tt.frame[s.Event:]
			if l, ok := event.ScanLine([]byte(line)); !ok || l.ID != s.ID || l.Sub != nil {
				t.Errorf("ScanLine(%s) = %v, %t; ScanFrame finds %s", line, l, ok, s.ID)
			}
		})
	}
}

func TestScanLine(t *testing.T) {
	plain := signed(t, nostr.Event{Kind: 1, CreatedAt: 1234567890})
	for _, tt := range []struct {
		name, raw string
		simple    bool
		createdAt bool
	}{
		{"plain", plain.line(), true, true},
		{"white space", " \n" + plain.line() + "\r\n", true, true},
		{"an array", "[" + plain.line() + "]", false, false},
		{"not JSON", "id", false, false},
		{"created_at in quotes", plain.with("created_at", `"1234567890"`).line(), true, false},
		{"created_at too big", plain.with("created_at", `9007199254740992`).line(), true, false},
		{"created_at nested", plain.without("created_at").line(`"x":{"created_at":1}`), true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, ok := event.ScanLine([]byte(tt.raw))
			if ok != tt.simple || ok && quote(s.ID.String()) != plain["id"] {
				t.Errorf("ScanLine(%s) = %s, %t; want %s, %t", tt.raw, s.ID, ok, plain["id"], tt.simple)
			}
			at, ok := event.ScanCreatedAt([]byte(tt.raw))
			if ok != tt.createdAt || ok && at != 1234567890 {
				t.Errorf("ScanCreatedAt(%s) = %d, %t; want 1234567890, %t", tt.raw, at, ok, tt.createdAt)
			}
			key, found := event.ScanPubKey([]byte(tt.raw))
			if found && quote(key.String()) != plain["pubkey"] || !found && tt.createdAt {
				t.Errorf("ScanPubKey(%s) = %s, %t; want %s", tt.raw, key, found, plain["pubkey"])
			}
		})
	}
}

func TestParseFrame(t *testing.T) {
	plain := signed(t, nostr.Event{Kind: 1, Content: "x"})
	line := plain.line()
	for _, tt := range []struct {
		name, frame, sub string
		want             event.Reason // "": accepted
	}{
		{"plain", `["EVENT","s",` + line + `]`, "s", ""},
		{"escaped label and subscription id", ` [ "EV\u0045NT" , "\u0073\n" , ` + line + ` ] `, "s\n", ""},
		{"trailing elements", `["EVENT","s",` + line + `,null,{"a":[]},"x"]`, "s", ""},
		{"escaped id key", `["EVENT","s",` + strings.Replace(line, `"id"`, `"i\u0064"`, 1) + `]`, "s", ""},
		{"unknown field 64 deep", `["EVENT","s",` + plain.line(`"x":`+strings.Repeat("[", 64)+strings.Repeat("]", 64)) + `]`, "s", ""},
		{"not an array", line, "", event.BadFrame},
		{"not JSON", "hello", "", event.BadFrame},
		{"empty", "", "", event.BadFrame},
		{"empty array", "[]", "", event.BadFrame},
		{"another message", `["EOSE","s"]`, "", event.BadFrame},
		{"no label", `[1,"s",` + line + `]`, "", event.BadFrame},
		{"no subscription id", `["EVENT"]`, "", event.BadFrame},
		{"client's form", `["EVENT",` + line + `]`, "", event.BadFrame},
		{"subscription id a number", `["EVENT",1,` + line + `]`, "", event.BadFrame},
		{"no event", `["EVENT","s"]`, "", event.BadFrame},
		{"event null", `["EVENT","s",null]`, "", event.BadFrame},
		{"not closed", `["EVENT","s",` + line, "", event.BadFrame},
		{"comma at the end", `["EVENT","s",` + line + `,]`, "", event.BadJSON},
		{"something behind it", `["EVENT","s",` + line + `]x`, "", event.BadFrame},
		{"two messages", `["EVENT","s",` + line + `]["EVENT","s",` + line + `]`, "", event.BadFrame},
		{"event not JSON", `["EVENT","s",{"id":1,}]`, "", event.BadJSON},
		{"trailing element not JSON", `["EVENT","s",` + line + `,01]`, "", event.BadFrame},
		{"trailing element too deep", `["EVENT","s",` + line + `,` + strings.Repeat("[", 1e6), "", event.BadJSON},
		{"invalid UTF-8 in the subscription id", "[\"EVENT\",\"\xff\"," + line + `]`, "", event.BadEncoding},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sub, raw, err := event.ParseFrame([]byte(tt.frame))
			if event.ReasonOf(err) != tt.want || (err == nil) != (tt.want == "") {
				t.Fatalf("ParseFrame(%.300q) = %v, want reason %q", tt.frame, err, tt.want)
			}
			if err != nil {
				return
			}
			if e := parse(t, string(raw)); sub != tt.sub || string(e.Line) != line {
				t.Errorf("ParseFrame gives sub %q and %s, want %q and %s", sub, e.Line, tt.sub, line)
			}
		})
	}
}

// TestParseScanned checks what follows an event that was found by the scan.
func TestParseScanned(t *testing.T) {
	line := signed(t, nostr.Event{Kind: 1, Content: "x"}).line()
	for _, tt := range []struct {
		name, raw string
		want      event.Reason
	}{
		{"message", `["EVENT","s",` + line + `]`, ""},
		{"message with an empty subscription id", `["EVENT","",` + line + "] \n", ""},
		{"message with trailing elements", `["EVENT","s",` + line + ` , {"a":1}]`, ""},
		{"bare event", line + "\r\n", ""},
		{"message not closed", `["EVENT","s",` + line, event.BadFrame},
		{"message with something behind it", `["EVENT","s",` + line + `]]`, event.BadJSON},
		{"message closed by a brace", `["EVENT","s",` + line + `}`, event.BadFrame},
		{"bare event with a bracket", line + "]", event.BadJSON},
		{"message with a bad event", `["EVENT","s",` + strings.Replace(line, `"kind":1`, `"kind":-1`, 1) + `]`, event.OutOfRange},
	} {
		t.Run(tt.name, func(t *testing.T) {
			scan := event.ScanLine
			if tt.raw[0] == '[' {
				scan = event.ScanFrame
			}
			s, ok := scan([]byte(tt.raw))
			if !ok {
				t.Fatalf("%s: the scan says it is unusual", tt.raw)
			}
			var e event.Event
			err := event.ParseScanned([]byte(tt.raw), s, &e)
			if event.ReasonOf(err) != tt.want || err == nil && string(e.Line) != line {
				t.Errorf("ParseScanned(%s) = %v and %s, want reason %q", tt.raw, err, e.Line, tt.want)
			}
		})
	}
}
