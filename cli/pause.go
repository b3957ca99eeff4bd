package cli

import (
	"context"

	"github.com/urfave/cli/v2"

	"rebroadcastr/report"
)

func (p *program) pauseCommand() *cli.Command {
	return &cli.Command{
		Name:      "pause",
		Usage:     "leave a relay alone, as source and as sink, until resume; its queue is kept",
		ArgsUsage: "RELAY",
		Flags:     flags(commonFlags()),
		Action:    p.hold(desk.Pause),
	}
}

func (p *program) resumeCommand() *cli.Command {
	return &cli.Command{
		Name:      "resume",
		Usage:     "end a relay's pause, or whatever else it waits for, at once",
		ArgsUsage: "RELAY",
		Flags:     flags(commonFlags()),
		Action:    p.hold(desk.Resume),
	}
}

func (p *program) hold(f func(d desk, relay string) (report.Held, error)) cli.ActionFunc {
	return func(c *cli.Context) error {
		relay, err := oneArgument(c, "a relay")
		if err != nil {
			return err
		}
		return p.atDesk(c, func(_ context.Context, d desk) error {
			h, err := f(d, relay)
			if err != nil {
				return err
			}
			return p.print(c, h, func() error { return h.WriteText(p.stdout) })
		})
	}
}
