package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"
)

var live = scenario{
	name: "live",
	about: "Three sources send 2,000 new events a second, each of them by all three, the copies one and two events later; gaps as by chance. A daemon " +
		"archives them with the default sync and sends them to one sink. Time from the first source's send to the sink's receipt, by the clock that all " +
		"processes share. Held against a mirror that forwards the first copy of each id and checks, keeps and waits for nothing.",
	size: size{24_000, 400},
	run: func(ctx context.Context, b *bench) (result, error) {
		return b.liveLatency(ctx, config{}, []target{atMost(1), atMost(10), {}}, "live, 2,000 events a second from three sources: send to receipt")
	},
}

const livePerSecond = 2000

// liveLatency measures p50, p99 and the longest way from a source's send to the sink's receipt; c adds to the config.
func (b *bench) liveLatency(ctx context.Context, c config, targets []target, headline string) (r result, err error) {
	warm, n := b.n(size{4_000, 100}), b.n(size{20_000, 300})
	var ours, bare [3][]float64
	var cost, rss, held, synced []float64
	for round := range b.rounds {
		var p *program
		way, cpu, peak, err := b.liveRound(ctx, warm, n, round, func(sources, sinks []string) (_ *program, err error) {
			c := c
			c.sources, c.sinks = sources, sinks
			p, err = b.start("run", c)
			return p, err
		})
		if err != nil {
			return r, err
		}
		cost, rss = append(cost, cpu), append(rss, peak)
		if p.disk != nil {
			held = append(held, float64(p.disk.fsyncs()))
		}
		least, _, _, err := b.liveRound(ctx, warm, n, round, func(sources, sinks []string) (*program, error) {
			_, err := tell[struct{}](ctx, b.limits, "Mirror", Mirroring{sources, sinks[0]})
			return nil, err
		})
		if err != nil {
			return r, err
		}
		if c.sync == "always" {
			fsyncs, err := tell[[]time.Duration](ctx, b.limits, "Fsync", Syncing{b.dir, b.n(size{500, 20})})
			if err != nil {
				return r, err
			}
			synced = append(synced, float64(fsyncs[len(fsyncs)/2])/1e6)
		}
		for i, p := range []float64{0.5, 0.99, 1} {
			ours[i] = append(ours[i], percentile(way, p))
			bare[i] = append(bare[i], percentile(least, p))
		}
	}
	for i, what := range []string{"p50", "p99", "longest"} {
		head := ""
		if targets[i].kind != noTarget {
			head = headline + ", " + what
		}
		r.rows = append(r.rows, row{headline: head, figure: "send to receipt, " + what, unit: "ms", values: ours[i], target: targets[i],
			limit: limit{what: "bare mirror, " + what, values: bare[i]}})
	}
	if synced != nil {
		r.rows = append(r.rows, row{figure: "the p50 again", unit: "ms", values: ours[0], limit: limit{what: "fsync of one event, p50", values: synced}})
	}
	r.rows = append(r.rows,
		row{figure: "CPU for each event, with its copies and its delivery", unit: "µs", values: cost},
		row{figure: "RssAnon, peak", unit: "MiB", values: rss})
	if held != nil {
		r.rows = append(r.rows, row{figure: "fsyncs that were made slow, start and stop included", values: held})
	}
	r.notes = []string{fmt.Sprintf("%s events in each round, after %s that are not counted.", count(n), count(warm))}
	return r, nil
}

// liveRound tells the time that each event took, in ms.
func (b *bench) liveRound(ctx context.Context, warm, n, round int, mirror func(sources, sinks []string) (*program, error)) (way []float64, cpu, peak float64, err error) {
	sources, err := b.sources(ctx, SourceOptions{N: 3})
	if err != nil {
		return nil, 0, 0, err
	}
	sinks, err := b.sinks(ctx, SinkOptions{N: 1, Keep: true})
	if err != nil {
		return nil, 0, 0, err
	}
	p, err := mirror(sources, sinks)
	if err != nil {
		return nil, 0, 0, err
	}
	if err := b.subscribed(ctx); err != nil {
		return nil, 0, 0, err
	}
	if _, err := b.received(ctx, 0); err != nil {
		return nil, 0, 0, err
	}
	if _, err := b.send(ctx, Sending{To: warm, Rate: livePerSecond, Seed: uint64(round)}); err != nil {
		return nil, 0, 0, err
	}
	if _, err := b.received(ctx, warm); err != nil {
		return nil, 0, 0, err
	}
	before := int64(0)
	if p != nil {
		d, err := p.cpu()
		if err != nil {
			return nil, 0, 0, err
		}
		before = int64(d)
	}
	sent, err := b.send(ctx, Sending{From: warm, To: warm + n, Rate: livePerSecond, Seed: uint64(round) + 100})
	if err != nil {
		return nil, 0, 0, err
	}
	if _, err := b.received(ctx, warm+n); err != nil {
		return nil, 0, 0, err
	}
	if p != nil {
		d, err := p.cpu()
		if err != nil {
			return nil, 0, 0, err
		}
		cpu, peak = float64(int64(d)-before)/1000/float64(n), p.peakMiB()
	}
	receipts, err := tell[[]Receipt](ctx, b.sinkHost, "Receipts", struct{}{})
	if err != nil {
		return nil, 0, 0, err
	}
	if way, err = b.ways(warm, sent, receipts); err != nil {
		return nil, 0, 0, err
	}
	if p != nil {
		if err := p.stop(); err != nil {
			return nil, 0, 0, err
		}
	}
	return way, cpu, peak, b.tidy()
}

// ways joins sends and receipts. Every event has to have arrived.
func (b *bench) ways(from int, sent Sent, receipts []Receipt) ([]float64, error) {
	at := make(map[[8]byte]int64, len(receipts))
	for _, r := range receipts {
		if _, twice := at[r.ID]; !twice {
			at[r.ID] = r.At
		}
	}
	way := make([]float64, len(sent.Times))
	for i, t := range sent.Times {
		var id [8]byte
		line := b.stock.line(from + i)
		if _, err := hex.Decode(id[:], line[len(`{"id":"`):][:16]); err != nil {
			return nil, err
		}
		got, ok := at[id]
		if !ok {
			return nil, fmt.Errorf("event %d never arrived", from+i)
		}
		way[i] = float64(got-t) / 1e6
	}
	return way, nil
}
