package main

import (
	"context"
	"fmt"
	"time"
)

const farAway = 50 * time.Millisecond

var sinkFar = scenario{
	name: "sink-far",
	about: "A daemon sends an archive to one sink that answers each event 50 ms after it came, with the default window. Events from the first " +
		"receipt to the last answer. Held against a lean client that keeps 500 unanswered, as many as the program's window, at such a sink.",
	size: size{40_000, 500},
	run: func(ctx context.Context, b *bench) (r result, err error) {
		n := b.n(size{40_000, 500})
		dir, err := b.archiveOf(ctx, n)
		if err != nil {
			return r, err
		}
		var rate, best []float64
		for range b.rounds {
			got, err := b.deliver(ctx, dir, n, SinkOptions{N: 1, Delay: farAway})
			if err != nil {
				return r, err
			}
			rate = append(rate, got.rate)
			own, err := b.blast(ctx, n, SinkOptions{N: 1, Delay: farAway}, 500)
			if err != nil {
				return r, err
			}
			best = append(best, own)
		}
		r.rows = []row{{figure: "events delivered", unit: "/s", values: rate, target: atLeast(5000), headline: "events sent to a sink 50 ms away",
			limit: limit{what: "lean client, 500 unanswered", values: best}}}
		r.notes = []string{fmt.Sprintf("%s events. 500 ÷ 50 ms is 10,000/s.", count(n))}
		return r, nil
	},
}

// delivered is what came of sending an archive to sinks.
type delivered struct {
	rate  float64       // events a second at each sink, from the first to the last
	first time.Duration // from the program's start to the first receipt
	cpu   time.Duration // of its whole life
	peak  float64       // MiB
}

// deliver runs a daemon on an archive of n events until new sinks have all of it.
func (b *bench) deliver(ctx context.Context, dir string, n int, o SinkOptions) (d delivered, err error) {
	sinks, err := b.sinks(ctx, o)
	if err != nil {
		return d, err
	}
	sources, err := b.sources(ctx, SourceOptions{N: 1}) // which has nothing
	if err != nil {
		return d, err
	}
	begun := monotonic()
	p, err := b.start("run", config{dir: dir, sources: sources, sinks: sinks})
	if err != nil {
		return d, err
	}
	got, err := b.received(ctx, n)
	if err != nil {
		return d, err
	}
	if err := p.stop(); err != nil {
		return d, err
	}
	d.rate = float64(n) / (time.Duration(got.At-got.First) + o.Delay).Seconds() // the last answer is still on its way
	d.first, d.cpu, d.peak = time.Duration(got.First-begun), p.CPU(), p.peakMiB()
	return d, b.tidy()
}

// blast is the rate of a lean client that sends the stock's first n events to a sink; window 0: as fast as the sink reads.
func (b *bench) blast(ctx context.Context, n int, o SinkOptions, window int) (rate float64, err error) {
	urls, err := b.sinks(ctx, o)
	if err != nil {
		return 0, err
	}
	c, err := tell[Cost](ctx, b.limits, "Blast", Blasting{urls[0], Stretch{0, n}, window})
	if err != nil {
		return 0, err
	}
	return float64(n) / c.Wall.Seconds(), b.tidy()
}
