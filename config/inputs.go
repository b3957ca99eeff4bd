package config

import (
	"strconv"
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

// Bool is the value of a switch; false if it was not given.
func (in Inputs) Bool(flag string) (bool, error) {
	g, ok := in.Given(flag)
	if !ok {
		return false, nil
	}
	b, err := strconv.ParseBool(g.Last())
	if err != nil {
		return false, in.wrong(g, "say true or false")
	}
	return b, nil
}

// Int is the value of a flag that takes a whole number ≥ 0, or otherwise if it was not given.
func (in Inputs) Int(flag string, otherwise int) (int, error) {
	g, ok := in.Given(flag)
	if !ok {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(g.Last(), 10, 32)
	if err != nil || n < 0 {
		return 0, in.wrong(g, "not a whole number")
	}
	return int(n), nil
}

// Duration is the value of a flag that takes a duration, or otherwise if it was not given.
func (in Inputs) Duration(flag string, otherwise time.Duration) (time.Duration, error) {
	g, ok := in.Given(flag)
	if !ok {
		return otherwise, nil
	}
	d, err := ParseDuration(g.Last())
	if err != nil {
		return 0, in.wrong(g, err.Error())
	}
	return d, nil
}

func (in Inputs) wrong(g Given, text string) error {
	return Problems{{Path: g.Name, Value: show(g.Last()), Text: text, flag: true}}
}

func (g Given) at() at { return at{path: g.Name, flag: true} }
