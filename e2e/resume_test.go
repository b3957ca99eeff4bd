package e2e

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/report"
)

var (
	resumeEvents = flag.Int("events", 10_000, "how many events TestResume fetches; a million takes some minutes and 4 GB")
	resumeDeaths = flag.Int("deaths", 6, "how often each part of TestResume kills the child")
	resumeSeed   = flag.Uint64("resumeseed", 0, "the seed of TestResume; 0: a new one")
)

// maxInASecond events of TestResume have the same date: what two pages that follow each other may have in common.
const maxInASecond = 3

// aDeath is how many events a sink may be sent again after one: what was answered and not committed, and a window.
const aDeath = 4000 + 500

// showsOrder events on a page, and the process takes the relay for one that sends the newest first.
const showsOrder = 21

// TestResume kills a backfill from three relays with SIGKILL at random moments and starts it again until it is complete. Everything
// is archived once, and what a death costs is counted by the relays: a page of each window that was under way, no more.
func TestResume(t *testing.T) {
	seed := *resumeSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d: repeat with -run '^TestResume$' -resumeseed %d -events %d", seed, seed, *resumeEvents)
	rnd := rand.New(rand.NewPCG(seed, 0))
	begun := time.Now()
	all := pastNotes(t, rnd, *resumeEvents)
	t.Logf("%d events were made in %.1f s", len(all), time.Since(begun).Seconds())
	for _, delivers := range []bool{false, true} {
		name := map[bool]string{false: "archive only", true: "archive and sink"}[delivers]
		t.Run(name, func(t *testing.T) { resume(t, rnd, all, delivers) })
	}
}

// pastNotes makes notes of two people over some years, newest first, up to three in a second.
func pastNotes(t *testing.T, rnd *rand.Rand, n int) []*nostr.Event {
	people := []person{someone(t, "alice"), someone(t, "bob")}
	all := make([]*nostr.Event, n)
	at := int64(1_750_000_000)
	for i := range all {
		if i%maxInASecond == 0 || rnd.IntN(3) > 0 {
			at -= 1 + rnd.Int64N(300_000_000/int64(n))
		}
		all[i] = &nostr.Event{CreatedAt: nostr.Timestamp(at), Kind: 1, Tags: nostr.Tags{}, Content: fmt.Sprintf("note %d %s", i, strings.Repeat("x", rnd.IntN(200)))}
	}
	var signing sync.WaitGroup
	defer signing.Wait()
	cores := runtime.GOMAXPROCS(0)
	for core := range cores {
		signing.Go(func() {
			for i := core; i < n; i += cores {
				if err := all[i].Sign(people[i%2].secret); err != nil {
					t.Errorf("sign: %v", err)
				}
			}
		})
	}
	return all
}

// resumed is a backfill that dies again and again.
type resumed struct {
	t       *testing.T
	sources []*localrelay.Relay
	sink    *localrelay.Relay
	dir     string
	o       child.Options
	deaths  int
}

func resume(t *testing.T, rnd *rand.Rand, all []*nostr.Event, delivers bool) {
	two := make([]*nostr.Event, 0, len(all))
	for i, e := range all {
		if i%3 > 0 {
			two = append(two, e)
		}
	}
	r := &resumed{t: t, dir: filepath.Join(tempDir(t), "a"), sink: relay(t, localrelay.Options{Static: []*nostr.Event{}})}
	page := max(100, min(500, len(all)/100))
	for _, o := range []localrelay.Options{
		{Static: all, MaxLimit: page},
		{Static: all, MaxLimit: page, Negentropy: true},
		{Static: two, MaxLimit: page},
	} {
		r.sources = append(r.sources, relay(t, o))
	}
	cfg := configFile(t, fmt.Sprintf(`
all: true
sources: [%q, %q, %q]
sinks: [%q]
archive: {dir: %q}
relay_settings: {default: {pace: 1000/s, backoff: {initial: 20ms, max: 200ms}}}
`, r.sources[0].URL(), r.sources[1].URL(), r.sources[2].URL(), r.sink.URL(), r.dir))
	r.o = child.Options{Binary: built(t, buildPlain), Dir: tempDir(t), Args: []string{"backfill", "-c", cfg, "--json", "--no-progress", "--log-level", "debug"}}
	if !delivers {
		r.o.Args = append(r.o.Args, "--no-deliver")
	}

	begun := time.Now()
	most := 2 * 3 * len(all) / (*resumeDeaths + 1) // of all sources, in one life: half of that on average
	var open int
	for range *resumeDeaths {
		asking, ended := r.life(rnd.IntN(most), time.Duration(rnd.Int64N(int64(20*time.Millisecond))))
		if ended {
			break
		}
		r.deaths++
		open += asking
	}
	p := start(t, r.o)
	code, err := p.Wait(patience + time.Duration(len(all))*time.Millisecond)
	if err != nil || code != 0 {
		t.Fatalf("the last backfill: exit %d, %v; want 0\n%s", code, err, tail(p.Stderr(), 4000))
	}
	s := parseStatus(t, p.Stdout())
	t.Logf("%d deaths, %.1f s; %d pages were open at them", r.deaths, time.Since(begun).Seconds(), open)
	if r.deaths == 0 {
		t.Error("the backfill was never killed")
	}

	lines := make([]string, len(all))
	for i, e := range all {
		lines[i] = canonical(e)
	}
	wantLines(t, r.dir, lines)
	for _, src := range r.sources {
		r.charge(src, s.source(t, src.URL()))
	}
	if delivers {
		r.delivered(s.sink(t, r.sink.URL()), all)
	} else if n := len(r.sink.Received()); n > 0 || len(s.Sinks) > 0 {
		t.Errorf("with --no-deliver the sink was sent %d events; sinks in the summary: %v", n, s.Sinks)
	}
}

// life is one start of the child, and its death when the sources have sent it so many events and a while has passed. asking is how
// many pages they saw open then.
func (r *resumed) life(events int, while time.Duration) (asking int, ended bool) {
	r.t.Helper()
	sent := func() (n int) {
		for _, src := range r.sources {
			n += src.Sent()
		}
		return n
	}
	before := sent()
	p, err := child.Start(r.o)
	if err != nil {
		r.t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for sent()-before < events {
		select {
		case <-tick.C:
		case <-p.Done():
			return 0, r.endedBySelf(p)
		}
	}
	select {
	case <-time.After(while):
	case <-p.Done():
		return 0, r.endedBySelf(p)
	}
	for _, src := range r.sources {
		asking += src.Asking()
	}
	if err := p.Kill(); err != nil {
		r.t.Fatal(err)
	}
	for _, bad := range []string{"DATA RACE", "panic:", "goroutine 1 [", "damaged and was moved aside"} {
		if strings.Contains(p.Stderr(), bad) {
			r.t.Errorf("%q on stderr:\n%s", bad, tail(p.Stderr(), 4000))
		}
	}
	return asking, false
}

func (r *resumed) endedBySelf(p *child.Process) bool {
	r.t.Helper()
	if code, err := p.Wait(patience); code != 0 || err != nil {
		r.t.Fatalf("a backfill ended with exit %d, %v\n%s", code, err, tail(p.Stderr(), 4000))
	}
	return true
}

// charge adds up what a source was asked for in all lives. The pages of one window follow each other: the next begins where the one
// before ended, and is asked for once that is proven on disk. So the last one of each is all that a death may cost.
func (r *resumed) charge(src *localrelay.Relay, last report.Source) {
	r.t.Helper()
	if last.Complete != report.Yes {
		r.t.Errorf("source %s is complete: %s (%s), want yes", src.URL(), last.Complete, last.CompleteNote)
	}
	lives := map[int][]localrelay.Request{}
	sentIn := map[string]int{} // the last life in which an event was sent
	repeated, again := 0, 0
	probes := 0
	for _, q := range src.Requests() {
		if len(q.Filter.IDs) == 0 && q.Filter.Until == nil && q.Filter.Since == nil && q.Filter.Limit < 20 { // how many it gives at once, nothing more
			probes += len(q.Answer)
			continue
		}
		lives[q.Client] = append(lives[q.Client], q)
		for _, e := range q.Answer {
			switch life, known := sentIn[e.ID]; {
			case life == q.Client:
				repeated++
			case known:
				again++
			}
			sentIn[e.ID] = q.Client
		}
	}
	dumped := false
	windows, room, byID := 0, 0, 0 // cut off or at their end; events on their last pages; events that were asked for by their ids
	for _, life := range slices.Sorted(maps.Keys(lives)) {
		starts := map[nostr.Timestamp]bool{}
		for _, q := range lives[life] {
			if q.Filter.Until != nil {
				starts[*q.Filter.Until] = true
			}
		}
		inFlight := 0 // of the last two requests by ids: what is archived is not asked for again, proven or not
		for _, q := range slices.Backward(lives[life]) {
			switch oldest := oldestOf(q.Answer); {
			case len(q.Answer) == 0:
			case len(q.Filter.IDs) > 0:
				byID += len(q.Answer)
				if inFlight++; inFlight <= 2 {
					room += len(q.Answer)
				}
			case len(q.Answer) < showsOrder: // it proves nothing before a longer one has come
				room += len(q.Answer)
			case starts[oldest] || starts[oldest-1]:
				for _, e := range q.Answer { // a new process asks for one second more, until it knows whether until is exclusive
					if e.CreatedAt > oldest+1 && sentIn[e.ID] > life {
						if !dumped {
							dumped = true
							for _, l := range []int{life, life + 1, sentIn[e.ID]} {
								for _, q := range lives[l] {
									newest := nostr.Timestamp(0)
									if len(q.Answer) > 0 {
										newest = q.Answer[0].CreatedAt
									}
									r.t.Logf("DUMP life %d: %s %v → %d, %d to %d", l, q.Subscription, q.Filter, len(q.Answer), newest, oldestOf(q.Answer))
								}
							}
						}
						r.t.Errorf("%s: %s of %d was sent again, by connection %d; on connection %d the page after it had been asked for: %v", src.URL(), e.ID, e.CreatedAt, sentIn[e.ID], life, q.Filter)
					}
				}
			default:
				windows++
				room += len(q.Answer)
			}
		}
	}
	sent, own := src.Sent()-probes, len(sentIn)
	r.t.Logf("%s: %d events of %d were sent in %d REQs and %d reconciliations: %d a second time in the same life, %d in a later one, %d by their ids; %d windows ended or were cut off, their last pages had %d",
		src.URL(), sent, own, len(src.Requests()), src.Reconciliations(), repeated, again, byID, windows, room)
	if most := room + windows*maxInASecond; again > most {
		r.t.Errorf("%s: %d events were sent again after %d deaths, want at most %d: the last page of each of %d windows", src.URL(), again, r.deaths, most, windows)
	}
	if repeated > sent/20 {
		r.t.Errorf("%s: %d of %d events were sent twice to the same process, want at most one in twenty", src.URL(), repeated, sent)
	}
	var heard int
	for _, q := range lives[slices.Max(slices.Collect(maps.Keys(lives)))] {
		heard += len(q.Answer)
	}
	if last.Received != int64(heard) {
		r.t.Errorf("%s: the last summary says %d events were received, the relay sent %d", src.URL(), last.Received, heard)
	}
}

func oldestOf(events []*nostr.Event) nostr.Timestamp {
	if len(events) == 0 {
		return 0
	}
	return events[len(events)-1].CreatedAt
}

// delivered wants each event at the sink, and no more of them again than a death may cost.
func (r *resumed) delivered(k report.Sink, all []*nostr.Event) {
	r.t.Helper()
	got := r.sink.Received()
	had := make(map[string]bool, len(all))
	for _, e := range got {
		had[e.ID] = true
	}
	for _, e := range all {
		if !had[e.ID] {
			r.t.Errorf("the sink was never sent %s", e.ID)
		}
	}
	again := len(got) - len(had)
	if len(had) != len(all) || again > r.deaths*aDeath {
		r.t.Errorf("the sink was sent %d different events, want %d, and %d again, want at most %d a death", len(had), len(all), again, aDeath)
	}
	if k.Delivered != int64(len(all)) || k.Pending+k.Parked != 0 {
		r.t.Errorf("the summary says %d delivered, %d pending, %d parked; want all %d delivered", k.Delivered, k.Pending, k.Parked, len(all))
	}
	r.t.Logf("the sink was sent %d again", again)
}
