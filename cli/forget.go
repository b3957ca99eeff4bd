package cli

import (
	"context"
	"errors"

	"github.com/urfave/cli/v2"
)

func (p *program) forgetCommand() *cli.Command {
	return &cli.Command{
		Name:  "forget",
		Usage: "remove the ledger of a sink that is none any more; as a sink again it starts anew",
		Flags: flags(commonFlags(), []cli.Flag{
			&cli.StringFlag{Name: "sink", Usage: "of the sink `URL`"},
		}),
		Action: p.forget,
	}
}

func (p *program) forget(c *cli.Context) error {
	if c.String("sink") == "" {
		return &exitError{exitUsage, errors.New("forget: say which sink: --sink URL")}
	}
	return p.atDesk(c, func(_ context.Context, d desk) error {
		f, err := d.Forget(c.String("sink"))
		if err != nil {
			return err
		}
		return p.print(c, f, func() error { return f.WriteText(p.stdout) })
	})
}
