package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
	"rebroadcastr/report"
)

func (p *program) reloadCommand() *cli.Command {
	return &cli.Command{
		Name:  "reload",
		Usage: "make the daemon take up its config again; a config with mistakes is refused and changes nothing",
		Flags: flags(commonFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "only list what would change"},
		}),
		Action: p.reload,
	}
}

const noReload = "run reads its config when it starts"

func (p *program) reload(c *cli.Context) error {
	dir, err := p.archiveDir(c) // the config may have the very mistakes that the daemon is going to tell of
	if err != nil {
		return err
	}
	d, err := findDaemon(dir)
	if err != nil {
		return noDaemon(err, dir, noReload)
	}
	r, err := d.Reload(p.ctx, c.Bool("dry-run"))
	if err != nil {
		return noDaemon(usageOf(err), dir, noReload)
	}
	return p.print(c, r, func() error { return r.WriteText(p.stdout) })
}

// noDaemon adds the exit code, the archive, and what can be done instead to errNoDaemon.
func noDaemon(err error, dir, otherwise string) error {
	if errors.Is(err, errNoDaemon) {
		return &exitError{exitIncomplete, fmt.Errorf("%w: %s (%s)", err, dir, otherwise)}
	}
	return err
}

// reloader takes the config up again while run goes on: at SIGHUP, when it is asked for, and when a watched file changes.
type reloader struct {
	h    *host
	load func() (*config.Config, error) // with the flags and variables of the start; nil: this command takes its config once
	hup  chan os.Signal
	poke chan struct{} // 1: the config in force has changed

	taken func(*config.Config) // told of each config that is taken up; nil: nobody is

	one sync.Mutex // one reload at a time

	mu      sync.Mutex
	cfg     *config.Config // in force
	since   time.Time      // when it was loaded
	refused string         // why the last reload was refused; empty: it was not
	at      time.Time      // when
}

func newReloader(h *host, cfg *config.Config) *reloader {
	return &reloader{h: h, hup: make(chan os.Signal, 1), poke: make(chan struct{}, 1), cfg: cfg, since: h.now()}
}

// listen takes SIGHUP from here on, which would end the process. Also under nohup, which ignores it: a hangup still ends
// nothing, and who sends one for a reload is not ignored in silence.
func (r *reloader) listen() (stop func()) {
	signal.Notify(r.hup, syscall.SIGHUP)
	return func() { signal.Stop(r.hup) }
}

func (r *reloader) config() *config.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cfg
}

// report adds to a status which config is in force.
func (r *reloader) report(s *report.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.ConfigOf = r.since
	if r.refused != "" {
		first, rest, _ := strings.Cut(r.refused, "\n")
		if n := strings.Count(rest, "\n") + 1; rest != "" {
			first += fmt.Sprintf(" (and %d more)", n)
		}
		s.Problems = append(s.Problems, fmt.Sprintf("config: the reload of %s was refused, the one of %s goes on: %s",
			r.at.UTC().Format(time.DateTime), r.since.UTC().Format(time.DateTime), first))
	}
}

// run reloads at signals and changes of the file until ctx ends. It begins once the mirror runs.
func (r *reloader) run(ctx context.Context, started <-chan struct{}) error {
	select {
	case <-started:
	case <-ctx.Done():
		return nil
	}
	changed := make(chan struct{}, 1)
	var watching *task
	var ended <-chan struct{} // watching's; nil once it has been seen
	stopWatch := func() {}
	stop := func() {
		if stopWatch(); watching != nil {
			_ = watching.wait()
			if ended != nil {
				r.watchEnded(watching.err)
			}
			watching, ended = nil, nil
		}
	}
	defer func() { stop() }()
	for {
		if want := r.config().Watch; want != (watching != nil) {
			stop()
			if want {
				inner, cancel := context.WithCancel(ctx)
				w := &fileWatch{path: r.config().File, changed: changed, log: r.h.log}
				watching, stopWatch = spawn("watch the config", func() error { return w.run(inner) }), cancel
				ended = watching.done
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ended: // by itself; not tried again before watch is switched off and on
			r.watchEnded(watching.err)
			ended = nil
		case <-r.poke:
		case <-r.hup:
			_, _ = r.reload(ctx, "SIGHUP", false) // it has been logged
		case <-changed:
			_, _ = r.reload(ctx, watched, false)
		}
	}
}

func (r *reloader) watchEnded(err error) {
	if err != nil {
		r.h.log.Error().Err(err).Msg("the config file is not watched; reload it with SIGHUP or rebroadcastr reload")
	}
}

// watched is the reason of a reload that a file's change brings about.
const watched = "the file changed"

// Reload takes the config up again, or only tells what that would change.
func (h *host) Reload(ctx context.Context, dry bool) (report.Reloaded, error) {
	return h.reloader.reload(ctx, "asked for", dry)
}

func (r *reloader) reload(_ context.Context, why string, dry bool) (done report.Reloaded, err error) {
	done = report.Reloaded{Changes: []string{}, DryRun: dry}
	if r.load == nil {
		return done, report.Refuse(report.Conflict, "this command takes its config once, at its start: only run takes it up again")
	}
	m, err := r.h.ready()
	if err != nil {
		return done, err
	}
	r.one.Lock()
	defer r.one.Unlock()
	if !dry && why != watched { // systemctl waits for it, whatever comes of it
		r.h.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
		defer func() { r.h.notify(daemon.SdNotifyReady + "\nSTATUS=" + statusLine(r.h.Status())) }()
	}
	cfg, err := r.load()
	if err != nil {
		if !dry {
			r.refuse(why, err)
		}
		return done, report.Refuse(report.Malformed, "%s", err)
	}
	next, changes := cfg.Succeed(r.config())
	done.Changes = append(done.Changes, changes...)
	if dry {
		return done, nil
	}
	if why == watched && len(changes) == 0 && !r.wasRefused() { // some other file beside it
		return done, nil
	}
	if err := m.Apply(next); err != nil {
		if r.stopping(m.Status()) {
			return done, report.Refuse(report.NotReady, "%s", err)
		}
		r.refuse(why, err)
		return done, err
	}
	r.take(next)
	for _, note := range next.Notes {
		r.h.log.Info().Msg(note)
	}
	for _, change := range changes {
		r.h.log.Info().Msg("config: " + change)
	}
	if len(changes) == 0 {
		r.h.log.Info().Str("why", why).Msg("config taken up again: nothing changed")
	} else {
		r.h.log.Info().Str("why", why).Int("changes", len(changes)).Msg("config taken up again")
	}
	return done, nil
}

func (r *reloader) stopping(s report.Status) bool { return s.State != report.Running }

func (r *reloader) wasRefused() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused != ""
}

// refuse notes why the config stays as it is. A watched file that is still refused for the same is logged once: what changed
// was its neighbour.
func (r *reloader) refuse(why string, err error) {
	text := config.Redact(strings.TrimRight(err.Error(), "\n"))
	r.mu.Lock()
	known := why == watched && r.refused == text
	r.refused = text
	if !known {
		r.at = r.h.now()
	}
	r.mu.Unlock()
	if !known {
		r.h.log.Error().Str("why", why).Msg("config refused, the one before goes on:\n" + text)
	}
}

func (r *reloader) take(cfg *config.Config) {
	r.mu.Lock()
	r.cfg, r.since, r.refused = cfg, r.h.now(), ""
	r.mu.Unlock()
	r.h.logs.set(cfg.Log)
	if r.taken != nil {
		r.taken(cfg)
	}
	select {
	case r.poke <- struct{}{}:
	default:
	}
}
