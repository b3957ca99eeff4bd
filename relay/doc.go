// Package relay speaks with one Nostr relay over one websocket.
//
// A Link is the loop that survives: one per relay, it dials, waits between attempts, fetches the relay's limits
// (NIP-11) and runs roles, such as "source" and "sink", on each session. A Session is one attempt: what a role sees
// of one websocket while it lives. A verdict is what a relay's answer to an EVENT or a REQ means for us.
//
// Invariants:
//   - One reader and one writer per websocket. Handlers run on the reader, in wire order; a handler that waits is
//     back-pressure, down to not reading the socket. While it waits, pongs are still sent, and neither the write
//     deadline nor a role's OK clock (Session.Stalled) runs.
//   - No message of a relay is fatal, whatever its text. What is not understood, or is above Settings.MaxFrame and
//     passed over, is counted by reason. What breaks the websocket's own framing, or its time, ends the session.
//   - Every end of a session has its own reason (End).
//   - The backoff is reset by progress (an event, an OK), never by a bare connect.
//   - After Run or Remove returned, no Serve and no handler of what they stopped runs any more.
package relay
