package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
	"rebroadcastr/pipeline"
)

// dryRun tells what a backfill would do. It takes no lock and writes nothing: the archive need not even exist.
func (p *program) dryRun(c *cli.Context, cfg *config.Config, o pipeline.Options) error {
	ctx, _, stop := signals(p.ctx)
	defer stop()
	logs := newLogs(&screen{w: p.stderr}, isTerminal(p.stderr), cfg.Log) // several links log at once
	log := logs.logger()
	log.Info().Str("version", p.version).Msg("backfill, dry run: " + describe(cfg))
	o.Config, o.Version, o.Now, o.Log = cfg, p.version, p.now, log
	would, err := pipeline.DryRun(ctx, p.files, o)
	if err != nil {
		return besideWriter(cfg.Archive.Dir, err)
	}
	if err := p.print(c, would, func() error { return would.WriteText(p.stdout) }); err != nil {
		return fmt.Errorf("write what would be done: %w", err)
	}
	switch {
	case would.Interrupted:
		return &exitError{code: exitInterrupted}
	case would.Unreached():
		return &exitError{code: exitIncomplete}
	}
	return nil
}
