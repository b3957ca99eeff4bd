package cli

import (
	"fmt"
	"strings"

	"rebroadcastr/config"
)

// prefix of the environment variables that stand for flags.
const prefix = "REBROADCASTR_"

// typed is added where a shell may have kept what was said.
const typed = " If it was typed in a shell it is in the history now."

// guard refuses private keys in arguments and in our environment variables. It stands before every parser, because
// those repeat what they do not understand. The config file and the files it names are searched by config.Load, which
// is the only one to open them, before it parses them.
func guard(args, environ []string) error {
	for i, arg := range args {
		if i == 0 {
			continue // the program's name
		}
		flag, _, _ := flagOf(arg)
		switch {
		case holdsKey(flag):
			return refused(fmt.Sprintf("argument %d", i), typed)
		case holdsKey(arg) && flag != "":
			return refused(flag, typed)
		case holdsKey(arg):
			before, _, joined := flagOf(args[i-1])
			if i == 1 || before == "" || before == "--" || joined {
				return refused(fmt.Sprintf("argument %d", i), typed)
			}
			return refused(before, typed)
		case config.SecretName(flag):
			return fmt.Errorf("%s: nothing here needs a private key or another secret (its value is not shown).%s", flag, typed)
		}
	}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if !strings.HasPrefix(strings.ToUpper(name), prefix) {
			continue
		}
		switch {
		case holdsKey(name):
			return refused("a "+prefix+"… variable's name", "")
		case holdsKey(value):
			return refused(name, "")
		case config.SecretName(name):
			return fmt.Errorf("%s: nothing here needs a private key or another secret (its value is not shown)", name)
		}
	}
	return nil
}

func refused(name, hint string) error { return fmt.Errorf("%s %s%s", name, config.NoKeyNeeded, hint) }

// holdsKey also finds a key of which hardly more than the beginning was said.
func holdsKey(text string) bool {
	start := strings.ToLower(strings.TrimSpace(text))
	start = strings.TrimPrefix(strings.TrimLeft(start, "-"), "nostr:")
	return config.HoldsPrivateKey(text) || strings.HasPrefix(start, "nsec1") || strings.HasPrefix(start, "ncryptsec1")
}

// flagOf takes --name=value apart; name keeps its dashes. It is empty for what is no flag.
func flagOf(arg string) (name, value string, joined bool) {
	if isArgument(arg) {
		return "", "", false
	}
	name, value, joined = strings.Cut(arg, "=")
	return name, value, joined
}

// isArgument reports whether arg is no flag: "-" stands for a stream, and -30d is a time.
func isArgument(arg string) bool {
	return len(arg) < 2 || arg[0] != '-' || '0' <= arg[1] && arg[1] <= '9'
}
