package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"rebroadcastr/e2e/child"
	"rebroadcastr/report"
)

// program is the built program, running.
type program struct {
	*child.Process
	home    string // its working folder
	dir     string // of its archive
	command string
	disk    *slowDisk // nil: it is as it is

	sampling sync.WaitGroup
	mu       sync.Mutex
	peak     int64 // RssAnon, bytes
}

// sampled is how often RssAnon is read.
const sampled = 50 * time.Millisecond

// config is what a start needs beside the archive.
type config struct {
	dir     string   // of the archive; empty: a new one
	sources []string // URLs
	sinks   []string
	sync    string   // archive.sync; empty: the default
	more    string   // lines of YAML
	args    []string // behind the command
	env     []string
	fsync   time.Duration // that each fsync takes longer; 0: as the disk is
}

// start runs a command of the program with a config file of its own.
func (b *bench) start(command string, c config) (*program, error) {
	home, err := os.MkdirTemp(b.dir, "p")
	if err != nil {
		return nil, err
	}
	if c.dir == "" {
		c.dir = filepath.Join(home, "a")
	}
	quoted := func(urls []string) string {
		list, _ := json.Marshal(urls) // strings can be written
		return string(list)
	}
	text := fmt.Sprintf("all: true\narchive: {dir: %q", c.dir)
	if c.sync != "" {
		text += ", sync: " + c.sync
	}
	text += "}\n"
	if len(c.sources) > 0 {
		text += "sources: " + quoted(c.sources) + "\n"
	}
	if len(c.sinks) > 0 {
		text += "sinks: " + quoted(c.sinks) + "\n"
	}
	file := filepath.Join(home, "config.yaml")
	if err := os.WriteFile(file, []byte(text+c.more), 0o600); err != nil {
		return nil, err
	}
	args := []string{command, "-c", file, "--log-level", "warn", "--log-format", "json", "--no-progress"}
	if command == "run" {
		args = append(args, "--listen", "")
	} else {
		args = append(args, "--json")
	}
	o := child.Options{Binary: b.binary, Dir: home, Args: append(args, c.args...), Env: c.env}
	p := &program{home: home, dir: c.dir, command: command}
	if c.fsync > 0 {
		p.disk = &slowDisk{delay: c.fsync}
		if err := p.disk.put(&o, home); err != nil {
			return nil, fmt.Errorf("make a slow disk: %w", err)
		}
	}
	if p.Process, err = child.Start(o); err != nil {
		if p.disk != nil {
			err = errors.Join(err, p.disk.end())
		}
		return nil, err
	}
	fail := b.running(p)
	p.sampling.Go(func() {
		p.sample()
		if code, err := p.Wait(time.Second); err != nil || code != 0 {
			fail(fmt.Errorf("%s has ended: exit %d, %w; it said: %s", command, code, err, p.Stderr()))
		}
	})
	return p, nil
}

// sample keeps the highest RssAnon until the end.
func (p *program) sample() {
	tick := time.NewTicker(sampled)
	defer tick.Stop()
	for {
		p.rss()
		select {
		case <-tick.C:
		case <-p.Done():
			return
		}
	}
}

// rss is the anonymous memory now, in bytes; 0 when it cannot be told.
func (p *program) rss() int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	kib, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.ParseInt(kib, 10, 64)
	if err != nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peak = max(p.peak, n<<10)
	return n << 10
}

// peakMiB is the highest RssAnon that was seen.
func (p *program) peakMiB() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return float64(p.peak) / (1 << 20)
}

// cpu is its processor time so far.
func (p *program) cpu() (time.Duration, error) {
	d, err := cpuOf(p.PID())
	if err != nil {
		return 0, fmt.Errorf("%w; it said: %s", err, p.Stderr())
	}
	return d, nil
}

// finish waits for a one-shot command's end and reads its summary.
func (p *program) finish(ctx context.Context) (s report.Status, err error) {
	select {
	case <-p.Done():
	case <-ctx.Done():
		return s, errors.Join(fmt.Errorf("%s: %w", p.command, context.Cause(ctx)), p.Kill())
	}
	code, err := p.Wait(time.Second)
	if err != nil || code != 0 {
		return s, fmt.Errorf("%s: exit %d, %w; it said: %s", p.command, code, err, p.Stderr())
	}
	if err := json.Unmarshal([]byte(p.Stdout()), &s); err != nil {
		return s, fmt.Errorf("%s: read its summary: %w", p.command, err)
	}
	return s, nil
}

// stop ends a daemon in the ordinary way.
func (p *program) stop() error {
	code, err := p.Stop(time.Minute)
	err = errors.Join(err, p.ended())
	if err != nil || code != 0 {
		return fmt.Errorf("%s, stopped: exit %d, %w; it said: %s", p.command, code, err, p.Stderr())
	}
	return nil
}

// ended waits for what goes on beside a program until its end.
func (p *program) ended() error {
	p.sampling.Wait()
	if p.disk == nil {
		return nil
	}
	return p.disk.end()
}

// remove deletes what a program that has ended leaves, but an archive that it was given.
func (p *program) remove() error { return os.RemoveAll(p.home) }

// logged is how many bytes of events the archive has.
func (p *program) logged() int64 {
	files, err := filepath.Glob(filepath.Join(p.dir, "events_*.jsonl"))
	if err != nil {
		return 0
	}
	var n int64
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			n += info.Size()
		}
	}
	return n
}

// archived waits until the archive has so many bytes of events.
func (p *program) archived(ctx context.Context, bytes int64) error {
	return p.until(ctx, func() (bool, string) {
		n := p.logged()
		return n >= bytes, fmt.Sprintf("%d of %d bytes archived", n, bytes)
	})
}

// quiet waits until the program does nothing any more: less than 1 % of a core for a while.
func (p *program) quiet(ctx context.Context) error {
	const while = 300 * time.Millisecond
	last, since := time.Duration(0), time.Now()
	return p.until(ctx, func() (bool, string) {
		now, err := p.cpu()
		if err != nil {
			return false, err.Error()
		}
		if time.Since(since) < while {
			return false, ""
		}
		used, lasted := now-last, time.Since(since)
		last, since = now, time.Now()
		return used < lasted/100, fmt.Sprintf("it is still busy: %s of %s", used, lasted)
	})
}

func (p *program) until(ctx context.Context, f func() (bool, string)) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		done, how := f()
		if done {
			return nil
		}
		select {
		case <-tick.C:
		case <-p.Done():
			return fmt.Errorf("%s has ended; it said: %s", p.command, p.Stderr())
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %s", p.command, context.Cause(ctx), how)
		}
	}
}

// onDisk is how much room a folder takes, by blocks.
func onDisk(dir string) (n int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			n += s.Blocks * 512
		}
		return nil
	})
	return n, err
}
