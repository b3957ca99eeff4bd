package config

import (
	"slices"
	"strings"
)

// meant are names that people try, with the keys they may mean; the first that is known where it stands counts.
var meant = map[string][]string{
	"filter": {"filters", "only"}, "filters": {"only"}, "include": {"only"},
	"exclude": {"except"}, "ignore": {"except"}, "without": {"except"},
	"author": {"authors"}, "pubkey": {"authors"}, "pubkeys": {"authors"}, "npub": {"authors"}, "npubs": {"authors"}, "users": {"authors"},
	"relay": {"sources", "url"}, "relays": {"sources"}, "from": {"sources"}, "inputs": {"sources"}, "input": {"sources"},
	"to": {"sinks"}, "outputs": {"sinks"}, "output": {"sinks"}, "destinations": {"sinks"}, "targets": {"sinks"},
	"since": {"history", "start"}, "events": {"ids"}, "hashtags": {"tags"}, "everyone": {"all"},
	"path": {"dir"}, "directory": {"dir"}, "addr": {"url"}, "address": {"addr", "url"},
	"allow": {"send"}, "policy": {"send"}, "disabled": {"enabled"}, "retry": {"backoff"}, "rate": {"pace"},
}

// Nearest is the known name that was probably meant, or "".
func Nearest(name string, known []string) string {
	if len(name) > 64 {
		return ""
	}
	lower := strings.ToLower(name)
	for _, try := range []string{lower, strings.ReplaceAll(lower, "-", "_"), strings.ReplaceAll(lower, "_", "-")} {
		if slices.Contains(known, try) {
			return try
		}
		for _, m := range meant[try] {
			if slices.Contains(known, m) {
				return m
			}
		}
	}
	best, least := "", min(2, len(name)/2)+1
	for _, k := range slices.Sorted(slices.Values(known)) {
		if len(k) < 2 {
			continue // a flag's letter resembles everything
		}
		if d := distance(lower, k); d < least {
			best, least = k, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that turn a into b.
func distance(a, b string) int {
	var before, last []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, row = last, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}
