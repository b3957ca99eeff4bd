package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
	"rebroadcastr/relay/url"
	"rebroadcastr/report"
)

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "how the daemon on this archive stands; exit 3 with problems or without a daemon",
		ArgsUsage: "[RELAY]",
		Flags: flags(commonFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "rejected", Usage: "list what sinks refused for good, newest last; with --json one JSON object a line"},
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
	return p.atDesk(c, func(ctx context.Context, _ *config.Config, d desk) error {
		out := bufio.NewWriter(p.stdout)
		lines := json.NewEncoder(out)
		lines.SetEscapeHTML(false)
		err := d.Rejected(ctx, c.Args().First(), limit, func(r report.Rejected) error {
			if c.Bool("json") {
				return lines.Encode(r)
			}
			return r.WriteText(out)
		})
		return errors.Join(err, out.Flush())
	})
}

func (p *program) status(c *cli.Context) error {
	if c.Bool("rejected") {
		return p.rejected(c)
	}
	if c.IsSet("limit") {
		return &exitError{exitUsage, errors.New("status: --limit goes with --rejected")}
	}
	dir, err := config.Dir(p.inputs(c)) // how the daemon stands is most wanted when the config has a mistake
	if err != nil {
		return err
	}
	d, err := findDaemon(dir)
	if err == nil {
		s, serr := d.status(p.ctx)
		if err = serr; err == nil && c.Args().Present() {
			s, err = onlyRelay(s, c.Args().First())
			if err == nil {
				s.Relay, err = d.behind(s)
			}
		}
		if err == nil {
			if c.Bool("json") {
				err = writeJSON(p.stdout, s)
			} else {
				err = s.WriteStatus(p.stdout)
			}
			if err == nil && s.Relay != nil && !c.Bool("json") {
				err = s.Relay.WriteText(p.stdout, s.Now)
			}
			if err == nil && len(s.Problems) > 0 {
				return &exitError{code: exitIncomplete}
			}
			return err
		}
	}
	if errors.Is(err, errNoDaemon) {
		return &exitError{exitIncomplete, fmt.Errorf("%w: %s", err, dir)}
	}
	return err
}

// behind asks for what is behind the rows of the one relay in s.
func (d *daemonClient) behind(s report.Status) (*report.Relay, error) {
	var u string
	for _, r := range s.Sources {
		u = r.URL
	}
	for _, k := range s.Sinks {
		u = k.URL
	}
	r, err := d.Relay(u)
	if err != nil {
		return nil, usageOf(err)
	}
	return &r, nil
}

// onlyRelay narrows s to one relay's rows. name is its URL, or the name that the config gives it.
func onlyRelay(s report.Status, name string) (report.Status, error) {
	want := ""
	for _, r := range s.Sources {
		if r.Name == name {
			want = r.URL
		}
	}
	for _, k := range s.Sinks {
		if k.Name == name {
			want = k.URL
		}
	}
	if want == "" {
		var err error
		if want, err = url.Normalize(name); err != nil {
			return s, &exitError{exitUsage, fmt.Errorf("status %s: %w", name, err)}
		}
	}
	s.Sources = slices.DeleteFunc(s.Sources, func(r report.Source) bool { return r.URL != want })
	s.Sinks = slices.DeleteFunc(s.Sinks, func(k report.Sink) bool { return k.URL != want })
	s.Problems = slices.DeleteFunc(s.Problems, func(p string) bool { return !strings.Contains(p, want+":") })
	if len(s.Sources)+len(s.Sinks) == 0 {
		return s, &exitError{exitUsage, fmt.Errorf("status: the daemon has no relay %s", want)}
	}
	return s, nil
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
