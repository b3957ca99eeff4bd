package e2e

import (
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"rebroadcastr/e2e/child"
	"rebroadcastr/report"
)

var historyEvents = flag.Int("history", 0, "how many events TestFiguresHistory fetches, three times; 0: 10,000, once")

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

// TestFiguresHistory measures the rate at which all of a relay is fetched into an archive, against two clients that page over
// one connection and verify, in turns: as lean as one can be, and as one is written with the usual library; and what the machine
// could do at best. The relay shares its cores with who asks. Beside other work, run the test binary under chrt -r 1, which the
// relay and the program inherit; that needs root.
func TestFiguresHistory(t *testing.T) {
	n, rounds := 10_000, 1
	if *historyEvents > 0 {
		n, rounds = *historyEvents, 3
	}
	h := makeHoard(t, n)
	r := startHoardRelay(t, h.file)
	bin := built(t, buildPlain)
	perEvent := func(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d.Nanoseconds())/float64(n)/1000) }

	var ours []float64
	clients := []struct {
		name  string
		page  func(*pager, testing.TB, string)
		rates []float64
	}{{name: "lean client", page: (*pager).page}, {name: "go-nostr client", page: (*pager).pageWithLibrary}}
	for range rounds {
		verify := h.verify(t)

		for i := range clients {
			c, p := &clients[i], pager{}
			before, own, begun := r.served(t), ownCPU(), time.Now()
			c.page(&p, t, r.url)
			lasted, own, after := time.Since(begun), ownCPU()-own, r.served(t)
			if len(p.ids) != n {
				t.Fatalf("the %s got %d events, want %d", c.name, len(p.ids), n)
			}
			c.rates = append(c.rates, float64(n)/lasted.Seconds())
			t.Logf("%-16s %6.0f/s, %.3f on the wire, %d pages; CPU per event: %s, relay %s", c.name+":", float64(n)/lasted.Seconds(),
				float64(p.wire)/float64(n), p.pages, perEvent(own), perEvent(after.CPU-before.CPU))
		}

		got := backfillHoard(t, bin, r, "--all")
		got.check(t, h)
		ours = append(ours, float64(n)/got.lasted.Seconds())
		// All cores busy with the relay, which costs what it did, and with signatures: nobody who checks them can be faster.
		best := float64(runtime.NumCPU()) * float64(n) / (verify + got.relay.CPU).Seconds()
		t.Logf("backfill:        %6.0f/s, %.3f on the wire, %d pages; CPU per event: %s, of which the signature %s; relay %s; best possible here %.0f/s",
			float64(n)/got.lasted.Seconds(), float64(got.relay.Events)/float64(n), got.relay.Pages, perEvent(got.cpu), perEvent(verify), perEvent(got.relay.CPU), best)
	}
	for _, c := range clients {
		t.Logf("backfill is %.2f times as fast as the %s", mean(ours)/mean(c.rates), c.name)
	}

	// A stranger 50 ms away: the pace bounds it, not the way.
	p := proxied(t, strings.TrimPrefix(r.url, "ws://"))
	p.add(up("latency", "latency", 25), down("latency", "latency", 25))
	cfg := configFile(t, "relay_settings: {default: {pace: 12/s}}\n")
	got := backfillHoard(t, bin, &hoardRelay{process: r.process, url: p.url()}, "-c", cfg, "--all")
	got.check(t, h)
	t.Logf("50 ms away, at the 12 requests a second that strangers are asked: %.0f/s, %d pages", float64(n)/got.lasted.Seconds(), got.relay.Pages)
}

func mean(list []float64) (sum float64) {
	for _, x := range list {
		sum += x
	}
	return sum / float64(len(list))
}

// fetched is what a backfill did.
type fetched struct {
	dir    string
	lasted time.Duration
	cpu    time.Duration
	relay  served // for this backfill alone
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
	f.relay = served{CPU: after.CPU - before.CPU, Events: after.Events - before.Events, Pages: after.Pages - before.Pages}
	f.lasted, f.cpu, f.status = p.Lasted(), p.CPU(), parseStatus(t, p.Stdout())
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
