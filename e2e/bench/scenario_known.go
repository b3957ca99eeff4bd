package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/dedup"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

var lookups = size{200_000, 2000}

var knownIDs = scenario{
	name: "known-ids",
	about: "A daemon whose index knows 10⁴ to 10⁷ ids starts, and gets new events live from one source. The ids are random and were put into the index by " +
		"its own code, each at a place in the log that is there; the log itself holds few events. Start: from the process's start to its live subscription. A lookup of an unknown id is " +
		"timed alone, in a process of its own on the same index with the default cache.",
	size: size{140_000, 1000},
	run: func(ctx context.Context, b *bench) (r result, err error) {
		sizes := []int{10_000, 100_000, 1_000_000, 10_000_000}
		if b.quick {
			sizes = []int{1000, 10_000}
		}
		n, in := b.n(size{20_000, 200}), b.n(size{1000, 200}) // new events at each size, and in the log before
		file, dir := filepath.Join(b.dir, "few.jsonl"), filepath.Join(b.dir, "known")
		if err := b.stock.part(file, 0, in); err != nil {
			return r, err
		}
		fresh, known := newLine("new event", sizes), newLine("unknown id", sizes)
		start, peak := newLine("start", sizes), newLine("peak", sizes)
		none, err := b.crowd(ctx, crowd{sources: 1, from: in, n: n})
		if err != nil {
			return r, err
		}
		if _, err := b.imported(ctx, config{dir: dir}, file, in); err != nil {
			return r, err
		}
		had, from := 0, in
		for i, size := range sizes {
			begun := time.Now()
			if _, err := tell[struct{}](ctx, b.limits, "Know", Knowing{dir, had, size}); err != nil {
				return r, err
			}
			b.say("  %s known ids put into the index in %s", count(size-had), time.Since(begun).Round(time.Millisecond))
			had = size
			c, err := b.crowd(ctx, crowd{sources: 1, dir: dir, from: from, n: n})
			if err != nil {
				return r, err
			}
			from += n
			fresh.add(i, size, micros(c.cpu, n))
			peak.add(i, size, c.peak)
			start.add(i, size, c.ready.Seconds())
			for range b.rounds {
				l, err := tell[Lookups](ctx, b.limits, "Lookup", Looking{dir, size, b.n(lookups)})
				if err != nil {
					return r, err
				}
				known.add(i, size, micros(l.Unknown, l.N))
			}
		}
		last := len(sizes) - 1
		again, err := b.crowd(ctx, crowd{sources: 1, dir: dir, from: from, n: n}) // a second start of the largest
		if err != nil {
			return r, err
		}
		fresh.add(last, sizes[last], micros(again.cpu, n))
		peak.add(last, sizes[last], again.peak)
		start.add(last, sizes[last], again.ready.Seconds())
		nobody := repeat(micros(none.cpu, n), 2)
		r.rows = []row{
			{figure: "unknown id looked up", unit: "µs", values: known.points[last].values, target: atMost(5)},
			{figure: "new event, CPU", unit: "µs", values: fresh.points[last].values, limit: limit{what: "with none known", values: nobody}},
			{figure: "RssAnon, peak", unit: "MiB", values: peak.points[last].values, target: never(400), headline: "memory with 10 million known ids (RssAnon, peak)"},
			{figure: "start", unit: "s", values: start.points[last].values, target: atMost(2), headline: "start with 10 million known ids", limit: limit{what: "of an empty archive", values: repeat(none.ready.Seconds(), 2)}},
		}
		r.notes = []string{fmt.Sprintf("The figures are those of %s ids; %s new events each time.", count(sizes[last]), count(n))}
		r.plots = []chart{{file: "known.svg", title: "Cost against the number of known ids", x: "known ids", panels: []panel{
			{title: "Processor time", y: "µs", lines: []line{fresh, known, boundAt("bound for an unknown id", 5, sizes)}},
			{title: "Memory", y: "RssAnon, MiB", lines: []line{peak, boundAt("bound", 400, sizes)}},
			{title: "Start", y: "s", lines: []line{start, boundAt("bound", 2, sizes)}},
		}}}
		return r, nil
	},
}

func repeat(x float64, n int) (list []float64) {
	for range n {
		list = append(list, x)
	}
	return list
}

// Knowing says which ids an archive's index learns: numbers From to To.
type Knowing struct {
	Dir      string // of the archive, which nobody uses meanwhile and which holds something
	From, To int
}

// number n is always the same.
func idOf(n int) (id event.ID) {
	rnd := rand.New(rand.NewPCG(uint64(n), 11))
	for i := 0; i < len(id); i += 8 {
		v := rnd.Uint64()
		for k := range 8 {
			id[i+k] = byte(v >> (8 * k))
		}
	}
	return id
}

func openIndex(dir string) (*dedup.Index, error) {
	return dedup.Open(dedup.Options{Dir: filepath.Join(dir, "index"), LRU: 100_000, Log: zerolog.Nop()})
}

// Know puts ids into an index. They stand at the place of the log's first line, which is there, and leave the checkpoint where it was.
func (h *host) Know(p Knowing, _ *struct{}) error {
	x, err := openIndex(p.Dir)
	if err != nil {
		return err
	}
	const step = 50_000
	rs := make([]record.Record, 0, step)
	for from := p.From; from < p.To; from += step {
		rs = rs[:0]
		for n := from; n < min(from+step, p.To); n++ {
			rs = append(rs, record.Record{Place: place.Make(1, 0), End: x.Checkpoint(), Event: event.Event{ID: idOf(n), Kind: 1}})
		}
		if err := x.Replay(rs); err != nil {
			return errors.Join(err, x.Close())
		}
	}
	return x.Close()
}

// Looking says which ids are looked up: N that are unknown where numbers below Known are known.
type Looking struct {
	Dir      string
	Known, N int
}

// Lookups is how long they took.
type Lookups struct {
	N       int
	Unknown time.Duration
}

// Lookup looks up ids that nobody knows.
func (h *host) Lookup(p Looking, out *Lookups) error {
	x, err := openIndex(p.Dir)
	if err != nil {
		return err
	}
	ids := make([]event.ID, p.N)
	for i := range ids {
		ids[i] = idOf(-1 - i)
	}
	c, err := measured(func() error {
		for _, id := range ids {
			if s, err := x.Lookup(id); err != nil || s != dedup.Absent {
				return fmt.Errorf("an unknown id is %v, %w", s, err)
			}
		}
		return nil
	})
	out.N, out.Unknown = p.N, c.Wall
	return errors.Join(err, x.Close())
}
