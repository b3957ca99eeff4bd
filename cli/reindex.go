package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"rebroadcastr/archive"
	"rebroadcastr/pipeline"
)

func (p *program) reindexCommand() *cli.Command {
	return &cli.Command{
		Name:   "reindex",
		Usage:  "make the index anew from the archive; nothing else may write to it",
		Flags:  commonFlags(),
		Action: p.reindex,
	}
}

func (p *program) reindex(c *cli.Context) (err error) {
	cfg, err := p.load(c)
	if err != nil {
		return err
	}
	if err := mustExist("reindex", cfg.Archive.Dir); err != nil {
		return err
	}
	logs := newLogs(p.stderr, isTerminal(p.stderr), cfg.Log)
	log := logs.logger()
	lock, err := archive.Lock(cfg.Archive.Dir, "reindex")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	defer func() { err = errors.Join(err, giveBack(cfg.Archive.Dir)) }() // while the lock is held
	ctx, _, stop := signals(p.ctx)
	defer stop()
	h := newHost(cfg, logs, p.version, p.now)
	if err := h.room(ctx, p.files, false); err != nil {
		return err
	}
	begin := time.Now()
	n, err := pipeline.Reindex(ctx, p.files, cfg, log, p.now, func(what string) { log.Info().Msg(what) })
	if errors.Is(err, context.Canceled) {
		return &exitError{exitInterrupted, errors.New("reindex: interrupted; the next start finishes it")}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "indexed %s events of %s in %s\n", humanize.Comma(int64(n)), cfg.Archive.Dir, time.Since(begin).Round(time.Millisecond))
	return err
}
