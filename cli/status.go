package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"rebroadcastr/relay/url"
	"rebroadcastr/report"
)

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "how the daemon on this archive stands; exit 3 with problems or without a daemon",
		ArgsUsage: "[RELAY]",
		Flags:     flags(commonFlags()),
		Action:    p.status,
	}
}

func (p *program) status(c *cli.Context) error {
	cfg, err := p.load(c)
	if err != nil {
		return err
	}
	d, err := findDaemon(cfg.Archive.Dir)
	if err == nil {
		s, serr := d.status(p.ctx)
		if err = serr; err == nil && c.Args().Present() {
			s, err = onlyRelay(s, c.Args().First())
		}
		if err == nil {
			if c.Bool("json") {
				err = writeJSON(p.stdout, s)
			} else {
				err = s.WriteStatus(p.stdout)
			}
			if err == nil && len(s.Problems) > 0 {
				return &exitError{code: exitIncomplete}
			}
			return err
		}
	}
	if errors.Is(err, errNoDaemon) {
		return &exitError{exitIncomplete, fmt.Errorf("%w: %s", err, cfg.Archive.Dir)}
	}
	return err
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
