package main

import (
	"context"
	"fmt"
)

var duplicate = scenario{
	name: "duplicate",
	about: "A daemon without sinks knows some events from its first source; three more send copies of them, live and all at once, as fast as it " +
		"reads. Processor time of the whole process from the first copy to the pong behind the last. Held against a process that reads the " +
		"same frames from the same sources with gorilla's websocket and drops them.",
	size: size{50_000, 500},
	run: func(ctx context.Context, b *bench) (r result, err error) {
		const others = 3
		n := b.n(size{50_000, 500})
		times := b.n(size{4, 1})
		copies := others * times * n
		all := Sending{To: n, Sources: []int{1, 2, 3}, Times: times}
		var cost, rate, rss, read, readRate, copied []float64
		for range b.rounds {
			urls, err := b.sources(ctx, SourceOptions{N: 1 + others})
			if err != nil {
				return r, err
			}
			p, err := b.start("run", config{sources: urls})
			if err != nil {
				return r, err
			}
			if err := b.subscribed(ctx); err != nil {
				return r, err
			}
			if _, err := b.send(ctx, Sending{To: n, Sources: []int{0}}); err != nil {
				return r, err
			}
			if err := p.archived(ctx, b.stock.bytes(0, n)); err != nil {
				return r, err
			}
			if err := p.quiet(ctx); err != nil {
				return r, err
			}
			before, err := p.cpu()
			if err != nil {
				return r, err
			}
			sent, err := b.send(ctx, all)
			if err != nil {
				return r, err
			}
			after, err := p.cpu()
			if err != nil {
				return r, err
			}
			if got, want := p.logged(), b.stock.bytes(0, n); got != want {
				return r, fmt.Errorf("the archive has %d bytes, want %d: not all were copies", got, want)
			}
			cost = append(cost, micros(after-before, copies))
			rate = append(rate, float64(copies)/(float64(sent.Ended-sent.Begun)/1e9))
			rss = append(rss, p.peakMiB())
			if err := p.stop(); err != nil {
				return r, err
			}
			if err := b.tidy(); err != nil {
				return r, err
			}

			c, s, err := b.bareRead(ctx, others+1, all)
			if err != nil {
				return r, err
			}
			read = append(read, micros(c, copies))
			readRate = append(readRate, float64(copies)/(float64(s.Ended-s.Begun)/1e9))
			m, err := tell[Cost](ctx, b.limits, "Copy", Stretch{0, n})
			if err != nil {
				return r, err
			}
			copied = append(copied, micros(m.CPU, n))
		}
		r.rows = []row{
			{figure: "copy of a known event, CPU", unit: "µs", values: cost, target: atMost(1.5), headline: "a copy of a known event, from the socket to where it is dropped, processor time", limit: limit{what: "read with gorilla and dropped", values: read}},
			{figure: "the same", unit: "µs", values: cost, limit: limit{what: "memcpy of the event", values: copied}},
			{figure: "copies", unit: "/s", values: rate, limit: limit{what: "read with gorilla and dropped", values: readRate}},
			{figure: "RssAnon, peak", unit: "MiB", values: rss},
		}
		r.notes = []string{fmt.Sprintf("%s copies of %s events, %d bytes each on average; the sources share the cores.", count(copies), count(n), b.stock.bytes(0, n)/int64(n))}
		return r, nil
	},
}
