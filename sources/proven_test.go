package sources_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

func TestWords(t *testing.T) {
	one, two := author(1), author(2)
	npub := "npub1" // of author 1, cut
	for want, f := range map[string]event.Filter{
		"everything":                         {},
		npub:                                 {Authors: []event.PubKey{one}},
		"2 authors, kinds 0, 1 and 7":        {Authors: []event.PubKey{one, two}, Kinds: []int{7, 0, 1}, Since: 7},
		"mentions of " + npub:                {Tags: map[string][]string{"p": {one.String()}}},
		"2 mentioned, kind 9735":             {Tags: map[string][]string{"p": {one.String(), two.String()}}, Kinds: []int{9735}},
		"tag t=nostr":                        {Tags: map[string][]string{"t": {"nostr"}}},
		"3 values of tag t, 7 kinds":         {Tags: map[string][]string{"t": {"a", "b", "c"}}, Kinds: []int{1, 2, 3, 4, 5, 6, 7}},
		"note1":                              {IDs: []event.ID{{1}}},
		"1,000 ids":                          {IDs: make([]event.ID, 1000)},
		npub + ", mentions of npub1, kind 1": {Authors: []event.PubKey{one}, Tags: map[string][]string{"p": {two.String()}}, Kinds: []int{1}},
	} {
		got := sources.Words(f)
		for _, word := range strings.Fields(got) { // what is encoded is cut
			if bare := strings.Trim(word, ",…"); strings.HasPrefix(bare, "npub1") || strings.HasPrefix(bare, "note1") {
				got = strings.Replace(got, bare+"…", bare[:5], 1)
				if len(bare) != 14 {
					t.Errorf("%s is not short", word)
				}
			}
		}
		if got != want {
			t.Errorf("%s: %q, want %q", f, got, want)
		}
	}
}

// proofOf is what the state says of one source.
func proofOf(t *testing.T, in []sources.Proof, url string) sources.Proof {
	t.Helper()
	i := slices.IndexFunc(in, func(p sources.Proof) bool { return p.URL == url })
	if i < 0 {
		t.Fatalf("nothing is known of %s: %v", url, in)
	}
	return in[i]
}

// TestProofs: what a command has proven, what it has not, and what it could not get, stand in the state with the words for it,
// authors of whom the same is known together.
func TestProofs(t *testing.T) {
	db := openState(t)
	authors := func(from, to int) (list []event.PubKey) {
		for i := from; i <= to; i++ {
			list = append(list, author(i))
		}
		return list
	}
	var all []string
	for i := range 30 {
		all = append(all, note(i%3+1, i, now-86400-int64(i)*3600))
	}
	all = append(all, note(31, 0, now-86400), note(32, 0, now-86401))
	good := relaytest.New(t, relaytest.Script{Events: all, Cap: 20})
	ask := func(r *relaytest.Relay, o sources.Options) {
		t.Helper()
		o.Once = true
		start(t, r, newIntake(t), db, o).finished()
	}
	ask(good, sources.Options{Filters: []event.Filter{{Authors: authors(1, 30), Kinds: []int{1}}}})
	ask(good, sources.Options{Filters: []event.Filter{{Authors: authors(31, 35), Kinds: []int{1}, Since: 1000}}, Limit: 1})
	ask(good, sources.Options{Filters: []event.Filter{{Authors: authors(1, 1), Kinds: []int{1}}, {Tags: map[string][]string{"t": {"x"}}}}, History: sources.History{Since: now - 5*86400}})
	dense := relaytest.New(t, relaytest.Script{Events: notesAt(busy, 30), Cap: 8})
	ask(dense, sources.Options{Filters: []event.Filter{{Authors: authors(1, 1)}}})

	list, err := sources.Proofs(db, time.Unix(now, 0))
	if err != nil {
		t.Fatal(err)
	}
	const clip, open = now - 20*60, 1<<63 - 1
	want := []sources.Part{
		{Words: "5 authors, kind 1", Atoms: 5, Proven: []sources.Window{}, Missing: []sources.Window{{From: 1000, To: open}}},
		{Words: "29 authors, kind 1", Atoms: 29, Proven: []sources.Window{{From: 0, To: clip}}, Missing: []sources.Window{}},
		{Words: sources.Words(event.Filter{Authors: authors(1, 1), Kinds: []int{1}}), Atoms: 1, Proven: []sources.Window{{From: 0, To: clip}}, Missing: []sources.Window{}},
		{Words: "tag t=x", Atoms: 1, Proven: []sources.Window{{From: now - 5*86400, To: clip}}, Missing: []sources.Window{}},
	}
	if got := proofOf(t, list, good.URL); fmt.Sprint(got.Parts) != fmt.Sprint(want) || len(got.Gaps) != 0 {
		t.Errorf("%+v\nwant parts %+v and no gap", got, want)
	}
	got := proofOf(t, list, dense.URL)
	if len(got.Parts) != 1 || !slices.Equal(got.Parts[0].Missing, []sources.Window{{From: busy, To: busy}}) || len(got.Parts[0].Proven) != 2 {
		t.Errorf("parts %+v, want all but one second", got.Parts)
	}
	if len(got.Gaps) == 0 || got.Gaps[0].From != busy || got.Gaps[0].Found != now || !strings.Contains(got.Gaps[0].Words, "npub1") {
		t.Errorf("gaps %+v, want that second, with its words and when it was found", got.Gaps)
	}
}

// notesAt are n notes of author 1 in one second.
func notesAt(at int64, n int) (list []string) {
	for i := range n {
		list = append(list, note(1, i, at))
	}
	return list
}

// TestAGapIsWhatIsNotProven: of a window that a walk could not get to its end, the gap is what lies below the proven part.
func TestAGapIsWhatIsNotProven(t *testing.T) {
	r := relaytest.New(t, relaytest.Script{Events: notes(1, 60, 7), Cap: 20, UntilIgnored: true})
	g := start(t, r, newIntake(t), openState(t), sources.Options{Once: true})
	st := g.finished()
	wantComplete(t, st, sources.No, "ignores until")
	i := slices.IndexFunc(st.Gaps, func(gap sources.Gap) bool { return gap.Reason == "the relay ignores until" })
	if i < 0 || st.Gaps[i].From != 0 || st.Gaps[i].To >= now-86400 {
		t.Errorf("gaps %+v, want one from the beginning to below what came", st.Gaps)
	}
}
