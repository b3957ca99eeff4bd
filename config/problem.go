package config

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Problem is one mistake and where it stands.
type Problem struct {
	File  string // empty for flags and variables
	Line  int
	Path  string // sinks[1].url, --author or REBROADCASTR_AUTHOR
	Value string // what is wrong, shortened; may be empty
	Text  string

	flag     bool
	key      bool // a private key was found
	identity bool // a key or an id: the message puts the path first, for in a list of many the position counts
}

func (p Problem) String() string {
	var b strings.Builder
	switch {
	case p.key: // it reads as a sentence: "--author holds …", "rebroadcastr.yaml:7 holds …"
		var where []string
		if p.File != "" {
			where = append(where, p.File+":"+strconv.Itoa(p.Line))
		}
		if p.Path != "" {
			where = append(where, p.Path)
		}
		b.WriteString(strings.Join(where, ": ") + " ")
	case p.flag:
		b.WriteString(p.Path)
		if p.Value != "" {
			b.WriteString(" " + p.Value)
		}
		if p.Path != "" {
			b.WriteString(": ")
		}
	case p.identity && p.Line > 0:
		fmt.Fprintf(&b, "%s: %s, line %d: %s: ", p.File, p.Path, p.Line, p.Value)
	default:
		if p.File != "" {
			b.WriteString(p.File)
			if p.Line > 0 {
				b.WriteString(":" + strconv.Itoa(p.Line))
			}
			b.WriteString(": ")
		}
		if p.Path != "" {
			b.WriteString(p.Path + ": ")
		}
		if p.Value != "" {
			b.WriteString(p.Value + ": ")
		}
	}
	b.WriteString(p.Text)
	return Redact(b.String())
}

// Problems are all mistakes of one configuration, in the order in which they were found.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// at is where a value stands.
type at struct {
	file string
	line int
	path string
	flag bool
}

func (a at) key(name string) at {
	a.path = strings.TrimPrefix(a.path+"."+name, ".")
	return a
}

func (a at) item(i int) at {
	a.path += "[" + strconv.Itoa(i) + "]"
	return a
}

// shownRunes is how much of a value a message repeats.
const shownRunes = 60

// show prepares a value for a message: printable, short, and without anything that looks like a private key.
func show(value string) string {
	value = Redact(value)
	plain := value != ""
	for _, r := range value {
		if !unicode.IsPrint(r) || r == ' ' || r == '"' {
			plain = false
			break
		}
	}
	if r := []rune(value); len(r) > shownRunes {
		value = string(r[:shownRunes]) + "…"
	}
	if plain {
		return value
	}
	return strconv.Quote(value)
}

// brief shortens a key or an id to what lets a person find it again.
func brief(value string) string {
	value = Redact(value)
	const keep = 9
	if r := []rune(value); len(r) > keep+8 {
		value = string(r[:keep]) + "…"
	}
	return show(value)
}
