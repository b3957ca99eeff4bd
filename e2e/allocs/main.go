// Command allocs holds the stage benchmarks to what they may allocate. It runs every BenchmarkStage… of a module with -benchmem, a fixed
// number of times, and compares the allocations per operation with a file that records them. It fails if there are more, if a recorded
// benchmark is gone, and if one has no record. Times are shown and not judged: they are the machine's.
//
//	make allocs           compare
//	make allocs-update    record anew
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"rebroadcastr/event"
)

func main() {
	c := check{out: os.Stdout}
	flag.StringVar(&c.dir, "dir", "..", "root of the module")
	flag.StringVar(&c.record, "record", "../testdata/allocs.txt", "file of what is recorded")
	flag.StringVar(&c.tags, "tags", "", "build tags of the benchmarks")
	flag.StringVar(&c.benchtime, "benchtime", "2000x", "operations of each benchmark")
	flag.BoolVar(&c.update, "update", false, "record what is measured")
	flag.Parse()
	if !strings.HasPrefix(event.VerifierName(), event.FastVerifier) {
		fmt.Printf("allocations are recorded with %s, this build has %s: nothing compared\n", event.FastVerifier, event.VerifierName())
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := c.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "allocs:", err)
		os.Exit(1)
	}
}

// check is one comparison, or with update one recording.
type check struct {
	dir, record, tags, benchtime string
	update                       bool
	out                          io.Writer
}

// A run again can only show fewer: the runtime, and goroutines beside the benchmark, add allocations now and then, and take none away.
const (
	runsToRecord = 5 // and the most of them is recorded
	runsToDoubt  = 5 // of a benchmark that was above its record once
)

var errMore = errors.New("the stages allocate otherwise than recorded. If that is meant: make allocs-update")

func (c *check) run(ctx context.Context) error {
	packages, err := stagePackages(c.dir)
	if err != nil {
		return err
	}
	if c.update {
		now, err := c.measure(ctx, runsToRecord, "^"+prefix, packages...)
		if err != nil {
			return err
		}
		if err := writeRecord(c.record, now); err != nil {
			return err
		}
		_, err = fmt.Fprintf(c.out, "recorded %d benchmarks in %s\n", len(now), c.record)
		return err
	}
	recorded, err := readRecord(c.record)
	if err != nil {
		return err
	}
	now, err := c.measure(ctx, 1, "^"+prefix, packages...)
	if err != nil {
		return err
	}
	for name, s := range now {
		most, known := recorded[name]
		if !known || s.least <= most {
			continue
		}
		at, function := split(name)
		again, err := c.measure(ctx, runsToDoubt, "^Benchmark"+function+"$", at)
		if err != nil {
			return err
		}
		s.least = min(s.least, again[name].least)
		now[name] = s
	}
	table, wrong := compare(recorded, now)
	if _, err := io.WriteString(c.out, table); err != nil {
		return err
	}
	if wrong > 0 {
		return errMore
	}
	return nil
}
