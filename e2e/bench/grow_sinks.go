package main

import (
	"context"
	"fmt"
)

var growSinks = scenario{
	name: "sinks",
	about: "One source sends events live as fast as the daemon reads, and 1 to 32 sinks get all of them. Processor time from the first frame until every " +
		"sink has every event and the process is quiet; RssAnon from its start.",
	size: size{20_000, 200},
	run: func(ctx context.Context, b *bench) (r result, err error) {
		n, sizes := b.n(size{20_000, 200}), []int{1, 2, 4, 8, 16, 32}
		if b.quick {
			sizes = []int{1, 4}
		}
		event := newLine("an event with all its deliveries", sizes)
		delivery := newLine("each delivery more", sizes[1:])
		peak := newLine("peak", sizes)
		for range b.rounds {
			var one float64
			for i, sinks := range sizes {
				c, err := b.crowd(ctx, crowd{sources: 1, sinks: sinks, n: n})
				if err != nil {
					return r, fmt.Errorf("%d sinks: %w", sinks, err)
				}
				event.add(i, sinks, micros(c.cpu, n))
				peak.add(i, sinks, c.peak)
				if i == 0 {
					one = micros(c.cpu, n)
				} else {
					delivery.add(i-1, sinks, (micros(c.cpu, n)-one)/float64(sinks-1))
				}
			}
		}
		r.plots = []chart{{file: "sinks.svg", title: "Processor time and memory against the number of sinks", x: "sinks", panels: []panel{
			{title: "Processor time for each event", y: "µs", lines: []line{event}},
			{title: "Processor time for each delivery beyond the first", y: "µs", lines: []line{delivery}},
			{title: "Memory", y: "RssAnon, MiB", lines: []line{peak}},
		}}}
		return r, nil
	},
}
