package main

import "context"

var liveDurable = scenario{
	name: "live-durable",
	about: "As live with `archive.sync: always`: no sink gets what a power cut could take from the archive, so each event waits for an fsync, or for the " +
		"one under way and the next. Held against the fsync of a file to which one event was appended, too.",
	size: size{24_000, 400},
	run: func(ctx context.Context, b *bench) (result, error) {
		return b.liveLatency(ctx, config{sync: "always"}, []target{{}, {}, {}}, "")
	},
}
