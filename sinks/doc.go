// Package sinks delivers archived events to sink relays.
//
// The archive is the queue: a Sink reads it from its own durable ledger, sends what the relay wants and may have, and
// hears the relay's OKs. A sink that is slow or dead therefore costs disk already spent and holds up nobody, and what
// one sink says about an event changes nothing for another.
//
// Words used here, on top of the archive's ordinal and place:
//
//   - frontier: the first ordinal that the ledger has not met yet; everything below it is settled, open or parked.
//   - open: met and not settled. The open ordinals are the window; they are held as places, not bytes.
//   - cursor: the oldest open ordinal, or the frontier. Everything below it is settled or parked. A second pass takes it back.
//   - parked: waiting on its own, as a row of the state file that the cursor may pass.
//   - held: skipped for the sink's own rules (its filter, or a row of the policy table that send: names), and remembered,
//     an ordinal a bit.
//   - second pass: after a change of the rules, the walk over what is held. What the new rules take is open again, and
//     counted as that; the tail goes first.
//   - lacked: what the relay does not list, by NIP-77, though it has answered that it has it. It is parked and due; where most is
//     lacked, a pass over the archive opens what was delivered.
//   - answer: what an OK, or its absence, makes of an event.
//   - suspect: the event that may be what ends the connections; tried alone, convicted as poison or acquitted.
//
// Invariants:
//
//   - Only type ledger moves a cursor, and only for an answer or a reason to skip: a write that succeeded, or a connection
//     that closed, says nothing.
//   - Cursor, open ordinals, counters and the rows of parked, rejected and held events are committed in one transaction, so the
//     balance (type Balance) holds at every commit and a crash repeats at most what was not committed.
//   - On a session that dies nothing is charged to any event, but for the poison that trials have convicted (type suspicion).
package sinks
