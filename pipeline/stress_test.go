package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// Links join, leave, swap roles and filters, imports come and are cancelled, Status is asked, relays drop their connections
// and serve forged copies first; then a stop at a random moment, sometimes hurried. After some such runs and a quiet one:
// archive = the genuine events, each once; every sink has what came from elsewhere.
func TestStress(t *testing.T) {
	const each = 120
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	var relays []*relaytest.Relay
	served := make(map[string][]string)
	var all []string
	for i := range 4 {
		mine := notes(i+1, each)
		shared := notes(9, each)
		var forged []string
		for _, e := range shared[:each/10] {
			forged = append(forged, relaytest.BadSig(e))
		}
		r := relaytest.New(t, relaytest.Script{Events: slices.Concat(mine, shared), First: forged, Cap: 50 + 30*i})
		served[r.URL] = slices.Concat(mine, shared)
		all = append(all, mine...)
		relays = append(relays, r)
	}
	imported := notes(8, each)
	all = append(all, notes(9, each)...)
	sinks := []*relaytest.Relay{relaytest.New(t, relaytest.Script{}), relaytest.New(t, relaytest.Script{})}
	base := testConfig(t, relays, sinks)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for round := range rounds {
		rnd := rand.New(rand.NewPCG(seed, uint64(round)))
		base.Archive.Segment = 16 << 10
		r := begin(t, base, Options{})
		r.running()
		disturb(r, rnd, relays, sinks, imported)
		if rnd.IntN(3) == 0 {
			r.hurry()
		}
		r.cancel()
		if _, err := r.end(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		seen := make(map[string]bool)
		for _, id := range archived(t, base.Archive.Dir) {
			if seen[id] {
				t.Fatalf("round %d: %s is in the archive twice", round, id)
			}
			seen[id] = true
		}
	}
	r := begin(t, base, Options{})
	r.running()
	if _, err := r.m.Import(t.Context(), strings.NewReader(strings.Join(imported, "\n")), false, nil); err != nil {
		t.Fatal(err)
	}
	all = append(all, imported...)
	defer func() { // what eventually says is long
		if !t.Failed() {
			return
		}
		got := archived(t, base.Archive.Dir)
		for _, k := range r.m.Status().Sources {
			missing := 0
			for _, id := range idsOf(served[k.URL]) {
				if !slices.Contains(got, id) {
					missing++
				}
			}
			t.Logf("%s: %s, complete %s (%s), %s, %d missing", k.URL, k.State, k.Complete, k.CompleteNote, k.Note, missing)
		}
	}()
	r.eventually("all is there and delivered", func(s report.Status) bool { return int(s.Archive.Lines) == len(all) && settled(s) })
	r.stop()
	sameSet(t, "archive", archived(t, base.Archive.Dir), idsOf(all))
	for _, sink := range sinks {
		sameSet(t, "sink", sink.Stored(), idsOf(all))
	}
}

// disturb does a few dozen things at once to what runs.
func disturb(r *rig, rnd *rand.Rand, relays, sinks []*relaytest.Relay, imported []string) {
	var mu sync.Mutex
	random := func(n int) int { mu.Lock(); defer mu.Unlock(); return rnd.IntN(n) }
	pause := func() { time.Sleep(time.Duration(random(8000)) * time.Microsecond) }
	var g errgroup.Group
	for range 2 { // Apply
		g.Go(func() error {
			for range 8 {
				cfg := *r.cfg
				cfg.Sources, cfg.Sinks = nil, nil
				for _, relay := range slices.Concat(relays, sinks) {
					if random(3) > 0 {
						s := config.Source{URL: relay.URL, Enabled: true}
						if random(3) == 0 {
							s.Only = []event.Filter{{Kinds: []int{1, 2 + random(3)}}}
						}
						cfg.Sources = append(cfg.Sources, s)
					}
					if slices.Contains(sinks, relay) && random(3) > 0 {
						cfg.Sinks = append(cfg.Sinks, config.Sink{URL: relay.URL, Enabled: true})
					}
				}
				if random(4) == 0 {
					cfg.Default.OK += time.Duration(random(2)) * time.Second
				}
				if err := r.m.Apply(&cfg); err != nil {
					return fmt.Errorf("apply: %w", err)
				}
				pause()
			}
			return nil
		})
	}
	g.Go(func() error { // imports, some cancelled
		for range 6 {
			ctx, cancel := context.WithCancel(context.Background())
			lines, in := io.Pipe()
			go func() {
				for _, e := range imported {
					fmt.Fprintf(in, "%s\n%s\n", relaytest.BadSig(e), e)
				}
				in.Close()
			}()
			cancelled := random(2) == 0
			if cancelled {
				time.AfterFunc(time.Duration(random(3000))*time.Microsecond, cancel)
			}
			_, err := r.m.Import(ctx, lines, false, io.Discard)
			cancel()
			lines.Close()
			if err != nil && !cancelled {
				return fmt.Errorf("import: %w", err)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("an import that was cancelled: %w", err)
			}
		}
		return nil
	})
	g.Go(func() error {
		for range 200 {
			r.m.Status()
			time.Sleep(200 * time.Microsecond)
		}
		return nil
	})
	g.Go(func() error {
		for range 5 {
			pause()
			relays[random(len(relays))].Drop()
			sinks[random(len(sinks))].Drop()
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		r.t.Error(err)
	}
}
