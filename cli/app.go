// Package cli is the command line: one file per command. It turns arguments into a config, runs the pipeline, prints
// results to stdout, everything else to stderr, and chooses the exit code.
package cli

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rebroadcastr/archive"
	"rebroadcastr/config"
	"rebroadcastr/event"
)

// Process is what a program is started with.
type Process struct {
	Args           []string // with the program's name
	LookupEnv      func(string) (string, bool)
	Environ        []string // KEY=value
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Now is the wall clock, by which events expire, histories begin and files are dated; nil: time.Now.
	Now func() time.Time
	// Files is where the archive's segments live; nil: the operating system's filesystem.
	Files archive.FS
}

// program is one run of the command line.
type program struct {
	ctx            context.Context
	lookup         func(string) (string, bool)
	stdin          io.Reader
	stdout, stderr io.Writer
	version        string
	now            func() time.Time
	files          archive.FS
	again          func() (*config.Config, error) // loads the config once more; nil: the command takes it once
	resolved       map[string]int64               // what relative times came to
}

// Version is set by the build (-X rebroadcastr/cli.Version=…); without it the module's own is used.
var Version string

// Main runs one command and returns its exit code. A panic outside of the stages is reported and is exit 1.
func Main(ctx context.Context, proc Process) (code int) {
	p := &program{ctx: ctx, lookup: proc.LookupEnv, stdin: proc.Stdin, stdout: proc.Stdout, stderr: proc.Stderr, version: buildVersion(), now: proc.Now, files: proc.Files}
	if p.now == nil {
		p.now = time.Now
	}
	if p.files == nil {
		p.files = archive.OS{}
	}
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(p.stderr, "rebroadcastr: panic: %v\n%s", config.Redact(fmt.Sprint(r)), debug.Stack())
			code = exitFailed
		}
	}()
	err := p.run(proc)
	if err != nil && err.Error() != "" {
		// Once more here, whatever library wrote the message.
		fmt.Fprintln(p.stderr, "rebroadcastr: "+strings.TrimRight(config.Redact(err.Error()), "\n"))
	}
	return exitCode(err)
}

func (p *program) run(proc Process) error {
	// Before any parser sees a text: libraries print what they do not understand.
	if err := guard(proc.Args, proc.Environ); err != nil {
		return &exitError{exitUsage, err}
	}
	if err := event.SelfTest(); err != nil {
		return fmt.Errorf("the signature check (%s) fails its own test, refusing to start: %w", event.VerifierName(), err)
	}
	app := p.app()
	for _, warning := range strayVariables(app, proc.Environ) {
		fmt.Fprintln(p.stderr, "rebroadcastr: "+warning)
	}
	args, err := arrange(app, proc.Args)
	if err != nil {
		return &exitError{exitUsage, err}
	}
	return app.RunContext(p.ctx, args)
}

func (p *program) app() *cli.App {
	usage := func(_ *cli.Context, err error, _ bool) error { return &exitError{exitUsage, err} }
	app := &cli.App{
		Name:      "rebroadcastr",
		Usage:     "mirror Nostr events from relays to an archive on disk and to other relays",
		Version:   p.version,
		Writer:    p.stdout,
		ErrWriter: p.stderr,
		Reader:    p.stdin,
		Commands: append([]*cli.Command{
			p.runCommand(), p.backfillCommand(), p.exportCommand(), p.importCommand(), p.reindexCommand(), p.statusCommand(),
			p.explainCommand(), p.retryCommand(), p.pauseCommand(), p.resumeCommand(), p.forgetCommand(),
			p.reloadCommand(), p.reconcileCommand(), p.configCommand(), p.versionCommand(),
		}, laterCommands()...),
		HideVersion:               true, // there is a command
		DisableSliceFlagSeparator: true, // a comma is part of a value
		OnUsageError:              usage,
		ExitErrHandler:            func(*cli.Context, error) {}, // Main decides
		CommandNotFound:           nil,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return &exitError{exitUsage, unknownCommand(c.App, c.Args().First())}
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, c := range app.Commands {
		setUsageError(c, usage)
	}
	return app
}

func setUsageError(c *cli.Command, f cli.OnUsageErrorFunc) {
	c.OnUsageError = f
	for _, sub := range c.Subcommands {
		setUsageError(sub, f)
	}
}

// load makes the config of the command that c is.
func (p *program) load(c *cli.Context) (*config.Config, error) {
	return config.Load(p.inputs(c))
}

// inputs are what the config of the command that c is is made from. Loads of one process agree on what 90d means.
func (p *program) inputs(c *cli.Context) config.Inputs {
	in := inputs(c, p.lookup, p.now())
	if p.resolved == nil {
		p.resolved = make(map[string]int64)
	}
	in.Resolved = p.resolved
	return in
}

// later are commands that interface promises and that are not there yet, with what they are for.
var later = map[string]string{
	"deliver": "archive → sinks, once", "verify": "check the archive", "backup": "copy the archive", "audit": "which relay lacks which archived events",
	"relay":      "what a relay says of itself",
	"completion": "shell completion",
}

// laterCommands say plainly that they are not there yet, rather than "unknown command".
func laterCommands() []*cli.Command {
	var cs []*cli.Command
	for name, what := range later {
		cs = append(cs, &cli.Command{
			Name: name, Usage: what, Hidden: true, SkipFlagParsing: true,
			Action: func(*cli.Context) error {
				return &exitError{exitUsage, fmt.Errorf("%s (%s) is not there yet", name, what)}
			},
		})
	}
	return cs
}

func buildVersion() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
