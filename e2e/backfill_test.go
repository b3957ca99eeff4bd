package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip19"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/report"
)

// TestRealInput is the main job on real events: three sources, one of which serves forged and damaged copies first, two
// sinks with rules of their own, and the same again.
func TestRealInput(t *testing.T) {
	real := events(t)
	alice := someone(t, "alice")
	own := alice.notes(t, 1_741_400_000, 30)  // only source b has them
	late := alice.notes(t, 1_741_500_000, 20) // only the forger has them, after their forged copies
	authors := append(mostActive(real, 60), alice.pubkey)

	a := relay(t, localrelay.Options{KeepAll: true}, real...)
	b := relay(t, localrelay.Options{KeepAll: true, MaxLimit: 100}, slices.Concat(third(real), own)...) // answers pages of 25
	genuine := slices.Concat(real, own, late)
	forger := newForger(t, genuine, late, someone(t, "spammer").notes(t, 1_741_000_000, 300))
	plain := relay(t, localrelay.Options{})
	chosen := relay(t, localrelay.Options{KeepAll: true})

	dir := filepath.Join(tempDir(t), "archive")
	cfg := configFile(t, fmt.Sprintf(`
authors: [%s]
mentions: true
except: [{kinds: [7]}]
sources: [%q, %q, %q]
sinks:
  - %q
  - {url: %q, only: {kinds: [1, 4, 5, 9735, 31234]}, send: [dm, drafts]}
archive: {dir: %q}
`, strings.Join(asWritten(t, authors), ", "), a.URL(), b.URL(), forger.URL, plain.URL(), chosen.URL(), dir))

	want := setOf(genuine).where(func(e *nostr.Event) bool {
		return e.Kind != 7 && archivable(e) && (slices.Contains(authors, e.PubKey) || mentions(e, authors))
	})
	plainRules := rules{nip40: true}
	chosenRules := rules{nip40: true, only: nostr.Filters{{Kinds: []int{1, 4, 5, 9735, 31234}}}, send: []string{"dm", "drafts"}}

	// The genuine copies are held back until every forged one has been read.
	a.Hold()
	b.Hold()
	p := start(t, child.Options{Args: []string{"backfill", "-c", cfg, "--json", "--no-progress"}})
	eventually(t, "the forged copies are read", func() error {
		var s status
		if err := statusOf(dir, &s); err != nil {
			return err
		}
		src, err := s.findSource(forger.URL)
		if err != nil {
			return err
		}
		if n := forger.sentSoFar(); n == 0 || src.Received+sum(src.BadFrames) < int64(n) || src.InFlight != 0 {
			return fmt.Errorf("%d of %d read, %d on their way", src.Received, n, src.InFlight)
		}
		return nil
	})
	a.Open()
	b.Open()
	code := p.exit()
	s := parseStatus(t, p.Stdout())
	s.exitFits(t, code, forger.URL)

	wantSet(t, "archive", archived(t, dir), want)
	wantSent(t, "what the plain sink was sent", received(t, plain), want, plainRules.takes)
	wantSent(t, "what the choosing sink was sent", received(t, chosen), want, chosenRules.takes)
	wantSet(t, "what the choosing sink holds", stored(t, chosen), received(t, chosen))
	touched := touchedBy(received(t, plain))
	wantSet(t, "what the plain sink holds, deletions aside", stored(t, plain).where(not(touched)), kept(received(t, plain)).where(not(touched)))

	if got := s.total(func(src report.Source) int64 { return src.New }); got != int64(len(want)) {
		t.Errorf("new at all sources: %d, want %d", got, len(want))
	}
	if got, wanted := s.source(t, forger.URL).New, len(setOf(late).where(func(e *nostr.Event) bool { _, ok := want[e.ID]; return ok })); got != int64(wanted) {
		t.Errorf("new at the forger: %d, want the %d that it alone has", got, wanted)
	}
	if src := s.source(t, forger.URL); src.Invalid == 0 || src.Unasked == 0 {
		t.Errorf("the forger's %d copies: %d invalid, %d unasked; want both counted", src.Received, src.Invalid, src.Unasked)
	}
	if s.Archive.Lines != uint64(len(want)) || s.Archive.Added != uint64(len(want)) {
		t.Errorf("the archive reports %d events (+%d), want %d (+%d)", s.Archive.Lines, s.Archive.Added, len(want), len(want))
	}

	// The same command asks only for what is missing.
	before := len(a.Requests())
	again := backfillAgain(t, cfg, forger.URL)
	if got := again.source(t, a.URL()).Received + again.source(t, b.URL()).Received; got != 0 {
		t.Errorf("the second run received %d events from sources whose history is proven, want 0; it asked %s for %v", got, a.URL(), a.Requests()[before:])
	}
	added := alice.sign(t, time.Now().Unix(), 1, "written since")
	if err := a.Load(added); err != nil {
		t.Fatal(err)
	}
	third := backfillAgain(t, cfg, forger.URL)
	if got := third.total(func(src report.Source) int64 { return src.New }); got != 1 {
		t.Errorf("the third run found %d new events, want the 1 that was written since", got)
	}
	want[added.ID] = added
	wantSet(t, "archive after three runs", archived(t, dir), want)
	wantSent(t, "what the plain sink was sent in three runs", received(t, plain), want, plainRules.takes)
}

func backfillAgain(t *testing.T, cfg, mayFail string) status {
	t.Helper()
	p := command(t, "backfill", "-c", cfg, "--json", "--no-progress")
	s := parseStatus(t, p.Stdout())
	s.exitFits(t, p.exit(), mayFail)
	return s
}

// exitFits wants every source but one complete, and the exit code that follows: a relay that sends mostly garbage may be
// left for later.
func (s status) exitFits(t testing.TB, code int, mayFail string) {
	t.Helper()
	want := 0
	for _, src := range s.Sources {
		if src.Complete == report.Yes {
			continue
		}
		if src.URL != mayFail {
			t.Errorf("source %s is complete: %s (%s), want yes", src.URL, src.Complete, src.CompleteNote)
		}
		if src.Complete == report.No {
			want = 3
		}
	}
	if code != want {
		t.Errorf("exit %d, want %d", code, want)
	}
}

// TestBackfillByFlags runs everything from one relay to another without a config file.
func TestBackfillByFlags(t *testing.T) {
	real := events(t)
	from := relay(t, localrelay.Options{KeepAll: true}, real...)
	to := relay(t, localrelay.Options{KeepAll: true})
	dir := filepath.Join(tempDir(t), "missing", "archive") // is created
	s := oneShot(t, 0, "backfill", "--all", "--source", from.URL(), "--sink", to.URL(), "--archive", dir)
	want := setOf(real).where(archivable)
	wantSet(t, "archive", archived(t, dir), want)
	wantSent(t, "sink", stored(t, to), want, rules{nip40: true}.takes)
	src := s.source(t, from.URL())
	if src.Complete != report.Yes {
		t.Errorf("complete: %s (%s), want yes: an empty page ended it", src.Complete, src.CompleteNote)
	}
	if src.Invalid != 0 || src.Unasked != int64(len(real)-len(want)) && src.Unasked != 0 {
		t.Errorf("%d invalid, %d unasked of real events", src.Invalid, src.Unasked)
	}
	if k := s.sink(t, to.URL()); k.Delivered != int64(len(stored(t, to))) {
		t.Errorf("delivered %d, but the sink holds %d", k.Delivered, len(stored(t, to)))
	}
}

// TestSelections asks for parts and wants exactly these.
func TestSelections(t *testing.T) {
	real := events(t)
	from := relay(t, localrelay.Options{KeepAll: true}, real...)
	who := mostActive(real, 2)
	npub, err := nip19.EncodePublicKey(who[0])
	if err != nil {
		t.Fatal(err)
	}
	note, err := nip19.EncodeNote(real[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	tagged := real[0].Tags.Find("p")[1]
	const middle = 1_741_372_700
	for name, c := range map[string]struct {
		args []string
		want func(*nostr.Event) bool
	}{
		"authors": {[]string{"--author", npub, "--author", who[1]}, func(e *nostr.Event) bool { return slices.Contains(who, e.PubKey) }},
		"mentions": {[]string{"--author", npub, "--mentions"}, func(e *nostr.Event) bool {
			return e.PubKey == who[0] || mentions(e, who[:1])
		}},
		"author and kind": {[]string{"--author", npub, "--kind", "1"}, func(e *nostr.Event) bool { return e.PubKey == who[0] && e.Kind == 1 }},
		"kinds":           {[]string{"--all", "--kind", "1", "--kind", "9735"}, kinds(1, 9735)},
		"tag":             {[]string{"--tag", "p=" + tagged}, func(e *nostr.Event) bool { return mentions(e, []string{tagged}) }},
		"id":              {[]string{"--id", note, "--id", real[1].ID}, func(e *nostr.Event) bool { return e.ID == real[0].ID || e.ID == real[1].ID }},
		"since":           {[]string{"--all", "--since", fmt.Sprint(middle)}, func(e *nostr.Event) bool { return e.CreatedAt >= middle }},
		"until":           {[]string{"--all", "--until", fmt.Sprint(middle)}, func(e *nostr.Event) bool { return e.CreatedAt <= middle }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(tempDir(t), "a")
			oneShot(t, 0, "backfill", append([]string{"--source", from.URL(), "--archive", dir}, c.args...)...)
			want := setOf(real).where(func(e *nostr.Event) bool { return archivable(e) && c.want(e) })
			if len(want) == 0 {
				t.Fatal("the case selects nothing")
			}
			wantSet(t, "archive", archived(t, dir), want)
		})
	}
}

// TestUnreachableRelay: what cannot be reached is named and stops nobody.
func TestUnreachableRelay(t *testing.T) {
	real := events(t)
	from := relay(t, localrelay.Options{KeepAll: true}, real...)
	to := relay(t, localrelay.Options{KeepAll: true})
	dead, deadSink := deadURL(t), deadURL(t)
	dir := filepath.Join(tempDir(t), "a")
	args := []string{
		"--all", "--source", dead, "--source", from.URL(), "--sink", deadSink, "--sink", to.URL(),
		"--archive", dir, "--give-up", "3s",
	}
	s := oneShot(t, 3, "backfill", args...)
	want := setOf(real).where(archivable)
	wantSet(t, "archive", archived(t, dir), want)
	wantSent(t, "the sink that is there", stored(t, to), want, rules{nip40: true}.takes)
	if src := s.source(t, dead); src.Complete != report.No || !strings.Contains(src.CompleteNote+src.Note, "refused") {
		t.Errorf("the dead source: complete %s, %q %q; want no, with the error", src.Complete, src.CompleteNote, src.Note)
	}
	if src := s.source(t, from.URL()); src.Complete != report.Yes {
		t.Errorf("the living source: complete %s (%s), want yes", src.Complete, src.CompleteNote)
	}
	if k := s.sink(t, deadSink); k.Pending != int64(len(want)) {
		t.Errorf("the dead sink: %d pending, want all %d", k.Pending, len(want))
	}

	// For people the summary is a table that names the relay and its error.
	p := wantExit(t, 3, append([]string{"backfill", "--no-progress"}, args...)...)
	for _, part := range []string{dead, "NO", "refused", deadSink, "incomplete: 1 of 2 sources"} {
		if !strings.Contains(p.Stdout(), part) {
			t.Errorf("the summary does not say %q:\n%s", part, p.Stdout())
		}
	}

	// The sink comes back: what was kept for it arrives, and nothing is fetched again.
	back, err := localrelay.StartAt(strings.TrimPrefix(deadSink, "ws://"), localrelay.Options{KeepAll: true})
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close() //nolint:errcheck // the test is over
	oneShot(t, 3, "backfill", args...)
	wantSent(t, "the sink that came back", received(t, back), want, rules{nip40: true}.takes)
	wantSent(t, "the sink that was there", received(t, to), want, rules{nip40: true}.takes)
}

// TestNoEcho: a relay that is source and sink is not sent what came from it.
func TestNoEcho(t *testing.T) {
	alice, bob := someone(t, "alice"), someone(t, "bob")
	as, bs := alice.notes(t, 1_700_000_000, 20), bob.notes(t, 1_700_001_000, 20)
	a := relay(t, localrelay.Options{KeepAll: true}, as...)
	b := relay(t, localrelay.Options{KeepAll: true}, bs...)
	dir := filepath.Join(tempDir(t), "a")
	oneShot(t, 0, "backfill", "--all", "--source", a.URL(), "--source", b.URL(), "--sink", a.URL(), "--sink", b.URL(), "--archive", dir)
	wantSet(t, "what a was sent", received(t, a), setOf(bs))
	wantSet(t, "what b was sent", received(t, b), setOf(as))
}

func mostActive(events []*nostr.Event, n int) []string {
	count := map[string]int{}
	for _, e := range events {
		count[e.PubKey]++
	}
	var list []string
	for k := range count {
		list = append(list, k)
	}
	slices.SortFunc(list, func(x, y string) int {
		if count[x] != count[y] {
			return count[y] - count[x]
		}
		return strings.Compare(x, y)
	})
	return list[:n]
}

func third(events []*nostr.Event) []*nostr.Event {
	var out []*nostr.Event
	for i := 0; i < len(events); i += 3 {
		out = append(out, events[i])
	}
	return out
}

func mentions(e *nostr.Event, people []string) bool {
	return slices.ContainsFunc(e.Tags, func(t nostr.Tag) bool { return len(t) > 1 && t[0] == "p" && slices.Contains(people, t[1]) })
}

// asWritten writes every second pubkey as an npub.
func asWritten(t testing.TB, pubkeys []string) []string {
	t.Helper()
	out := slices.Clone(pubkeys)
	for i := 0; i < len(out); i += 2 {
		npub, err := nip19.EncodePublicKey(out[i])
		if err != nil {
			t.Fatal(err)
		}
		out[i] = npub
	}
	for i := 1; i < len(out); i += 2 {
		out[i] = `"` + out[i] + `"` // hex that is all digits would be a number
	}
	return out
}

// touchedBy says which events a deletion request among these is about.
func touchedBy(all set) func(*nostr.Event) bool {
	named := map[string]bool{}
	for _, e := range all {
		if e.Kind != nostr.KindDeletion {
			continue
		}
		for _, tag := range e.Tags {
			if len(tag) > 1 && (tag[0] == "e" || tag[0] == "a") {
				named[tag[1]] = true
			}
		}
	}
	return func(e *nostr.Event) bool {
		return named[e.ID] || named[fmt.Sprintf("%d:%s:%s", e.Kind, e.PubKey, e.Tags.GetD())]
	}
}

func not(f func(*nostr.Event) bool) func(*nostr.Event) bool {
	return func(e *nostr.Event) bool { return !f(e) }
}

func configFile(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(tempDir(t), "rebroadcastr.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}
