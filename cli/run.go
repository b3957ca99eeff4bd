package cli

import (
	"time"

	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
	"rebroadcastr/pipeline"
	"rebroadcastr/report"
)

func (p *program) runCommand() *cli.Command {
	return &cli.Command{
		Name:   "run",
		Usage:  "mirror until stopped: catch up, then live",
		Flags:  flags(commonFlags(), selectionFlags(), relayFlags(), runFlags()),
		Action: p.runMirror,
	}
}

func (p *program) runMirror(c *cli.Context) error {
	cfg, err := p.load(c)
	if err != nil {
		return err
	}
	in := p.inputs(c)
	p.again = func() (*config.Config, error) {
		in.Now = p.now()
		return config.Load(in)
	}
	s, err := p.writing(cfg, "run", pipeline.Options{}, false)
	if err != nil || s.State != report.Stopped { // stopped before it began: nothing is counted
		return err
	}
	return p.summarize(s, c.Bool("json"))
}

func (p *program) backfillCommand() *cli.Command {
	return &cli.Command{
		Name:   "backfill",
		Usage:  "once: sources → archive → sinks",
		Flags:  flags(commonFlags(), selectionFlags(), relayFlags(), backfillFlags()),
		Action: p.backfill,
	}
}

func (p *program) backfill(c *cli.Context) error {
	cfg, err := p.load(c)
	if err != nil {
		return err
	}
	o := pipeline.Options{
		Once: true, Again: c.Bool("again"), Limit: c.Int("limit"), NoDeliver: c.Bool("no-deliver"), GiveUp: giveUp(c),
	}
	if o.NoDeliver {
		cfg.Sinks = nil
	}
	if c.Bool("dry-run") {
		return p.dryRun(c, cfg, o)
	}
	s, err := p.writing(cfg, "backfill", o, !c.Bool("no-progress"))
	if err != nil {
		return err
	}
	return p.conclude(s, c.Bool("json"))
}

// defaultGiveUp is how long a one-shot command tries a sink that makes no progress.
const defaultGiveUp = 5 * time.Minute
