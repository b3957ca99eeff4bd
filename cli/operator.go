package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"rebroadcastr/archive"
	"rebroadcastr/config"
	"rebroadcastr/pipeline"
	"rebroadcastr/report"
	"rebroadcastr/web"
)

// ready is the mirror, once there is one.
func (h *host) ready() (*pipeline.Mirror, error) {
	if m := h.mirror.Load(); m != nil {
		return m, nil
	}
	return nil, report.Refuse(report.NotReady, "not ready yet: %s", *h.doing.Load())
}

// Explain and the methods after it hand on what an operator asks for.
func (h *host) Explain(ctx context.Context, id string) (s report.Story, err error) {
	m, err := h.ready()
	if err != nil {
		return s, err
	}
	return m.Explain(ctx, id)
}

func (h *host) Relay(name string) (r report.Relay, err error) {
	m, err := h.ready()
	if err != nil {
		return r, err
	}
	return m.Relay(name)
}

func (h *host) Coverage(name string) (c report.Coverage, err error) {
	m, err := h.ready()
	if err != nil {
		return c, err
	}
	return m.Coverage(name)
}

func (h *host) Rejected(ctx context.Context, sink string, limit int, fn func(report.Rejected) error) error {
	m, err := h.ready()
	if err != nil {
		return err
	}
	return m.Rejected(ctx, sink, limit, fn)
}

func (h *host) Retry(ctx context.Context, sink, reason, id string) (r report.Retried, err error) {
	m, err := h.ready()
	if err != nil {
		return r, err
	}
	return m.Retry(ctx, sink, reason, id)
}

func (h *host) Pause(relay string) (r report.Held, err error) {
	m, err := h.ready()
	if err != nil {
		return r, err
	}
	return m.Pause(relay)
}

func (h *host) Resume(relay string) (r report.Held, err error) {
	m, err := h.ready()
	if err != nil {
		return r, err
	}
	return m.Resume(relay)
}

func (h *host) Reconcile(relay string) (r report.Compared, err error) {
	m, err := h.ready()
	if err != nil {
		return r, err
	}
	return m.Reconcile(relay)
}

func (h *host) Forget(sink string) (r report.Forgotten, err error) {
	m, err := h.ready()
	if err != nil {
		return r, err
	}
	return m.Forget(sink)
}

// desk answers an operator: the daemon through its socket, or the archive itself where none runs.
type desk interface {
	web.Teller
	web.Operator
}

// atDesk runs f with who can answer for the archive: its daemon, or, without one, a mirror that is made and not run, with the
// archive's lock held as long as f takes.
func (p *program) atDesk(c *cli.Context, f func(ctx context.Context, d desk) error) (err error) {
	dir, err := p.archiveDir(c)
	if err != nil {
		return err
	}
	if err := mustHold(c.Command.Name, dir); err != nil {
		return err
	}
	daemon, err := findDaemon(dir)
	if err == nil { // signals end this process as they always do; what it has asked for goes on
		if err = f(p.ctx, daemon); !errors.Is(err, errNoDaemon) {
			return usageOf(err)
		}
	}
	if !errors.Is(err, errNoDaemon) {
		return err
	}
	cfg, err := p.load(c)
	if err != nil {
		return err
	}
	ctx, _, stop := signals(p.ctx)
	defer stop()
	logs := newLogs(p.stderr, isTerminal(p.stderr), cfg.Log)
	log := logs.logger()
	lock, err := archive.Lock(cfg.Archive.Dir, c.Command.Name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	defer func() { err = errors.Join(err, giveBack(cfg.Archive.Dir)) }() // while the lock is held
	if err := newHost(cfg, logs, p.version, p.now).room(ctx, p.files, false); err != nil {
		return err
	}
	store, err := pipeline.OpenStore(ctx, p.files, cfg, log, p.now, func(what string) { log.Info().Msg(what) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	// The command itself says what was done.
	o := pipeline.Options{Config: cfg, Store: store, Version: p.version, Now: p.now, Log: log.Level(zerolog.WarnLevel)}
	return usageOf(f(ctx, pipeline.New(o)))
}

// archiveDir is where the daemon is asked. How it stands and what it does is most wanted when the config has a mistake.
func (p *program) archiveDir(c *cli.Context) (string, error) {
	dir, err := config.Dir(p.inputs(c))
	if err != nil {
		return "", fmt.Errorf("%w\nthe daemon can be asked all the same: say where its archive is, --archive DIR", err)
	}
	return dir, nil
}

// mustHold is mustExist for commands that would make an archive of any directory, only to find nothing in it.
func mustHold(command, dir string) error {
	if err := mustExist(command, dir); err != nil {
		return err
	}
	for _, name := range []string{"LOCK", "state.db", "events_*"} {
		if found, err := filepath.Glob(filepath.Join(dir, name)); err != nil || len(found) > 0 {
			return nil // a directory whose name is a pattern is taken as it is
		}
	}
	if _, err := os.ReadDir(dir); err != nil {
		return fmt.Errorf("%s: %w%s", command, err, permissionHint(err))
	}
	return fmt.Errorf("%s: there is no archive in %s", command, dir)
}

// usageOf gives an operator's request that cannot be done its exit code.
func usageOf(err error) error {
	if r, ok := errors.AsType[*report.Refusal](err); ok {
		code := exitUsage
		if r.Why == report.NotReady {
			code = exitInUse
		}
		return &exitError{code, err}
	}
	return err
}

// print writes v as JSON or for people.
func (p *program) print(c *cli.Context, v any, text func() error) error {
	if c.Bool("json") {
		return writeJSON(p.stdout, v)
	}
	return text()
}

// oneArgument is a command's only argument; what names it in the message.
func oneArgument(c *cli.Context, what string) (string, error) {
	if !c.Args().Present() {
		return "", &exitError{exitUsage, errors.New(c.Command.Name + ": name " + what)}
	}
	return c.Args().First(), nil
}
