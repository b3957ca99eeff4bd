// Package reconcile finds out which events a relay has and we lack, and the other way round, by comparing sets of ids
// (NIP-77, negentropy). It does no networking: messages go in and come out as hex.
//
// An item is an id and its created_at; items are in order of time, then id. A Set is all items that a filter takes of what
// was ever archived, on disk. A Session compares the items of one window of time with one peer; need is what only the peer
// has, have is what only we have. Spans cuts a stretch of time into windows that both sides can hold.
//
// Invariants:
//   - no message of a peer reaches go-nostr's core unchecked: a count or a bound out of range would panic or allocate there;
//   - what a session holds is bounded by MostItems of ours and MostItems of the peer's, whatever the peer sends;
//   - need is complete only when Answer has said done; until then it is a part.
package reconcile
