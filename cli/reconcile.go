package cli

import "github.com/urfave/cli/v2"

func (p *program) reconcileCommand() *cli.Command {
	return &cli.Command{
		Name:      "reconcile",
		Usage:     "make the daemon compare its relays, or one, with the archive: what a source got late is fetched, what a sink lacks is offered again",
		ArgsUsage: "[RELAY]",
		Flags:     flags(commonFlags()),
		Action:    p.reconcile,
	}
}

const noReconcile = "relays are compared while run goes on; backfill --again asks the sources for everything once"

func (p *program) reconcile(c *cli.Context) error {
	dir, err := p.archiveDir(c)
	if err != nil {
		return err
	}
	d, err := findDaemon(dir)
	if err != nil {
		return noDaemon(err, dir, noReconcile)
	}
	r, err := d.Reconcile(c.Args().First())
	if err != nil {
		return noDaemon(usageOf(err), dir, noReconcile)
	}
	return p.print(c, r, func() error { return r.WriteText(p.stdout) })
}
