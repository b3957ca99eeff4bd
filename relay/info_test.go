package relay

import (
	"reflect"
	"strings"
	"testing"
)

func TestParseInfoIsLenient(t *testing.T) {
	for name, c := range map[string]struct {
		doc  string
		want Info
	}{
		"a good one": {
			`{"name":"n","description":"d","software":"s","version":"1","contact":"c","supported_nips":[77,1,11,1],
			  "limitation":{"max_message_length":131072,"max_subscriptions":20,"max_limit":500,"default_limit":100,"max_subid_length":71,
			  "max_event_tags":2000,"max_content_length":8196,"min_pow_difficulty":3,"auth_required":true,"payment_required":true,
			  "restricted_writes":true,"created_at_lower_limit":31536000,"created_at_upper_limit":900}}`,
			Info{Known: true, Name: "n", Description: "d", Software: "s", Version: "1", Contact: "c", NIPs: []int{1, 11, 77},
				Limits: Limits{MaxMessageLength: 131072, MaxSubscriptions: 20, MaxLimit: 500, DefaultLimit: 100, MaxSubIDLength: 71,
					MaxEventTags: 2000, MaxContentLength: 8196, MinPoW: 3, CreatedAtLower: 31536000, CreatedAtUpper: 900,
					AuthRequired: true, PaymentRequired: true, RestrictedWrites: true}},
		},
		"nothing said": {`{}`, Info{Known: true}},
		"wrong types": {
			`{"name":7,"description":null,"supported_nips":["11","NIP-40","EE",1.5,-3,null,70,[1]],
			  "limitation":{"max_limit":"500","max_subscriptions":20.0,"auth_required":"true","payment_required":1,"restricted_writes":[]}}`,
			Info{Known: true, NIPs: []int{11, 40, 70}, Limits: Limits{MaxLimit: 500, MaxSubscriptions: 20, AuthRequired: true, PaymentRequired: true}},
		},
		"absurd numbers": {
			`{"supported_nips":99,"limitation":{"max_limit":-1,"max_subscriptions":1e300,"max_event_tags":1e12,"max_message_length":"x"}}`,
			Info{Known: true, Limits: Limits{MaxEventTags: 1<<31 - 1}},
		},
		"limitation a list":    {`{"limitation":[1]}`, Info{Known: true}},
		"words for a terminal": {`{"name":"a\u001b[2Jb\nc"}`, Info{Known: true, Name: "a\ufffd[2Jb c"}},
	} {
		got, err := ParseInfo([]byte(c.doc))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, c.want)
		}
	}
	for _, doc := range []string{"", "null", "[]", "<html>", `"x"`} {
		if got, err := ParseInfo([]byte(doc)); err == nil || got.Known {
			t.Errorf("ParseInfo(%q) = %+v, %v; want an error", doc, got, err)
		}
	}
	if i, err := ParseInfo([]byte(`{"name":"` + strings.Repeat("x", 5000) + `"}`)); err != nil || len(i.Name) > maxText+3 {
		t.Errorf("a long name is kept with %d bytes, %v", len(i.Name), err)
	}
	if i := (Info{NIPs: []int{1, 40}}); !i.Supports(40) || i.Supports(77) {
		t.Error("Supports is wrong")
	}
}

func FuzzParseInfo(f *testing.F) {
	f.Add([]byte(`{"name":"n","supported_nips":[1,"2"],"limitation":{"max_limit":500}}`))
	f.Fuzz(func(t *testing.T, doc []byte) { _, _ = ParseInfo(doc) })
}
