package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"rebroadcastr/archive"
	"rebroadcastr/event"
)

func (p *program) exportCommand() *cli.Command {
	return &cli.Command{
		Name:  "export",
		Usage: "archive → stdout or -o FILE, as JSONL; also beside a running daemon",
		Flags: flags(commonFlags(), selectionFlags(), []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE` instead of stdout; - is stdout"},
		}),
		Action: p.export,
	}
}

// export takes no lock: it reads segments, which a writer only ever appends to.
func (p *program) export(c *cli.Context) (err error) {
	cfg, err := p.load(c)
	if err != nil {
		return err
	}
	// Before the output is emptied: a wrong --archive must not cost an earlier export.
	if err := mustExist("export", cfg.Archive.Dir); err != nil {
		return err
	}
	out := p.stdout
	if name := c.String("output"); name != "" && name != "-" {
		if sameFile(filepath.Dir(name), cfg.Archive.Dir) {
			return &exitError{exitUsage, fmt.Errorf("export: --output %s is in the archive itself", name)}
		}
		f, err := os.Create(name)
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	ctx, _, stop := signals(p.ctx)
	defer stop()
	want := event.Selection{All: [][]event.Filter{cfg.Want}, Except: cfg.Except}.Compile()
	w := bufio.NewWriterSize(out, 256<<10)
	damaged := 0
	for r, err := range archive.Scan(ctx, cfg.Archive.Dir, archive.ScanOptions{}) {
		var damage *archive.Damage
		switch {
		case errors.As(err, &damage):
			damaged++
			fmt.Fprintf(p.stderr, "left out: %v\n", damage)
			continue
		case err != nil:
			return errors.Join(fmt.Errorf("export: %w%s", err, permissionHint(err)), w.Flush())
		}
		if !want.Match(&r.Event) {
			continue
		}
		if err := writeLine(w, r.Event.Line); err != nil {
			return closedPipe(err)
		}
	}
	if err := w.Flush(); err != nil {
		return closedPipe(err)
	}
	if ctx.Err() != nil {
		return &exitError{code: exitInterrupted}
	}
	if damaged > 0 {
		return &exitError{exitIncomplete, fmt.Errorf("export: %s could not be read", plural(damaged, "damaged line"))}
	}
	return nil
}

// mustExist is for commands that make no archive: a mistyped directory is an error, not an empty archive.
func mustExist(command, dir string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no archive at %s", command, dir)
	case err != nil:
		return fmt.Errorf("%s: %w%s", command, err, permissionHint(err))
	case !info.IsDir():
		return fmt.Errorf("%s: archive %s: not a directory", command, dir)
	}
	return nil
}

// permissionHint is what a user may do about an archive that belongs to the service.
func permissionHint(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return ": it belongs to another user: use sudo"
	}
	return ""
}

// sameFile reports whether two names stand for the same file or directory.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

func writeLine(w io.Writer, line []byte) error {
	if _, err := w.Write(line); err != nil {
		return err
	}
	_, err := w.Write([]byte{'\n'})
	return err
}

// closedPipe is no failure: `export | head` has what it wanted.
func closedPipe(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return fmt.Errorf("export: %w", err)
}
