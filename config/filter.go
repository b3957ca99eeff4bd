package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"rebroadcastr/event"
)

// filters reads a list of long-form filters. An empty filter is refused: in only it narrows nothing, in except it
// takes everything away.
func (l *loader) filters(n *yaml.Node, a at) (out []event.Filter) {
	l.list(n, a, func(n *yaml.Node, a at) {
		before := len(l.problems)
		f := l.filter(n, a)
		if len(l.problems) > before {
			return
		}
		if f.Since == 0 && f.Until == 0 && !names(f) && len(f.Kinds) == 0 {
			l.problem(a, "an empty filter takes everything; name ids, authors, kinds, tags, since or until")
			return
		}
		out = append(out, f)
	})
	return out
}

func (l *loader) filter(n *yaml.Node, a at) (f event.Filter) {
	// An empty list in a filter means "any" to a relay, hardly ever to the one who wrote it.
	filled := func(each read) read {
		return func(n *yaml.Node, a at) {
			if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
				l.problem(a, "an empty list; leave the key out for any")
				return
			}
			l.list(n, a, each)
		}
	}
	l.mapping(n, a, map[string]read{
		"ids": filled(func(n *yaml.Node, a at) {
			if text, ok := l.scalar(n, a); ok {
				if id, ok := l.id(text, a); ok {
					f.IDs = add(f.IDs, id)
				}
			}
		}),
		"authors": filled(func(n *yaml.Node, a at) { l.authorInto(&f.Authors, n, a) }),
		"kinds":   filled(func(n *yaml.Node, a at) { l.kindInto(&f.Kinds, n, a) }),
		"tags": func(n *yaml.Node, a at) {
			l.entries(n, a, func(key string, n *yaml.Node, a at) {
				name, ok := l.tagName(key, a)
				if !ok {
					return
				}
				filled(func(n *yaml.Node, a at) {
					if value, ok := l.scalar(n, a); ok {
						l.tagInto(&f, name, value, a)
					}
				})(n, a)
			})
		},
		"since": func(n *yaml.Node, a at) { f.Since = l.absolute(n, a, false) },
		"until": func(n *yaml.Node, a at) { f.Until = l.absolute(n, a, true) },
	})
	l.ordered(f, a)
	return f
}

// absolute reads a time that means the same tomorrow: what belongs to a stream must not change with the clock.
func (l *loader) absolute(n *yaml.Node, a at, end bool) int64 {
	text, ok := l.scalar(n, a)
	if !ok {
		return 0
	}
	unix, relative, err := parseTime(text, l.in.Now, end)
	switch {
	case err != nil:
		l.wrong(a, text, "%s", err)
	case relative:
		l.wrong(a, text, "a filter takes absolute dates only; that is %s today", time.Unix(unix, 0).UTC().Format(time.DateOnly))
	case end && unix == 0:
		l.wrong(a, text, "takes nothing")
	default:
		return unix
	}
	return 0
}

func (l *loader) ordered(f event.Filter, a at) {
	if f.Since > 0 && f.Until > 0 && f.Since > f.Until {
		l.problem(a, "since %s is after until %s", formatTime(f.Since), formatTime(f.Until))
	}
}

func (l *loader) authorInto(authors *[]event.PubKey, n *yaml.Node, a at) {
	if text, ok := l.scalar(n, a); ok {
		if key, ok := l.author(text, a, &l.notes); ok {
			*authors = add(*authors, key)
		}
	}
}

func (l *loader) kindInto(kinds *[]int, n *yaml.Node, a at) {
	if text, ok := l.scalar(n, a); ok {
		l.kind(kinds, text, a)
	}
}

func (l *loader) kind(kinds *[]int, text string, a at) {
	k, err := strconv.ParseUint(text, 10, 32)
	if err != nil || k > event.MaxKind {
		l.wrong(a, text, "not a kind; kinds are 0 to %d", event.MaxKind)
		return
	}
	*kinds = add(*kinds, int(k))
}

// tagName reads a tag's name; the # of NIP-01 may stand before it.
func (l *loader) tagName(name string, a at) (string, bool) {
	name = strings.TrimPrefix(name, "#")
	if len(name) != 1 || !('a' <= name[0] && name[0] <= 'z' || 'A' <= name[0] && name[0] <= 'Z') {
		l.problem(a, "relays filter by tags of one letter only, such as t, p, e or d")
		return "", false
	}
	return name, true
}

// tagInto adds a tag's value. Keys and ids may be said as npub or note; on the wire they are hex.
func (l *loader) tagInto(f *event.Filter, name, value string, a at) {
	switch {
	case name == "p" || name == "P":
		key, ok := l.author(value, a, &l.notes)
		if !ok {
			return
		}
		value = key.String()
	case name == "e" || name == "E" || name == "q" && nip19Prefix(value) != "":
		id, ok := l.id(value, a)
		if !ok {
			return
		}
		value = id.String()
	}
	if f.Tags == nil {
		f.Tags = make(map[string][]string)
	}
	f.Tags[name] = add(f.Tags[name], value)
}

// add appends v unless it is there.
func add[T comparable](list []T, v T) []T {
	if slices.Contains(list, v) {
		return list
	}
	return append(list, v)
}

// names reports whether f names authors, tags or ids: it does not take everyone's events.
func names(f event.Filter) bool { return len(f.Authors) > 0 || len(f.Tags) > 0 || len(f.IDs) > 0 }

// selection is the short form: the keys at the top of the file, or the flags.
type selection struct {
	event.Filter
	mentions bool
	profile  bool
	all      bool
	long     []event.Filter
	except   []event.Filter
	places   map[string]at
}

// profileKinds say who someone is and where: metadata, follows, relay list.
var profileKinds = []int{0, 3, 10002}

// want is the selection as filters.
func (s selection) want() (out []event.Filter) {
	short := s.Filter
	if len(s.long) == 0 || names(short) || len(short.Kinds) > 0 {
		f := short
		if s.profile && len(f.Kinds) > 0 && len(f.Authors) > 0 {
			f.Kinds = slices.Clone(f.Kinds)
			for _, k := range profileKinds {
				f.Kinds = add(f.Kinds, k)
			}
		}
		out = append(out, f)
	}
	if s.mentions && len(short.Authors) > 0 {
		f := short
		f.Authors, f.Tags = nil, maps.Clone(short.Tags)
		if f.Tags == nil {
			f.Tags = make(map[string][]string)
		}
		f.Tags["p"] = nil
		for _, key := range short.Authors {
			f.Tags["p"] = append(f.Tags["p"], key.String())
		}
		out = append(out, f)
	}
	return append(out, s.long...)
}

// asked is the selection in words.
func (s selection) asked(h History) string {
	var who []string
	if n := len(s.Authors); n > 0 {
		text := count(n, "author")
		if s.mentions {
			text += " and mentions"
		}
		who = append(who, text)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Tags)) {
		if values := s.Tags[name]; len(values) == 1 {
			who = append(who, "tag "+name+"="+show(values[0]))
		} else {
			who = append(who, fmt.Sprintf("tag %s with %d values", name, len(values)))
		}
	}
	if n := len(s.IDs); n > 0 {
		who = append(who, count(n, "id"))
	}
	if s.all {
		who = append(who, "everyone")
	}
	if n := len(s.Kinds); n > 0 && n <= 8 {
		who = append(who, strings.TrimSuffix(count(n, "kind")[len(strconv.Itoa(n))+1:], " ")+" "+numbers(s.Kinds))
	} else if n > 8 {
		who = append(who, count(n, "kind"))
	}
	if n := len(s.long); n > 0 {
		who = append(who, count(n, "filter"))
	}
	if len(who) == 0 {
		who = append(who, "everything")
	}
	since := max(s.Since, h.Since)
	switch {
	case h.None:
		who = append(who, "from now on")
	case since > 0 && s.Until > 0:
		who = append(who, "from "+formatTime(since)+" to "+formatTime(s.Until))
	case since > 0:
		who = append(who, "since "+formatTime(since))
	case s.Until > 0:
		who = append(who, "until "+formatTime(s.Until))
	default:
		who = append(who, "all time")
	}
	return strings.Join(who, ", ")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func numbers[T cmp.Ordered](list []T) string { return strings.Trim(fmt.Sprint(list), "[]") }

func formatTime(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }

// selectionKeys are the short form's keys in the file.
func (l *loader) selectionKeys(s *selection) map[string]read {
	s.profile = true
	keys := map[string]read{
		"authors": func(n *yaml.Node, a at) {
			l.list(n, a, func(n *yaml.Node, a at) { l.authorInto(&s.Authors, n, a) })
		},
		"kinds": func(n *yaml.Node, a at) {
			l.list(n, a, func(n *yaml.Node, a at) { l.kindInto(&s.Kinds, n, a) })
		},
		"filters":  func(n *yaml.Node, a at) { s.long = l.filters(n, a) },
		"mentions": func(n *yaml.Node, a at) { l.boolean(&s.mentions, n, a) },
		"profile":  func(n *yaml.Node, a at) { l.boolean(&s.profile, n, a) },
		"all":      func(n *yaml.Node, a at) { l.boolean(&s.all, n, a) },
		"except":   func(n *yaml.Node, a at) { s.except = l.filters(n, a) },
	}
	s.places = make(map[string]at)
	for name, f := range keys {
		keys[name] = func(n *yaml.Node, a at) {
			s.places[name] = a
			f(n, a)
		}
	}
	return keys
}

// selectionFlags reads the selection of flags and variables. given is false if there is none: the file's counts.
func (l *loader) selectionFlags() (s selection, given bool) {
	each := func(flag string, f func(value string, a at)) {
		if g, ok := l.given(flag); ok {
			given = true
			for _, value := range g.Values {
				f(value, g.at())
			}
		}
	}
	toggle := func(flag string, b *bool) {
		each(flag, func(value string, a at) {
			v, err := strconv.ParseBool(value)
			if err != nil {
				l.wrong(a, value, "say true or false")
				return
			}
			*b = v
		})
	}
	each("author", func(value string, a at) {
		if key, ok := l.author(value, a, &l.notes); ok {
			s.Authors = add(s.Authors, key)
		}
	})
	each("kind", func(value string, a at) { l.kind(&s.Kinds, value, a) })
	each("tag", func(value string, a at) {
		name, v, ok := strings.Cut(value, "=")
		if !ok || v == "" {
			l.wrong(a, value, "say a name and a value: --tag t=nostr")
			return
		}
		if name, ok := l.tagName(name, a); ok {
			l.tagInto(&s.Filter, name, v, a)
		}
	})
	each("id", func(value string, a at) {
		if id, ok := l.id(value, a); ok {
			s.IDs = add(s.IDs, id)
		}
	})
	each("since", func(value string, a at) { s.Since = l.timeFlag(value, a, false) })
	each("until", func(value string, a at) { s.Until = l.timeFlag(value, a, true) })
	toggle("mentions", &s.mentions)
	toggle("all", &s.all)
	l.ordered(s.Filter, at{path: "--since and --until", flag: true})
	return s, given
}

func (l *loader) timeFlag(text string, a at, end bool) int64 {
	unix, err := l.in.time(text, end)
	if err != nil {
		l.wrong(a, text, "%s", err)
	} else if end && unix == 0 {
		l.wrong(a, text, "takes nothing")
	}
	return unix
}
