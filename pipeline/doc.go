// Package pipeline wires the stages together and is the only one that knows their order: the sources' readers → shards →
// archive → sinks, with the index told by the archive. It starts them, and stops them in the order of the flow.
//
//   - A Store is everything on disk, opened and mended: state, index, archive.
//   - A Mirror is the running whole. Each of its links is one relay with its roles, source and sink, on one websocket.
//   - A shard owns the ids that dedup assigns to it: all copies of an event meet there, in order.
//   - A stage is a goroutine with a context of its own, whose panic is an error; the first error starts the ordered stop.
//
// The intake bounds the bytes in flight: only readers acquire, shards release, so that the wait graph is
// reader → shard → appender → disk and has no cycle. A barrier is answered once all that one caller has offered on the
// history queues before it is durable or refused.
package pipeline
