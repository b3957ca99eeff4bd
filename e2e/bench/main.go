package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if os.Getenv(slowVariable) != "" {
		fmt.Fprintln(os.Stderr, "bench: run the program on a slow disk:", beSlow())
		os.Exit(1)
	}
	if os.Getenv(hostVariable) != "" {
		if err := beHost(); err != nil {
			fmt.Fprintln(os.Stderr, "bench host:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.binary, "binary", "../bin/rebroadcastr", "the built program")
	flag.StringVar(&o.out, "out", "..", "folder to write BENCHMARKS.md to, the plots to docs/ in it, and the headlines of a whole run to its README.md")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each scenario measures everything, in turns")
	flag.BoolVar(&o.quick, "quick", false, "tiny numbers: shows that everything works, and says nothing about speed")
	names := flag.String("scenario", "", "only these, comma-separated; "+strings.Join(scenarioNames(), ", "))
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "bench: unexpected argument %s\n", flag.Arg(0))
		os.Exit(2)
	}
	if *names != "" {
		o.names = strings.Split(*names, ",")
	}
	o.command = asMake()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := figures(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// asMake is the command that measures the same: where things lie makes no difference.
func asMake() string {
	var more []string
	flag.Visit(func(f *flag.Flag) {
		if f.Name != "binary" && f.Name != "out" {
			more = append(more, "-"+f.Name+"="+f.Value.String())
		}
	})
	if more == nil {
		return "make bench"
	}
	return `make bench BENCH="` + strings.Join(more, " ") + `"`
}

// options of a run.
type options struct {
	binary, out string
	rounds      int
	quick       bool
	names       []string // scenarios; nil: all
	command     string   // as it stands in the file
}

func scenarioNames() (names []string) {
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

func selected(names []string) (list []scenario, err error) {
	if names == nil {
		return scenarios, nil
	}
	for _, name := range names {
		i := slices.Index(scenarioNames(), strings.TrimSpace(name))
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q; there are: %s", name, strings.Join(scenarioNames(), ", "))
		}
		list = append(list, scenarios[i])
	}
	return list, nil
}

// figures runs scenarios and writes what they found. A scenario that fails stands in the file as failed, the others go on. Nothing is
// written of a run that was interrupted.
func figures(ctx context.Context, o options) (err error) {
	list, err := selected(o.names)
	if err != nil {
		return err
	}
	begun := time.Now()
	b := &bench{quick: o.quick, rounds: max(o.rounds, 1), archives: map[int]bool{}}
	b.say = func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%7.1fs  %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
	}
	if b.binary, err = filepath.Abs(o.binary); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.open(list); err != nil {
		return err
	}
	d := document{machine: b.look(), command: o.command, rounds: b.rounds, quick: b.quick, whole: !b.quick && len(list) == len(scenarios)}
	var failed []error
	for _, s := range list {
		b.say("%s …", s.name)
		since := time.Now()
		r, err := b.measure(ctx, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.say("%v", err)
			failed = append(failed, err)
		}
		for _, row := range r.rows {
			b.say("  %s", row.short())
		}
		d.parts = append(d.parts, part{s, r, err, time.Since(since)})
	}
	d.took = time.Since(begun)
	return errors.Join(errors.Join(failed...), d.write(o.out))
}
