package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"

	"rebroadcastr/archive"
	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/pipeline"
	"rebroadcastr/report"
)

// writing runs one writing command: it takes the archive's lock, shows itself, opens everything, mirrors until done or
// stopped, and closes in the reverse order. It returns what was done.
func (p *program) writing(cfg *config.Config, command string, o pipeline.Options, progress bool) (summary report.Status, err error) {
	terminal := isTerminal(p.stderr)
	out := newScreen(p.stderr, p.lookup)
	logs := newLogs(out, terminal, cfg.Log)
	log := logs.logger()
	for _, note := range cfg.Notes {
		log.Info().Msg(note)
	}
	log.Info().Str("version", p.version).Str("verifier", event.VerifierName()).Str("archive", cfg.Archive.Dir).Msg(command + ": " + describe(cfg))
	if !strings.HasPrefix(event.VerifierName(), event.FastVerifier) {
		log.Warn().Msg("this build checks signatures in pure Go, three times slower than with a C compiler: build it with `make`")
	} else if !event.Batches() {
		log.Info().Msg("this build checks signatures one by one, up to three times slower than in batches: build it with `make`")
	}
	lock, err := archive.Lock(cfg.Archive.Dir, command)
	if err != nil {
		return summary, err
	}
	defer func() {
		// What waits for a disk that does not answer may still write: the lock is the process's, to its very end.
		if !errors.Is(err, archive.ErrStuck) {
			err = errors.Join(err, giveBack(cfg.Archive.Dir), lock.Close())
		}
	}()

	ctx, hurry, stopSignals := signals(p.ctx)
	defer stopSignals()
	h := newHost(cfg, logs, p.version, p.now)
	defer debug.SetMemoryLimit(limitMemory(cfg, p.lookup)) // for who goes on in this process
	h.reloader.taken = func(cfg *config.Config) { limitMemory(cfg, p.lookup) }
	if h.reloader.load = p.again; p.again != nil {
		defer h.reloader.listen()()
	}
	stopWeb, err := h.serve(context.WithoutCancel(ctx), lock)
	if err != nil {
		return summary, err
	}
	defer func() { err = errors.Join(err, stopWeb()) }()
	beat, stopBeat := context.WithCancel(context.WithoutCancel(ctx))
	watchdog := spawn("watchdog", func() error { return h.watchdog(beat) })
	defer func() { stopBeat(); err = errors.Join(err, watchdog.wait()) }()

	m, store, err := h.open(ctx, p.files, o, command == "run")
	if err != nil {
		if ctx.Err() != nil && errors.Is(err, context.Canceled) { // stopped while it waited for room or mended the index
			summary = h.Status()
			summary.Interrupt = o.Once
			return summary, nil
		}
		return summary, err
	}
	h.notify(daemon.SdNotifyReady + "\nSTATUS=mirroring")
	reload, stopReload := context.WithCancel(ctx)
	defer stopReload()
	reloads := spawn("reload", func() error { return h.reloader.run(reload, m.Started()) })
	show, stopShow := context.WithCancel(context.WithoutCancel(ctx))
	defer stopShow()
	shown := spawn("progress", func() error {
		if !progress {
			return nil
		}
		return showProgress(show, out, m)
	})
	stopping := context.AfterFunc(ctx, func() {
		h.notify(daemon.SdNotifyStopping)
		log.Info().Stringer("grace", h.config().Grace).Msg("stopping; a second signal cuts it short")
	})
	var done report.Status
	var failed error
	ran := spawn(command, func() error {
		failed = m.Run(ctx, hurry)
		stopping()
		stopShow()
		failed = errors.Join(failed, shown.wait())
		done = m.Status()
		failed = errors.Join(failed, store.Close())
		return nil
	})
	if !ran.endsSoonAfter(hurry) {
		return m.Status(), fmt.Errorf("%w: ended without waiting for it any longer; what is not durable is sent or fetched again by the next start", archive.ErrStuck)
	}
	stopReload()
	summary = done
	summary.Interrupt = o.Once && ctx.Err() != nil
	err = errors.Join(failed, ran.wait(), reloads.wait())
	if !o.Once && err == nil {
		log.Info().Uint64("archived", summary.Archive.Added).Str("after", report.Span(summary.Now.Sub(summary.Since))).Msg("stopped")
	}
	return summary, err
}

// describe is the first line of a run: what is asked of whom, and where it goes.
func describe(cfg *config.Config) string {
	asking, to := 0, []string(nil)
	for _, s := range cfg.Sources {
		if s.Enabled {
			asking++
		}
	}
	for _, s := range cfg.Sinks {
		if s.Enabled {
			to = append(to, s.URL)
		}
	}
	s := cfg.Asked
	if asking > 0 {
		s = fmt.Sprintf("asking %s for %s", plural(asking, "relay"), cfg.Asked)
	}
	s += " → " + cfg.Archive.Dir
	switch len(to) {
	case 0:
	case 1:
		s += " → " + to[0]
	default:
		s += " → " + plural(len(to), "relay")
	}
	return s
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// summarize prints what a command has done.
func (p *program) summarize(s report.Status, asJSON bool) error {
	write := s.WriteSummary
	if asJSON {
		write = func(w io.Writer) error { return writeJSON(w, s) }
	}
	if err := write(p.stdout); err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	return nil
}

// conclude prints the summary of a one-shot command and turns it into its exit code.
func (p *program) conclude(s report.Status, asJSON bool) error {
	if err := p.summarize(s, asJSON); err != nil {
		return err
	}
	if s.Interrupt {
		return &exitError{code: exitInterrupted}
	}
	if sources, sinks := s.Incomplete(); len(sources)+len(sinks) > 0 {
		return &exitError{code: exitIncomplete}
	}
	return nil
}
