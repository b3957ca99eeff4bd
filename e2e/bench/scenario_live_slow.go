package main

import (
	"context"
	"time"
)

// slowFsync is how long each fsync takes at least on the slow disk.
const slowFsync = 200 * time.Millisecond

var liveSlowDisk = scenario{
	name: "live-slow-disk",
	about: "As live, where each fsync takes 200 ms longer: those of the log, of the ledgers' and windows' state (two in a commit) and of the index " +
		"(msync). The kernel holds the thread that makes it (seccomp's user notification). Nothing else of the disk is slower.",
	size: size{24_000, 400},
	run: func(ctx context.Context, b *bench) (result, error) {
		return b.liveLatency(ctx, config{fsync: slowFsync}, []target{{}, atMost(20), {}}, "the same where an fsync takes 200 ms")
	},
}
