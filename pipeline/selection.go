package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"rebroadcastr/config"
	"rebroadcastr/event"
)

// wanted is what a relay takes part in: the stream, narrowed by the relay's own only and except.
func wanted(cfg *config.Config, only, except []event.Filter) event.Selection {
	s := event.Selection{All: [][]event.Filter{cfg.Want}, Except: slices.Concat(cfg.Except, except)}
	if len(only) > 0 {
		s.All = append(s.All, only)
	}
	return s
}

// asked lists the filters to request: each of the stream's with each of only's, as one. Where NIP-01 cannot express
// the AND, the request is the wider one and the door narrows what comes.
func asked(cfg *config.Config, only []event.Filter) []event.Filter {
	if len(only) == 0 {
		return cfg.Want
	}
	var fs []event.Filter
	for _, w := range cfg.Want {
		for _, o := range only {
			if f, ok := intersect(w, o); ok {
				fs = append(fs, f)
			}
		}
	}
	return fs
}

// narrowing names what wanted refuses of what asked asks for (sources.Wish.Narrow).
func narrowing(cfg *config.Config, only, except []event.Filter) (names []string) {
	for _, f := range slices.Concat(cfg.Except, except) {
		names = append(names, fmt.Sprintf("except %x", f.Key()))
	}
	inexact := slices.ContainsFunc(cfg.Want, func(w event.Filter) bool {
		return slices.ContainsFunc(only, func(o event.Filter) bool {
			for name, values := range o.Tags {
				if asked, both := w.Tags[name]; both && !slices.Equal(asked, values) {
					return true
				}
			}
			return false
		})
	})
	if inexact {
		names = append(names, "only "+selectionKey(event.Selection{All: [][]event.Filter{only}}))
	}
	return names
}

// intersect is a filter that takes at least what both a and b take; false if that is nothing.
func intersect(a, b event.Filter) (event.Filter, bool) {
	ids, ok1 := both(a.IDs, b.IDs)
	authors, ok2 := both(a.Authors, b.Authors)
	kinds, ok3 := both(a.Kinds, b.Kinds)
	f := event.Filter{IDs: ids, Authors: authors, Kinds: kinds, Tags: maps.Clone(a.Tags), Since: max(a.Since, b.Since), Until: a.Until}
	if b.Until != 0 && (f.Until == 0 || b.Until < f.Until) {
		f.Until = b.Until
	}
	for name, values := range b.Tags {
		// An event may carry a tag twice: t=x AND t=y is not "t in {x} ∩ {y}", so a's list stays.
		if _, taken := f.Tags[name]; taken {
			continue
		}
		if f.Tags == nil {
			f.Tags = make(map[string][]string)
		}
		f.Tags[name] = values
	}
	return f, ok1 && ok2 && ok3 && (f.Until == 0 || f.Since <= f.Until)
}

// both intersects two lists of which an empty one means "any"; false if nothing is left.
func both[T comparable](a, b []T) ([]T, bool) {
	if len(a) == 0 {
		return b, true
	}
	if len(b) == 0 {
		return a, true
	}
	in := make(map[T]bool, len(b))
	for _, v := range b {
		in[v] = true
	}
	var common []T
	for _, v := range a {
		if in[v] {
			common = append(common, v)
		}
	}
	return common, len(common) > 0
}

// selectionKey names a selection in a sink's ledger: the same filters give the same key in every run.
func selectionKey(s event.Selection) string {
	h := sha256.New()
	list := func(fs []event.Filter) {
		lines := make([]string, 0, len(fs))
		for _, f := range fs {
			lines = append(lines, f.String())
		}
		slices.Sort(lines)
		for _, l := range lines {
			h.Write([]byte(l))
			h.Write([]byte{'\n'})
		}
		h.Write([]byte{0})
	}
	for _, fs := range s.All {
		list(fs)
	}
	h.Write([]byte{1})
	list(s.Except)
	return hex.EncodeToString(h.Sum(nil)[:16])
}
