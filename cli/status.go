package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"rebroadcastr/report"
)

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "how the daemon on this archive stands; exit 3 with problems or without a daemon (--rejected and --gaps need none)",
		ArgsUsage: "[RELAY]",
		Flags: flags(commonFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "rejected", Usage: "list what sinks refused for good, newest last; with --json one JSON object a line"},
			&cli.BoolFlag{Name: "gaps", Usage: "list what is proven of each source, what is missing and which seconds could not be got whole; exit 3 if something is missing"},
			&cli.IntFlag{Name: "limit", Usage: "with --rejected: the last `N`; 0 is all, in the order of the archive", DefaultText: "100"},
		}),
		Action: p.status,
	}
}

// defaultRejected is how many refused events are listed.
const defaultRejected = 100

// rejected lists what sinks refused, also without a daemon.
func (p *program) rejected(c *cli.Context) error {
	limit := defaultRejected
	if c.IsSet("limit") {
		limit = c.Int("limit")
	}
	return p.atDesk(c, func(ctx context.Context, d desk) error {
		out := bufio.NewWriter(p.stdout)
		lines := json.NewEncoder(out)
		lines.SetEscapeHTML(false)
		none := true
		err := d.Rejected(ctx, c.Args().First(), limit, func(r report.Rejected) error {
			none = false
			if c.Bool("json") {
				return lines.Encode(r)
			}
			return r.WriteText(out)
		})
		if err == nil && none && !c.Bool("json") {
			fmt.Fprintln(p.stderr, "nothing has been refused for good")
		}
		return errors.Join(err, out.Flush())
	})
}

const noStatus = "status --gaps and status --rejected need none"

func (p *program) status(c *cli.Context) error {
	if c.Bool("rejected") {
		if c.Bool("gaps") {
			return &exitError{exitUsage, errors.New("status: --rejected or --gaps, not both")}
		}
		return p.rejected(c)
	}
	if c.IsSet("limit") {
		return &exitError{exitUsage, errors.New("status: --limit goes with --rejected")}
	}
	if c.Bool("gaps") {
		return p.gaps(c)
	}
	dir, err := p.archiveDir(c)
	if err != nil {
		return err
	}
	d, err := findDaemon(dir)
	if err != nil {
		return noDaemon(err, dir, noStatus)
	}
	s, err := d.standing(p.ctx, c.Args().First())
	if err != nil {
		return noDaemon(usageOf(err), dir, noStatus)
	}
	err = p.print(c, s, func() error {
		err := s.WriteStatus(p.stdout)
		if err == nil && s.Relay != nil {
			err = s.Relay.WriteText(p.stdout, s.Now)
		}
		return err
	})
	if err == nil && len(s.Problems) > 0 {
		return &exitError{code: exitIncomplete}
	}
	return err
}

// standing is the daemon's status, or with relay, its URL or name, that of one relay with what is behind its rows.
func (d *daemonClient) standing(ctx context.Context, relay string) (report.Status, error) {
	if relay == "" {
		return d.status(ctx)
	}
	r, err := d.Relay(relay)
	if err != nil {
		return report.Status{}, err
	}
	s, err := d.status(ctx)
	s = s.Only(r.URL)
	s.Relay = &r
	return s, err
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
