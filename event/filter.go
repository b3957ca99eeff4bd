package event

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
