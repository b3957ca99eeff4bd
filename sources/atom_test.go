package sources

import (
	"testing"

	"rebroadcastr/event"
)

func TestAtomsAndGroups(t *testing.T) {
	keys := func(n int) (out []event.PubKey) {
		for i := range n {
			out = append(out, event.PubKey{byte(i), 1})
		}
		return out
	}
	for _, test := range []struct {
		name    string
		filters []event.Filter
		most    int
		atoms   int
		groups  int
	}{
		{"everything", []event.Filter{{}}, 500, 1, 1},
		{"authors are asked together", []event.Filter{{Authors: keys(7), Kinds: []int{1}}}, 500, 7, 1},
		{"in parts", []event.Filter{{Authors: keys(7)}}, 3, 7, 3},
		{"authors and mentions", []event.Filter{{Authors: keys(2)}, {Tags: map[string][]string{"p": {"a", "b", "c"}}}}, 500, 5, 2},
		{"the same author twice", []event.Filter{{Authors: keys(2)}, {Authors: keys(1)}}, 500, 2, 1},
		{"kinds apart", []event.Filter{{Authors: keys(2), Kinds: []int{1}}, {Authors: keys(2), Kinds: []int{0, 3}}}, 500, 4, 2},
		{"times apart", []event.Filter{{Authors: keys(2), Since: 5}, {Authors: keys(2)}}, 500, 4, 2},
		{"an author with a tag", []event.Filter{{Authors: keys(3), Tags: map[string][]string{"t": {"x", "y"}}}}, 500, 3, 1},
		{"ids are asked together", []event.Filter{{IDs: []event.ID{{1}, {2}}, Authors: keys(2)}}, 500, 2, 1},
		{"ids and authors apart", []event.Filter{{IDs: []event.ID{{1}, {2}}}, {Authors: keys(2)}}, 500, 4, 2},
		{"kinds alone", []event.Filter{{Kinds: []int{1}}, {Kinds: []int{7}}}, 500, 2, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			list := atoms(test.filters)
			groups := gather(list, test.most, func(atom) string { return "" })
			if len(list) != test.atoms || len(groups) != test.groups {
				t.Fatalf("%d atoms in %d groups, want %d in %d", len(list), len(groups), test.atoms, test.groups)
			}
			// A group's filter is asked for nothing but its atoms.
			for _, g := range groups {
				if got := atoms([]event.Filter{g.filter}); len(got) != len(g.atoms) {
					t.Errorf("%v stands for %d atoms, want %d", g.filter, len(got), len(g.atoms))
				}
			}
		})
	}
	// The key does not depend on times, nor on who else is asked for.
	a := atoms([]event.Filter{{Authors: keys(3), Since: 9, Until: 10}})[2]
	b := atoms([]event.Filter{{Authors: keys(3)[2:]}})[0]
	if a.key != b.key {
		t.Error("an atom's key changes with its times or its neighbours: its windows would be forgotten")
	}
}
