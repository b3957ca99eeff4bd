package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

// restart lists the keys, and what stands below them, that a running process cannot change.
var restart = []string{"archive.dir", "archive.segment", "archive.frame", "dedup", "control", "listen"}

// Succeed is the config that takes over from old in a running process: c, but for what needs a restart, which stays as it
// was. changes tell the difference for people, one line each: + comes, - goes, ~ changes, ! needs a restart.
func (c *Config) Succeed(old *Config) (next *Config, changes []string) {
	n := *c
	n.Archive.Dir, n.Archive.Segment, n.Dedup, n.Control, n.Listen = old.Archive.Dir, old.Archive.Segment, old.Dedup, old.Control, old.Listen
	if (c.Archive.Sync == 0) != (old.Archive.Sync == 0) {
		n.Archive.Sync = old.Archive.Sync
	}
	d := differ{old: old, now: c}
	d.selection()
	d.sources()
	d.sinks()
	d.relays()
	d.rest()
	return &n, d.lines
}

// differ lists what two configs differ in.
type differ struct {
	old, now *Config
	lines    []string
}

func (d *differ) say(format string, args ...any) {
	d.lines = append(d.lines, Redact(fmt.Sprintf(format, args...)))
}

func (d *differ) selection() {
	if text := filterChange(d.old.Want, d.now.Want); text != "" {
		d.say("~ filters: %s", text)
	}
	if text := filterChange(d.old.Except, d.now.Except); text != "" {
		d.say("~ except: %s", text)
	}
}

func (d *differ) sources() {
	key := func(s Source) (string, bool) { return s.URL, s.Enabled }
	pairs(d.old.Sources, d.now.Sources, key, func(old, now *Source) {
		switch {
		case old == nil:
			d.say("+ source %s", now.URL)
		case now == nil:
			d.say("- source %s", old.URL)
		default:
			texts := narrowChange(old.Only, now.Only, old.Except, now.Except)
			if old.History != now.History {
				texts = append(texts, "history "+formatHistory(old.History)+" → "+formatHistory(now.History))
			}
			if old.Reconcile != now.Reconcile {
				texts = append(texts, "reconcile "+formatReconcile(old.Reconcile)+" → "+formatReconcile(now.Reconcile))
			}
			d.role("source", now.URL, old.Name, now.Name, texts)
		}
	})
}

func (d *differ) sinks() {
	key := func(s Sink) (string, bool) { return s.URL, s.Enabled }
	pairs(d.old.Sinks, d.now.Sinks, key, func(old, now *Sink) {
		switch {
		case old == nil:
			d.say("+ sink %s", now.URL)
		case now == nil:
			d.say("- sink %s (its ledger is kept)", old.URL)
		default:
			texts := narrowChange(old.Only, now.Only, old.Except, now.Except)
			if !slices.Equal(sorted(old.Send), sorted(now.Send)) {
				texts = append(texts, "send ["+strings.Join(old.Send, " ")+"] → ["+strings.Join(now.Send, " ")+"]")
			}
			if old.Reconcile != now.Reconcile {
				texts = append(texts, "reconcile "+formatReconcile(old.Reconcile)+" → "+formatReconcile(now.Reconcile))
			}
			if old.Start != now.Start {
				texts = append(texts, "start "+formatStart(old.Start)+" → "+formatStart(now.Start)+", which counts for a sink that has no ledger")
			}
			d.role("sink", now.URL, old.Name, now.Name, texts)
		}
	})
}

func (d *differ) role(role, url, oldName, newName string, texts []string) {
	if oldName != newName {
		texts = append(texts, fmt.Sprintf("name %q → %q", oldName, newName))
	}
	for _, text := range texts {
		d.say("~ %s %s: %s", role, url, text)
	}
}

// relays compares the settings of default, and of each relay that has or had its own.
func (d *differ) relays() {
	compare := func(who string, old, now relay.Settings, redials bool) {
		text := keyChanges(settingsNode(old), settingsNode(now))
		if len(text) > 0 && redials {
			text = append(text, "connects anew")
		}
		if len(text) > 0 {
			d.say("~ %s: %s", who, strings.Join(text, ", "))
		}
	}
	uses := d.urls()
	redials := false
	for _, u := range uses {
		if _, own := d.now.Relays[u]; !own {
			redials = redials || relay.Redials(u, d.old.Relay(u), d.now.Relay(u))
		}
	}
	compare("relay_settings.default", d.old.Default, d.now.Default, redials)
	for _, u := range uses {
		_, had := d.old.Relays[u]
		_, has := d.now.Relays[u]
		if had || has {
			compare(u, d.old.Relay(u), d.now.Relay(u), relay.Redials(u, d.old.Relay(u), d.now.Relay(u)))
		}
	}
}

// urls are the relays that are in both configs.
func (d *differ) urls() []string {
	in := func(c *Config) map[string]bool {
		urls := make(map[string]bool)
		for _, s := range c.Sources {
			urls[s.URL] = urls[s.URL] || s.Enabled
		}
		for _, s := range c.Sinks {
			urls[s.URL] = urls[s.URL] || s.Enabled
		}
		return urls
	}
	old := in(d.old)
	var both []string
	for u, enabled := range in(d.now) {
		if enabled && old[u] {
			both = append(both, u)
		}
	}
	return sorted(both)
}

// rest compares what is left of the file's keys.
func (d *differ) rest() {
	apart := []string{"all", "kinds", "filters", "except", "history", "sources", "sinks", "relay_settings"}
	keep := func(c *Config) *yaml.Node {
		n := c.keys().block()
		var content []*yaml.Node
		for i := 0; i < len(n.Content); i += 2 {
			if !slices.Contains(apart, n.Content[i].Value) {
				content = append(content, n.Content[i], n.Content[i+1])
			}
		}
		n.Content = content
		return n
	}
	for _, text := range keyChanges(keep(d.old), keep(d.now)) {
		key, _, _ := strings.Cut(text, " ")
		needs := slices.ContainsFunc(restart, func(k string) bool { return key == k || strings.HasPrefix(key, k+".") })
		if key == "archive.sync" { // from or to always the log is written in another order
			needs = (d.old.Archive.Sync == 0) != (d.now.Archive.Sync == 0)
		}
		if needs {
			d.say("! %s: needs a restart", key)
		} else {
			d.say("~ %s", text)
		}
	}
}

// keyChanges lists the keys whose values differ, as "ping.every 30s → 1m".
func keyChanges(old, now *yaml.Node) (texts []string) {
	before, after := make(map[string]string), make(map[string]string)
	leaves("", old, before)
	leaves("", now, after)
	for _, key := range sorted(slices.Collect(maps.Keys(after))) {
		if before[key] != after[key] {
			texts = append(texts, key+" "+cmp.Or(before[key], `""`)+" → "+cmp.Or(after[key], `""`))
		}
	}
	return texts
}

func leaves(path string, n *yaml.Node, out map[string]string) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			leaves(strings.TrimPrefix(path+"."+n.Content[i].Value, "."), n.Content[i+1], out)
		}
	case yaml.SequenceNode:
		var values []string
		for _, v := range n.Content {
			values = append(values, v.Value)
		}
		out[path] = "[" + strings.Join(values, ", ") + "]"
	default:
		out[path] = n.Value
	}
}

// pairs calls f for each relay that either list has switched on; nil is "not there".
func pairs[T any](old, now []T, key func(T) (url string, enabled bool), f func(old, now *T)) {
	find := func(list []T, url string) *T {
		i := slices.IndexFunc(list, func(s T) bool { u, on := key(s); return on && u == url })
		if i < 0 {
			return nil
		}
		return &list[i]
	}
	for i := range now {
		if u, on := key(now[i]); on {
			f(find(old, u), &now[i])
		}
	}
	for i := range old {
		if u, on := key(old[i]); on && find(now, u) == nil {
			f(&old[i], nil)
		}
	}
}

func narrowChange(oldOnly, newOnly, oldExcept, newExcept []event.Filter) (texts []string) {
	if text := filterChange(oldOnly, newOnly); text != "" {
		texts = append(texts, "filters ("+text+")")
	}
	if text := filterChange(oldExcept, newExcept); text != "" {
		texts = append(texts, "except ("+text+")")
	}
	return texts
}

// filterChange says in words what two lists of filters differ in; empty: nothing.
func filterChange(old, now []event.Filter) string {
	lines := func(fs []event.Filter) (out []string) {
		for _, f := range fs {
			out = append(out, fmt.Sprintf("%x", f.Key()))
		}
		return sorted(out)
	}
	if slices.Equal(lines(old), lines(now)) {
		return ""
	}
	var texts []string
	names, before, after := named(old), named(old), named(now)
	maps.Copy(names, after)
	for _, noun := range sorted(slices.Collect(maps.Keys(names))) {
		for _, c := range []struct {
			a, b map[string]bool
			word string
		}{{after[noun], before[noun], "more"}, {before[noun], after[noun], "fewer"}} {
			n := 0
			for value := range c.a {
				if !c.b[value] {
					n++
				}
			}
			if n == 1 && c.word == "fewer" {
				c.word = "less"
			}
			if n > 0 {
				texts = append(texts, count(n, noun)+" "+c.word)
			}
		}
	}
	switch {
	case len(old) == 0:
		return "new, where nothing stood: " + cmp.Or(strings.Join(texts, ", "), count(len(now), "filter"))
	case len(now) == 0:
		return "none any more"
	}
	return cmp.Or(strings.Join(texts, ", "), "changed")
}

// named collects what filters name, by what it is.
func named(fs []event.Filter) map[string]map[string]bool {
	out := make(map[string]map[string]bool)
	add := func(noun, value string) {
		if out[noun] == nil {
			out[noun] = make(map[string]bool)
		}
		out[noun][value] = true
	}
	for _, f := range fs {
		for _, a := range f.Authors {
			add("author", a.String())
		}
		for _, id := range f.IDs {
			add("id", id.String())
		}
		for _, k := range f.Kinds {
			add("kind", fmt.Sprint(k))
		}
		for name, values := range f.Tags {
			for _, v := range values {
				add(map[bool]string{true: "mention", false: "tag value"}[name == "p"], name+"="+v)
			}
		}
	}
	return out
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }
