package main

import (
	"context"
	"fmt"
)

var growSources = scenario{
	name: "sources",
	about: "1 to 64 sources, all of which send the same events live, all at once and as fast as the daemon reads. It has no sinks. Processor time from the " +
		"first frame until the events are archived and the process is quiet; RssAnon from its start.",
	size: size{20_000, 200},
	run: func(ctx context.Context, b *bench) (r result, err error) {
		n, sizes := b.n(size{20_000, 200}), []int{1, 2, 4, 8, 16, 32, 64}
		if b.quick {
			sizes = []int{1, 4}
		}
		event := newLine("an event with all its copies", sizes)
		frame := newLine("a frame", sizes)
		peak := newLine("peak", sizes)
		for range b.rounds {
			for i, sources := range sizes {
				c, err := b.crowd(ctx, crowd{sources: sources, n: n})
				if err != nil {
					return r, fmt.Errorf("%d sources: %w", sources, err)
				}
				event.add(i, sources, micros(c.cpu, n))
				frame.add(i, sources, micros(c.cpu, n*sources))
				peak.add(i, sources, c.peak)
			}
		}
		r.plots = []chart{{file: "sources.svg", title: "Processor time and memory against the number of sources", x: "sources", panels: []panel{
			{title: "Processor time for each event", y: "µs", lines: []line{event}},
			{title: "Processor time for each frame", y: "µs", lines: []line{frame}},
			{title: "Memory", y: "RssAnon, MiB", lines: []line{peak}},
		}}}
		return r, nil
	},
}
