package cli

import (
	"context"
	"errors"

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
func (p *program) atDesk(c *cli.Context, f func(ctx context.Context, cfg *config.Config, d desk) error) (err error) {
	cfg, err := p.load(c)
	if err != nil {
		return err
	}
	if err := mustExist(c.Command.Name, cfg.Archive.Dir); err != nil {
		return err
	}
	ctx, _, stop := signals(p.ctx)
	defer stop()
	daemon, err := findDaemon(cfg.Archive.Dir)
	if err == nil {
		return usageOf(f(ctx, cfg, daemon))
	}
	if !errors.Is(err, errNoDaemon) {
		return err
	}
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
	return usageOf(f(ctx, cfg, pipeline.New(o)))
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
