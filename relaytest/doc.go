// Package relaytest is a scripted relay for tests: a real websocket server on the loopback that does what a good
// relay does, and on request what no good relay does. It caps pages, sends forged copies first, drops connections
// before an OK, never sends EOSE, stalls, floods, sends garbage, refuses the upgrade. It records what it got.
//
// The zero Script is a well-behaved relay without events. Everything in a Script can be changed while the relay runs,
// by Update; it holds from the next message on.
//
// It also signs events, with keys that are small numbers: nothing else in the project holds a private key, and
// nothing but tests may import this package.
package relaytest
