package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"rebroadcastr/archive"
	"rebroadcastr/config"
	"rebroadcastr/pipeline"
	"rebroadcastr/report"
	"rebroadcastr/web"
)

// host is what a writing command shows of itself while it holds the archive: the control socket always, the listener
// when asked, and systemd's notifications. It answers from the first moment, also while the archive is being opened.
type host struct {
	logs    *logs
	log     zerolog.Logger
	version string
	now     func() time.Time
	since   time.Time
	mirror  atomic.Pointer[pipeline.Mirror]
	doing   atomic.Pointer[string] // what start-up is doing
	waiting atomic.Pointer[string] // why start-up waits for room; nil: it does not

	reloader *reloader
}

// webGrace is what a request under way gets at the end.
const webGrace = time.Second

func newHost(cfg *config.Config, l *logs, version string, now func() time.Time) *host {
	h := &host{logs: l, log: l.logger(), version: version, now: now, since: now()}
	h.reloader = newReloader(h, cfg)
	h.say("opening the archive")
	return h
}

// config is the one in force.
func (h *host) config() *config.Config { return h.reloader.config() }

// Status is the mirror's, or what start-up is doing.
func (h *host) Status() report.Status {
	if m := h.mirror.Load(); m != nil {
		s := m.Status()
		h.reloader.report(&s)
		return s
	}
	s := report.Status{State: report.Starting, Version: h.version, PID: os.Getpid(), Since: h.since, Now: h.now(),
		Asked: h.config().Asked, Archive: report.Archive{Dir: h.config().Archive.Dir}}
	if why := h.waiting.Load(); why != nil {
		s.Archive.Waiting = *why
		s.Problems = []string{"archive: " + *why}
		return s
	}
	s.Reason = *h.doing.Load()
	return s
}

// Import hands lines to the running mirror.
func (h *host) Import(ctx context.Context, lines io.Reader, noDeliver bool, rejects io.Writer) (report.Source, error) {
	m, err := h.ready()
	if err != nil {
		return report.Source{}, err
	}
	return m.Import(ctx, lines, noDeliver, rejects)
}

// startTimeout is what systemd is asked for while start-up goes on; it is renewed well before it ends.
const startTimeout = 30 * time.Second

// say tells systemd and status what start-up is doing.
func (h *host) say(what string) {
	h.doing.Store(&what)
	h.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=%s", startTimeout.Microseconds(), what))
}

func (h *host) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		h.log.Warn().Err(err).Msg("systemd was not told")
	}
}

// open takes room, store and mirror in turn. A daemon waits for room; a one-shot command does not.
func (h *host) open(ctx context.Context, fsys archive.FS, o pipeline.Options, waitForRoom bool) (*pipeline.Mirror, *pipeline.Store, error) {
	if err := h.room(ctx, fsys, waitForRoom); err != nil {
		return nil, nil, err
	}
	store, err := pipeline.OpenStore(ctx, fsys, h.config(), h.log, h.now, func(what string) {
		h.say(what)
		h.log.Info().Msg(what)
	})
	if err != nil {
		return nil, nil, err
	}
	o.Config, o.Store, o.Version, o.Now, o.Log = h.config(), store, h.version, h.now, h.log
	m := pipeline.New(o)
	h.mirror.Store(m)
	return m, store, nil
}

// room checks archive.min_free before the index is opened, which dies on a full disk.
func (h *host) room(ctx context.Context, fsys archive.FS, wait bool) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for waiting := false; ; waiting = true {
		free, need, err := archive.Room(fsys, h.config().Archive.Dir, h.config().Archive.MinFree)
		if err != nil {
			return err
		}
		if waiting { // the same margin as while running, so that it does not go to and fro
			need += need / 5
		}
		if free >= need {
			h.waiting.Store(nil)
			return nil
		}
		why := fmt.Sprintf("%s has %s free, archive.min_free is %s: free some space", h.config().Archive.Dir, humanize.IBytes(uint64(free)), humanize.IBytes(uint64(need)))
		if !wait {
			return errors.New(why)
		}
		if !waiting {
			h.log.Error().Msg("waiting for room: " + why)
			h.notify("READY=1")
		}
		why = "waiting for room: " + why
		h.waiting.Store(&why)
		h.say(why)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serve opens the control socket and, if asked, the TCP listener, and returns a function that closes them and waits.
func (h *host) serve(ctx context.Context, lock *archive.LockFile) (stop func() error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var running []*task
	stop = func() error {
		cancel()
		var errs []error
		for _, t := range running {
			errs = append(errs, t.wait())
		}
		return errors.Join(errs...)
	}
	control, err := listenControl(h.config())
	if err != nil {
		cancel()
		return nil, err
	}
	addresses := []string{control.Addr().String()}
	running = append(running, spawn("control socket", func() error { return web.Serve(ctx, control, web.Control(h, h, h, h), webGrace) }))
	tcp, err := h.listenTCP()
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	if tcp != nil {
		handler, err := h.public()
		if err != nil {
			return nil, errors.Join(err, tcp.Close(), stop())
		}
		h.log.Info().Str("url", "http://"+tcp.Addr().String()+"/").Msg("status, metrics and health")
		addresses = append(addresses, "http://"+tcp.Addr().String()+"/")
		running = append(running, spawn("listener", func() error { return web.Serve(ctx, tcp, handler, webGrace) }))
	}
	if err := lock.SetAddresses(addresses...); err != nil {
		return nil, errors.Join(fmt.Errorf("name the control socket: %w", err), stop())
	}
	return stop, nil
}

// listenTCP is nil without an address, or when the default one is taken: only what the user named is worth a failure.
func (h *host) listenTCP() (net.Listener, error) {
	if h.config().Listen.Addr == "" {
		return nil, nil
	}
	ln, err := net.Listen("tcp", h.config().Listen.Addr)
	switch {
	case err == nil:
		return ln, nil
	case !h.config().Listen.Named:
		h.log.Warn().Err(err).Msg("going on without the status page; name another address with --listen")
		return nil, nil
	}
	return nil, fmt.Errorf("listen on %s: %w%s", h.config().Listen.Addr, err, portHint(err))
}

func (h *host) public() (http.Handler, error) {
	handler := web.ReadOnly(h)
	if h.config().Listen.PProf {
		handler = web.WithProfiles(handler)
	}
	if h.config().Listen.TokenFile != "" {
		token, err := os.ReadFile(h.config().Listen.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read listen.token_file: %w", err)
		}
		if len(strings.TrimSpace(string(token))) == 0 {
			return nil, fmt.Errorf("listen.token_file %s is empty", h.config().Listen.TokenFile)
		}
		handler = web.WithToken(handler, strings.TrimSpace(string(token)))
	}
	return handler, nil
}

func portHint(err error) string {
	if errors.Is(err, syscall.EADDRINUSE) {
		return ": another program has it (ss -ltnp tells which)"
	}
	return ""
}

// maxSocketPath is what a unix socket's address holds on Linux (sun_path, less its NUL).
const maxSocketPath = 107

// controlPath is where the control socket of an archive is. A path that is too long for a socket moves to
// $XDG_RUNTIME_DIR; the LOCK file names the place in use.
func controlPath(cfg *config.Config) string {
	path := cfg.Control.Path
	if path == "" {
		path = filepath.Join(cfg.Archive.Dir, "control.sock")
	}
	if len(path) <= maxSocketPath {
		return path
	}
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		base = os.TempDir()
	}
	return filepath.Join(base, fmt.Sprintf("rebroadcastr-%d.sock", os.Getpid()))
}

// listenControl opens the control socket. The archive's lock is held, so a socket that is there is a leftover.
func listenControl(cfg *config.Config) (net.Listener, error) {
	path, err := filepath.Abs(controlPath(cfg))
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old control socket: %w", err)
	}
	ln, err := listenPrivate(path, cfg.Control.Mode)
	if err != nil {
		return nil, fmt.Errorf("open the control socket: %w", err)
	}
	return ln, nil
}

// listenPrivate opens a unix socket that nobody else can reach before its mode is set.
func listenPrivate(path string, mode os.FileMode) (net.Listener, error) {
	if mode == 0 {
		mode = 0o600
	}
	old := syscall.Umask(0o177)
	ln, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// watchdog beats while status can be told, that is while no lock is stuck; waiting for room is no reason to stop.
func (h *host) watchdog(ctx context.Context) error {
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every == 0 {
		return err
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s := h.Status()
			h.notify("WATCHDOG=1\nSTATUS=" + statusLine(s))
		}
	}
}

func statusLine(s report.Status) string {
	if s.Archive.Waiting != "" {
		return "waiting: " + s.Archive.Waiting
	}
	if s.State != report.Running {
		return s.State + " " + s.Reason
	}
	pending := int64(0)
	for _, k := range s.Sinks {
		pending += k.Pending
	}
	return fmt.Sprintf("%s events archived, %d to deliver, %d problems", humanize.Comma(int64(s.Archive.Lines)), pending, len(s.Problems))
}
