package relay

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

const anID = "00000000000000000000000000000000000000000000000000000000000000ab"

func TestParse(t *testing.T) {
	for _, c := range []struct {
		frame   string
		want    message
		unknown string
	}{
		{`["EVENT","s",{"id":"x"}]`, message{kind: kindEvent}, ""},
		{" [ \"EVENT\" ,\n\"s\",{}]", message{kind: kindEvent}, ""},
		{`["\u0045VENT","s",{}]`, message{kind: kindEvent, label: "EVENT"}, ""},
		{`["EOSE","s"]`, message{kind: kindEOSE, label: "EOSE", sub: "s"}, ""},
		{`["EOSE","s","finish"]`, message{kind: kindEOSE, label: "EOSE", sub: "s", text: "finish"}, ""},
		{`["EOSE","s",["finish"]]`, message{kind: kindEOSE, label: "EOSE", sub: "s", text: "finish"}, ""},
		{`["EOSE","s",["later", "more"],7]`, message{kind: kindEOSE, label: "EOSE", sub: "s", text: "more"}, ""},
		{`["EOSE","s",["more","finish"]]`, message{kind: kindEOSE, label: "EOSE", sub: "s", text: "more"}, ""},
		{`["EOSE","s",["later"]]`, message{kind: kindEOSE, label: "EOSE", sub: "s"}, ""},
		{`["EOSE","s",[]]`, message{kind: kindEOSE, label: "EOSE", sub: "s"}, ""},
		{`["EOSE","s",["finish",7]]`, message{kind: kindEOSE, label: "EOSE", sub: "s"}, ""},
		{`["EOSE","s","later"]`, message{kind: kindEOSE, label: "EOSE", sub: "s"}, ""},
		{`["EOSE","s",{"later":"NIP"}]`, message{kind: kindEOSE, label: "EOSE", sub: "s"}, ""},
		{`["CLOSED","s"]`, message{kind: kindClosed, label: "CLOSED", sub: "s"}, ""},
		{`["CLOSED","s","error: a \"b\", c]",7]`, message{kind: kindClosed, label: "CLOSED", sub: "s", text: `error: a "b", c]`}, ""},
		{`["OK","` + anID + `",true,""]`, message{kind: kindOK, ok: true}, ""},
		{`["OK","` + anID + `",false,"blocked: no"]`, message{kind: kindOK, text: "blocked: no"}, ""},
		{`["OK", "` + strings.ToUpper(anID) + `", false , "a\nb", 1, [2]]`, message{kind: kindOK, label: "OK", text: "a\nb"}, ""},
		{`["OK","` + anID + `",true]`, message{kind: kindOK, label: "OK", ok: true}, ""},
		{`["OK","` + anID + `",true,null]`, message{kind: kindOK, label: "OK", ok: true}, ""},
		{`["OK","` + anID + `","true",""]`, message{}, UnknownMalformed},
		{`["OK","ab",true,""]`, message{}, UnknownMalformed},
		{`["OK"]`, message{}, UnknownMalformed},
		{`["NOTICE","hello"]`, message{kind: kindNotice, label: "NOTICE", text: "hello"}, ""},
		{`["NOTICE",7]`, message{}, UnknownMalformed},
		{`["AUTH","c"]`, message{kind: kindAuth, label: "AUTH", text: "c"}, ""},
		{`["NEG-MSG","s","61"]`, message{kind: kindNeg, label: "NEG-MSG", sub: "s", text: "61"}, ""},
		{`["NEG-MSG","s"]`, message{}, UnknownMalformed},
		{`["NEG-ERR","s","blocked: too many query results",1000000]`, message{kind: kindNegErr, label: "NEG-ERR", sub: "s", text: "blocked: too many query results", most: 1_000_000}, ""},
		{`["NEG-ERR","s","blocked: x","500"]`, message{kind: kindNegErr, label: "NEG-ERR", sub: "s", text: "blocked: x", most: 500}, ""},
		{`["NEG-ERR","s","closed: x",-1]`, message{kind: kindNegErr, label: "NEG-ERR", sub: "s", text: "closed: x"}, ""},
		{`["NEG-ERROR","s","CLOSED"]`, message{kind: kindNegErr, label: "NEG-ERROR", sub: "s", text: "CLOSED"}, ""},
		{`["NEG-ERR",1,"x"]`, message{}, UnknownMalformed},
		{`["COUNT","s",{"count":7}]`, message{kind: kindCount, label: "COUNT", sub: "s", count: Count{Events: 7}}, ""},
		{`["COUNT","s",{"count":"8","approximate":true,"hll":"00"}]`, message{kind: kindCount, label: "COUNT", sub: "s", count: Count{8, true}}, ""},
		{`["COUNT","s",{"count":0}]`, message{kind: kindCount, label: "COUNT", sub: "s"}, ""},
		{`["COUNT","s",{"count":-1}]`, message{}, UnknownMalformed},
		{`["COUNT","s",{"count":null}]`, message{}, UnknownMalformed},
		{`["COUNT","s",7]`, message{}, UnknownMalformed},
		{`["COUNT",7,{"count":7}]`, message{}, UnknownMalformed},
		{`["EOSE",{}]`, message{}, UnknownMalformed},
		{`["EVENT"]`, message{}, UnknownMalformed},
		{`[]`, message{}, UnknownType},
		{`[1,2]`, message{}, UnknownType},
		{`[["EVENT"],"x"]`, message{}, UnknownType},
		{`{"a":1}`, message{}, UnknownNotArray},
		{`"EVENT"`, message{}, UnknownNotArray},
		{`null`, message{}, UnknownNotArray},
		{``, message{}, UnknownNotJSON},
		{`hello`, message{}, UnknownNotJSON},
		{`["EOSE","s"`, message{}, UnknownNotJSON},
		{`["OK","` + anID + `",true,""`, message{}, UnknownNotJSON},
		{strings.Repeat("[", 20000), message{}, UnknownNotJSON},
	} {
		var m message
		unknown := parse([]byte(c.frame), &m)
		if m.kind == kindOK {
			if got := m.id.String(); got != anID {
				t.Errorf("parse(%.80s): id is %s", c.frame, got)
			}
			m.id = c.want.id
			m.label = c.want.label
		}
		if unknown != "" {
			m = message{}
		}
		if unknown != c.unknown || m != c.want {
			t.Errorf("parse(%.80s) = %+v, %q; want %+v, %q", c.frame, m, unknown, c.want, c.unknown)
		}
	}
}

func TestAMillionElementsCostNoMemory(t *testing.T) {
	frame := []byte(`["X"` + strings.Repeat(",1", 1<<20) + `]`)
	var m message
	if got := testing.AllocsPerRun(3, func() { parse(frame, &m) }); got > 20 {
		t.Errorf("parsing a frame of a million elements makes %v allocations", got)
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                  "plain",
		"a\nb\x1b[31m\x00":       "a b\ufffd[31m\ufffd",
		"bad \xff":               "bad \ufffd",
		"snow ☃":                 "snow ☃",
		"\u202egnp.exe":          "\ufffdgnp.exe",
		strings.Repeat("é", 300): strings.Repeat("é", 199) + "…",
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzParse: any bytes: no panic, a reason or a kind, and the fast ways agree with encoding/json.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`["EVENT","s",{"id":"x"}]`, `["EOSE","s","finish"]`, `["CLOSED","s","error: x"]`, `["OK","` + anID + `",true,""]`,
		`["NOTICE","a\u0000"]`, `["AUTH","c"]`, `["NEG-ERR","s","blocked"]`, `[`, `["`, `["OK","`, `{}`, ` [ "EVENT" , `, `[[[],{}],","]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		var m message
		unknown := parse(frame, &m)
		if (unknown == "") == (m.kind == kindUnknown) {
			t.Fatalf("parse(%q): kind %d with reason %q", frame, m.kind, unknown)
		}
		if c := clean(m.text); !utf8.ValidString(c) || len(c) > 3*maxText+3 {
			t.Errorf("clean(%q) = %q", m.text, c)
		}
		Classify(m.ok, m.text)
		ClassifyClosed(m.text)
		if m.kind == kindUnknown || m.kind == kindEvent {
			return
		}
		var parts []any
		if err := json.Unmarshal(frame, &parts); err != nil || len(parts) == 0 {
			t.Fatalf("parse(%q) took what is no JSON array: %v", frame, err)
		}
		switch m.kind {
		case kindOK:
			if parts[0] != "OK" || parts[2] != m.ok {
				t.Errorf("parse(%q) = %+v", frame, m)
			}
			if s, ok := at(parts, 3).(string); ok && s != m.text {
				t.Errorf("parse(%q): text %q, want %q", frame, m.text, s)
			}
		case kindEOSE, kindClosed:
			if parts[1] != m.sub {
				t.Errorf("parse(%q): sub %q", frame, m.sub)
			}
		}
	})
}

func at(parts []any, i int) any {
	if i < len(parts) {
		return parts[i]
	}
	return nil
}
