package cli

import (
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"rebroadcastr/config"
)

// testApp has commands of every shape, with our flags. got receives what config would be given.
func testApp(env map[string]string, got *config.Inputs, other *map[string]any) *cli.App {
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	action := func(c *cli.Context) error {
		*got = inputs(c, lookup, time.Unix(0, 0))
		*other = map[string]any{"args": c.Args().Slice(), "again": c.Bool("again"), "limit": c.Int("limit"), "json": c.Bool("json"), "output": c.String("output")}
		if c.Command.Name == "backfill" {
			(*other)["give-up"] = giveUp(c)
		}
		return nil
	}
	output := []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`"}}
	return &cli.App{
		Name: "rebroadcastr", Writer: io.Discard, ErrWriter: io.Discard, HideVersion: true, DisableSliceFlagSeparator: true,
		ExitErrHandler: func(*cli.Context, error) {},
		Commands: []*cli.Command{
			{Name: "run", Flags: flags(commonFlags(), selectionFlags(), relayFlags(), runFlags()), Action: action},
			{Name: "backfill", Flags: flags(commonFlags(), selectionFlags(), relayFlags(), backfillFlags()), Action: action},
			{Name: "export", Flags: flags(commonFlags(), selectionFlags(), output), Action: action},
			{Name: "import", ArgsUsage: "FILE|DIR|-…", Flags: flags(commonFlags(), selectionFlags()), Action: action},
			{Name: "status", ArgsUsage: "[RELAY]", Flags: flags(commonFlags()), Action: action},
			{Name: "config", Subcommands: []*cli.Command{
				{Name: "check", ArgsUsage: "[FILE]", Flags: flags(commonFlags()), Action: action},
				{Name: "show", Flags: flags(commonFlags(), selectionFlags(), relayFlags()), Action: action},
			}},
			{Name: "later", SkipFlagParsing: true, Action: action},
		},
	}
}

// TestArguments: what a command line means, through the real parser.
func TestArguments(t *testing.T) {
	none := []string{}
	for _, c := range []struct {
		line    string // fields; _ stands for an empty one
		command string
		flags   map[string][]string
		other   map[string]any
	}{
		{"run --source a --source=b,c --author x --mentions --kind 1 --kind 2 --tag t=a,b --tag t=c --since -30d --all=false", "run", map[string][]string{
			"source": {"a", "b,c"}, "author": {"x"}, "mentions": {"true"}, "kind": {"1", "2"}, "tag": {"t=a,b", "t=c"}, "since": {"-30d"}, "all": {"false"}}, nil},
		{"run -c f.yaml --listen _ -archive dir", "run", map[string][]string{"config": {"f.yaml"}, "listen": {""}, "archive": {"dir"}}, nil},
		{"backfill --all --again --limit 5 --give-up 2d --json", "backfill", map[string][]string{"all": {"true"}},
			map[string]any{"again": true, "limit": 5, "give-up": 48 * time.Hour, "json": true}},
		{"backfill --all", "backfill", map[string][]string{"all": {"true"}}, map[string]any{"limit": 0, "give-up": defaultGiveUp}},
		{"export -o - --id=x", "export", map[string][]string{"id": {"x"}}, map[string]any{"output": "-", "args": none}},
		{"import a - b --author x --archive d", "import", map[string][]string{"author": {"x"}, "archive": {"d"}}, map[string]any{"args": []string{"a", "-", "b"}}},
		{"import --archive d -- --odd -c", "import", map[string][]string{"archive": {"d"}}, map[string]any{"args": []string{"--odd", "-c"}}},
		{"status relay.damus.io --json", "status", map[string][]string{}, map[string]any{"args": []string{"relay.damus.io"}, "json": true}},
		{"config check f.yaml --log-level debug", "check", map[string][]string{"log-level": {"debug"}}, map[string]any{"args": []string{"f.yaml"}}},
		{"config show -c f.yaml", "show", map[string][]string{"config": {"f.yaml"}}, nil},
		{"later --any thing", "later", map[string][]string{}, map[string]any{"args": []string{"--any", "thing"}}},
	} {
		t.Run(c.line, func(t *testing.T) {
			var got config.Inputs
			var other map[string]any
			app := testApp(nil, &got, &other)
			args, err := arrange(app, split(c.line))
			if err != nil {
				t.Fatal(err)
			}
			if err := app.Run(args); err != nil {
				t.Fatal(err)
			}
			if got.Command != c.command || !reflect.DeepEqual(got.Flags, c.flags) {
				t.Errorf("%s with %v, want %s with %v", got.Command, got.Flags, c.command, c.flags)
			}
			for name, want := range c.other {
				if !reflect.DeepEqual(other[name], want) {
					t.Errorf("%s is %#v, want %#v", name, other[name], want)
				}
			}
			if c.command == "check" && got.File != "f.yaml" {
				t.Errorf("the file is %q", got.File)
			}
		})
	}
}

func split(line string) []string {
	args := append([]string{"rebroadcastr"}, strings.Fields(line)...)
	for i, a := range args {
		if a == "_" {
			args[i] = ""
		}
	}
	return args
}

// TestWrongArguments: what urfave/cli would have ignored or misread, and mistypings.
func TestWrongArguments(t *testing.T) {
	for line, want := range map[string]string{
		"run --source a b":                "unexpected argument b: --source takes one URL, repeat it",
		"run --author a b --all":          "unexpected argument b: --author takes one NPUB, repeat it",
		"run --archive a b":               "unexpected argument b: --archive takes one DIR",
		"run --all true":                  "unexpected argument true: --all takes no value",
		"run b":                           "unexpected argument b: run takes none",
		"export -":                        "unexpected argument -: export takes none",
		"status a b":                      "unexpected argument b: status takes one RELAY",
		"config check a b":                "unexpected argument b: check takes one FILE",
		"backfill --author --all":         "--author needs a value, and --all is a flag (if it is the value: --author=--all)",
		"backfill --source -c f":          "--source needs a value, and -c is a flag (if it is the value: --source=-c)",
		"run --all --source":              "--source needs a value: --source URL",
		"run --archive _":                 "--archive needs a value, not an empty one",
		"run --source= --all":             "--source needs a value, not an empty one",
		"run --archive a --archive b":     "--archive is given twice",
		"run -c a --config b":             "--config is given twice",
		"run --all --all":                 "--all is given twice",
		"run --all=maybe":                 "--all=maybe: say --all or --all=false",
		"backfill --limit many":           "--limit many: not a whole number, 0 or more",
		"backfill --limit -5":             "--limit -5: not a whole number, 0 or more",
		"backfill --give-up x":            "--give-up x: not a duration; say 90s, 10m, 12h, 30d or 2w",
		"run --al":                        "--al: unknown flag; did you mean --all?",
		"run --authors x":                 "--authors: unknown flag; did you mean --author?",
		"run --sinks=x":                   "--sinks: unknown flag; did you mean --sink?",
		"run --no_progress":               "--no_progress: unknown flag; did you mean --no-progress?",
		"run --whatever":                  "--whatever: unknown flag; run --help lists them",
		"export --follow":                 "--follow is not there yet",
		"export --listen x":               "--listen is a flag of run, not of export",
		"import --sink x a":               "--sink is a flag of run and backfill, not of import: relays come from a config here (-c FILE)",
		"--version":                       "--version: it is a command: rebroadcastr version",
		"config show f.yaml":              "unexpected argument f.yaml: show takes none; for a file: show -c f.yaml",
		"--archive a run":                 "--archive: flags stand behind the command: rebroadcastr COMMAND --archive …",
		"config -c f check":               "-c: flags stand behind the command: rebroadcastr config COMMAND -c …",
		"bakfill":                         "bakfill: unknown command; did you mean backfill?",
		"mirror":                          "mirror: unknown command; --help lists them",
		"config shwo":                     "shwo: unknown command; did you mean show?",
		"import a --limit 5 b":            "--limit is a flag of backfill, not of import",
		"export --kind 1 --author x --id": "--id needs a value: --id ID",
	} {
		_, err := arrange(testApp(nil, nil, nil), split(line))
		if err == nil || err.Error() != want {
			t.Errorf("%s\n  says  %v\n  want  %s", line, err, want)
		}
	}
}

// TestHelp reaches the library.
func TestHelp(t *testing.T) {
	for line, want := range map[string]string{
		"": "", "--help": "--help", "-h": "-h", "help": "help", "help run": "help run", "run -h": "run --help", "config": "config", "config --help": "config --help",
	} {
		got, err := arrange(testApp(nil, nil, nil), split(line))
		if err != nil || !slices.Equal(got, split(want)) {
			t.Errorf("%s becomes %q, %v; want %q", line, got, err, want)
		}
	}
}

// TestVariables: what config reads stays its own; the other flags get their variables from the library.
func TestVariables(t *testing.T) {
	t.Setenv("REBROADCASTR_AGAIN", "true")
	t.Setenv("REBROADCASTR_LIMIT", "7")
	t.Setenv("REBROADCASTR_GIVE_UP", "1d")
	t.Setenv("REBROADCASTR_SOURCE", "a,b c")
	var got config.Inputs
	var other map[string]any
	app := testApp(map[string]string{"REBROADCASTR_SOURCE": "a,b c"}, &got, &other)
	args, err := arrange(app, split("backfill --all --limit 8"))
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Run(args); err != nil {
		t.Fatal(err)
	}
	if other["again"] != true || other["limit"] != 8 || other["give-up"] != 24*time.Hour {
		t.Errorf("again %v, limit %v, give-up %v; want true, 8, 24h", other["again"], other["limit"], other["give-up"])
	}
	if g, ok := got.Given("source"); !ok || g.Name != "REBROADCASTR_SOURCE" || !slices.Equal(g.Values, []string{"a,b", "c"}) {
		t.Errorf("source is %+v, want the variable's two values", g)
	}
}
