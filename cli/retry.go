package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
)

func (p *program) retryCommand() *cli.Command {
	return &cli.Command{
		Name:  "retry",
		Usage: "offer a sink again what it refused: everything, what was refused for a reason, or one event",
		Flags: flags(commonFlags(), []cli.Flag{
			&cli.StringFlag{Name: "sink", Usage: "of the sink `URL`"},
			&cli.StringFlag{Name: "reason", Usage: "only what was refused for `REASON`: the start of the relay's words, such as blocked"},
			&cli.StringFlag{Name: "id", Usage: "only the event `ID` (note, nevent or hex); one that is parked is sent now"},
		}),
		Action: p.retry,
	}
}

func (p *program) retry(c *cli.Context) error {
	if c.String("sink") == "" {
		return &exitError{exitUsage, errors.New("retry: say which sink: --sink URL")}
	}
	if c.String("reason") != "" && c.String("id") != "" {
		return &exitError{exitUsage, errors.New("retry: --reason or --id, not both")}
	}
	id := ""
	if text := c.String("id"); text != "" {
		got, err := config.EventID(text)
		if err != nil {
			return &exitError{exitUsage, fmt.Errorf("retry: --id %w", err)}
		}
		id = got.String()
	}
	return p.atDesk(c, func(ctx context.Context, d desk) error {
		r, err := d.Retry(ctx, c.String("sink"), c.String("reason"), id)
		if err != nil {
			return err
		}
		return p.print(c, r, func() error { return r.WriteText(p.stdout) })
	})
}
