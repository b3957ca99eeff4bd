// Bench measures the built program from outside and writes BENCHMARKS.md with its plots.
//
//	make bench                                  # all of it, at most 15 minutes, about 5 GB in a temporary folder
//	go run -tags libsecp256k1 ./bench -binary ../bin/rebroadcastr -scenario live,new -rounds 3 -out /tmp/figures
//
// The program runs as a child with a config of its own. The relays that it talks to are lean ones in processes of their own (this
// binary again, told by an environment variable), so that what is measured of the child is its own: processor time by the clock
// that the kernel keeps for a process, RssAnon by /proc, latency by CLOCK_MONOTONIC, which all processes share. Waiting for the
// child costs it nothing: a websocket's pong, the size of the archive's files, what a sink has received; never its status.
//
// A scenario is one file with one value of type scenario, listed in scenarios.go:
//
//  1. size says how many events it needs, in full and for -quick; they are made and signed once for all scenarios (stock.go).
//  2. run loops over b.rounds. In each round it measures the program and, in the same round, what it is held against, because a
//     machine is not equally fast all day. limits.go has the bare signature check, memcpy, fsync, a bare websocket reader, a sink's
//     own rate, a mirror that keeps nothing.
//  3. b.sources and b.sinks open relays in their processes (source.go, sink.go); b.start runs the program (program.go).
//  4. It returns rows: a figure with one value for each round, the limit's values, the target. The table shows minimum, median and
//     maximum; the median is what is held to the target (of memory the highest), the ratio is the median of the rounds' ratios. A row
//     that misses says so.
//  5. A scenario may return plots too (plot.go); grow_*.go are scenarios that are nothing else.
//  6. TestBench runs each scenario with -quick, so it cannot rot.
package main
