package main

import (
	"context"
	"time"
)

// crowd is a daemon with many relays.
type crowd struct {
	sources, sinks int
	from, n        int      // events of the stock, which every source sends
	dir            string   // of the archive; empty: a new one
	env            []string // of the program
}

// crowded is what it took.
type crowded struct {
	ready time.Duration // from the program's start until all live subscriptions stand
	cpu   time.Duration // from the first frame until all is done
	rate  float64       // events a second, until all are archived and, with sinks, received
	peak  float64       // MiB
}

// crowd runs a daemon whose sources all send the same new events at full speed.
func (b *bench) crowd(ctx context.Context, c crowd) (r crowded, err error) {
	sources, err := b.sources(ctx, SourceOptions{N: c.sources})
	if err != nil {
		return r, err
	}
	var sinks []string
	if c.sinks > 0 {
		if sinks, err = b.sinks(ctx, SinkOptions{N: c.sinks}); err != nil {
			return r, err
		}
	}
	begun := time.Now()
	p, err := b.start("run", config{dir: c.dir, sources: sources, sinks: sinks, env: c.env})
	if err != nil {
		return r, err
	}
	if err := b.subscribed(ctx); err != nil {
		return r, err
	}
	r.ready = time.Since(begun)
	if c.sinks > 0 {
		if _, err := b.received(ctx, 0); err != nil {
			return r, err
		}
	}
	if err := p.quiet(ctx); err != nil {
		return r, err
	}
	had := p.logged()
	before, err := p.cpu()
	if err != nil {
		return r, err
	}
	sent, err := b.send(ctx, Sending{From: c.from, To: c.from + c.n})
	if err != nil {
		return r, err
	}
	if err := p.archived(ctx, had+b.stock.bytes(c.from, c.from+c.n)); err != nil {
		return r, err
	}
	ended := monotonic()
	if c.sinks > 0 {
		got, err := b.received(ctx, c.n)
		if err != nil {
			return r, err
		}
		ended = max(sent.Ended, got.At)
	}
	r.rate = float64(c.n) / (float64(ended-sent.Begun) / 1e9)
	if err := p.quiet(ctx); err != nil {
		return r, err
	}
	after, err := p.cpu()
	if err != nil {
		return r, err
	}
	r.cpu = after - before
	if err := p.stop(); err != nil {
		return r, err
	}
	r.peak = p.peakMiB()
	return r, b.tidy()
}
