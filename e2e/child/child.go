// Package child builds the program and runs it as a child process: its own environment, its output collected, signals
// sent, its exit code told. It knows nothing of tests.
package child

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Build compiles the program in the module at root into the file binary. Where there is cgo it gets libsecp256k1 behind
// its verifier, with the flags that make has for it, and the race detector if that is asked for; without cgo there is neither.
func Build(root, binary string, race bool) error {
	cgo, err := exec.Command("go", "env", "CGO_ENABLED").Output()
	if err != nil {
		return fmt.Errorf("go env: %w", err)
	}
	args := []string{"build", "-o", binary}
	if strings.TrimSpace(string(cgo)) == "1" {
		args = append(args, "-tags", "libsecp256k1")
		if race {
			args = append(args, "-race")
		}
	}
	flags, err := exec.Command("make", "-s", "--no-print-directory", "-C", root, "cgo-cflags").Output()
	if err != nil {
		return fmt.Errorf("make cgo-cflags: %w", err)
	}
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Dir = root
	// A workspace must not change what is tested.
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_CFLAGS="+strings.TrimSpace(string(flags)))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(cmd.Args[1:], " "), err, out)
	}
	return nil
}

// Options of a start.
type Options struct {
	Binary string
	Args   []string
	Dir    string    // working folder
	Env    []string  // beside PATH and a HOME inside Dir; nothing else of ours is handed on
	Stdin  io.Reader // nil: empty
	Tee    io.Writer // gets both streams as they come; nil: nobody
	// Raw connects both streams to Tee and collects nothing. With a file as Tee a terminal stays one.
	Raw bool
	UID uint32 // 0: ours
}

// Process is a child that was started. Its Wait may be called by several goroutines.
type Process struct {
	cmd    *exec.Cmd
	out    buffer
	errs   buffer
	done   chan struct{}
	err    error // of cmd.Wait; read after done
	start  time.Time
	lasted time.Duration
}

// Start starts a child. It hears SIGHUP also where nohup started us: a process that ignores a signal hands that on, one that
// takes it does not.
func Start(o Options) (*Process, error) {
	if signal.Ignored(syscall.SIGHUP) {
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // which still does not end us
	}
	p := &Process{cmd: exec.Command(o.Binary, o.Args...), done: make(chan struct{})}
	p.cmd.Dir = o.Dir
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + o.Dir,
		"TMPDIR=" + os.TempDir(),
		"GORACE=atexit_sleep_ms=50", // a second by default, at every end of a child that was built with the race detector
	}, o.Env...)
	p.cmd.Stdin = o.Stdin
	p.cmd.Stdout, p.cmd.Stderr = io.Writer(&p.out), io.Writer(&p.errs)
	switch {
	case o.Raw:
		p.cmd.Stdout, p.cmd.Stderr = o.Tee, o.Tee
	case o.Tee != nil:
		p.cmd.Stdout, p.cmd.Stderr = io.MultiWriter(&p.out, o.Tee), io.MultiWriter(&p.errs, o.Tee)
	}
	if o.UID != 0 {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: o.UID, Gid: o.UID}}
	}
	p.start = time.Now()
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Binary, err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
		p.lasted = time.Since(p.start)
	}()
	return p, nil
}

// ErrStillRunning is Wait's answer when the time is up.
var ErrStillRunning = errors.New("the child still runs")

// Wait waits for the end and tells the exit code; a child that a signal killed has −1.
func (p *Process) Wait(limit time.Duration) (code int, err error) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		return 0, fmt.Errorf("after %s: %w", limit, ErrStillRunning)
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		return 0, p.err
	}
	return p.cmd.ProcessState.ExitCode(), nil
}

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal. A child that has ended takes none, and that is no error.
func (p *Process) Signal(s os.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Stop ends the child in the ordinary way, or kills it when that lasts longer than limit.
func (p *Process) Stop(limit time.Duration) (code int, err error) {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	code, err = p.Wait(limit)
	if errors.Is(err, ErrStillRunning) {
		return 0, errors.Join(err, p.Kill())
	}
	return code, err
}

// Kill ends the child at once and waits for it.
func (p *Process) Kill() error {
	if err := p.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-p.done
	return nil
}

// PID of the child.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stdout and Stderr are what the child has written so far.
func (p *Process) Stdout() string { return p.out.String() }

// Stderr is what the child has written there so far.
func (p *Process) Stderr() string { return p.errs.String() }

// CPU is the processor time that the child took, user and system; it must have ended.
func (p *Process) CPU() time.Duration {
	<-p.done
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// Lasted is the child's whole life; it must have ended.
func (p *Process) Lasted() time.Duration {
	<-p.done
	return p.lasted
}

// Get asks the control socket of the writer of an archive.
func Get(ctx context.Context, archiveDir, path string) ([]byte, error) {
	socket := filepath.Join(archiveDir, "control.sock")
	tr := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://control"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end below
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return body, fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return body, nil
}

// Status asks the writer of an archive how it stands and decodes the answer into v.
func Status(ctx context.Context, archiveDir string, v any) error {
	body, err := Get(ctx, archiveDir, "/api/status")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode the status: %w\n%s", err, body)
	}
	return nil
}

// buffer is a bytes.Buffer that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
