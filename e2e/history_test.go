package e2e

import (
	"path/filepath"
	"testing"
	"time"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/realrelay"
	"rebroadcastr/report"
)

// mostOnTheWire is how many times as many events as there are a backfill may be sent.
const mostOnTheWire = 1.05

// TestHistoryOnTheWire: no page is fetched twice, nothing is missing; neither of everybody's events nor by authors, whose full
// pages eventstore does not give newest first.
func TestHistoryOnTheWire(t *testing.T) {
	const n = 12_000
	h := makeHoard(t, n)
	r := startHoardRelay(t, h.file)
	for name, asks := range map[string][]string{"all": {"--all"}, "authors": h.authors(t)} {
		t.Run(name, func(t *testing.T) {
			got := backfillHoard(t, binary(t), r, asks...)
			got.check(t, h)
			t.Logf("%d pages, %.3f on the wire", got.relay.Pages, float64(got.relay.Events)/n)
		})
	}
}

// fetched is what a backfill did.
type fetched struct {
	dir    string
	relay  realrelay.Served // for this backfill alone
	status status
}

func backfillHoard(t testing.TB, bin string, r *hoardRelay, asks ...string) (f fetched) {
	t.Helper()
	f.dir = filepath.Join(tempDir(t), "a")
	before := r.served(t)
	args := append([]string{"backfill", "--source", r.url, "--archive", f.dir, "--json", "--no-progress"}, asks...)
	p := start(t, child.Options{Binary: bin, Args: args})
	if code, err := p.Wait(20 * time.Minute); err != nil || code != 0 {
		t.Fatalf("%s: exit %d, %v; want 0", p.what, code, err)
	}
	after := r.served(t)
	f.relay = realrelay.Served{Events: after.Events - before.Events, Pages: after.Pages - before.Pages}
	f.status = parseStatus(t, p.Stdout())
	return f
}

// check wants everything, and not more than a little of it twice.
func (f *fetched) check(t testing.TB, want *hoard) {
	t.Helper()
	src := f.status.Sources[0]
	if src.Complete != report.Yes || src.New != int64(len(want.ids)) {
		t.Errorf("%d new events, complete: %s (%s); want %d, yes", src.New, src.Complete, src.CompleteNote, len(want.ids))
	}
	if most := mostOnTheWire * float64(len(want.ids)); float64(f.relay.Events) > most {
		t.Errorf("the relay sent %d events, want at most %.0f", f.relay.Events, most)
	}
	want.isIn(t, f.dir)
}
