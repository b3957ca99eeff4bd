package cli

import (
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
)

// flags joins groups. A flag that config does not read gets its environment variable here; for the others config
// decides, so that it can name the variable in its messages and split lists.
func flags(groups ...[]cli.Flag) []cli.Flag {
	all := slices.Concat(groups...)
	for _, f := range all {
		name := f.Names()[0]
		if b, ok := f.(*cli.BoolFlag); ok {
			b.DisableDefaultText = true // every switch is off until it is said
		}
		if configured(name) {
			continue
		}
		env := []string{variableOf(name)}
		switch f := f.(type) {
		case *cli.BoolFlag:
			f.EnvVars = env
		case *cli.IntFlag:
			f.EnvVars = env
		case *cli.StringFlag:
			f.EnvVars = env
		case *cli.GenericFlag:
			f.EnvVars = env
		}
	}
	return all
}

// variableOf is the environment variable that stands for a flag.
func variableOf(flag string) string {
	return prefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// strayVariables are variables with our prefix that stand for no flag of any command: mostly slips of the hand, which
// would otherwise be ignored in silence.
func strayVariables(app *cli.App, environ []string) (warnings []string) {
	var known []string
	var collect func(commands []*cli.Command)
	collect = func(commands []*cli.Command) {
		for _, c := range commands {
			for _, f := range c.Flags {
				known = append(known, f.Names()[0])
			}
			collect(c.Subcommands)
		}
	}
	collect(app.Commands)
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		rest, ours := strings.CutPrefix(name, prefix)
		flag := strings.ReplaceAll(strings.ToLower(rest), "_", "-")
		if !ours || slices.Contains(known, flag) {
			continue
		}
		warning := name + " stands for no flag and is ignored"
		if near := config.Nearest(flag, known); near != "" {
			warning += "; did you mean " + variableOf(near) + "?"
		}
		warnings = append(warnings, warning)
	}
	return warnings
}

// configured reports whether config reads a flag.
func configured(name string) bool {
	for _, f := range slices.Concat(commonFlags(), selectionFlags(), relayFlags(), runFlags()) {
		if f.Names()[0] == name {
			return name != "json" && name != "no-progress"
		}
	}
	return false
}

// commonFlags are on every command that opens an archive.
func commonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "read the config `FILE`"},
		&cli.StringFlag{Name: "archive", Usage: "keep the archive in `DIR` (default: $STATE_DIRECTORY, else ~/.local/share/rebroadcastr)"},
		&cli.StringFlag{Name: "log-level", Usage: "log from `LEVEL`: debug, info, warn, error"},
		&cli.StringFlag{Name: "log-format", Usage: "log as `FORMAT`: console, json"},
		&cli.BoolFlag{Name: "no-progress", Usage: "show no progress"},
		&cli.BoolFlag{Name: "json", Usage: "print results as JSON"},
	}
}

// selectionFlags say which events.
func selectionFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "author", Usage: "events of `NPUB` (also nprofile or hex; repeat it)"},
		&cli.BoolFlag{Name: "mentions", Usage: "also what p-tags the authors"},
		&cli.StringSliceFlag{Name: "kind", Usage: "events of kind `N` (repeat it)"},
		&cli.StringSliceFlag{Name: "tag", KeepSpace: true, Usage: "events with the tag `K=V`, such as t=nostr (repeat it)"},
		&cli.StringSliceFlag{Name: "id", Usage: "the event `ID` (note, nevent or hex; repeat it)"},
		&cli.StringFlag{Name: "since", Usage: "events dated `TIME` or later: 2024-01-31, 30d, RFC 3339 or unix seconds"},
		&cli.StringFlag{Name: "until", Usage: "events dated `TIME` or earlier; a date includes its day"},
		&cli.BoolFlag{Name: "all", Usage: "everyone's events"},
	}
}

// relayFlags say from where and to where.
func relayFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "source", Usage: "take events from the relay `URL` (repeat it)"},
		&cli.StringSliceFlag{Name: "sink", Usage: "send events to the relay `URL` (repeat it)"},
	}
}

func runFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "listen", Usage: "serve status, metrics and health on `ADDR`; \"\" is off (default: 127.0.0.1:9797)"},
		&cli.BoolFlag{Name: "watch", Usage: "take up the config file whenever it changes"},
	}
}

func backfillFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "dry-run", Usage: "ask the relays how much there is, and fetch, archive and send nothing"},
		&cli.BoolFlag{Name: "again", Usage: "ask again for what was complete"},
		&cli.IntFlag{Name: "limit", Usage: "take at most `N` events of each source", DefaultText: "no limit"},
		&cli.GenericFlag{Name: "give-up", Value: new(span), Usage: "leave a sink that makes no progress for this `TIME` (default: 5m)"},
		&cli.BoolFlag{Name: "no-deliver", Usage: "archive only: sinks never get these events"},
	}
}

// laterFlags are promised and not there yet; as unknown flags they would look like typing mistakes.
var laterFlags = []string{
	"follow", "cursor", "latest", "format", "subscriptions", "expanded", "online", "quick", "repair", "fix", "fetch",
}

// span is a flag's duration, with days and weeks.
type span time.Duration

func (s *span) Set(text string) error {
	d, err := config.ParseDuration(text)
	*s = span(d)
	return err
}

func (s *span) String() string {
	if *s == 0 {
		return ""
	}
	return time.Duration(*s).String()
}

// giveUp is --give-up.
func giveUp(c *cli.Context) time.Duration {
	if s, ok := c.Generic("give-up").(*span); ok && c.IsSet("give-up") {
		return time.Duration(*s)
	}
	return defaultGiveUp
}

// own are flags that mean something else to a command than to the config.
var own = map[string][]string{"retry": {"sink", "id"}, "forget": {"sink"}}

// inputs are what the command line gives to config.
func inputs(c *cli.Context, lookup func(string) (string, bool), now time.Time) config.Inputs {
	in := config.Inputs{Command: c.Command.Name, Flags: make(map[string][]string), Env: lookup, Now: now}
	if in.Command == "check" {
		in.File = c.Args().First()
	}
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if !configured(name) || !c.IsSet(name) || slices.Contains(own[c.Command.Name], name) {
			continue
		}
		switch f.(type) {
		case *cli.StringSliceFlag:
			in.Flags[name] = c.StringSlice(name)
		case *cli.BoolFlag:
			in.Flags[name] = []string{"false"}
			if c.Bool(name) {
				in.Flags[name] = []string{"true"}
			}
		default:
			in.Flags[name] = []string{c.String(name)}
		}
	}
	return in
}
