package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// read is how one key's value is read.
type read func(n *yaml.Node, a at)

// tree reads the nodes of one file strictly and collects what is wrong.
type tree struct {
	file     string
	lookup   func(string) (string, bool) // for ${VAR}
	problems Problems
}

func (t *tree) problem(a at, format string, args ...any) {
	t.problems = append(t.problems, Problem{File: a.file, Line: a.line, Path: a.path, Text: fmt.Sprintf(format, args...), flag: a.flag})
}

// wrong is a problem of a value that the message repeats.
func (t *tree) wrong(a at, value, format string, args ...any) {
	t.problem(a, format, args...)
	t.problems[len(t.problems)-1].Value = show(value)
}

// privateKey is the problem of a private key at a.
func (t *tree) privateKey(a at) {
	t.problem(a, NoKeyNeeded)
	t.problems[len(t.problems)-1].key = true
}

var (
	yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	// yamlParser finds the errors of the library's parser. Unlike its scanner's they count lines from 0.
	yamlParser = regexp.MustCompile(`^did not find expected (node content|key|<document start>|'-' indicator|',' or '[]}]')`)
)

// parse makes the root mapping of the text, or nil if there is none.
func (t *tree) parse(text []byte) (root *yaml.Node) {
	a := at{file: t.file}
	for i, line := range bytes.Split(text, []byte("\n")) {
		if HoldsPrivateKey(string(line)) {
			t.privateKey(at{file: t.file, line: i + 1})
		}
	}
	if len(t.problems) > 0 {
		return nil // no parser sees it: some repeat the line that they stumble over
	}
	if !utf8.Valid(text) {
		t.problem(a, "not UTF-8 text")
		return nil
	}
	defer func() {
		if r := recover(); r != nil { // a defect of the YAML library must not end a daemon that reloads
			t.problem(a, "not YAML")
			root = nil
		}
	}()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err == nil {
		if err = decoder.Decode(&second); err == nil {
			a.line = second.Line
			t.problem(a, "a second document; there is one in a config file")
		} else if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		text := err.Error()
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			a.line, _ = strconv.Atoi(m[1]) // no line: 0
			text = text[len(m[0]):]
			if yamlParser.MatchString(text) {
				a.line++
			}
		}
		if strings.HasPrefix(text, "unknown anchor") {
			text = "an unknown anchor" // the library's message repeats it
		}
		t.problem(a, "not YAML: %s", text)
		return nil
	}
	if len(document.Content) == 0 {
		return nil
	}
	root = document.Content[0]
	if blank(root) {
		return nil
	}
	return root
}

// blank reports whether nothing is written: a file of comments.
func blank(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" && n.Value == "" }

// sound reports whether n is something that the strict subset of YAML knows.
func (t *tree) sound(n *yaml.Node, a at) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		t.problem(a, "anchors and aliases are not known here: write the value out")
	case n.Style&yaml.TaggedStyle != 0 && n.Tag != "!!str":
		t.problem(a, "tags such as !!int are not known here")
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		t.problem(a, "null: give it a value, or leave the key out")
	default:
		return true
	}
	return false
}

// mapping reads a mapping whose keys are those of fields.
func (t *tree) mapping(n *yaml.Node, a at, fields map[string]read) {
	t.entries(n, a, func(key string, value *yaml.Node, in at) {
		if f, ok := fields[key]; ok {
			in.line = value.Line
			f(value, in)
			return
		}
		text := "unknown key"
		if near := Nearest(key, slices.Collect(maps.Keys(fields))); near != "" {
			text += fmt.Sprintf("; did you mean %q?", near)
		}
		t.problem(in, "%s", text)
	})
}

// entries calls each for every entry of a mapping, with the key's place.
func (t *tree) entries(n *yaml.Node, a at, each func(key string, value *yaml.Node, in at)) {
	if !t.sound(n, a) {
		return
	}
	if n.Kind != yaml.MappingNode {
		t.problem(a, "must be a mapping of keys to values, not a %s", kindName(n))
		return
	}
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		in := at{file: a.file, line: k.Line, path: a.path}
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" || k.Anchor != "" {
			t.problem(in, "a key must be plain text")
			continue
		}
		if HoldsPrivateKey(k.Value) {
			t.privateKey(in)
			continue
		}
		in = in.key(showKey(k.Value))
		if SecretName(k.Value) {
			t.problem(in, "is named like a secret (its value is not shown). Nothing here needs a private key: remove it")
			continue
		}
		if first, twice := lines[k.Value]; twice {
			t.problem(in, "stands twice, first on line %d", first)
			continue
		}
		lines[k.Value] = k.Line
		each(k.Value, value, in)
	}
}

// showKey is a key as a path shows it.
func showKey(key string) string {
	if key = show(key); strings.ContainsAny(key, ".:[") && !strings.HasPrefix(key, `"`) {
		return strconv.Quote(key)
	}
	return key
}

// list reads a list; one value stands for a list of one.
func (t *tree) list(n *yaml.Node, a at, each read) {
	if !t.sound(n, a) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		each(n, a)
		return
	}
	for i, item := range n.Content {
		in := a.item(i)
		in.line = item.Line
		each(item, in)
	}
}

// scalar reads one value as text, expanded: 007 stays 007.
func (t *tree) scalar(n *yaml.Node, a at) (string, bool) {
	if !t.sound(n, a) {
		return "", false
	}
	if n.Kind != yaml.ScalarNode {
		t.problem(a, "must be one value, not a %s", kindName(n))
		return "", false
	}
	text, err := t.expand(n.Value)
	if err != nil {
		t.problem(a, "%s", err)
		return "", false
	}
	if HoldsPrivateKey(text) {
		t.privateKey(a)
		return "", false
	}
	return text, true
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "mapping"
	case yaml.SequenceNode:
		return "list"
	default:
		return "single value"
	}
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// expand replaces ${VAR} and ${VAR:-x}. As in a shell, x also stands for a variable that is empty.
func (t *tree) expand(text string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		inner, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", errors.New("${ without }")
		}
		name, otherwise, hasDefault := strings.Cut(inner, ":-")
		switch {
		case !variable.MatchString(name):
			return "", fmt.Errorf("%s: not a variable's name; say ${VAR} or ${VAR:-x}", show("${"+inner+"}"))
		case strings.Contains(otherwise, "${"):
			return "", fmt.Errorf("%s: a default holds no other variable", show("${"+name+"}"))
		}
		value, ok := t.lookup(name)
		if hasDefault && value == "" {
			value, ok = otherwise, true
		}
		if !ok {
			return "", fmt.Errorf("the variable %s is not set; ${%s:-x} gives a default", show(name), show(name))
		}
		b.WriteString(value)
		text = after
	}
}
