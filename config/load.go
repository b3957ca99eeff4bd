package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

// rule is what a command asks of its configuration.
type rule struct {
	sources, sinks bool // needs at least one
	relayFlags     bool // takes --source and --sink
	selectionFlags bool // takes --author and so on
	mustName       bool // needs authors, tags or ids, or all
	fileSelection  bool // takes the file's selection when there are no flags
	listens        bool
	files          bool // uses the files that the config file names
}

var rules = map[string]rule{
	"run":      {sources: true, relayFlags: true, selectionFlags: true, mustName: true, fileSelection: true, listens: true, files: true},
	"backfill": {sources: true, relayFlags: true, selectionFlags: true, mustName: true, fileSelection: true, files: true},
	"deliver":  {sinks: true, relayFlags: true, selectionFlags: true, mustName: true, fileSelection: true, files: true},
	"audit":    {selectionFlags: true, files: true},
	"export":   {selectionFlags: true},
	"import":   {selectionFlags: true, fileSelection: true, files: true},
	"check":    {sources: true, relayFlags: true, selectionFlags: true, mustName: true, fileSelection: true, listens: true, files: true},
	"explain":  {fileSelection: true, files: true},
	"show":     {relayFlags: true, selectionFlags: true, fileSelection: true, listens: true},
}

// loader is one Load.
type loader struct {
	tree
	in    Inputs
	rule  rule
	c     *Config
	notes []string
}

// Defaults is the configuration without file, flags or environment; nothing is selected in it.
func Defaults() *Config {
	return &Config{
		Default: relay.DefaultSettings(),
		Archive: Archive{Sync: time.Second, Segment: 256 << 20, Mode: 0o640},
		Dedup:   Dedup{LRU: 100_000, Memory: 64 << 20},
		Listen:  Listen{Addr: "127.0.0.1:9797"},
		Control: Control{Mode: 0o600},
		Log:     Log{Level: "info", Format: "auto"},
		Grace:   10 * time.Second,
	}
}

// Dir finds the archive of a config that may have mistakes elsewhere: who asks a running daemon needs no more of it.
func Dir(in Inputs) (string, error) {
	if dir := in.String("archive", ""); dir != "" && !HoldsPrivateKey(dir) {
		return dir, nil
	}
	in.Command = "dir"
	if in.File == "" {
		in.File = in.String("config", "")
	}
	var text []byte
	if in.File != "" {
		var err error
		if text, err = readFile(in.File, maxFile); err != nil {
			return "", Problems{{File: show(in.File), Text: cause(err)}}
		}
	}
	l := newLoader(in)
	root := l.parse(text)
	if len(l.problems) > 0 {
		return "", l.problems // what is not YAML, or holds a key, may name any directory
	}
	if root != nil {
		var sel selection
		var sources, sinks []entry
		l.mapping(root, at{file: l.tree.file, line: root.Line}, l.fields(&sel, &sources, &sinks))
	}
	before := len(l.problems)
	if l.archive(); len(l.problems) > before {
		return "", l.problems
	}
	return l.c.Archive.Dir, nil
}

// Load reads the file, flags and variables. Its error is of type Problems.
func Load(in Inputs) (*Config, error) {
	if in.File == "" {
		in.File = in.String("config", "")
	}
	var text []byte
	if in.File != "" {
		var err error
		if text, err = readFile(in.File, maxFile); err != nil {
			return nil, Problems{{File: show(in.File), Text: cause(err)}}
		}
	}
	return load(in, text)
}

func load(in Inputs, text []byte) (*Config, error) {
	l := newLoader(in)

	var sel selection
	var sources, sinks []entry
	fields := l.fields(&sel, &sources, &sinks)
	if root := l.parse(text); root != nil {
		l.mapping(root, at{file: l.tree.file, line: root.Line}, fields)
	}
	l.flags()
	if l.rule.relayFlags {
		if list, given := l.relayFlags("source"); given {
			sources = list
		}
		if list, given := l.relayFlags("sink"); given {
			sinks = list
		}
	}
	l.choose(sources, sinks)
	l.selectEvents(sel)
	l.unusedSettings()
	l.c.Notes = l.notes
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	return l.c, nil
}

func newLoader(in Inputs) *loader {
	l := &loader{in: in, rule: rules[in.Command], c: Defaults()}
	l.tree.file, l.tree.lookup = show(in.File), in.lookup
	l.c.File = in.File
	return l
}

// fields are the file's keys.
func (l *loader) fields(sel *selection, sources, sinks *[]entry) map[string]read {
	c := l.c
	fields := map[string]read{
		"history":        func(n *yaml.Node, a at) { c.History = l.history(n, a) },
		"reconcile":      func(n *yaml.Node, a at) { c.Reconcile = l.reconcile(n, a) },
		"sources":        func(n *yaml.Node, a at) { *sources = l.relays(n, a, false) },
		"sinks":          func(n *yaml.Node, a at) { *sinks = l.relays(n, a, true) },
		"relay_settings": l.relaySettings,
		"shutdown_grace": l.duration(&c.Grace, 0),
		"archive": func(n *yaml.Node, a at) {
			l.mapping(n, a, map[string]read{
				"dir":  func(n *yaml.Node, a at) { c.Archive.Dir, _ = l.path(n, a) },
				"sync": l.sync,
				// The lower bound only keeps tests with small segments possible; a place holds 8 bytes of offset.
				"segment":   l.size(&c.Archive.Segment, 1<<10, 16<<30),
				"min_free":  l.auto(l.size(&c.Archive.MinFree, 1, 1<<50), func() { c.Archive.MinFree = 0 }),
				"mode":      l.mode(&c.Archive.Mode),
				"frame":     l.later("128KiB"),
				"level":     l.later("3"),
				"keep":      l.later("{age: 0, size: 0}"),
				"sightings": l.later("first"),
				"vanish":    l.later("seal"),
			})
		},
		"dedup": func(n *yaml.Node, a at) {
			l.mapping(n, a, map[string]read{
				"lru":           l.integer(&c.Dedup.LRU, 1, 100_000_000),
				"badger_memory": l.size(&c.Dedup.Memory, 8<<20, 64<<30),
			})
		},
		"listen": func(n *yaml.Node, a at) {
			l.mapping(n, a, map[string]read{
				"addr": func(n *yaml.Node, a at) {
					standard := c.Listen.Addr
					if text, ok := l.scalar(n, a); ok {
						l.listen(text, a)
						// The example file holds the default: who keeps it has not named an address.
						c.Listen.Named = c.Listen.Named && text != standard
					}
				},
				"token_file": func(n *yaml.Node, a at) { c.Listen.TokenFile = l.fileName(n, a, nil) },
				"pprof":      func(n *yaml.Node, a at) { l.boolean(&c.Listen.PProf, n, a) },
			})
		},
		"control": func(n *yaml.Node, a at) {
			l.mapping(n, a, map[string]read{
				"path": func(n *yaml.Node, a at) { c.Control.Path, _ = l.path(n, a) },
				"mode": l.mode(&c.Control.Mode),
			})
		},
		"log": func(n *yaml.Node, a at) {
			l.mapping(n, a, map[string]read{
				"level":  func(n *yaml.Node, a at) { l.word(&c.Log.Level, levels, n, a) },
				"format": func(n *yaml.Node, a at) { l.word(&c.Log.Format, formats, n, a) },
			})
		},

		"include":    l.later("[]"),
		"lists":      l.later("{}"),
		"groups":     l.later("{}"),
		"streams":    l.later("{}"),
		"both":       l.later("[]"),
		"policy_in":  l.later("{command: [], window: 64, timeout: 10s}"),
		"policy_out": l.later("{command: [], window: 64, timeout: 10s}"),
		"discover":   l.later("{indexers: [wss://purplepag.es, wss://user.kindpag.es, wss://profiles.nostr1.com], refresh: 6h, exclude: []}"),
		"alert":      l.later("{command: [], after: 10m, repeat: 24h}"),
		"watch":      func(n *yaml.Node, a at) { l.boolean(&c.Watch, n, a) },
	}
	maps.Copy(fields, l.selectionKeys(sel))
	return fields
}

var (
	levels  = []string{"debug", "info", "warn", "error"}
	formats = []string{"auto", "console", "json"}
)

func (l *loader) word(p *string, words []string, n *yaml.Node, a at) {
	if text, ok := l.scalar(n, a); ok {
		l.oneOf(p, words, text, a)
	}
}

func (l *loader) oneOf(p *string, words []string, text string, a at) {
	if !slices.Contains(words, text) {
		l.wrong(a, text, "say one of %s", strings.Join(words, ", "))
		return
	}
	*p = text
}

func (l *loader) sync(n *yaml.Node, a at) {
	if n.Kind == yaml.ScalarNode && n.Value == "always" {
		l.c.Archive.Sync = 0
		return
	}
	l.duration(&l.c.Archive.Sync, time.Millisecond)(n, a)
}

func (l *loader) listen(addr string, a at) {
	if addr != "" && !isHostPort(addr) {
		l.wrong(a, addr, `say host:port, or "" for off`)
		return
	}
	l.c.Listen.Addr, l.c.Listen.Named = addr, addr != ""
}

// given is a flag's value unless it holds a private key.
func (l *loader) given(flag string) (Given, bool) {
	g, ok := l.in.Given(flag)
	if ok && slices.ContainsFunc(g.Values, HoldsPrivateKey) {
		l.privateKey(g.at())
		return Given{}, false
	}
	return g, ok
}

// flags reads the flags that stand for one key of the file.
func (l *loader) flags() {
	c := l.c
	l.archive()
	if g, ok := l.given("listen"); ok && l.rule.listens {
		l.listen(g.Last(), g.at())
	}
	if !l.rule.listens {
		c.Listen.Addr, c.Listen.Named = "", false
	}
	if g, ok := l.given("watch"); ok {
		v, err := strconv.ParseBool(g.Last())
		if err != nil {
			l.wrong(g.at(), g.Last(), "say true or false")
		}
		c.Watch = v
	}
	if c.Watch && l.in.File == "" && l.rule.listens { // only a daemon watches
		l.problem(at{path: "--watch", flag: true}, "there is no config file to watch: name one with -c FILE")
	}
	if g, ok := l.given("log-level"); ok {
		l.oneOf(&c.Log.Level, levels, g.Last(), g.at())
	}
	if g, ok := l.given("log-format"); ok {
		l.oneOf(&c.Log.Format, formats, g.Last(), g.at())
	}
}

// archive decides where the archive is.
func (l *loader) archive() {
	if g, ok := l.given("archive"); ok {
		l.c.Archive.Dir = g.Last()
	}
	if l.c.Archive.Dir == "" {
		dir, ok := l.dataDir()
		if !ok && l.rule != (rule{}) {
			l.problem(at{flag: true}, "neither STATE_DIRECTORY nor XDG_DATA_HOME nor HOME is set: say --archive DIR")
		}
		l.c.Archive.Dir = dir
	}
}

// choose makes sources and sinks of what was named.
func (l *loader) choose(sources, sinks []entry) {
	for _, e := range sources {
		s := Source{URL: e.url, Name: e.name, Only: e.only, Except: e.except, History: l.c.History, Reconcile: l.c.Reconcile, Enabled: !e.disabled}
		if e.history != nil {
			s.History = *e.history
		}
		if e.reconcile != nil {
			s.Reconcile = *e.reconcile
		}
		l.c.Sources = append(l.c.Sources, s)
	}
	for _, e := range sinks {
		s := Sink{URL: e.url, Name: e.name, Only: e.only, Except: e.except, Start: e.start, Send: e.send, Enabled: !e.disabled}
		if e.reconcile != nil {
			s.Reconcile = *e.reconcile
		}
		l.c.Sinks = append(l.c.Sinks, s)
	}
	if len(l.problems) > 0 {
		return // what is wrong with a relay's address is not that there is none
	}
	if l.rule.sources && l.enabledSources() == 0 {
		l.needs(len(sources), "--source", "sources", "take events from")
	}
	if l.rule.sinks && !slices.ContainsFunc(l.c.Sinks, func(s Sink) bool { return s.Enabled }) {
		l.needs(len(sinks), "--sink", "sinks", "send events to")
	}
}

func (l *loader) needs(named int, flag, key, purpose string) {
	switch {
	case named > 0:
		l.problem(at{file: l.tree.file, path: key}, "none of them is enabled")
	case l.in.File != "":
		l.problem(at{file: l.tree.file, path: key}, "no relay to %s", purpose)
	default:
		l.problem(at{flag: true}, "no %s: there is no relay to %s", flag, purpose)
	}
}

func (l *loader) enabledSources() (n int) {
	for _, s := range l.c.Sources {
		if s.Enabled {
			n++
		}
	}
	return n
}

// selectEvents makes Want of the flags' selection, or of the file's.
func (l *loader) selectEvents(file selection) {
	l.contradictions(file)
	s, prefix := file, ""
	if !l.rule.fileSelection {
		s = selection{}
	}
	if l.rule.selectionFlags {
		if flags, given := l.selectionFlags(); given {
			s, prefix = flags, "--"
			l.contradictions(flags)
		}
	}
	if l.rule == (rule{}) {
		return
	}
	l.c.Except, l.c.All = s.except, s.all
	l.c.Want = s.want()
	l.c.Asked = s.asked(l.c.History)
	if !l.rule.mustName || len(l.problems) > 0 || s.all {
		return
	}
	if !slices.ContainsFunc(l.c.Want, func(f event.Filter) bool { return !names(f) }) {
		return
	}
	whose := "everyone"
	if n := l.enabledSources(); n > 0 && l.rule.sources {
		whose += " on " + count(n, "relay")
	}
	switch {
	case prefix != "" || l.in.File == "":
		l.problem(at{flag: true}, "no --author, --tag or --id: this would mirror %s. Say --all if that is meant", whose)
	case len(s.long) > 0:
		l.problem(s.places["filters"], "one names no authors, tags or ids: this would mirror %s. Say all: true if that is meant", whose)
	default:
		l.problem(at{file: l.tree.file}, "no authors, and no filters naming authors, tags or ids: this would mirror %s. Say all: true if that is meant", whose)
	}
}

// contradictions finds what cannot be meant together.
func (l *loader) contradictions(s selection) {
	place := func(name, flag string) at {
		if a, ok := s.places[name]; ok {
			return a
		}
		return at{path: flag, flag: true}
	}
	if s.all && len(s.Authors) > 0 {
		l.problem(place("all", "--all"), "means everyone, and authors are named: leave one of them out")
	}
	// A mistyped author is a problem of its own.
	if s.mentions && len(s.Authors) == 0 && len(l.problems) == 0 {
		l.problem(place("mentions", "--mentions"), "needs authors: whose mentions?")
	}
}

// unusedSettings notes settings of a relay that nobody uses: the URL may be mistyped.
func (l *loader) unusedSettings() {
	for _, u := range slices.Sorted(maps.Keys(l.c.Relays)) {
		used := slices.ContainsFunc(l.c.Sources, func(s Source) bool { return s.URL == u }) ||
			slices.ContainsFunc(l.c.Sinks, func(s Sink) bool { return s.URL == u })
		if !used {
			l.notes = append(l.notes, fmt.Sprintf("relay_settings names %s, which is neither source nor sink", u))
		}
	}
}
