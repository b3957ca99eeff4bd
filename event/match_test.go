package event_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
)

func TestFilterMatch(t *testing.T) {
	p := signed(t, nostr.Event{Kind: 1, CreatedAt: 1000, Content: "x", Tags: nostr.Tags{
		{"t", "nostr", "second"}, {"t", "line\nbreak"}, {"e"}, {}, {"é", "\x7f"}, {"client", "a"}}})
	e := parse(t, p.line())
	other := e.ID
	other[31] ^= 1
	tag := func(name string, values ...string) event.Filter {
		return event.Filter{Tags: map[string][]string{name: values}}
	}
	for _, tt := range []struct {
		name string
		f    event.Filter
		want bool
	}{
		{"nothing asked", event.Filter{}, true},
		{"id", event.Filter{IDs: []event.ID{other, e.ID}}, true},
		{"another id", event.Filter{IDs: []event.ID{other}}, false},
		{"author", event.Filter{Authors: []event.PubKey{e.PubKey}}, true},
		{"another author", event.Filter{Authors: []event.PubKey{{1}}}, false},
		{"kind", event.Filter{Kinds: []int{0, 1}}, true},
		{"another kind", event.Filter{Kinds: []int{0, 2}}, false},
		{"since is inclusive", event.Filter{Since: 1000}, true},
		{"since a second later", event.Filter{Since: 1001}, false},
		{"until is inclusive", event.Filter{Until: 1000}, true},
		{"until a second earlier", event.Filter{Until: 999}, false},
		{"since and until", event.Filter{Since: 1000, Until: 1000}, true},
		{"tag", tag("t", "other", "nostr"), true},
		{"second tag of that name", tag("t", "line\nbreak"), true},
		{"value as escaped is another value", tag("t", `line\nbreak`), false},
		{"only a tag's first value counts", tag("t", "second"), false},
		{"case counts", tag("t", "Nostr"), false},
		{"prefix is no match", tag("t", "nost"), false},
		{"tag without a value", tag("e", ""), false},
		{"missing tag", tag("p", "nostr"), false},
		{"long name", tag("client", "a"), true},
		{"name not ASCII", tag("é", "\x7f"), true},
		{"empty value list asks nothing", tag("t"), true},
		{"two tags, both there", event.Filter{Tags: map[string][]string{"t": {"nostr"}, "client": {"a"}}}, true},
		{"two tags, one there", event.Filter{Tags: map[string][]string{"t": {"nostr"}, "p": {"a"}}}, false},
		{"fields are AND-ed", event.Filter{Authors: []event.PubKey{e.PubKey}, Kinds: []int{2}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.f.Match(&e); got != tt.want {
				t.Errorf("%s on %s: %t, want %t", tt.f, e.Line, got, tt.want)
			}
		})
	}
}

func TestSelectionMatch(t *testing.T) {
	e := parse(t, signed(t, nostr.Event{Kind: 1}).line())
	yes, no := event.Filter{Kinds: []int{1}}, event.Filter{Kinds: []int{2}}
	list := func(f ...event.Filter) []event.Filter { return f }
	for _, tt := range []struct {
		name string
		s    event.Selection
		want bool
	}{
		{"nothing asked", event.Selection{}, true},
		{"one list, any of it", event.Selection{All: [][]event.Filter{list(no, yes)}}, true},
		{"one list, none of it", event.Selection{All: [][]event.Filter{list(no, no)}}, false},
		{"two lists, both", event.Selection{All: [][]event.Filter{list(yes), list(no, yes)}}, true},
		{"two lists, one", event.Selection{All: [][]event.Filter{list(yes), list(no)}}, false},
		{"an empty list asks nothing", event.Selection{All: [][]event.Filter{nil, list(yes), {}}}, true},
		{"except", event.Selection{All: [][]event.Filter{list(yes)}, Except: list(no, yes)}, false},
		{"except something else", event.Selection{All: [][]event.Filter{list(yes)}, Except: list(no)}, true},
		{"except alone", event.Selection{Except: list(event.Filter{})}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.s.Compile().Match(&e); got != tt.want {
				t.Errorf("%+v: %t, want %t", tt.s, got, tt.want)
			}
		})
	}
	var none *event.Matcher
	if !none.Match(&e) {
		t.Error("a nil Matcher takes nothing, want everything")
	}
}

// TestMatchAsGoNostr compares with go-nostr's Filter.Matches, filters made of pieces of the real events.
func TestMatchAsGoNostr(t *testing.T) {
	var events []event.Event
	var theirs []*nostr.Event
	for _, frame := range corpus(t) {
		_, raw, err := event.ParseFrame(frame)
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, parse(t, string(raw)))
		var n nostr.Event
		if err := json.Unmarshal(raw, &n); err != nil {
			t.Fatal(err)
		}
		theirs = append(theirs, &n)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	hits := 0
	for range 300 {
		var f event.Filter
		for range 1 + rnd.IntN(3) { // pieces of a few events each
			e, n := events[rnd.IntN(len(events))], theirs[rnd.IntN(len(theirs))]
			switch rnd.IntN(6) {
			case 0:
				f.IDs = append(f.IDs, e.ID, events[0].ID)
			case 1:
				f.Authors = append(f.Authors, e.PubKey, events[0].PubKey)
			case 2:
				f.Kinds = append(f.Kinds, e.Kind)
			case 3:
				f.Since = e.CreatedAt
			case 4:
				f.Until = e.CreatedAt
			case 5:
				for _, tag := range n.Tags {
					if len(tag) > 1 && len(tag[0]) == 1 {
						if f.Tags == nil {
							f.Tags = map[string][]string{}
						}
						f.Tags[tag[0]] = append(f.Tags[tag[0]], tag[1])
						break
					}
				}
			}
		}
		var other nostr.Filter
		if err := json.Unmarshal([]byte(f.String()), &other); err != nil {
			t.Fatalf("go-nostr cannot read %s: %v", f, err)
		}
		m := event.Selection{All: [][]event.Filter{{f}}}.Compile()
		for i := range events {
			got, want := m.Match(&events[i]), other.Matches(theirs[i])
			if got != want {
				t.Fatalf("%s on %s: %t, go-nostr says %t", f, events[i].Line, got, want)
			}
			if got {
				hits++
			}
		}
	}
	if hits < 1000 {
		t.Errorf("only %d matches in all: the comparison shows little", hits)
	}
}

func TestFilterJSON(t *testing.T) {
	id, key := event.ID{0xab}, event.PubKey{0xcd}
	idText, keyText := id.String(), key.String()
	for _, tt := range []struct {
		name  string
		f     event.Filter
		limit int
		want  string
	}{
		{"empty", event.Filter{}, -1, `{}`},
		{"limit 0", event.Filter{}, 0, `{"limit":0}`},
		{"all fields", event.Filter{IDs: []event.ID{id}, Authors: []event.PubKey{key, key}, Kinds: []int{30023, 1, 1, 0},
			Tags: map[string][]string{"t": {"b", "a", "b"}, "e": {"x"}, "p": {}}, Since: 5, Until: 7}, 500,
			`{"ids":["` + idText + `"],"authors":["` + keyText + `"],"kinds":[0,1,30023],"#e":["x"],"#t":["a","b"],"since":5,"until":7,"limit":500}`},
		{"escapes", event.Filter{Tags: map[string][]string{"t": {"\"\\\n\x01<é\u2028"}}}, -1, `{"#t":["\"\\\n\u0001<é` + "\u2028" + `"]}`},
		{"invalid UTF-8", event.Filter{Tags: map[string][]string{"t": {"\xff"}}}, -1, `{"#t":["` + "\ufffd" + `"]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := string(tt.f.AppendJSON(nil, tt.limit))
			if got != tt.want || !json.Valid([]byte(got)) {
				t.Errorf("AppendJSON gives\n%s, want\n%s", got, tt.want)
			}
			if got := string(tt.f.AppendJSON([]byte("{"), tt.limit)); got != "{"+tt.want {
				t.Errorf("appended to a brace: %s, want {%s", got, tt.want)
			}
		})
	}
}

// TestFilterKey: the key depends on what a filter takes, not on how its lists are ordered; asking changes nothing.
func TestFilterKey(t *testing.T) {
	a := event.Filter{Kinds: []int{2, 1}, Tags: map[string][]string{"t": {"y", "x"}}, IDs: []event.ID{{2}, {1}}}
	b := event.Filter{Kinds: []int{1, 2, 2}, Tags: map[string][]string{"t": {"x", "y"}}, IDs: []event.ID{{1}, {2}}}
	if a.Key() != b.Key() || a.String() != b.String() {
		t.Errorf("%s and %s have different keys", a, b)
	}
	if !slices.Equal(a.Kinds, []int{2, 1}) || !slices.Equal(a.Tags["t"], []string{"y", "x"}) || a.IDs[0] != (event.ID{2}) {
		t.Errorf("Key sorts the filter's own lists: %+v", a)
	}
	b.Since = 1
	if a.Key() == b.Key() {
		t.Errorf("%s and %s have the same key", a, b)
	}
}

func TestTags(t *testing.T) {
	long := nostr.Tag{"long"}
	for range 20 {
		long = append(long, "x")
	}
	tags := nostr.Tags{{"a", "1", "2"}, {}, {""}, {"a", "3"}, {"b"}, {"b", ""}, {"\"]", "[\\\n"}, long, {"c", "4"}}
	e := parse(t, signed(t, nostr.Event{Kind: 1, Tags: tags}).line())
	i := 0
	for tag := range e.Tags() {
		var got []string
		for _, s := range tag {
			got = append(got, event.Unescape(s))
		}
		if !slices.Equal(got, tags[i]) {
			t.Errorf("tag %d is %q, want %q", i, got, tags[i])
		}
		i++
	}
	if i != len(tags) {
		t.Errorf("%d tags, want %d", i, len(tags))
	}
	i = 0
	for range e.Tags() {
		if i++; i == 3 {
			break
		}
	}
	if i != 3 {
		t.Errorf("a loop left at the third tag saw %d", i)
	}
	for _, tt := range []struct {
		name, value string
		has, valued bool
	}{
		{"a", "1", true, true}, {"b", "", true, true}, {"c", "4", true, true}, {"long", "x", true, true},
		{"", "", true, false}, {"x", "", false, false}, {"1", "", false, false}, {`\"]`, `[\\\n`, true, true},
	} {
		value, ok := e.Tag(tt.name)
		if string(value) != tt.value || ok != tt.valued || e.HasTag(tt.name) != tt.has {
			t.Errorf("Tag(%q) = %q, %t and HasTag %t; want %q, %t, %t", tt.name, value, ok, e.HasTag(tt.name), tt.value, tt.valued, tt.has)
		}
	}
	var zero event.Event
	for tag := range zero.Tags() {
		t.Errorf("an event never parsed has a tag %q", tag)
	}
	if _, ok := zero.Tag("a"); ok || zero.HasTag("a") || zero.Content() != "" {
		t.Error("an event never parsed has a tag or content")
	}
}

func TestExpiration(t *testing.T) {
	for _, tt := range []struct {
		name string
		tags nostr.Tags
		at   int64
		ok   bool
	}{
		{"none", nil, 0, false},
		{"set", nostr.Tags{{"t", "x"}, {"expiration", "1700000000"}}, 1700000000, true},
		{"only the first counts", nostr.Tags{{"expiration", "5"}, {"expiration", "9"}}, 5, true},
		{"only the first counts, also when it is nonsense", nostr.Tags{{"expiration", "soon"}, {"expiration", "9"}}, 0, false},
		{"one without a value is none", nostr.Tags{{"expiration"}, {"expiration", "9"}}, 9, true},
		{"empty", nostr.Tags{{"expiration", ""}}, 0, false},
		{"negative", nostr.Tags{{"expiration", "-5"}}, 0, false},
		{"a fraction", nostr.Tags{{"expiration", "5.5"}}, 0, false},
		{"zero", nostr.Tags{{"expiration", "0"}}, 0, true},
		{"the highest", nostr.Tags{{"expiration", "9223372036854775807"}}, 1<<63 - 1, true},
		{"beyond int64", nostr.Tags{{"expiration", "9223372036854775808"}}, 1<<63 - 1, true},
		{"far beyond int64", nostr.Tags{{"expiration", strings.Repeat("9", 50)}}, 1<<63 - 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := parse(t, signed(t, nostr.Event{Kind: 1, Tags: tt.tags}).line())
			if at, ok := event.Expiration(&e); at != tt.at || ok != tt.ok {
				t.Errorf("Expiration of %v = %d, %t; want %d, %t", tt.tags, at, ok, tt.at, tt.ok)
			}
		})
	}
}

func TestKinds(t *testing.T) {
	for _, tt := range []struct {
		kind                                int
		ephemeral, replaceable, addressable bool
	}{
		{0, false, true, false}, {1, false, false, false}, {2, false, false, false}, {3, false, true, false}, {4, false, false, false},
		{41, false, false, false}, {9999, false, false, false}, {10000, false, true, false}, {19999, false, true, false},
		{20000, true, false, false}, {29999, true, false, false}, {30000, false, false, true}, {39999, false, false, true},
		{40000, false, false, false}, {65535, false, false, false},
	} {
		if event.IsEphemeral(tt.kind) != tt.ephemeral || event.IsReplaceable(tt.kind) != tt.replaceable ||
			event.IsAddressable(tt.kind) != tt.addressable {
			t.Errorf("kind %d: ephemeral %t, replaceable %t, addressable %t; want %+v", tt.kind,
				event.IsEphemeral(tt.kind), event.IsReplaceable(tt.kind), event.IsAddressable(tt.kind), tt)
		}
	}
}

func TestUnescape(t *testing.T) {
	for raw, want := range map[string]string{
		``: ``, `plain é`: `plain é`, `\"\\\/\b\f\n\r\t`: "\"\\/\b\f\n\r\t", `a\u0000b\u001fc`: "a\x00b\x1fc",
		`\ud83d\ude00`: "\U0001F600", `a\x`: `a\x`, `a\`: `a\`, `a\ud83d`: `a\ud83d`,
	} {
		if got := event.Unescape([]byte(raw)); got != want {
			t.Errorf("Unescape(%s) = %q, want %q", raw, got, want)
		}
	}
}
