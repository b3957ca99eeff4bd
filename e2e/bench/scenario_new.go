package main

import (
	"context"
	"fmt"
	"runtime"
	"time"
)

var newEvents = scenario{
	name: "new",
	about: "A backfill of a source that has events which the program has never seen, into a new archive, without sinks: all stages. " +
		"Processor time of the whole process from its start to its end, less what a backfill of an empty source takes. Held against the bare " +
		"signature check (" + bareName + ") with all cores at it.",
	size: size{200_000, 500},
	run: func(ctx context.Context, b *bench) (r result, err error) {
		n := b.n(size{200_000, 500})
		var cost, rate, rss, disk, check, checkRate, line []float64
		for range b.rounds {
			cpu, perSecond, err := b.bareCheck(ctx)
			if err != nil {
				return r, err
			}
			check, checkRate = append(check, micros(cpu, 1)), append(checkRate, perSecond)
			idle, err := b.backfill(ctx, 0)
			if err != nil {
				return r, err
			}
			got, err := b.backfill(ctx, n)
			if err != nil {
				return r, err
			}
			cost = append(cost, micros(got.cpu-idle.cpu, n))
			rate = append(rate, float64(n)/got.lasted.Seconds())
			rss = append(rss, got.peak)
			disk = append(disk, float64(got.disk)/float64(n))
			line = append(line, float64(b.stock.bytes(0, n))/float64(n))
		}
		r.rows = []row{
			{figure: "new event, all stages, archived, CPU", unit: "µs", values: cost, target: ratioMost(1.25), headline: "a new event, fetched, checked and archived, processor time", limit: limit{what: "bare signature check", values: check}},
			{figure: "new events", unit: "/s", values: rate, limit: limit{what: fmt.Sprintf("bare signature checks on %d cores", runtime.NumCPU()), values: checkRate}},
			{figure: "RssAnon, peak", unit: "MiB", values: rss},
			{figure: "on disk for each event", unit: "B", values: disk, limit: limit{what: "the event's line", values: line}},
		}
		r.notes = []string{fmt.Sprintf("%s events of %s authors. The relay that serves them shares the cores, which the rate feels and the cost does not.", count(n), count(writers))}
		return r, nil
	},
}

// fetched is what a backfill did.
type fetched struct {
	cpu, lasted time.Duration
	peak        float64 // MiB
	disk        int64   // bytes
}

// backfill fetches the stock's first n events from one source.
func (b *bench) backfill(ctx context.Context, n int) (f fetched, err error) {
	urls, err := b.sources(ctx, SourceOptions{N: 1, To: n})
	if err != nil {
		return f, err
	}
	if f, err = b.fetch(ctx, config{sources: urls}, n); err != nil {
		return f, err
	}
	return f, b.tidy()
}

// fetch runs a backfill of sources that have n events together.
func (b *bench) fetch(ctx context.Context, c config, n int) (f fetched, err error) {
	p, err := b.start("backfill", c)
	if err != nil {
		return f, err
	}
	s, err := p.finish(ctx)
	if err != nil {
		return f, err
	}
	if s.Archive.Lines != uint64(n) || s.Sources[0].New != int64(n) {
		return f, fmt.Errorf("%d events archived, want %d", s.Archive.Lines, n)
	}
	f.cpu, f.lasted, f.peak = p.CPU(), p.Lasted(), p.peakMiB()
	f.disk, err = onDisk(p.dir)
	return f, err
}

// newCost is the processor time that a new event takes in a backfill of n, in µs.
func (b *bench) newCost(ctx context.Context, n int) (float64, error) {
	idle, err := b.backfill(ctx, 0)
	if err != nil {
		return 0, err
	}
	got, err := b.backfill(ctx, n)
	if err != nil {
		return 0, err
	}
	return micros(got.cpu-idle.cpu, n), nil
}
