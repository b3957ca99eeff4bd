package config

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nbd-wtf/go-nostr/nip19"
	"go.yaml.in/yaml/v3"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

// YAML is the effective configuration as a config file: every key that is there, flags and variables worked in,
// addresses normalised, relative times resolved. Loading it again gives the same Config. Files are named, never quoted.
func (c *Config) YAML() ([]byte, error) {
	var b strings.Builder
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(c.keys().block()); err != nil {
		return nil, fmt.Errorf("write config: %w", err)
	}
	return []byte(Redact(b.String())), nil
}

// keys are the keys of the effective configuration.
func (c *Config) keys() *object {
	top := new(object)
	c.addSelection(top)
	top.add("history", str(formatHistory(c.History)))
	top.add("reconcile", reconcileNode(c.Reconcile))
	var sources, sinks []*yaml.Node
	for _, s := range c.Sources {
		o := new(object).add("url", str(s.URL)).addText("name", s.Name).addFilters("only", s.Only).addFilters("except", s.Except)
		o.add("history", str(formatHistory(s.History)))
		o.add("reconcile", reconcileNode(s.Reconcile))
		sources = append(sources, o.addEnabled(s.Enabled).flow())
	}
	for _, s := range c.Sinks {
		o := new(object).add("url", str(s.URL)).addText("name", s.Name).addFilters("only", s.Only).addFilters("except", s.Except)
		o.add("start", str(formatStart(s.Start)))
		if len(s.Send) > 0 {
			o.add("send", flowList(texts(s.Send)))
		}
		o.add("reconcile", reconcileNode(s.Reconcile))
		sinks = append(sinks, o.addEnabled(s.Enabled).flow())
	}
	top.add("sources", blockList(sources)).add("sinks", blockList(sinks))

	settings := new(object).add("default", settingsNode(c.Default))
	for _, u := range slices.Sorted(maps.Keys(c.Relays)) {
		settings.add(u, settingsNode(c.Relays[u]))
	}
	top.add("relay_settings", settings.block())

	sync, free := "always", "auto"
	if c.Archive.Sync > 0 {
		sync = formatDuration(c.Archive.Sync)
	}
	if c.Archive.MinFree > 0 {
		free = formatSize(c.Archive.MinFree)
	}
	top.add("archive", new(object).add("dir", quoted(c.Archive.Dir)).add("sync", str(sync)).add("segment", str(formatSize(c.Archive.Segment))).
		add("min_free", str(free)).add("mode", quoted(formatMode(c.Archive.Mode))).block())
	top.add("dedup", new(object).add("lru", literal(c.Dedup.LRU)).add("badger_memory", str(formatSize(c.Dedup.Memory))).flow())
	top.add("listen", new(object).add("addr", quoted(c.Listen.Addr)).add("token_file", quoted(c.Listen.TokenFile)).add("pprof", literal(c.Listen.PProf)).flow())
	top.add("control", new(object).add("path", quoted(c.Control.Path)).add("mode", quoted(formatMode(c.Control.Mode))).flow())
	top.add("log", new(object).add("level", str(c.Log.Level)).add("format", str(c.Log.Format)).flow())
	top.add("shutdown_grace", str(formatDuration(c.Grace)))
	top.add("watch", literal(c.Watch))
	return top
}

// addSelection writes Want in the long form: what mentions and profile stood for is worked out in it.
func (c *Config) addSelection(top *object) {
	long := c.Want
	if c.All && len(long) == 1 && len(long[0].Kinds) > 0 && !names(long[0]) && long[0].Since == 0 && long[0].Until == 0 {
		var kinds []*yaml.Node
		for _, k := range long[0].Kinds {
			kinds = append(kinds, literal(k))
		}
		top.add("all", literal(true)).add("kinds", flowList(kinds))
		long = nil
	} else {
		top.add("all", literal(c.All))
	}
	var some []event.Filter
	for _, f := range long {
		if names(f) || len(f.Kinds) > 0 || f.Since > 0 || f.Until > 0 { // the others say no more than all does
			some = append(some, f)
		}
	}
	top.addFilters("filters", some)
	top.addFilters("except", c.Except)
}

// object is a mapping with its keys in the order in which they were added.
type object struct{ content []*yaml.Node }

func (o *object) add(key string, value *yaml.Node) *object {
	o.content = append(o.content, str(key), value)
	return o
}

func (o *object) addText(key, value string) *object {
	if value == "" {
		return o
	}
	return o.add(key, quoted(value))
}

func (o *object) addEnabled(enabled bool) *object {
	if enabled {
		return o
	}
	return o.add("enabled", literal(false))
}

func (o *object) addFilters(key string, filters []event.Filter) *object {
	if len(filters) == 0 {
		return o
	}
	nodes := make([]*yaml.Node, len(filters))
	for i, f := range filters {
		nodes[i] = filterNode(f)
	}
	return o.add(key, blockList(nodes))
}

func (o *object) block() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode, Content: o.content} }

func (o *object) flow() *yaml.Node {
	n := o.block()
	n.Style = yaml.FlowStyle
	return n
}

func filterNode(f event.Filter) *yaml.Node {
	o := new(object)
	var ids, authors, kinds []*yaml.Node
	for _, id := range f.IDs {
		ids = append(ids, quoted(id.String()))
	}
	for _, key := range f.Authors {
		authors = append(authors, str(npub(key)))
	}
	for _, k := range f.Kinds {
		kinds = append(kinds, literal(k))
	}
	addList := func(key string, list []*yaml.Node) {
		if len(list) > 0 {
			o.add(key, flowList(list))
		}
	}
	addList("ids", ids)
	addList("authors", authors)
	addList("kinds", kinds)
	if len(f.Tags) > 0 {
		tags := new(object)
		for _, name := range slices.Sorted(maps.Keys(f.Tags)) {
			tags.add(name, flowList(texts(f.Tags[name])))
		}
		o.add("tags", tags.flow())
	}
	if f.Since > 0 {
		o.add("since", quoted(formatTime(f.Since)))
	}
	if f.Until > 0 {
		o.add("until", quoted(formatTime(f.Until)))
	}
	return o.flow()
}

// npub shows a key as people know it.
func npub(key event.PubKey) string {
	text, err := nip19.EncodePublicKey(key.String())
	if err != nil { // only for what is not hex
		return key.String()
	}
	return text
}

func settingsNode(s relay.Settings) *yaml.Node {
	o := new(object)
	o.add("backoff", new(object).add("initial", span(s.Backoff.Initial)).add("max", span(s.Backoff.Max)).
		add("multiplier", literal(formatFloat(s.Backoff.Multiplier))).add("max_retries", literal(s.Backoff.MaxRetries)).flow())
	o.add("tls", new(object).add("ca_file", quoted(s.TLS.CAFile)).add("server_name", quoted(s.TLS.ServerName)).
		add("insecure_skip_verify", literal(s.TLS.InsecureSkipVerify)).flow())
	o.add("proxy", quoted(s.Proxy)).add("onion_proxy", quoted(s.OnionProxy))
	o.add("pace", str(formatPace(s.Pace)))
	if s.Subscriptions > 0 {
		o.add("subscriptions", literal(s.Subscriptions))
	} else {
		o.add("subscriptions", str("auto"))
	}
	o.add("negentropy", str(word(s.Negentropy, "auto", "off")))
	o.add("ping", new(object).add("every", span(s.PingEvery)).add("timeout", span(s.PingTimeout)).flow())
	o.add("timeouts", new(object).add("connect", span(s.Connect)).add("ok", span(s.OK)).flow())
	o.add("window", literal(s.Window))
	o.add("max_frame", str(formatSize(s.MaxFrame)))
	o.add("compression", str(word(s.Compression, "on", "auto")))
	return o.block()
}

func span(d time.Duration) *yaml.Node { return str(formatDuration(d)) }

func word(b bool, yes, no string) string {
	if b {
		return yes
	}
	return no
}

func formatHistory(h History) string {
	switch {
	case h.None:
		return "none"
	case h.Since > 0:
		return formatTime(h.Since)
	default:
		return "all"
	}
}

func reconcileNode(r Reconcile) *yaml.Node {
	if r.Every <= 0 {
		return str("off")
	}
	return new(object).add("every", span(r.Every)).add("depth", span(r.Depth)).add("full", span(r.Full)).flow()
}

func formatReconcile(r Reconcile) string {
	if r.Every <= 0 {
		return "off"
	}
	return fmt.Sprintf("every %s back %s, in full every %s", formatDuration(r.Every), formatDuration(r.Depth), formatDuration(r.Full))
}

func formatStart(s Start) string {
	switch {
	case s.Now:
		return "now"
	case s.Since > 0:
		return formatTime(s.Since)
	default:
		return "all"
	}
}

func formatMode(m fs.FileMode) string { return fmt.Sprintf("%04o", uint32(m.Perm())) }

func str(text string) *yaml.Node {
	n := new(yaml.Node)
	n.SetString(text)
	return n
}

// quoted is for text that could be taken for something else, or be empty.
func quoted(text string) *yaml.Node {
	n := str(text)
	n.Style = yaml.DoubleQuotedStyle
	return n
}

func literal(v any) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: fmt.Sprint(v)} }

func texts(list []string) []*yaml.Node {
	nodes := make([]*yaml.Node, len(list))
	for i, text := range list {
		nodes[i] = quoted(text)
	}
	return nodes
}

func flowList(items []*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle, Content: items}
}

func blockList(items []*yaml.Node) *yaml.Node {
	n := &yaml.Node{Kind: yaml.SequenceNode, Content: items}
	if len(items) == 0 {
		n.Style = yaml.FlowStyle
	}
	return n
}
