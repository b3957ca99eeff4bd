package sources

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/nbd-wtf/go-nostr/nip19"

	"rebroadcastr/event"
)

// Words say for people what a filter asks for, its since and until aside: "2 authors, kinds 1 and 7".
func Words(f event.Filter) string {
	var parts []string
	add := func(one, many string, n int, first func() string) {
		switch {
		case n == 1:
			parts = append(parts, one+first())
		case n > 1:
			parts = append(parts, humanize.Comma(int64(n))+" "+many)
		}
	}
	add("", "ids", len(f.IDs), func() string { return short(nip19.EncodeNote(f.IDs[0].String())) })
	add("", "authors", len(f.Authors), func() string { return npub(f.Authors[0]) })
	for _, name := range slices.Sorted(maps.Keys(f.Tags)) {
		values := f.Tags[name]
		if name == "p" {
			add("mentions of ", "mentioned", len(values), func() string {
				if key, err := event.ParsePubKey(values[0]); err == nil {
					return npub(key)
				}
				return clippedTo(values[0], 20)
			})
			continue
		}
		add("tag "+name+"=", "values of tag "+name, len(values), func() string { return clippedTo(values[0], 40) })
	}
	const most = 6 // kinds by number
	switch n := len(f.Kinds); {
	case n == 1:
		parts = append(parts, "kind "+strconv.Itoa(f.Kinds[0]))
	case n > most:
		parts = append(parts, fmt.Sprintf("%d kinds", n))
	case n > 1:
		var list []string
		for _, k := range slices.Sorted(slices.Values(f.Kinds)) {
			list = append(list, strconv.Itoa(k))
		}
		parts = append(parts, "kinds "+strings.Join(list[:n-1], ", ")+" and "+list[n-1])
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, ", ")
}

func npub(key event.PubKey) string { return short(nip19.EncodePublicKey(key.String())) }

// short is what a person needs of a bech32 text to know it again. Encoding 64 hex digits cannot fail.
func short(text string, _ error) string { return clippedTo(text, 14) }

func clippedTo(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most]) + "…"
	}
	return text
}

// parseFilter reads what Filter.String has written.
func parseFilter(text []byte) (f event.Filter, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return f, fmt.Errorf("read a filter: %w", err)
	}
	for name, raw := range fields {
		switch tag, isTag := strings.CutPrefix(name, "#"); {
		case name == "ids":
			err = list(raw, &f.IDs, event.ParseID)
		case name == "authors":
			err = list(raw, &f.Authors, event.ParsePubKey)
		case name == "kinds":
			err = json.Unmarshal(raw, &f.Kinds)
		case name == "since":
			err = json.Unmarshal(raw, &f.Since)
		case name == "until":
			err = json.Unmarshal(raw, &f.Until)
		case isTag:
			var values []string
			if err = json.Unmarshal(raw, &values); f.Tags == nil {
				f.Tags = make(map[string][]string)
			}
			f.Tags[tag] = values
		}
		if err != nil {
			return f, fmt.Errorf("read a filter's %s: %w", name, err)
		}
	}
	return f, nil
}

func list[T any](raw []byte, to *[]T, parse func(string) (T, error)) error {
	var texts []string
	if err := json.Unmarshal(raw, &texts); err != nil {
		return err
	}
	for _, text := range texts {
		v, err := parse(text)
		if err != nil {
			return err
		}
		*to = append(*to, v)
	}
	return nil
}
