package event

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Filter is one NIP-01 filter. Empty lists take everything; fields are AND-ed, members of a list OR-ed.
type Filter struct {
	IDs     []ID
	Authors []PubKey
	Kinds   []int
	Tags    map[string][]string // by tag name without '#', single letters
	Since   int64               // unix seconds, inclusive; 0: none
	Until   int64               // unix seconds, inclusive; 0: none
}

// Selection says which events are meant: those that pass every non-empty list of All, and none of Except. A list
// of filters passes what any of its filters takes.
type Selection struct {
	All    [][]Filter
	Except []Filter
}

// Match reports whether f takes e (NIP-01). It compiles f each time: compile once for more than a few events.
func (f Filter) Match(e *Event) bool {
	c := f.compile()
	return c.match(e)
}

// String is f as it goes to a relay.
func (f Filter) String() string { return string(f.AppendJSON(nil, -1)) }

// Key tells filters apart that take different events: half a SHA-256 of the canonical JSON, in which the order and
// repetition of members do not show.
func (f Filter) Key() [16]byte {
	sum := sha256.Sum256(f.AppendJSON(nil, -1))
	return [16]byte(sum[:16])
}

// AppendJSON appends f as it goes to a relay: fixed order, sorted lists, each member once, no empty list (which some
// relays take for "nothing" and others for "everything"). A limit below 0 is left out.
func (f Filter) AppendJSON(dst []byte, limit int) []byte {
	dst = append(dst, '{')
	field := func(name string) {
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = appendEscaped(dst, name)
		dst = append(dst, `":`...)
	}
	texts := func(name string, values []string) {
		if len(values) == 0 {
			return
		}
		slices.Sort(values)
		field(name)
		for i, v := range slices.Compact(values) {
			dst = append(dst, separator(i)...)
			dst = append(dst, '"')
			dst = appendEscaped(dst, v)
			dst = append(dst, '"')
		}
		dst = append(dst, ']')
	}
	integer := func(name string, v int64) {
		field(name)
		dst = strconv.AppendInt(dst, v, 10)
	}
	texts("ids", hexes(f.IDs))
	texts("authors", hexes(f.Authors))
	if len(f.Kinds) > 0 {
		kinds := slices.Clone(f.Kinds)
		slices.Sort(kinds)
		field("kinds")
		for i, k := range slices.Compact(kinds) {
			dst = append(dst, separator(i)...)
			dst = strconv.AppendInt(dst, int64(k), 10)
		}
		dst = append(dst, ']')
	}
	for _, name := range slices.Sorted(maps.Keys(f.Tags)) {
		texts("#"+name, slices.Clone(f.Tags[name]))
	}
	if f.Since != 0 {
		integer("since", f.Since)
	}
	if f.Until != 0 {
		integer("until", f.Until)
	}
	if limit >= 0 {
		integer("limit", int64(limit))
	}
	return append(dst, '}')
}

// separator stands before a list's i-th member.
func separator(i int) string {
	if i == 0 {
		return "["
	}
	return ","
}

func hexes[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}
