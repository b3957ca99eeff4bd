package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

var importFile = scenario{
	name: "import",
	about: "A JSONL file of 220 MB into a new archive by `import`, from the start of the process to its end. Held against all cores doing nothing but " +
		"new events at the processor time that one takes in a backfill, measured in the same rounds.",
	size: size{200_000, 500},
	run: func(ctx context.Context, b *bench) (r result, err error) {
		n := b.n(size{200_000, 500})
		file := filepath.Join(b.dir, "import.jsonl")
		if err := b.stock.part(file, 0, n); err != nil {
			return r, err
		}
		var rate, cost, rss, each, best, check []float64
		for range b.rounds {
			cpu, _, err := b.bareCheck(ctx)
			if err != nil {
				return r, err
			}
			p, err := b.imported(ctx, config{}, file, n)
			if err != nil {
				return r, err
			}
			if err := b.tidy(); err != nil {
				return r, err
			}
			one, err := b.newCost(ctx, n)
			if err != nil {
				return r, err
			}
			rate = append(rate, float64(n)/p.Lasted().Seconds())
			cost = append(cost, micros(p.CPU(), n))
			rss = append(rss, p.peakMiB())
			each = append(each, one)
			best = append(best, float64(runtime.NumCPU())*1e6/one)
			check = append(check, micros(cpu, 1))
		}
		r.rows = []row{
			{figure: "events imported", unit: "/s", values: rate, target: ratioLeast(0.85), headline: "events imported from a file of 220 MB",
				limit: limit{what: fmt.Sprintf("%d cores ÷ %s µs for a new event", runtime.NumCPU(), number(spreadOf(each).median)), values: best}},
			{figure: "CPU for each event", unit: "µs", values: cost, limit: limit{what: "bare signature check", values: check}},
			{figure: "RssAnon, peak", unit: "MiB", values: rss},
		}
		if err := os.Remove(file); err != nil {
			return r, err
		}
		r.notes = []string{fmt.Sprintf("%s events, %s MB.", count(n), number(float64(b.stock.bytes(0, n))/1e6))}
		return r, nil
	},
}

// imported runs import on a file of n events that the archive does not have.
func (b *bench) imported(ctx context.Context, c config, file string, n int) (*program, error) {
	c.args = append(c.args, file)
	p, err := b.start("import", c)
	if err != nil {
		return nil, err
	}
	s, err := p.finish(ctx)
	if err != nil {
		return nil, err
	}
	if s.Archive.Added != uint64(n) {
		return nil, fmt.Errorf("import: %d of %d events archived", s.Archive.Added, n)
	}
	return p, nil
}

// archiveOf is an archive with the stock's first n events, made once for all scenarios. Only one of them uses it at a time.
func (b *bench) archiveOf(ctx context.Context, n int) (dir string, err error) {
	dir = filepath.Join(b.dir, fmt.Sprint("a", n))
	if b.archives[n] {
		return dir, nil
	}
	file := b.stock.file
	if n < b.stock.len() {
		file = filepath.Join(b.dir, "part.jsonl")
		if err := b.stock.part(file, 0, n); err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, os.Remove(file)) }()
	}
	begun := time.Now()
	if _, err := b.imported(ctx, config{dir: dir}, file, n); err != nil {
		return "", err
	}
	b.archives[n] = true
	b.say("  an archive of %s events, made in %s", count(n), time.Since(begun).Round(time.Millisecond))
	return dir, nil
}
