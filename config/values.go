package config

import (
	"cmp"
	"io/fs"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

func (l *loader) boolean(b *bool, n *yaml.Node, a at) {
	text, ok := l.scalar(n, a)
	switch {
	case !ok:
	case text == "true" || text == "false":
		*b = text == "true"
	default:
		l.wrong(a, text, "say true or false")
	}
}

func (l *loader) text(s *string) read {
	return func(n *yaml.Node, a at) {
		if text, ok := l.scalar(n, a); ok {
			*s = text
		}
	}
}

// choice reads one of a few words and calls what it stands for.
func (l *loader) choice(words map[string]func()) read {
	return func(n *yaml.Node, a at) {
		text, ok := l.scalar(n, a)
		if !ok {
			return
		}
		if f, known := words[text]; known {
			f()
			return
		}
		l.wrong(a, text, "say one of %s", strings.Join(slices.Sorted(maps.Keys(words)), ", "))
	}
}

// auto reads the word auto, or what otherwise reads.
func (l *loader) auto(otherwise read, auto func()) read {
	return func(n *yaml.Node, a at) {
		if n.Kind == yaml.ScalarNode && n.Value == "auto" {
			auto()
			return
		}
		otherwise(n, a)
	}
}

func (l *loader) integer(p *int, least, most int) read {
	return func(n *yaml.Node, a at) {
		text, ok := l.scalar(n, a)
		if !ok {
			return
		}
		v, err := strconv.Atoi(text)
		if err != nil || strconv.Itoa(v) != text {
			l.wrong(a, text, "not a whole number")
			return
		}
		if between(l, a, text, v, least, most, strconv.Itoa) {
			*p = v
		}
	}
}

func (l *loader) number(p *float64, least, most float64) read {
	return func(n *yaml.Node, a at) {
		text, ok := l.scalar(n, a)
		if !ok {
			return
		}
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || v != v || strings.ContainsAny(text, "xX_") {
			l.wrong(a, text, "not a number")
			return
		}
		if between(l, a, text, v, least, most, formatFloat) {
			*p = v
		}
	}
}

func formatFloat(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// longest is the longest duration of a setting.
const longest = 365 * day

func (l *loader) duration(p *time.Duration, least time.Duration) read {
	return func(n *yaml.Node, a at) {
		text, ok := l.scalar(n, a)
		if !ok {
			return
		}
		v, err := ParseDuration(text)
		if err != nil {
			l.wrong(a, text, "%s", err)
			return
		}
		if between(l, a, text, v, least, longest, formatDuration) {
			*p = v
		}
	}
}

func (l *loader) size(p *int64, least, most int64) read {
	return func(n *yaml.Node, a at) {
		text, ok := l.scalar(n, a)
		if !ok {
			return
		}
		v, err := ParseSize(text)
		if err != nil {
			l.wrong(a, text, "%s", err)
			return
		}
		if between(l, a, text, v, least, most, formatSize) {
			*p = v
		}
	}
}

// between reports whether v is within its bounds, and says so if it is not.
func between[T cmp.Ordered](l *loader, a at, text string, v, least, most T, format func(T) string) bool {
	if v < least || v > most {
		l.wrong(a, text, "must be %s to %s", format(least), format(most))
		return false
	}
	return true
}

// mode reads permissions in octal, as chmod takes them.
func (l *loader) mode(p *fs.FileMode) read {
	return func(n *yaml.Node, a at) {
		text, ok := l.scalar(n, a)
		if !ok {
			return
		}
		v, err := strconv.ParseUint(text, 8, 32)
		if err != nil || v > 0o777 || len(text) < 3 || len(text) > 4 {
			l.wrong(a, text, `say permissions in octal, such as "0640"`)
			return
		}
		if v&0o600 != 0o600 {
			l.wrong(a, text, "the owner must be able to read and write")
			return
		}
		*p = fs.FileMode(v)
	}
}

func isHostPort(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && strconv.FormatUint(n, 10) == port
}

// never reads a key that is not there yet.
func (l *loader) never(_ *yaml.Node, a at) { l.problem(a, "not there yet") }

// later reads a key that is not there yet and accepts its default, written in YAML. A mapping may leave keys out.
func (l *loader) later(standard string) read {
	return func(n *yaml.Node, a at) {
		var document yaml.Node
		if standard == "" || yaml.Unmarshal([]byte(standard), &document) != nil {
			l.never(n, a)
			return
		}
		before := len(l.problems)
		if !l.standard(n, document.Content[0], a) && len(l.problems) == before {
			l.problem(a, "not there yet: only its default %s is accepted", standard)
		}
	}
}

// standard reports whether n says the same as the default d.
func (l *loader) standard(n, d *yaml.Node, a at) bool {
	if !l.sound(n, a) {
		return false
	}
	if n.Kind != d.Kind {
		return false
	}
	same := true
	switch n.Kind {
	case yaml.ScalarNode:
		text, ok := l.scalar(n, a)
		return ok && text == d.Value
	case yaml.SequenceNode:
		if len(n.Content) != len(d.Content) {
			return false
		}
		for i := range n.Content {
			same = l.standard(n.Content[i], d.Content[i], a.item(i)) && same
		}
	case yaml.MappingNode:
		fields := make(map[string]read)
		for i := 0; i+1 < len(d.Content); i += 2 {
			fields[d.Content[i].Value] = func(n *yaml.Node, a at) { same = l.standard(n, d.Content[i+1], a) && same }
		}
		if len(fields) == 0 {
			return len(n.Content) == 0
		}
		l.mapping(n, a, fields)
	}
	return same
}
