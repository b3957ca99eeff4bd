package cli

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
)

func (p *program) configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "check | show | example: the config file",
		Subcommands: []*cli.Command{
			{
				Name: "check", Usage: "find all mistakes of a config file; dials nothing", ArgsUsage: "[FILE]",
				Flags: flags(commonFlags(), selectionFlags(), relayFlags()), Action: p.configCheck,
			},
			{
				Name: "show", Usage: "print the config in force: file, environment and flags",
				Flags: flags(commonFlags(), selectionFlags(), relayFlags()), Action: p.configShow,
			},
			{
				Name: "example", Usage: "print every key with its default and what it does",
				Action: func(*cli.Context) error { _, err := p.stdout.Write(config.Example); return err },
			},
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return &exitError{exitUsage, fmt.Errorf("config %s: no such command; there are check, show, example", c.Args().First())}
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

func (p *program) configCheck(c *cli.Context) error {
	in := inputs(c, p.lookup, p.now())
	if _, ok := in.Given("config"); !ok && in.File == "" {
		return &exitError{exitUsage, errors.New("config check: name a FILE, or -c FILE")}
	}
	cfg, err := config.Load(in)
	if err != nil {
		return err
	}
	for _, note := range cfg.Notes {
		fmt.Fprintln(p.stderr, note)
	}
	_, err = fmt.Fprintf(p.stdout, "%s is fine: %s\n", cfg.File, describe(cfg))
	return err
}

func (p *program) configShow(c *cli.Context) error {
	cfg, err := p.load(c)
	if err != nil {
		return err
	}
	text, err := cfg.YAML()
	if err != nil {
		return err
	}
	_, err = p.stdout.Write(text)
	return err
}
