package main

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"rebroadcastr/e2e/realrelay"
)

var history = scenario{
	name: "history",
	about: "A backfill of all that a relay as people run them holds (khatru over eventstore, pages of 500), against two clients that page over one connection " +
		"and verify, in turns: as lean as one can be, and as one is written with go-nostr; and against what the cores could do if the relay cost what it " +
		"did and the rest were single signature checks. Then a relay 50 ms away that is asked 12 times a second, as strangers are.",
	size: size{50_000, 1000},
	run: func(ctx context.Context, b *bench) (r result, err error) {
		n := b.n(size{50_000, 1000})
		file := filepath.Join(b.dir, "history.jsonl")
		if err := b.stock.part(file, 0, n); err != nil {
			return r, err
		}
		var rate, cost, wire, lean, usual, best, check, far []float64
		for range b.rounds {
			single, _, err := b.bareCheck(ctx)
			if err != nil {
				return r, err
			}
			url, err := tell[string](ctx, b.sourceHost, "OpenReal", file)
			if err != nil {
				return r, err
			}
			for what, rates := range map[string]*[]float64{"PageLean": &lean, "PageUsual": &usual} {
				got, err := tell[Paged](ctx, b.limits, what, Paging{url, b.dir})
				if err != nil {
					return r, err
				}
				if got.Events != n {
					return r, fmt.Errorf("%s: %d events, want %d", what, got.Events, n)
				}
				*rates = append(*rates, float64(n)/got.Wall.Seconds())
			}

			before, spent, err := b.served(ctx)
			if err != nil {
				return r, err
			}
			f, err := b.fetch(ctx, config{sources: []string{url}}, n)
			if err != nil {
				return r, err
			}
			after, spentThen, err := b.served(ctx)
			if err != nil {
				return r, err
			}
			rate = append(rate, float64(n)/f.lasted.Seconds())
			cost = append(cost, micros(f.cpu, n))
			wire = append(wire, float64(after.Events-before.Events)/float64(n))
			best = append(best, float64(runtime.NumCPU())*1e6/(micros(single, 1)+micros(spentThen-spent, n)))
			check = append(check, micros(single, 1))
			if err := b.tidy(); err != nil {
				return r, err
			}

			urls, err := b.sources(ctx, SourceOptions{N: 1, To: n, Delay: farAway})
			if err != nil {
				return r, err
			}
			if f, err = b.fetch(ctx, config{sources: urls, more: "relay_settings: {default: {pace: 12/s}}\n"}, n); err != nil {
				return r, err
			}
			far = append(far, float64(n)/f.lasted.Seconds())
			if err := b.tidy(); err != nil {
				return r, err
			}
		}
		r.rows = []row{
			{figure: "events archived", unit: "/s", values: rate, limit: limit{what: "lean client", values: lean}},
			{figure: "the same", unit: "/s", values: rate, limit: limit{what: "go-nostr client", values: usual}},
			{figure: "the same", unit: "/s", values: rate, limit: limit{what: "cores ÷ (relay + single signature check)", values: best}},
			{figure: "CPU for each event", unit: "µs", values: cost, limit: limit{what: "bare signature check", values: check}},
			{figure: "sent for each event that there is", unit: "times", values: wire},
			{figure: "events archived, 50 ms away and 12 requests a second", unit: "/s", values: far, limit: limit{what: "12 pages of 500", values: repeat(12*pageOf, len(far))}},
		}
		r.notes = []string{fmt.Sprintf("%s events. The relay shares the cores with who asks.", count(n))}
		return r, nil
	},
}

// served is what the real relay has given, and the processor time of its process.
func (b *bench) served(ctx context.Context) (s realrelay.Served, cpu time.Duration, err error) {
	if s, err = tell[realrelay.Served](ctx, b.sourceHost, "Served", struct{}{}); err != nil {
		return s, 0, err
	}
	cpu, err = cpuOf(b.sourceHost.cmd.Process.Pid)
	return s, cpu, err
}
