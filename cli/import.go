package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
	"rebroadcastr/pipeline"
	"rebroadcastr/report"
)

func (p *program) importCommand() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "JSONL files, directories of *.jsonl, or - (stdin) → archive (→ sinks of the config)",
		ArgsUsage: "FILE|DIR|-…",
		Flags: flags(commonFlags(), selectionFlags(), []cli.Flag{
			&cli.StringFlag{Name: "rejects", Usage: "write refused lines to `FILE`, with the reason"},
			&cli.BoolFlag{Name: "no-deliver", Usage: "archive only: sinks never get these events"},
		}),
		Action: p.importFiles,
	}
}

func (p *program) importFiles(c *cli.Context) (err error) {
	cfg, err := p.load(c)
	if err != nil {
		return err
	}
	files, err := importNames(c.Args().Slice())
	if err != nil {
		return err
	}
	// A running daemon keeps the archive: the lines go through it.
	d, derr := findDaemon(cfg.Archive.Dir)
	if derr == nil {
		if name := p.selecting(c); name != "" {
			return &exitError{exitUsage, fmt.Errorf("import: %s does not reach the daemon that runs on %s, whose config decides: leave it out, or stop the daemon", name, cfg.Archive.Dir)}
		}
	}
	var rejects io.Writer
	if name := c.String("rejects"); name != "" {
		if i := slices.IndexFunc(files, func(file string) bool { return sameFile(name, file) }); i >= 0 {
			return &exitError{exitUsage, fmt.Errorf("import: --rejects %s would overwrite what is to be imported", name)}
		}
		f, err := os.Create(name)
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		rejects = f
	}
	noDeliver := c.Bool("no-deliver")
	if derr == nil {
		return p.importThrough(c, cfg, files, func(ctx context.Context, lines io.Reader) (report.Source, error) {
			return d.importLines(ctx, lines, noDeliver, rejects)
		})
	}
	if !errors.Is(derr, errNoDaemon) {
		return derr
	}
	cfg.Sources = nil
	if noDeliver {
		cfg.Sinks = nil
	}
	o := pipeline.Options{Once: true, GiveUp: defaultGiveUp, Feed: func(ctx context.Context, m *pipeline.Mirror) error {
		return p.eachFile(files, func(lines io.Reader) error {
			_, err := m.Import(ctx, lines, noDeliver, rejects)
			return err
		})
	}}
	s, err := p.writing(cfg, "import", o, !c.Bool("no-progress"))
	if err != nil {
		return err
	}
	s.Sources = []report.Source{report.Merge(report.ImportName, s.Sources)}
	return p.conclude(s, c.Bool("json"))
}

// selecting names a selection that the user gave by flag or variable; empty: none.
func (p *program) selecting(c *cli.Context) string {
	in := inputs(c, p.lookup, time.Time{})
	for _, f := range selectionFlags() {
		if g, ok := in.Given(f.Names()[0]); ok && f.Names()[0] != "all" {
			return g.Name
		}
	}
	return ""
}

// importThrough imports through the daemon and prints what it took.
func (p *program) importThrough(c *cli.Context, cfg *config.Config, files []string, send func(context.Context, io.Reader) (report.Source, error)) error {
	ctx, _, stop := signals(p.ctx)
	defer stop()
	var parts []report.Source
	err := p.eachFile(files, func(lines io.Reader) error {
		done, err := send(ctx, lines)
		parts = append(parts, done)
		return err
	})
	if err != nil && ctx.Err() == nil {
		return err
	}
	merged := report.Merge(report.ImportName, parts)
	if c.Bool("json") {
		err = writeJSON(p.stdout, merged)
	} else {
		err = report.WriteImport(p.stdout, cfg.Archive.Dir, merged)
	}
	if err == nil && ctx.Err() != nil {
		return &exitError{code: exitInterrupted}
	}
	return err
}

// eachFile opens the files in turn; - is stdin.
func (p *program) eachFile(names []string, f func(io.Reader) error) error {
	for _, name := range names {
		if err := p.oneFile(name, f); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) oneFile(name string, f func(io.Reader) error) (err error) {
	if name == "-" {
		return f(p.stdin)
	}
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if err := f(in); err != nil {
		return fmt.Errorf("import %s: %w", name, err)
	}
	return nil
}

// importNames lists the files to import: directories give their *.jsonl in order. Each is looked at first, so that a
// typing mistake stops the command before it has done half of the work.
func importNames(args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, &exitError{exitUsage, errors.New("import: name files or directories, or - for stdin")}
	}
	var names []string
	for _, arg := range args {
		if arg == "-" {
			names = append(names, arg)
			continue
		}
		info, err := os.Stat(arg)
		if err != nil {
			return nil, fmt.Errorf("import: %w", err)
		}
		if !info.IsDir() {
			names = append(names, arg)
			continue
		}
		before := len(names)
		err = filepath.WalkDir(arg, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && strings.HasSuffix(d.Name(), ".jsonl") {
				names = append(names, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(names) == before {
			return nil, fmt.Errorf("import: no *.jsonl in %s", arg)
		}
	}
	return slices.Compact(names), nil
}
