package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"rebroadcastr/e2e/realrelay"
)

// hostVariable makes this binary a host when it is set.
const hostVariable = "REBROADCASTR_BENCH_HOST"

// host is what runs in a process of its own: relays, or the work that the program is held against. It is told what to do over its
// standard input and ends with it. Its exported methods are what it can be told.
type host struct {
	stock *stock

	mu      sync.Mutex
	sources []*source
	sinks   []*sink
	bare    []io.Closer // what Reset closes beside them
	real    *realrelay.Relay
}

// beHost serves until standard input ends.
func beHost() error {
	s := rpc.NewServer()
	if err := s.RegisterName("Host", &host{}); err != nil {
		return err
	}
	s.ServeConn(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout})
	return nil
}

// Load maps the stock.
func (h *host) Load(file string, n *int) (err error) {
	if h.stock, err = openStock(file); err == nil {
		*n = h.stock.len()
	}
	return err
}

// Reset closes every relay.
func (h *host) Reset(struct{}, *struct{}) error {
	h.mu.Lock()
	sources, sinks, bare := h.sources, h.sinks, h.bare
	h.sources, h.sinks, h.bare = nil, nil, nil
	h.mu.Unlock()
	var errs []error
	for _, s := range sources {
		errs = append(errs, s.close())
	}
	for _, s := range sinks {
		errs = append(errs, s.close())
	}
	for _, c := range bare {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// remote is a host as the bench sees it.
type remote struct {
	*rpc.Client
	cmd *exec.Cmd
}

func startHost(stock string) (*remote, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), hostVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a host: %w", err)
	}
	r := &remote{cmd: cmd, Client: rpc.NewClient(struct {
		io.Reader
		io.WriteCloser
	}{out, in})}
	if stock != "" {
		if _, err := tell[int](context.Background(), r, "Load", stock); err != nil {
			return nil, errors.Join(err, r.end())
		}
	}
	return r, nil
}

// end closes its standard input, which ends it.
func (r *remote) end() error {
	err := r.Close()
	done := time.AfterFunc(5*time.Second, func() { r.cmd.Process.Kill() }) //nolint:errcheck // it may have ended just now
	defer done.Stop()
	return errors.Join(err, r.cmd.Wait())
}

// tell has a host do something and waits for its answer.
func tell[Answer any](ctx context.Context, r *remote, what string, args any) (a Answer, err error) {
	call := r.Go("Host."+what, args, &a, make(chan *rpc.Call, 1))
	select {
	case <-call.Done:
		if call.Error != nil {
			return a, fmt.Errorf("%s: %w", what, call.Error)
		}
		return a, nil
	case <-ctx.Done():
		var none Answer // the host may still write to a
		return none, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}

// monotonic is CLOCK_MONOTONIC in nanoseconds, the same in every process.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // every kernel has it
	}
	return t.Nano()
}

// cpuOf is the processor time of a process so far, user and system, of all its threads that are and were.
func cpuOf(pid int) (time.Duration, error) {
	const perProcess = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|perProcess), &t); err != nil {
		return 0, fmt.Errorf("read the processor time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
