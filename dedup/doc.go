// Package dedup knows which events the archive has.
//
// An id is absent, pending (handed to the archive, not answered yet) or known (the archive has written it). Only the
// shard that owns an id makes it pending, only the archive's answer makes it known, and no lookup ever finds it
// between two states:
//
//	Begin    absent → pending
//	Written  pending → known, in the overlay: one step under the shard's lock
//	Synced   overlay → Badger, with the checkpoint in the same transaction; only then out of the overlay
//
// A lookup asks the LRU, then pending and overlay, then Badger; each holds what the one before has let go. The index
// follows the log's fsync, so it is never ahead of the log and the checkpoint never lies. What is not genuine never
// reaches Begin and so leaves no trace here.
//
// Badger's keys stand in one-byte spaces: meta (format, checkpoint), ids; later deletions and newest versions. It is
// a cache of the log: anything wrong with it is ErrDamaged, and it is rebuilt by Destroy and Replay.
package dedup
