package cli

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
)

func (p *program) explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "the whole story of one event: where it is, where it came from, what each sink did with it; exit 3 if it is not archived",
		ArgsUsage: "ID|note1…|nevent1…",
		Flags:     flags(commonFlags()),
		Action:    p.explain,
	}
}

func (p *program) explain(c *cli.Context) error {
	if c.Args().Len() > 1 {
		return &exitError{exitUsage, fmt.Errorf("unexpected argument %s: explain takes one event", c.Args().Get(1))}
	}
	arg, err := oneArgument(c, "an event: its id, a note1… or an nevent1…")
	if err != nil {
		return err
	}
	id, err := config.EventID(arg)
	if err != nil {
		return &exitError{exitUsage, fmt.Errorf("explain: %w", err)}
	}
	return p.atDesk(c, func(ctx context.Context, d desk) error {
		s, err := d.Explain(ctx, id.String())
		if err != nil {
			return err
		}
		if err := p.print(c, s, func() error { return s.WriteText(p.stdout) }); err != nil {
			return err
		}
		if !s.Archived {
			return &exitError{code: exitIncomplete}
		}
		return nil
	})
}
