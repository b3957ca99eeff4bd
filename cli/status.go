package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

func (p *program) statusCommand() *cli.Command {
	return &cli.Command{
		Name:   "status",
		Usage:  "how the daemon on this archive stands; exit 3 with problems or without a daemon",
		Flags:  commonFlags(),
		Action: p.status,
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
		if err = serr; err == nil {
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

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
