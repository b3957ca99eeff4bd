// Package sources is a source relay: one live subscription that never ends, catch-up over what was missed, and
// history by pages, with the proof of what has been asked.
//
//   - A Door is one way in (a source relay, or an import): it knows what was asked for, and counts.
//   - A Frame is one event on its way in; an Intake takes frames (package pipeline implements it).
//   - A Source is the role that a relay.Link runs on each of its sessions.
//   - An atom is what one author (or one tag value) and the rest of a filter ask for. Progress is kept per atom as a
//     set of proven windows of created_at, never as "the last event seen": created_at is its author's claim.
//   - A plan is what is asked for and let in between two calls of Ask. A live subscription of the new plan stands before
//     the old one's is closed. What a plan's door refuses is never proven for another.
//   - A walk pages one gap between proven windows, newest first. A window is saved only after the archive has
//     answered the barrier behind its events; the walk itself does not wait for that.
//
// Subscription ids say what they are: live-N, page-N.
package sources
