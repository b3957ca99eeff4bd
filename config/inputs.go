package config

import (
	"strings"
	"time"
)

// Inputs is all that a Config is made from besides the file's text.
type Inputs struct {
	Command string                      // "run", "backfill", "export", …: decides what must be there
	File    string                      // the config file; empty: --config, else REBROADCASTR_CONFIG, else none
	Flags   map[string][]string         // flags given on the command line, by long name without dashes; "true"/"false" for switches
	Env     func(string) (string, bool) // os.LookupEnv; nil: an empty environment
	Now     time.Time                   // relative times are counted from here
	// Resolved keeps what relative times came to, by their text, from one Load of a process to the next: 90d must not
	// mean another day with each reload. nil: nothing is kept.
	Resolved map[string]int64
}

// lists are the flags that may be repeated. Their variables are split at white space.
var lists = map[string]bool{"author": true, "kind": true, "tag": true, "id": true, "source": true, "sink": true, "relay": true}

// Given is a flag's value and how the user said it.
type Given struct {
	Name   string // "--author" or "REBROADCASTR_AUTHOR", for messages
	Values []string
}

// Last is the value of a flag that takes one.
func (g Given) Last() string { return g.Values[len(g.Values)-1] }

// Given looks a flag up on the command line, then in the environment. An empty variable counts as not set, except for
// REBROADCASTR_LISTEN, where empty means off.
func (in Inputs) Given(flag string) (Given, bool) {
	if values := in.Flags[flag]; len(values) > 0 {
		return Given{"--" + flag, values}, true
	}
	name := "REBROADCASTR_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
	text, ok := in.lookup(name)
	if !ok || text == "" && flag != "listen" {
		return Given{}, false
	}
	if !lists[flag] {
		return Given{name, []string{text}}, true
	}
	values := strings.Fields(text)
	return Given{name, values}, len(values) > 0
}

// time reads a time. A relative one means what it meant in the Load before.
func (in Inputs) time(text string, end bool) (int64, error) {
	unix, relative, err := parseTime(text, in.Now, end)
	if err != nil || !relative || in.Resolved == nil {
		return unix, err
	}
	if was, known := in.Resolved[text]; known {
		return was, nil
	}
	in.Resolved[text] = unix
	return unix, nil
}

func (in Inputs) lookup(name string) (string, bool) {
	if in.Env == nil {
		return "", false
	}
	return in.Env(name)
}

// String is the value of a flag, or otherwise if it was not given.
func (in Inputs) String(flag, otherwise string) string {
	if g, ok := in.Given(flag); ok {
		return g.Last()
	}
	return otherwise
}

func (g Given) at() at { return at{path: g.Name, flag: true} }
