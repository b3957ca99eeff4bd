package pipeline

import "rebroadcastr/config"

// What the parts of a Mirror hold in memory at most, in bytes. Nothing here grows with what is archived, or is behind, or with what
// relays send: each part has its bound where it is made, and waits at it.
const (
	lruEntryBytes   = 210       // an id in golang-lru: 174 to 221, by how full its map is
	filterBytes     = 24 << 20  // dedup's filter over all known ids: so many from 16 million on, 1.5 bytes for each below
	overlayBytes    = 10 << 20  // dedup.MaxOverlay entries, in the queue and in the shards' maps
	unsyncedBytes   = 8 << 20   // lines written and not yet durable: an fsync begins at so many
	recentBytes     = 4 << 20   // what was archived last, for sinks that are not behind
	framesBytes     = 4 << 20   // messages to sinks on their way to a socket, and buffers in pools
	sinkBytes       = 100 << 10 // window, ledger, what its reader has read ahead
	connectionBytes = 150 << 10 // buffers of the socket, TLS, goroutines
)

// Memory is the sum of that for a config, in bytes: 150 MiB by the defaults, and some 30 for 200 sources. Frames in flight
// are budgetBytes; a message above 64 KiB takes one of bigFrames slots while it is read, which is beside the sum.
func Memory(cfg *config.Config) int64 {
	n := int64(cfg.Dedup.LRU)*lruEntryBytes + cfg.Dedup.Memory + budgetBytes + filterBytes + overlayBytes + unsyncedBytes + recentBytes + framesBytes
	for _, r := range plan(cfg) {
		n += connectionBytes
		if r.sink != nil {
			n += sinkBytes
		}
	}
	return n
}

// MemoryLimit is the soft limit that Go's collector is given (GOMEMLIMIT): the sum and a quarter, for stacks, big messages and what
// waits to be collected. Far below it the collector lets the heap grow to twice what is in use (GOGC=100), so with little to do a
// process holds 30 to 50 MiB; near it the collector works more often instead of letting the heap double. A GOGC of 200 or 400 saves a
// sink a million events behind 1 to 4 % of its CPU and takes 65 or 123 MiB for it instead of 36.
func MemoryLimit(cfg *config.Config) int64 {
	n := Memory(cfg)
	return n + n/4
}
