package event

// Matcher is a compiled Selection: lists as sets, tag values escaped as they stand in a canonical line, so that a
// match decodes nothing and allocates nothing. It is never changed; any number of goroutines may use it.
type Matcher struct {
	all    [][]compiled
	except []compiled
}

type compiled struct {
	ids          map[ID]struct{} // nil: all. The same for the others
	authors      map[PubKey]struct{}
	kinds        map[int]struct{}
	tags         []tagSet
	since, until int64
}

// tagSet asks for a tag called name whose first value is among values, both escaped.
type tagSet struct {
	name   string
	values map[string]struct{}
}

// Compile makes a Matcher that takes what s takes.
func (s Selection) Compile() *Matcher {
	m := &Matcher{except: compileAll(s.Except)}
	for _, list := range s.All {
		if len(list) > 0 {
			m.all = append(m.all, compileAll(list))
		}
	}
	return m
}

func compileAll(list []Filter) []compiled {
	out := make([]compiled, len(list))
	for i, f := range list {
		out[i] = f.compile()
	}
	return out
}

func (f Filter) compile() compiled {
	c := compiled{ids: set(f.IDs), authors: set(f.Authors), kinds: set(f.Kinds), since: f.Since, until: f.Until}
	for name, values := range f.Tags {
		if len(values) == 0 {
			continue
		}
		t := tagSet{name: string(appendEscaped(nil, name)), values: make(map[string]struct{}, len(values))}
		for _, v := range values {
			t.values[string(appendEscaped(nil, v))] = struct{}{}
		}
		c.tags = append(c.tags, t)
	}
	return c
}

func set[T comparable](list []T) map[T]struct{} {
	if len(list) == 0 {
		return nil
	}
	out := make(map[T]struct{}, len(list))
	for _, v := range list {
		out[v] = struct{}{}
	}
	return out
}

// Match reports whether the selection takes e. A nil Matcher takes everything.
func (m *Matcher) Match(e *Event) bool {
	if m == nil {
		return true
	}
	for _, list := range m.all {
		if !matchAny(list, e) {
			return false
		}
	}
	return !matchAny(m.except, e)
}

func matchAny(list []compiled, e *Event) bool {
	for i := range list {
		if list[i].match(e) {
			return true
		}
	}
	return false
}

func (c *compiled) match(e *Event) bool {
	if e.CreatedAt < c.since || c.until != 0 && e.CreatedAt > c.until {
		return false
	}
	if !takes(c.kinds, e.Kind) || !takes(c.authors, e.PubKey) || !takes(c.ids, e.ID) {
		return false
	}
	for i := range c.tags {
		if !c.tags[i].match(e) {
			return false
		}
	}
	return true
}

func takes[T comparable](set map[T]struct{}, v T) bool {
	if set == nil {
		return true
	}
	_, ok := set[v]
	return ok
}

func (t *tagSet) match(e *Event) bool {
	b := e.tags.bytes(e.Line)
	for i := 1; ; {
		name, value, next, ok := nextTag(b, i)
		if !ok {
			return false
		}
		if value != nil && string(name) == t.name {
			if _, ok := t.values[string(value)]; ok {
				return true
			}
		}
		i = next
	}
}
