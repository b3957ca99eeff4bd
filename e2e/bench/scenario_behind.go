package main

import (
	"context"
	"fmt"
)

var sinkBehind = scenario{
	name: "sink-behind",
	about: "A daemon catches up a new sink, which only counts and answers, with all of an archive. Events from the first to the last that the sink received; " +
		"RssAnon over the whole life of the process. Held against the sink's own rate: a lean client that sends it the same bytes without a window.",
	size: size{1_000_000, 2000},
	run: func(ctx context.Context, b *bench) (r result, err error) {
		sizes := []int{1_000, 10_000, 100_000, 1_000_000}
		if b.quick {
			sizes = []int{200, 2000}
		}
		var rate, cost, rss, own []float64
		costs := newLine("a delivery", sizes)
		peaks := newLine("peak", sizes)
		for range b.rounds {
			for i, n := range sizes {
				dir, err := b.archiveOf(ctx, n)
				if err != nil {
					return r, err
				}
				got, err := b.deliver(ctx, dir, n, SinkOptions{N: 1})
				if err != nil {
					return r, err
				}
				costs.add(i, n, micros(got.cpu, n))
				peaks.add(i, n, got.peak)
				if n < sizes[len(sizes)-1] {
					continue
				}
				best, err := b.blast(ctx, n, SinkOptions{N: 1}, 0)
				if err != nil {
					return r, err
				}
				rate, cost, rss, own = append(rate, got.rate), append(cost, micros(got.cpu, n)), append(rss, got.peak), append(own, best)
			}
		}
		r.rows = []row{
			{figure: "events delivered", unit: "/s", values: rate, target: atLeast(30_000), headline: "events sent to a sink that is a million behind", limit: limit{what: "lean client, the sink's own rate", values: own}},
			{figure: "CPU for each delivery", unit: "µs", values: cost},
			{figure: "RssAnon, peak", unit: "MiB", values: rss, target: never(150), headline: "memory meanwhile (RssAnon, peak)"},
		}
		r.notes = []string{fmt.Sprintf("%s events behind.", count(sizes[len(sizes)-1]))}
		r.plots = []chart{{file: "behind.svg", title: "A sink that is behind", x: "events behind", panels: []panel{
			{title: "Processor time, start and stop included", y: "µs for each delivery", lines: []line{costs}},
			{title: "Memory", y: "RssAnon, MiB", lines: []line{peaks, boundAt("bound", 150, sizes)}},
		}}}
		return r, nil
	},
}
