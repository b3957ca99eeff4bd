package main

import (
	"context"
	"fmt"
	"time"
)

// paced is how many relays there are, and how much goes on between them. Both of the scenario have as many frames in and
// deliveries out in a second, because what a wake-up costs depends on how busy the program is.
type paced struct {
	sources, sinks int
	rate           float64 // new events a second, each sent by all sources and to all sinks
	warm, n        size
	apart          bool // each is sent by one source only
}

var (
	aFew  = paced{3, 1, 2_000, size{4_000, 100}, size{20_000, 300}, false}
	aMany = paced{200, 50, 32, size{64, 2}, size{320, 5}, false}
	// The same work but for the number of connections.
	aFewApart  = paced{3, 1, 2_000, size{2_000, 100}, size{10_000, 300}, true}
	aManyApart = paced{200, 1, 2_000, size{2_000, 100}, size{10_000, 300}, true}
)

var many = scenario{
	name: "many",
	about: "200 sources and 50 sinks in one process, against 3 and 1. Every source sends every event, every sink gets every event, at 8,000 frames in and " +
		"deliveries out a second in both cases. CPU of the program for each of those; and the same less the signature checks of new events, of which there " +
		"are 2,000 a second with 3 sources and 32 with 200: the cost of a frame and of a delivery alone. And 2,000 new events a second, each from one source " +
		"only, to one sink: nothing but the number of connections is another.",
	size: size{24_000, 400},
	run: func(ctx context.Context, b *bench) (r result, err error) {
		var each, unsigned, event, rss, apart [2][]float64 // of a few, of many
		for range b.rounds {
			check, _, err := b.bareCheck(ctx)
			if err != nil {
				return r, err
			}
			for i, c := range []paced{aFew, aMany} {
				cpu, peak, err := b.pacedRound(ctx, c)
				if err != nil {
					return r, err
				}
				n := b.n(c.n)
				passed := n * (c.sources + c.sinks)
				each[i] = append(each[i], micros(cpu, passed))
				unsigned[i] = append(unsigned[i], micros(cpu-time.Duration(n)*check, passed))
				event[i] = append(event[i], micros(cpu, n))
				rss[i] = append(rss[i], peak)
			}
			for i, c := range []paced{aFewApart, aManyApart} {
				cpu, _, err := b.pacedRound(ctx, c)
				if err != nil {
					return r, err
				}
				apart[i] = append(apart[i], micros(cpu, b.n(c.n)))
			}
		}
		few := fmt.Sprintf("%d sources, %d sink", aFew.sources, aFew.sinks)
		r.rows = []row{
			{figure: "CPU for each frame in and delivery out", unit: "µs", values: each[1], target: ratioMost(2), headline: "200 sources and 50 sinks: processor time for each frame in and delivery out", limit: limit{what: few, values: each[0]}},
			{figure: "the same less the signature checks", unit: "µs", values: unsigned[1], target: ratioMost(2), limit: limit{what: few, values: unsigned[0]}},
			{figure: "CPU for each new event from one of the sources to one sink", unit: "µs", values: apart[1], target: ratioMost(2), limit: limit{what: few, values: apart[0]}},
			{figure: "RssAnon, peak", unit: "MiB", values: rss[1], target: never(240), headline: "memory with 200 sources and 50 sinks (RssAnon, peak)", limit: limit{what: few, values: rss[0]}},
			{figure: "CPU for each new event with all its copies and deliveries (250; 4)", unit: "µs", values: event[1], limit: limit{what: few, values: event[0]}},
		}
		return r, nil
	},
}

// pacedRound runs a daemon between c's relays.
func (b *bench) pacedRound(ctx context.Context, c paced) (cpu time.Duration, peak float64, err error) {
	sources, err := b.sources(ctx, SourceOptions{N: c.sources})
	if err != nil {
		return 0, 0, err
	}
	sinks, err := b.sinks(ctx, SinkOptions{N: c.sinks})
	if err != nil {
		return 0, 0, err
	}
	p, err := b.start("run", config{sources: sources, sinks: sinks})
	if err != nil {
		return 0, 0, err
	}
	if err := b.subscribed(ctx); err != nil {
		return 0, 0, err
	}
	warm, n := b.n(c.warm), b.n(c.n)
	if err := b.pass(ctx, c, 0, warm); err != nil {
		return 0, 0, err
	}
	before, err := p.cpu()
	if err != nil {
		return 0, 0, err
	}
	if err := b.pass(ctx, c, warm, warm+n); err != nil {
		return 0, 0, err
	}
	after, err := p.cpu()
	if err != nil {
		return 0, 0, err
	}
	peak = p.peakMiB()
	if err := p.stop(); err != nil {
		return 0, 0, err
	}
	return after - before, peak, b.tidy()
}

// pass sends events and waits until every sink has them.
func (b *bench) pass(ctx context.Context, c paced, from, to int) error {
	if _, err := b.send(ctx, Sending{From: from, To: to, Rate: c.rate, Seed: uint64(from), Apart: c.apart}); err != nil {
		return err
	}
	_, err := b.received(ctx, to)
	return err
}
