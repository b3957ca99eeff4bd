// Package archive is the log of all events on disk: plain JSONL in numbered segments, and beside each an origin file
// that says where its events came from. It is the truth; the index can be rebuilt from it, and for the sinks it is
// the queue.
//
// Vocabulary: a segment is one file of lines, known by its number; a place is (number, offset in the text); an
// ordinal numbers lines as they were written. The written end is where readers stop, the synced end is what a power
// cut cannot take. A blank line is one of spaces only: what stood there was damaged.
//
// Invariants:
//   - a number, a place and an ordinal are never used twice, also after a crash or an error of the disk;
//   - a segment takes lines only after everything in the segments before it is durable;
//   - the origins of a line are written and made durable before the line is;
//   - Observer.Synced, a barrier's answer and the mark in the state come after the fsync that they speak of;
//   - no line can be read in two places: one that is appended again was first withdrawn durably.
package archive
