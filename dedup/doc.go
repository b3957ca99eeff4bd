// Package dedup knows which events the archive has, and what they say of each other: which of them were deleted by their
// authors, which were replaced by newer versions.
//
// An id is absent, pending (handed to the archive, not answered yet) or known (the archive has written it). Only the
// shard that owns an id makes it pending, only the archive's answer makes it known, and no lookup ever finds it
// between two states:
//
//	Begin    absent → pending
//	Written  pending → known, in the overlay: one step under the shard's lock
//	Synced   overlay → Badger, with the checkpoint in the same transaction; only then out of the overlay
//
// A lookup asks the LRU, then pending and overlay, then Badger; each holds what the one before has let go. A filter in memory
// answers for Badger where that does not have the id. The index
// follows the log's fsync, so it is never ahead of the log and the checkpoint never lies. What is not genuine never
// reaches Begin and so leaves no trace here.
//
// A fact is what one event says of others (Deleted, Newer). It goes the same way as its event's id: with Written it is in
// the overlay, so that it counts from the moment it is in the log; then to Badger, in the transaction of the ids. A fact
// carries the place of its event and counts only while that is in the log: what is in doubt is sent rather than held back.
//
// Badger's keys stand in one-byte spaces: meta (format, checkpoint), ids, facts of several kinds. It is a cache of the log:
// anything wrong with it is ErrDamaged, and it is rebuilt by Destroy and Replay.
package dedup
