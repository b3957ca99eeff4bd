package event_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
)

// testKey signs the events of these tests: BIP-340's first test vector.
const testKey = "0000000000000000000000000000000000000000000000000000000000000003"

// spelling is an event's JSON value by value, to be spelt differently than the event was signed.
type spelling map[string]string

var order = []string{"id", "pubkey", "created_at", "kind", "tags", "content", "sig"}

// signed gives the event's fields, signed by go-nostr over its own serialization, as JSON.
func signed(t testing.TB, e nostr.Event) spelling {
	t.Helper()
	if e.CreatedAt == 0 {
		e.CreatedAt = 1700000000
	}
	if e.Tags == nil {
		e.Tags = nostr.Tags{}
	}
	if err := e.Sign(testKey); err != nil {
		t.Fatal(err)
	}
	tags := []string{}
	for _, tag := range e.Tags {
		values := []string{}
		for _, v := range tag {
			values = append(values, quote(v))
		}
		tags = append(tags, "["+strings.Join(values, ",")+"]")
	}
	return spelling{
		"id": quote(e.ID), "pubkey": quote(e.PubKey), "created_at": fmt.Sprint(e.CreatedAt), "kind": fmt.Sprint(e.Kind),
		"tags": "[" + strings.Join(tags, ",") + "]", "content": quote(e.Content), "sig": quote(e.Sig),
	}
}

// quote is NIP-01's canonical JSON string, written a second time here on purpose.
func quote(s string) string {
	short := map[byte]string{'"': `\"`, '\\': `\\`, '\n': `\n`, '\r': `\r`, '\t': `\t`, '\b': `\b`, '\f': `\f`}
	out := `"`
	for i := range len(s) {
		if esc, ok := short[s[i]]; ok {
			out += esc
		} else if s[i] < 0x20 {
			out += fmt.Sprintf(`\u%04x`, s[i])
		} else {
			out += s[i : i+1]
		}
	}
	return out + `"`
}

// with spells fields anew: pairs of name and JSON.
func (s spelling) with(pairs ...string) spelling {
	out := spelling{}
	for k, v := range s {
		out[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	return out
}

// without leaves a field out.
func (s spelling) without(name string) spelling {
	out := s.with()
	delete(out, name)
	return out
}

// line is the object in NIP-01's order; what comes before and after its fields is put as it is.
func (s spelling) line(extra ...string) string {
	var fields []string
	for _, name := range order {
		if v, ok := s[name]; ok {
			fields = append(fields, `"`+name+`":`+v)
		}
	}
	return "{" + strings.Join(append(fields, extra...), ",") + "}"
}

// TestAcceptedSpellings has the spellings of an event that are genuine: each must verify, and come out in its one
// canonical form.
func TestAcceptedSpellings(t *testing.T) {
	plain := signed(t, nostr.Event{Kind: 1, Content: "hello", Tags: nostr.Tags{{"t", "x"}}})
	smile := signed(t, nostr.Event{Kind: 1, Content: "\U0001F600", Tags: nostr.Tags{{"t", "\U0001F600"}}})
	del := signed(t, nostr.Event{Kind: 1, Content: "a\x7fb", Tags: nostr.Tags{{"\x7f", "\x7f"}}})
	verbatim := signed(t, nostr.Event{Kind: 1, Content: "\u2028\u2029<>&/\u00a0"})
	short := signed(t, nostr.Event{Kind: 1, Content: "\n\"\\\r\t\b\f"})
	control := ""
	for c := range 0x20 {
		control += string(rune(c))
	}
	c0 := signed(t, nostr.Event{Kind: 1, Content: control, Tags: nostr.Tags{{control, control}}})
	upper := `"`
	for c := range 0x20 {
		upper += fmt.Sprintf(`\u%04X`, c)
	}
	upper += `"`
	unicode := signed(t, nostr.Event{Kind: 1, Content: "é e\u0301 \ufffe \U0010ffff \ufdd0 \ufeff \x00 \ufffd"})
	empty := signed(t, nostr.Event{Kind: 1, Tags: nostr.Tags{{}, {""}, {"a"}, {}}})
	bare := signed(t, nostr.Event{Kind: 1})
	deep := strings.Repeat("[", 64) + strings.Repeat("]", 64)

	tests := []struct {
		name, raw string
		want      spelling
	}{
		{"DEL verbatim (strfry hashes it as \\u007f)", del.line(), del},
		{"DEL escaped", del.with("content", `"a\u007Fb"`, "tags", `[["\u007f","\u007f"]]`).line(), del},
		{"U+2028, U+2029, <>&, slash verbatim", verbatim.line(), verbatim},
		{"U+2028, U+2029, <>&, slash escaped", verbatim.with("content", `"\u2028\u2029\u003c\u003E\u0026\/\u00A0"`).line(), verbatim},
		{"the seven short escapes", short.line(), short},
		{"the seven short escapes as \\u", short.with("content", `"\u000a\u0022\u005c\u000D\u0009\u0008\u000C"`).line(), short},
		{"every other control character is \\u00xx in lower case", c0.line(), c0},
		{"every control character as \\u00XX", c0.with("content", upper, "tags", "[["+upper+","+upper+"]]").line(), c0},
		{"surrogate pair", smile.with("content", `"\ud83d\ude00"`, "tags", `[["t","\uD83D\uDE00"]]`).line(), smile},
		{"NFC, NFD, noncharacters, BOM, NUL, U+FFFD untouched", unicode.line(), unicode},
		{"letters as \\u", plain.with("content", `"\u0068ell\u006F"`).line(), plain},
		{"unknown field (go-nostr loses the event)", plain.line(`"extra":{"a":[1,-2.5e+3,true,false,null,"\u00e9",{}]}`), plain},
		{"strfry's fried field", plain.line(`"fried":"00ff"`), plain},
		{"several unknown fields", plain.line(`"a":1`, `"b":2`, `"A":3`, `"":4`), plain},
		{"unknown field 64 deep", plain.line(`"extra":` + deep), plain},
		{"unknown field with nested known keys", plain.line(`"extra":{"id":"","id":1,"content":null}`), plain},
		{"unknown keys that differ in case from known ones", plain.line(`"ID":1`, `"Content":null`), plain},
		{"escaped key", strings.Replace(plain.line(), `"content"`, `"\u0063ontent"`, 1), plain},
		{"every key escaped", strings.NewReplacer(`"id"`, `"\u0069d"`, `"tags"`, `"t\u0061gs"`, `"sig"`, `"si\u0067"`).Replace(plain.line()), plain},
		{"escaped hex digits", plain.with("pubkey", strings.Replace(plain["pubkey"], "f", `\u0066`, 1)).line(), plain},
		{"empty tags", bare.line(), bare},
		{"empty tag", empty.line(), empty},
		{"kind 65535", signed(t, nostr.Event{Kind: 65535}).line(), nil},
		{"kind 0", signed(t, nostr.Event{Kind: 0}).line(), nil},
		{"created_at 2^53-1", signed(t, nostr.Event{CreatedAt: 1<<53 - 1}).line(), nil},
		{"white space everywhere", " \t\r\n" + strings.NewReplacer(",", " ,\n", ":", "\t: ", "{", "{ ", "}", " }", "[", "[ ", "]", "\r]").Replace(plain.line()) + "\r\n", plain},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := parse(t, tt.raw)
			if err := e.Verify(); err != nil {
				t.Errorf("%s: genuine, but Verify says %v\nline %s", tt.raw, err, e.Line)
			}
			if tt.want != nil && string(e.Line) != tt.want.line() {
				t.Errorf("canonical line is\n%s, want\n%s", e.Line, tt.want.line())
			}
		})
	}
}

// TestFieldOrder parses one event in every order of its fields.
func TestFieldOrder(t *testing.T) {
	want := signed(t, nostr.Event{Kind: 1, Content: "a\nb", Tags: nostr.Tags{{"t", "x\\"}, {"e"}}})
	var permute func(done, left []string)
	permute = func(done, left []string) {
		if len(left) == 0 {
			raw := "{"
			for i, name := range done {
				if i > 0 {
					raw += ","
				}
				raw += `"` + name + `":` + want[name]
			}
			if e := parse(t, raw+"}"); string(e.Line) != want.line() {
				t.Fatalf("fields in the order %v give %s", done, e.Line)
			}
			return
		}
		for i := range left {
			rest := slices.Delete(slices.Clone(left), i, i+1)
			permute(append(slices.Clone(done), left[i]), rest)
		}
	}
	permute(nil, order)
}

// TestRefusedSpellings has the spellings that have no one reading, each with the reason it is counted under.
func TestRefusedSpellings(t *testing.T) {
	plain := signed(t, nostr.Event{Kind: 1, Content: "hello", Tags: nostr.Tags{{"t", "x"}}})
	content := func(json string) string { return plain.with("content", json).line() }
	tags := func(json string) string { return plain.with("tags", json).line() }
	createdAt := func(json string) string { return plain.with("created_at", json).line() }
	kind := func(json string) string { return plain.with("kind", json).line() }
	inner := func(name string) string { return strings.Trim(plain[name], `"`) }
	tests := []struct {
		name, raw string
		want      event.Reason
	}{
		{"lone high surrogate (go-nostr accepts U+FFFD)", content(`"\ud83d"`), event.BadEncoding},
		{"lone low surrogate", content(`"\ude00"`), event.BadEncoding},
		{"surrogates the wrong way round", content(`"\ude00\ud83d"`), event.BadEncoding},
		{"high surrogate before a letter", content(`"\ud83dx"`), event.BadEncoding},
		{"high surrogate before another escape", content(`"\ud83d\n"`), event.BadEncoding},
		{"two high surrogates", content(`"\ud83d\ud83d\ude00"`), event.BadEncoding},
		{"high surrogate before \\u0041", content(`"\ud83d\u0041"`), event.BadEncoding},
		{"lone surrogate in a tag", tags(`[["t","\ud83d"]]`), event.BadEncoding},
		{"lone surrogate in a key", plain.line(`"\ud83d":1`), event.BadEncoding},
		{"lone surrogate in an unknown field", plain.line(`"x":"\ud83d"`), event.BadEncoding},
		{"invalid UTF-8 (go-nostr accepts)", content("\"a\xffb\""), event.BadEncoding},
		{"truncated UTF-8", content("\"a\xe2\x82\""), event.BadEncoding},
		{"overlong UTF-8", content("\"\xc0\xaf\""), event.BadEncoding},
		{"UTF-8 above U+10FFFF", content("\"\xf4\x90\x80\x80\""), event.BadEncoding},
		{"CESU-8", content("\"\xed\xa0\xbd\xed\xb8\x80\""), event.BadEncoding},
		{"invalid UTF-8 in a tag", tags("[[\"t\",\"\xff\"]]"), event.BadEncoding},
		{"invalid UTF-8 in a key", plain.line("\"\xff\":1"), event.BadEncoding},
		{"invalid UTF-8 in an unknown field", plain.line("\"x\":[\"\xff\"]"), event.BadEncoding},
		{"raw newline", content("\"a\nb\""), event.BadEncoding},
		{"raw NUL", content("\"a\x00b\""), event.BadEncoding},
		{"raw tab in a tag", tags("[[\"t\",\"a\tb\"]]"), event.BadEncoding},
		{"raw 0x1f", content("\"a\x1f\""), event.BadEncoding},
		{"raw control character in an unknown field", plain.line("\"x\":\"\x01\""), event.BadEncoding},

		{"content twice (go-nostr: last wins)", plain.line(`"content":"other"`), event.DuplicateKey},
		{"id twice, the same", plain.line(`"id":` + plain["id"]), event.DuplicateKey},
		{"id twice, once escaped", plain.line(`"\u0069d":` + plain["id"]), event.DuplicateKey},
		{"escaped id first", `{"\u0069\u0064":` + plain["id"] + "," + plain.line()[1:], event.DuplicateKey},
		{"unknown key twice", plain.line(`"x":1`, `"x":1`), event.DuplicateKey},
		{"unknown key twice, once escaped", plain.line(`"x":1`, `"\u0078":1`), event.DuplicateKey},

		{"created_at -5 (go-nostr accepts)", createdAt("-5"), event.OutOfRange},
		{"created_at -0", createdAt("-0"), event.OutOfRange},
		{"created_at 2^53", createdAt("9007199254740992"), event.OutOfRange},
		{"created_at 2^63", createdAt("9223372036854775808"), event.OutOfRange},
		{"created_at 2^64", createdAt("18446744073709551616"), event.OutOfRange},
		{"created_at of 100 digits", createdAt("1" + strings.Repeat("0", 99)), event.OutOfRange},
		{"kind -1 (go-nostr accepts)", kind("-1"), event.OutOfRange},
		{"kind 65536 (strfry accepts)", kind("65536"), event.OutOfRange},
		{"kind 2^64+1", kind("18446744073709551617"), event.OutOfRange},
		{"created_at 1e9", createdAt("1e9"), event.BadField},
		{"created_at 1.0", createdAt("1.0"), event.BadField},
		{"created_at in quotes", createdAt(`"1700000000"`), event.BadField},
		{"created_at with a leading zero", createdAt("01700000000"), event.BadField},
		{"created_at 00", createdAt("00"), event.BadField},
		{"created_at +1", createdAt("+1"), event.BadField},
		{"created_at 1.", createdAt("1."), event.BadField},
		{"created_at 0x10", createdAt("0x10"), event.BadJSON},
		{"created_at null", createdAt("null"), event.BadField},
		{"created_at true", createdAt("true"), event.BadField},
		{"kind 1e0", kind("1e0"), event.BadField},
		{"kind 1.0", kind("1.0"), event.BadField},
		{"kind in quotes", kind(`"1"`), event.BadField},
		{"kind 01", kind("01"), event.BadField},
		{"kind null", kind("null"), event.BadField},

		{"upper-case id", plain.with("id", strings.ToUpper(plain["id"])).line(), event.BadField},
		{"upper-case pubkey (go-nostr accepts)", plain.with("pubkey", strings.ToUpper(plain["pubkey"])).line(), event.BadField},
		{"upper-case sig (go-nostr accepts)", plain.with("sig", strings.ToUpper(plain["sig"])).line(), event.BadField},
		{"id with 0x (strfry accepts)", plain.with("id", quote("0x"+inner("id"))).line(), event.BadField},
		{"id with 0x of the right length", plain.with("id", quote("0x"+inner("id")[2:])).line(), event.BadField},
		{"id too short", plain.with("id", quote(inner("id")[1:])).line(), event.BadField},
		{"pubkey too long", plain.with("pubkey", quote(inner("pubkey")+"0")).line(), event.BadField},
		{"sig of 64 digits", plain.with("sig", plain["id"]).line(), event.BadField},
		{"empty id (go-nostr panics)", plain.with("id", `""`).line(), event.BadField},
		{"id null", plain.with("id", "null").line(), event.BadField},
		{"id a number", plain.with("id", "1").line(), event.BadField},
		{"id with a space", plain.with("id", quote(inner("id")+" ")).line(), event.BadField},

		{"tags null (go-nostr accepts)", tags("null"), event.BadField},
		{"tags an object", tags("{}"), event.BadField},
		{"tags a string", tags(`"x"`), event.BadField},
		{"content null (go-nostr accepts)", content("null"), event.BadField},
		{"content a number", content("1"), event.BadField},
		{"content an object", content("{}"), event.BadField},
		{"tag null", tags("[null]"), event.BadField},
		{"tag a string", tags(`["t"]`), event.BadField},
		{"tag an object", tags(`[{}]`), event.BadField},
		{"tag element null", tags(`[["t",null]]`), event.BadField},
		{"tag element a number", tags(`[["t",1]]`), event.BadField},
		{"tag element an array", tags(`[["t",["x"]]]`), event.BadField},
		{"an empty object", "{}", event.BadField},

		{"not JSON", "hello", event.BadJSON},
		{"nothing", "", event.BadJSON},
		{"only white space", " \n", event.BadJSON},
		{"null", "null", event.BadJSON},
		{"an array", "[" + plain.line() + "]", event.BadJSON},
		{"a byte order mark", "\ufeff" + plain.line(), event.BadJSON},
		{"something behind it", plain.line() + "x", event.BadJSON},
		{"two events", plain.line() + plain.line(), event.BadJSON},
		{"comma at the end", strings.TrimSuffix(plain.line(), "}") + ",}", event.BadJSON},
		{"no comma", strings.Replace(plain.line(), `,"kind"`, ` "kind"`, 1), event.BadJSON},
		{"no colon", strings.Replace(plain.line(), `"kind":`, `"kind" `, 1), event.BadJSON},
		{"a key without quotes", plain.line(`x:1`), event.BadJSON},
		{"a comment", plain.line(`/**/"x":1`), event.BadJSON},
		{"tags with a comma at the end", tags(`[["t"],]`), event.BadField},
		{"a tag with a comma at the end", tags(`[["t",]]`), event.BadField},
		{"tags without a comma", tags(`[["t"]["x"]]`), event.BadJSON},
		{"tags closed by a brace", tags(`[["t"}]`), event.BadJSON},
		{"an unknown escape", content(`"\x41"`), event.BadJSON},
		{"\\u without digits", content(`"\u12g4"`), event.BadJSON},
		{"\\u cut short", content(`"\u12"`), event.BadJSON},
		{"a single quote", content(`'x'`), event.BadField},
		{"unknown field NaN", plain.line(`"x":NaN`), event.BadJSON},
		{"unknown field 01", plain.line(`"x":01`), event.BadJSON},
		{"unknown field .5", plain.line(`"x":.5`), event.BadJSON},
		{"unknown field 1.", plain.line(`"x":1.`), event.BadJSON},
		{"unknown field 1e", plain.line(`"x":1e`), event.BadJSON},
		{"unknown field -", plain.line(`"x":-`), event.BadJSON},
		{"unknown field tru", plain.line(`"x":tru`), event.BadJSON},
		{"unknown field without value", plain.line(`"x":`), event.BadJSON},
		{"unknown field not closed", plain.line(`"x":[1`), event.BadJSON},
		{"unknown field 65 deep", plain.line(`"x":` + strings.Repeat("[", 65) + strings.Repeat("]", 65)), event.BadJSON},
		{"unknown field a million deep", plain.line(`"x":` + strings.Repeat("[", 1e6)), event.BadJSON},
		{"tags a million deep", tags(strings.Repeat("[", 1e6) + strings.Repeat("]", 1e6)), event.BadField},
	}
	for _, name := range order {
		tests = append(tests, struct {
			name, raw string
			want      event.Reason
		}{name + " missing", plain.without(name).line(), event.BadField})
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var e event.Event
			err := event.Parse([]byte(tt.raw), &e)
			if got := event.ReasonOf(err); got != tt.want {
				t.Errorf("Parse(%.400q) = %v (reason %q), want reason %q", tt.raw, err, got, tt.want)
			}
		})
	}
}

// TestTruncated cuts an event after every byte.
func TestTruncated(t *testing.T) {
	raw := signed(t, nostr.Event{Kind: 1, Content: "a\\\U0001F600", Tags: nostr.Tags{{"t", "\n"}}}).line(`"x":[{"a":-1.5e3},true]`)
	for n := range len(raw) {
		var e event.Event
		if err := event.Parse([]byte(raw[:n]), &e); err == nil {
			t.Errorf("Parse accepts the first %d bytes of %d: %s", n, len(raw), raw[:n])
		}
		frame := `["EVENT","s",` + raw + `]`
		if _, _, err := event.ParseFrame([]byte(frame[:len(frame)-1-n])); err == nil {
			t.Errorf("ParseFrame accepts a message cut by %d bytes", n+1)
		}
		event.ScanFrame([]byte(frame[:len(frame)-1-n]))
		event.ScanLine([]byte(raw[:n]))
		event.ScanCreatedAt([]byte(raw[:n]))
	}
}

// TestParseReuse parses into one Event again and again: its buffer is reused, and nothing of the last event stays.
// TestParseKeepsLittle: white space and escapes, of which an author may write megabytes into an event, do not stay in memory for
// as long as the event does.
func TestParseKeepsLittle(t *testing.T) {
	s := signed(t, nostr.Event{Kind: 1, Content: "hello", Tags: nostr.Tags{{"t", "x"}}})
	for name, spelt := range map[string]spelling{
		"white space": s.with("tags", "["+strings.Repeat(" ", 1<<20)+`["t","x"]]`),
		"escapes":     s.with("content", `"`+strings.Repeat(`\u0061`, 1000)+`"`),
	} {
		if e := parse(t, spelt.line()); cap(e.Line) > 2*len(e.Line) {
			t.Errorf("%s: a line of %d bytes keeps %d", name, len(e.Line), cap(e.Line))
		}
	}
}

func TestParseReuse(t *testing.T) {
	long := signed(t, nostr.Event{Kind: 1, Content: strings.Repeat("x", 1000), Tags: nostr.Tags{{"t", "long"}}}).line()
	short := signed(t, nostr.Event{Kind: 2, Content: "y"}).line()
	e := parse(t, long)
	first := &e.Line[0]
	if err := event.Parse([]byte(long[:len(long)-1]), &e); err == nil {
		t.Fatal("Parse accepts a cut event")
	}
	if err := event.Parse([]byte(short), &e); err != nil {
		t.Fatal(err)
	}
	if &e.Line[0] != first {
		t.Error("Parse does not reuse Line's capacity")
	}
	if string(e.Line) != short || e.Kind != 2 || e.HasTag("t") || e.Content() != "y" {
		t.Errorf("after reuse: %s", e.Line)
	}
}
