package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// bench is one run of some scenarios.
type bench struct {
	binary string // the built program
	dir    string // temporary; removed at the end
	quick  bool
	rounds int
	say    func(format string, args ...any)

	stock    *stock
	archives map[int]bool // that archiveOf has made
	// Processes of relays, and of what the program is held against.
	sourceHost, sinkHost, limits *remote

	mu       sync.Mutex
	programs []*program // that were started in this scenario
	fail     context.CancelCauseFunc
}

// patience is the most that one scenario may take.
const patience = 10 * time.Minute

// n is a number for this run.
func (b *bench) n(s size) int {
	if b.quick {
		return s.quick
	}
	return s.full
}

// open makes the stock and starts the processes.
func (b *bench) open(list []scenario) (err error) {
	if b.dir, err = os.MkdirTemp("", "rb"); err != nil { // short: a unix socket's path ends at 107 bytes
		return err
	}
	most := b.n(size{20_000, 500})
	for _, s := range list {
		most = max(most, b.n(s.size))
	}
	if b.stock, err = makeStock(b.dir, most, b.say); err != nil {
		return err
	}
	for _, h := range []**remote{&b.sourceHost, &b.sinkHost, &b.limits} {
		if *h, err = startHost(b.stock.file); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) close() (err error) {
	for _, h := range []*remote{b.sourceHost, b.sinkHost, b.limits} {
		if h != nil {
			err = errors.Join(err, h.end())
		}
	}
	return errors.Join(err, os.RemoveAll(b.dir))
}

// measure runs one scenario and cleans up behind it.
func (b *bench) measure(ctx context.Context, s scenario) (r result, err error) {
	timed, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not done after %s", patience))
	defer cancel()
	ctx, fail := context.WithCancelCause(timed)
	defer fail(nil)
	b.mu.Lock()
	b.fail = fail
	b.mu.Unlock()
	defer func() { err = errors.Join(err, b.tidy()) }()
	if r, err = s.run(ctx, b); err != nil {
		return r, fmt.Errorf("%s: %w", s.name, err)
	}
	return r, nil
}

// running notes a program that was started. Its failure is told to what is returned, so that nobody waits for it in vain.
func (b *bench) running(p *program) context.CancelCauseFunc {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.programs = append(b.programs, p)
	return b.fail
}

// tidy kills what still runs, closes all relays and removes the archives. Scenarios call it between rounds.
func (b *bench) tidy() (err error) {
	b.mu.Lock()
	list := b.programs
	b.programs = nil
	b.mu.Unlock()
	for _, p := range list {
		select {
		case <-p.Done():
		default:
			err = errors.Join(err, p.Kill())
		}
		err = errors.Join(err, p.ended(), p.remove())
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, h := range []*remote{b.limits, b.sourceHost, b.sinkHost} {
		_, e := tell[struct{}](ctx, h, "Reset", struct{}{})
		err = errors.Join(err, e)
	}
	return err
}

// sources opens sources.
func (b *bench) sources(ctx context.Context, o SourceOptions) ([]string, error) {
	return tell[[]string](ctx, b.sourceHost, "OpenSources", o)
}

// subscribed waits until the live subscriptions stand.
func (b *bench) subscribed(ctx context.Context) error {
	_, err := tell[struct{}](ctx, b.sourceHost, "Subscribed", time.Minute)
	return err
}

// send has the sources send events live.
func (b *bench) send(ctx context.Context, s Sending) (Sent, error) {
	return tell[Sent](ctx, b.sourceHost, "Send", s)
}

// sinks opens sinks.
func (b *bench) sinks(ctx context.Context, o SinkOptions) ([]string, error) {
	return tell[[]string](ctx, b.sinkHost, "OpenSinks", o)
}

// received waits until each sink has so many events, and tells when that was; 0: until somebody has connected.
func (b *bench) received(ctx context.Context, events int) (Reached, error) {
	return tell[Reached](ctx, b.sinkHost, "Await", Waiting{events, 5 * time.Minute})
}

// micros is a duration in µs for each of n.
func micros(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }

// count writes a number with its thousands apart.
func count(n int) string {
	s := fmt.Sprint(n)
	var parts []string
	for len(s) > 3 {
		parts = append([]string{s[len(s)-3:]}, parts...)
		s = s[:len(s)-3]
	}
	return strings.Join(append([]string{s}, parts...), ",")
}
