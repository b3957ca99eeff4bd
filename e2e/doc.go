// Package e2e tests the whole program: the built binary as a child process, real relays in the test's process, real files.
//
// The child is built with the race detector (a race it finds fails the test that started it) and, for figures, without.
// Some tests go on longer by a flag: -kills 1000 (TestKill), -soak 1h (TestSoak).
// What must come out is computed here from the NIPs and from the contract, not by the program's own packages.
package e2e
