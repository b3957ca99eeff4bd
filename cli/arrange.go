package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
)

// arrange checks a command line and brings it into the only form that urfave/cli v2 understands: flags before arguments.
// By itself that library ignores flags after an argument and arguments that nobody asked for, and takes the next flag
// as a value in `--author --all`.
//
// A command takes arguments if it has an ArgsUsage; one with "…" takes any number.
func arrange(app *cli.App, args []string) ([]string, error) {
	if len(args) < 2 {
		return args, nil
	}
	out, rest := args[:1:1], args[1:]
	command, commands := (*cli.Command)(nil), app.Commands
	for command == nil || len(command.Subcommands) > 0 {
		if len(rest) == 0 || isHelp(rest[0]) || rest[0] == "help" || rest[0] == "h" {
			return append(out, rest...), nil
		}
		name := rest[0]
		if slices.Contains([]string{"--version", "-version", "-v", "-V"}, name) {
			return nil, fmt.Errorf("%s: it is a command: %s version", name, app.Name)
		}
		if !isArgument(name) {
			return nil, fmt.Errorf("%s: flags stand behind the command: %s COMMAND %s …", name, strings.Join(append([]string{app.Name}, out[1:]...), " "), name)
		}
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return slices.Contains(c.Names(), name) })
		if i < 0 {
			return nil, unknownAmong(commands, name)
		}
		command, out, rest = commands[i], append(out, name), rest[1:]
		commands = command.Subcommands
	}
	if command.SkipFlagParsing {
		return append(out, rest...), nil
	}
	l := line{app: app, command: command, given: make(map[string]bool)}
	for len(rest) > 0 {
		var err error
		if isHelp(rest[0]) {
			return append(out, "--help"), nil
		}
		if rest, err = l.take(rest); err != nil {
			return nil, err
		}
	}
	out = append(out, l.flags...)
	if len(l.arguments) > 0 {
		out = append(append(out, "--"), l.arguments...)
	}
	return out, nil
}

func isHelp(arg string) bool { return slices.Contains([]string{"-h", "--h", "-help", "--help"}, arg) }

// unknownCommand is the answer to a command that there is not.
func unknownCommand(app *cli.App, name string) error { return unknownAmong(app.Commands, name) }

func unknownAmong(commands []*cli.Command, name string) error {
	var known []string
	for _, c := range commands {
		known = append(known, c.Names()...)
	}
	if near := config.Nearest(name, known); near != "" {
		return fmt.Errorf("%s: unknown command; did you mean %s?", name, near)
	}
	return fmt.Errorf("%s: unknown command; --help lists them", name)
}

// line is one command's part of a command line.
type line struct {
	app       *cli.App
	command   *cli.Command
	flags     []string // each as --name or --name=value
	arguments []string
	given     map[string]bool
	last      cli.Flag // that stands right before, with its value; nil after an argument
}

// take takes the next flag with its value, or the next argument, and returns what is left.
func (l *line) take(rest []string) ([]string, error) {
	arg := rest[0]
	rest = rest[1:]
	switch {
	case arg == "--":
		for _, a := range rest {
			if err := l.argument(a); err != nil {
				return nil, err
			}
		}
		return nil, nil
	case isArgument(arg):
		return rest, l.argument(arg)
	}
	typed, value, joined := flagOf(arg)
	f := l.find(strings.TrimLeft(typed, "-"))
	if f == nil {
		return nil, l.unknown(typed)
	}
	name := "--" + f.Names()[0]
	_, list := f.(*cli.StringSliceFlag)
	if l.given[name] && !list {
		return nil, fmt.Errorf("%s is given twice", name)
	}
	l.given[name], l.last = true, f
	if _, toggle := f.(*cli.BoolFlag); toggle {
		if !joined {
			l.flags = append(l.flags, name)
			return rest, nil
		}
		if _, err := strconv.ParseBool(value); err != nil {
			return nil, fmt.Errorf("%s: say %s or %s=false", arg, name, name)
		}
		l.flags = append(l.flags, name+"="+value)
		return rest, nil
	}
	if !joined {
		if len(rest) == 0 {
			return nil, fmt.Errorf("%s needs a value: %s %s", name, name, placeholder(f))
		}
		if !isArgument(rest[0]) {
			return nil, fmt.Errorf("%s needs a value, and %s is a flag (if it is the value: %s=%s)", name, rest[0], name, rest[0])
		}
		value, rest = rest[0], rest[1:]
	}
	if value == "" && name != "--listen" { // an unset variable of a shell, mostly
		return nil, fmt.Errorf("%s needs a value, not an empty one", name)
	}
	if _, number := f.(*cli.IntFlag); number {
		if _, err := strconv.ParseUint(value, 10, 31); err != nil {
			return nil, fmt.Errorf("%s %s: not a whole number, 0 or more", name, value)
		}
	}
	if _, ok := f.(*cli.GenericFlag); ok { // a span; the library's own message is for programmers
		if err := new(span).Set(value); err != nil {
			return nil, fmt.Errorf("%s %s: %w", name, value, err)
		}
	}
	l.flags = append(l.flags, name+"="+value)
	return rest, nil
}

func (l *line) find(name string) cli.Flag {
	for _, f := range l.command.Flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func (l *line) unknown(typed string) error {
	name := strings.TrimLeft(typed, "-")
	var known []string
	for _, f := range l.command.Flags {
		known = append(known, f.Names()...)
	}
	if slices.Contains(laterFlags, name) {
		return fmt.Errorf("%s is not there yet", typed)
	}
	if others := l.elsewhere(name); len(others) > 0 {
		hint := ""
		usage := strings.Trim(l.command.ArgsUsage, "[]")
		switch {
		case name == "id" && l.command.Name == "explain", (name == "source" || name == "sink") && usage == "RELAY":
			hint = fmt.Sprintf("; without it: %s %s", l.command.Name, usage)
		case (name == "source" || name == "sink") && l.find("config") != nil:
			hint = ": relays come from a config here (-c FILE)"
		}
		last := len(others) - 1
		if last > 0 {
			others = []string{strings.Join(others[:last], ", "), others[last]}
		}
		return fmt.Errorf("%s is a flag of %s, not of %s%s", typed, strings.Join(others, " and "), l.command.Name, hint)
	}
	if near := config.Nearest(name, known); near != "" {
		return fmt.Errorf("%s: unknown flag; did you mean --%s?", typed, near)
	}
	return fmt.Errorf("%s: unknown flag; %s --help lists them", typed, l.command.Name)
}

// elsewhere names the commands that have a flag which this one has not.
func (l *line) elsewhere(name string) []string {
	var names []string
	for _, c := range l.app.Commands {
		for _, f := range c.Flags {
			if slices.Contains(f.Names(), name) {
				names = append(names, c.Name)
				break
			}
		}
	}
	return names
}

func (l *line) argument(arg string) error {
	usage := l.command.ArgsUsage
	if usage != "" && arg == "" { // an unset variable of a shell, mostly
		return fmt.Errorf("%s: %s is empty", l.command.Name, strings.Trim(usage, "[]"))
	}
	if usage != "" && (len(l.arguments) == 0 || strings.Contains(usage, "…")) {
		l.arguments, l.last = append(l.arguments, arg), nil
		return nil
	}
	if l.last == nil {
		if usage != "" {
			return fmt.Errorf("unexpected argument %s: %s takes one %s", arg, l.command.Name, strings.Trim(usage, "[]"))
		}
		if l.command.Name == "show" {
			return fmt.Errorf("unexpected argument %s: show takes none; for a file: show -c %s", arg, arg)
		}
		if sink := l.find("sink"); sink != nil && l.find("source") == nil {
			return fmt.Errorf("unexpected argument %s: %s takes none; for a sink: %s --sink %s", arg, l.command.Name, l.command.Name, arg)
		}
		return fmt.Errorf("unexpected argument %s: %s takes none", arg, l.command.Name)
	}
	name := "--" + l.last.Names()[0]
	switch l.last.(type) {
	case *cli.BoolFlag:
		return fmt.Errorf("unexpected argument %s: %s takes no value", arg, name)
	case *cli.StringSliceFlag:
		return fmt.Errorf("unexpected argument %s: %s takes one %s, repeat it", arg, name, placeholder(l.last))
	default:
		return fmt.Errorf("unexpected argument %s: %s takes one %s", arg, name, placeholder(l.last))
	}
}

var backquoted = regexp.MustCompile("`([^`]+)`")

// placeholder is what stands for a flag's value in its usage.
func placeholder(f cli.Flag) string {
	if d, ok := f.(cli.DocGenerationFlag); ok {
		if m := backquoted.FindStringSubmatch(d.GetUsage()); m != nil {
			return m[1]
		}
	}
	return "value"
}
