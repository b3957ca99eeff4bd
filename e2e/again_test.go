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

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/report"
)

// asked is what a relay was asked for since a moment, and what it sent.
type asked struct {
	r         *localrelay.Relay
	requests  int
	sent      int
	exchanges int // reconciliations
}

func moment(r *localrelay.Relay) asked {
	return asked{r: r, requests: len(r.Requests()), sent: r.Sent(), exchanges: r.Reconciliations()}
}

func (a asked) since() (requests []localrelay.Request, sent, exchanges int) {
	return a.r.Requests()[a.requests:], a.r.Sent() - a.sent, a.r.Reconciliations() - a.exchanges
}

// TestBackfillTwice: the same command asks only for what is missing, on the wire; --again asks for everything, and nothing is archived
// a second time.
func TestBackfillTwice(t *testing.T) {
	alice := someone(t, "alice")
	all := alice.notes(t, 1_700_000_000, 1000)
	backdated := alice.notes(t, 1_690_000_000, 7)
	for _, negentropy := range []bool{false, true} {
		t.Run(fmt.Sprintf("NIP-77 %t", negentropy), func(t *testing.T) {
			r := relay(t, localrelay.Options{KeepAll: true, Negentropy: negentropy}, all...)
			dir := filepath.Join(tempDir(t), "a")
			begun := time.Now().Unix()
			backfill := func(flags ...string) report.Source {
				t.Helper()
				return oneShot(t, 0, "backfill", append([]string{"--all", "--source", r.URL(), "--archive", dir}, flags...)...).source(t, r.URL())
			}
			if src := backfill(); src.New != 1000 || src.Complete != report.Yes {
				t.Fatalf("the first run: %d new, complete %s (%s)", src.New, src.Complete, src.CompleteNote)
			}

			before := moment(r)
			src := backfill()
			requests, sent, exchanges := before.since()
			if len(requests) != 1 || sent+exchanges > 0 || src.Received != 0 {
				t.Fatalf("the second run: %v, %d events sent, %d reconciliations; want one REQ and nothing else", requests, sent, exchanges)
			}
			if f := requests[0].Filter; f.Since == nil || int64(*f.Since) < begun-1200 || f.Until != nil {
				t.Errorf("the second run asked for %v, want everything from 20 minutes before the first", f)
			}

			fresh := alice.notes(t, time.Now().Unix()-60, 5)
			if err := r.Load(append(slices.Clone(fresh), backdated...)...); err != nil {
				t.Fatal(err)
			}
			before = moment(r)
			src = backfill()
			if requests, sent, _ := before.since(); src.New != 5 || sent > 4*5 {
				t.Errorf("the third run: %d new, %d events sent in %d REQs; want the 5 fresh ones in a page or two", src.New, sent, len(requests))
			}

			before = moment(r)
			src = backfill("--again")
			_, sent, exchanges = before.since()
			whole := len(all) + len(fresh) + len(backdated)
			switch {
			case src.New != 7 || src.Complete != report.Yes:
				t.Errorf("--again: %d new, complete %s (%s); want the 7 that were dated back", src.New, src.Complete, src.CompleteNote)
			case negentropy && (exchanges == 0 || sent > 100):
				t.Errorf("--again: %d reconciliations, %d events sent; want everything compared and only what is missing sent, and what is new", exchanges, sent)
			case !negentropy && (sent < whole || sent > whole*105/100+100):
				t.Errorf("--again: %d events sent, want all %d", sent, whole)
			}
			wantSet(t, "archive", archived(t, dir), setOf(slices.Concat(all, fresh, backdated)))
		})
	}
}

// TestFirstLook: --limit N archives the newest N and proves nothing: the run after it fetches everything.
func TestFirstLook(t *testing.T) {
	alice := someone(t, "alice")
	all := alice.notes(t, 1_700_000_000, 2500)
	for _, negentropy := range []bool{false, true} {
		t.Run(fmt.Sprintf("NIP-77 %t", negentropy), func(t *testing.T) {
			r := relay(t, localrelay.Options{KeepAll: true, Negentropy: negentropy}, all...)
			dir := filepath.Join(tempDir(t), "a")
			args := []string{"--all", "--source", r.URL(), "--archive", dir}
			for look, fresh := range []int64{120, 0} { // the same again: nothing is remembered of the first
				before := moment(r)
				s := oneShot(t, 0, "backfill", append(slices.Clone(args), "--limit", "120")...)
				_, sent, exchanges := before.since()
				src := s.source(t, r.URL())
				if src.New != fresh || src.Complete != report.Unclear || !strings.Contains(src.CompleteNote, "--limit 120") {
					t.Errorf("look %d: %d new, complete %s (%s); want %d, unknown because of --limit 120", look+1, src.New, src.Complete, src.CompleteNote, fresh)
				}
				if sent < 120 || sent > 130 || exchanges > 0 {
					t.Errorf("look %d: %d events were sent, %d reconciliations; want the 120 and hardly more, and none", look+1, sent, exchanges)
				}
			}
			wantSet(t, "archive after a look", archived(t, dir), setOf(all[len(all)-120:]))
			p := wantExit(t, 0, append([]string{"backfill", "--no-progress", "--limit", "10"}, args...)...)
			if !strings.Contains(p.Stdout(), "stopped at --limit 10") {
				t.Errorf("the summary does not say that it was a look:\n%s", p.Stdout())
			}

			before := moment(r)
			src := oneShot(t, 0, "backfill", args...).source(t, r.URL())
			requests, sent, exchanges := before.since()
			if src.Complete != report.Yes || src.New != int64(len(all)-120) {
				t.Errorf("without --limit: %d new, complete %s (%s); want the other %d, yes", src.New, src.Complete, src.CompleteNote, len(all)-120)
			}
			if sent < len(all) && exchanges == 0 {
				t.Errorf("without --limit: %d events sent in %d REQs; want everything", sent, len(requests))
			}
			wantSet(t, "archive", archived(t, dir), setOf(all))
		})
	}
}

// TestInterruptedBackfill: a signal ends a backfill with its summary and 130; what it had fetched is not asked for again.
func TestInterruptedBackfill(t *testing.T) {
	all := someone(t, "alice").notes(t, 1_700_000_000, 3000)
	slices.Reverse(all)
	for _, negentropy := range []bool{false, true} {
		for _, sig := range []os.Signal{os.Interrupt, sigterm} {
			t.Run(fmt.Sprintf("%s, NIP-77 %t", sig, negentropy), func(t *testing.T) {
				r := relay(t, localrelay.Options{Static: all, MaxLimit: 100, Negentropy: negentropy})
				dir := filepath.Join(tempDir(t), "a")
				at := func(pace string) []string {
					return []string{"backfill", "--json", "--no-progress", "-c",
						configFile(t, fmt.Sprintf("all: true\nsources: [%q]\narchive: {dir: %q}\nrelay_settings: {default: {pace: %s}}\n", r.URL(), dir, pace))}
				}
				p := start(t, child.Options{Args: at("20/s")})
				eventually(t, "it is under way", func() error {
					if n := r.Sent(); n < 700 {
						return fmt.Errorf("%d events sent", n)
					}
					return nil
				})
				if err := p.Signal(sig); err != nil {
					t.Fatal(err)
				}
				if code := p.exit(); code != 130 {
					t.Fatalf("exit %d after %s, want 130\n%s", code, sig, tail(p.Stderr(), 3000))
				}
				s := parseStatus(t, p.Stdout())
				if src := s.source(t, r.URL()); !s.Interrupt || src.Complete == report.Yes || src.New != int64(s.Archive.Lines) {
					t.Errorf("the summary: interrupted %t, complete %s, %d new, %d archived; want true, anything but yes, the same twice", s.Interrupt, src.Complete, src.New, s.Archive.Lines)
				}
				wantExit(t, 0, at("1000/s")...)
				wantSet(t, "archive", archived(t, dir), setOf(all))
				pages := 0
				for _, q := range r.Requests() {
					if q.Client == 1 && q.Filter.Until != nil {
						pages++
					}
				}
				// What was on its way when the signal came: a page of each window, of ten at most.
				if most := len(all)*105/100 + min(pages, 10)*100; r.Sent() > most {
					t.Errorf("%d events were sent for %d, want at most %d", r.Sent(), len(all), most)
				}
				t.Logf("%d events of %d sent in both runs", r.Sent(), len(all))
			})
		}
	}
}

// TestOneMoreAuthor: among 1,500 whose past is proven, one more costs the requests for that one, and a page of what is new for the
// others, as any run does.
func TestOneMoreAuthor(t *testing.T) {
	const authors = 1500
	var all []*nostr.Event
	var npubs []string
	for i := range authors {
		p := someone(t, fmt.Sprint("author ", i))
		npubs = append(npubs, p.npub(t))
		if i%5 == 0 { // most are quiet
			all = append(all, p.sign(t, 1_700_000_000+int64(i)*1000, 1, "note"), p.sign(t, 1_650_000_000+int64(i)*1000, 1, "older note"))
		}
	}
	late := someone(t, "late")
	lates := late.notes(t, 1_700_500_000, 30)
	whole := slices.Concat(all, lates)
	slices.SortFunc(whole, func(a, b *nostr.Event) int { return int(b.CreatedAt - a.CreatedAt) })
	for _, negentropy := range []bool{false, true} {
		t.Run(fmt.Sprintf("NIP-77 %t", negentropy), func(t *testing.T) {
			r := relay(t, localrelay.Options{Static: whole, Negentropy: negentropy})
			dir := filepath.Join(tempDir(t), "a")
			backfill := func(npubs []string) (report.Source, []localrelay.Request, int) {
				t.Helper()
				cfg := configFile(t, fmt.Sprintf("authors: [%s]\nsources: [%q]\narchive: {dir: %q}\nrelay_settings: {default: {pace: 1000/s}}\n", strings.Join(npubs, ", "), r.URL(), dir))
				before := moment(r)
				src := oneShot(t, 0, "backfill", "-c", cfg).source(t, r.URL())
				requests, sent, _ := before.since()
				if src.Complete != report.Yes {
					t.Errorf("%d authors: complete %s (%s), want yes", len(npubs), src.Complete, src.CompleteNote)
				}
				return src, requests, sent
			}
			src, first, _ := backfill(npubs)
			if len(first) > 10 {
				t.Errorf("%d authors at first: %d REQs, want 3 of 500 authors each, and a few to learn how much the relay gives at once", authors, len(first))
			}
			if src.New != int64(len(all)) {
				t.Fatalf("%d authors: %d new, want %d", authors, src.New, len(all))
			}
			_, same, sent := backfill(npubs)
			if len(same) != 3 || sent > 0 {
				t.Errorf("the same authors again: %d REQs, %d events sent; want 3 of 500 authors each and nothing", len(same), sent)
			}
			src, more, sent := backfill(append(slices.Clone(npubs), late.npub(t)))
			if src.New != int64(len(lates)) || sent > 3*len(lates) {
				t.Errorf("one more author: %d new, %d events sent; want its %d, and hardly more on the wire", src.New, sent, len(lates))
			}
			young, own := 0, 0
			for _, q := range more {
				switch {
				case len(q.Filter.Authors) > 1 && q.Filter.Since != nil && int64(*q.Filter.Since) > time.Now().Unix()-3600:
					young++
				case slices.Equal(q.Filter.Authors, []string{late.pubkey}):
					own++
				case len(q.Filter.Authors) > 0 || len(q.Filter.IDs) > 0: // else a probe
					t.Errorf("one more author: %d authors from %v to %v were asked for, want the others for what is new only", len(q.Filter.Authors), q.Filter.Since, q.Filter.Until)
				}
			}
			if young != 3 || own > 6 {
				t.Errorf("one more author: %d REQs for what is new of the others, %d for its own past; want 3, and at most 6", young, own)
			}
			_, last, sent := backfill(append(slices.Clone(npubs), late.npub(t)))
			if len(last) != 4 || sent > 0 { // 1,501 at 500 a request
				t.Errorf("all of them again: %d REQs, %d events; want 4 and none", len(last), sent)
			}
			wantSet(t, "archive", archived(t, dir), setOf(whole))
			t.Logf("%d REQs for %d authors at first; %d again; with one more %d: %d of them its own", len(first), authors, len(same), len(more), own)
		})
	}
}
