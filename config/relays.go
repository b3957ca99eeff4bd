package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"rebroadcastr/event"
	"rebroadcastr/policy"
	"rebroadcastr/relay"
	"rebroadcastr/relay/url"
)

// entry is one source or sink as the file or a flag names it.
type entry struct {
	url          string
	name         string
	only, except []event.Filter
	history      *History   // nil: the stream's
	reconcile    *Reconcile // nil: the stream's for a source, off for a sink
	start        Start
	send         []string
	disabled     bool
	at           at
}

// url reads a relay's address.
func (l *loader) url(text string, a at) (string, bool) {
	if nip19Prefix(text) == "" {
		normal, err := url.Normalize(text)
		if err == nil {
			return normal, true
		}
		l.wrong(a, text, "%s", err)
		if errors.Is(err, url.ErrKey) {
			l.problems = l.problems[:len(l.problems)-1]
			l.privateKey(a)
		}
		return "", false
	}
	switch prefix := nip19Prefix(text); prefixes[prefix] {
	case "person":
		key := "authors"
		if a.flag {
			key = "--author"
		}
		l.wrong(a, "", "%s. Did you mean %s?", url.ErrPerson, key)
	default:
		l.wrong(a, "", "that is %s, not a relay", article(prefixes[prefix]))
	}
	l.problems[len(l.problems)-1].Value = brief(bare(text))
	return "", false
}

// relays reads the list of sources, whose entries may have a history, or of sinks, with start and send.
func (l *loader) relays(n *yaml.Node, a at, sinks bool) (out []entry) {
	l.list(n, a, func(n *yaml.Node, a at) {
		e := entry{at: a}
		if n.Kind != yaml.MappingNode {
			if text, ok := l.scalar(n, a); ok {
				if e.url, ok = l.url(text, a); ok {
					out = l.addEntry(out, e)
				}
			}
			return
		}
		keys := map[string]read{
			"url": func(n *yaml.Node, a at) {
				e.at = a
				if text, ok := l.scalar(n, a); ok {
					e.url, _ = l.url(text, a)
				}
			},
			"name":       func(n *yaml.Node, a at) { e.name, _ = l.scalar(n, a) },
			"only":       func(n *yaml.Node, a at) { e.only = l.filters(n, a) },
			"except":     func(n *yaml.Node, a at) { e.except = l.filters(n, a) },
			"enabled":    func(n *yaml.Node, a at) { on := true; l.boolean(&on, n, a); e.disabled = !on },
			"reconcile":  func(n *yaml.Node, a at) { r := l.reconcile(n, a); e.reconcile = &r },
			"group":      l.never,
			"relays_of":  l.never,
			"policy_in":  l.later(""),
			"policy_out": l.later(""),
		}
		if sinks {
			keys["start"] = func(n *yaml.Node, a at) { e.start = l.start(n, a) }
			keys["send"] = func(n *yaml.Node, a at) { e.send = l.send(n, a) }
			delete(keys, "policy_in")
			delete(keys, "relays_of")
		} else {
			keys["history"] = func(n *yaml.Node, a at) { h := l.history(n, a); e.history = &h }
			delete(keys, "policy_out")
		}
		before := len(l.problems)
		l.mapping(n, a, keys)
		if e.url == "" {
			if len(l.problems) == before {
				l.problem(a, "url is missing")
			}
			return
		}
		out = l.addEntry(out, e)
	})
	return out
}

// addEntry refuses a relay that is named twice: which filters and which start would count?
func (l *loader) addEntry(list []entry, e entry) []entry {
	for _, other := range list {
		if other.url == e.url {
			l.wrong(e.at, e.url, "named twice")
			return list
		}
	}
	return append(list, e)
}

// relayFlags reads --source or --sink.
func (l *loader) relayFlags(flag string) (out []entry, given bool) {
	g, given := l.given(flag)
	if !given {
		return nil, false
	}
	for _, text := range g.Values {
		if u, ok := l.url(text, g.at()); ok {
			out = l.addEntry(out, entry{url: u, at: g.at()})
		}
	}
	return out, true
}

func (l *loader) history(n *yaml.Node, a at) (h History) {
	text, ok := l.scalar(n, a)
	switch {
	case !ok || text == "all":
	case text == "none":
		h.None = true
	default:
		h.Since = l.when(text, a, "all, none, 90d or a date")
	}
	return h
}

// reconcileMonth is how far back a relay is compared with the archive where only the interval is said, and after how long in full.
const reconcileMonth = 30 * 24 * time.Hour

func (l *loader) reconcile(n *yaml.Node, a at) (r Reconcile) {
	if n.Kind == yaml.MappingNode {
		r = Reconcile{24 * time.Hour, reconcileMonth, reconcileMonth}
		l.mapping(n, a, map[string]read{
			"every": l.duration(&r.Every, time.Hour), "depth": l.duration(&r.Depth, time.Hour), "full": l.duration(&r.Full, time.Hour),
		})
		return r
	}
	text, ok := l.scalar(n, a)
	if !ok || text == "off" {
		return r
	}
	every, err := ParseDuration(text)
	if err != nil {
		l.wrong(a, text, "say off, 24h or {every: 24h, depth: 30d, full: 30d}")
		return r
	}
	if between(l, a, text, every, time.Hour, longest, formatDuration) {
		r = Reconcile{every, reconcileMonth, reconcileMonth}
	}
	return r
}

func (l *loader) start(n *yaml.Node, a at) (s Start) {
	text, ok := l.scalar(n, a)
	switch {
	case !ok || text == "all":
	case text == "now":
		s.Now = true
	default:
		s.Since = l.when(text, a, "all, now, 90d or a date")
	}
	return s
}

func (l *loader) when(text string, a at, forms string) int64 {
	unix, err := l.in.time(text, false)
	if errors.Is(err, errTime) {
		err = errors.New("say " + forms)
	}
	if err != nil {
		l.wrong(a, text, "%s", err)
	}
	return unix
}

func (l *loader) send(n *yaml.Node, a at) (rows []string) {
	l.list(n, a, func(n *yaml.Node, a at) {
		text, ok := l.scalar(n, a)
		if !ok {
			return
		}
		if slices.Contains(policy.Names(), text) {
			rows = add(rows, text)
			return
		}
		for _, row := range policy.Table() {
			if row.Name == text {
				l.wrong(a, text, "never sent (NIP-%s: %s)", row.NIP, row.Reason)
				return
			}
		}
		l.wrong(a, text, "not a row of what is kept back; there are %s", strings.Join(policy.Names(), ", "))
	})
	return rows
}

// relaySettings reads relay_settings. default is read first, wherever it stands: the others are made from it.
func (l *loader) relaySettings(n *yaml.Node, a at) {
	type named struct {
		url  string
		node *yaml.Node
		at   at
	}
	var urls []named
	l.entries(n, a, func(key string, n *yaml.Node, a at) {
		switch {
		case key == "default":
			l.settings(&l.c.Default, n, a, false)
		case !strings.ContainsAny(key, ".:") && key != "localhost":
			if near := Nearest(key, []string{"default"}); near != "" {
				l.problem(a, "unknown key; did you mean %q?", near)
				return
			}
			l.problem(a, "neither default nor a URL; groups are not there yet")
		default:
			u, ok := l.url(key, at{file: a.file, line: a.line, path: "relay_settings"})
			if !ok {
				return
			}
			for _, other := range urls {
				if other.url == u {
					l.problem(a, "the same relay stands on line %d", other.at.line)
					return
				}
			}
			urls = append(urls, named{u, n, a})
		}
	})
	for _, x := range urls {
		s := l.c.Default
		l.settings(&s, x.node, x.at, true)
		if l.c.Relays == nil {
			l.c.Relays = make(map[string]relay.Settings)
		}
		l.c.Relays[x.url] = s
	}
}

// maxMessage in bytes: more would not fit into what may be in flight.
const maxMessage = 16 << 20

// settings reads one relay's settings over s.
func (l *loader) settings(s *relay.Settings, n *yaml.Node, a at, url bool) {
	l.mapping(n, a, map[string]read{
		"backoff": func(n *yaml.Node, a at) {
			b := &s.Backoff
			l.mapping(n, a, map[string]read{
				"initial":     l.duration(&b.Initial, 1),
				"max":         l.duration(&b.Max, 1),
				"multiplier":  l.number(&b.Multiplier, 1, 100),
				"max_retries": l.integer(&b.MaxRetries, -1, 1_000_000),
			})
			if b.Max < b.Initial {
				l.problem(a, "max %s is less than initial %s", formatDuration(b.Max), formatDuration(b.Initial))
			}
		},
		"tls": func(n *yaml.Node, a at) {
			l.mapping(n, a, map[string]read{
				"ca_file":     func(n *yaml.Node, a at) { s.TLS.CAFile = l.fileName(n, a, l.certificates) },
				"server_name": l.text(&s.TLS.ServerName),
				"insecure_skip_verify": func(n *yaml.Node, a at) {
					if l.boolean(&s.TLS.InsecureSkipVerify, n, a); s.TLS.InsecureSkipVerify && !url {
						l.problem(a, "only for a relay named by its URL")
					}
				},
			})
		},
		"proxy":         l.proxy(&s.Proxy),
		"onion_proxy":   l.proxy(&s.OnionProxy),
		"pace":          func(n *yaml.Node, a at) { l.pace(&s.Pace, n, a) },
		"subscriptions": func(n *yaml.Node, a at) { l.subscriptions(&s.Subscriptions, n, a) },
		"negentropy":    l.choice(map[string]func(){"auto": func() { s.Negentropy = true }, "off": func() { s.Negentropy = false }}),
		"ping": func(n *yaml.Node, a at) {
			l.mapping(n, a, map[string]read{"every": l.duration(&s.PingEvery, 1), "timeout": l.duration(&s.PingTimeout, 1)})
		},
		"timeouts": func(n *yaml.Node, a at) {
			l.mapping(n, a, map[string]read{"connect": l.duration(&s.Connect, 1), "ok": l.duration(&s.OK, 1)})
		},
		"window":    l.integer(&s.Window, 1, 10_000),
		"max_frame": l.size(&s.MaxFrame, 1<<10, maxMessage),
		"compression": l.choice(map[string]func(){
			"auto": func() { s.Compression = relay.DefaultSettings().Compression },
			"on":   func() { s.Compression = true }, "off": func() { s.Compression = false },
		}),
	})
}

func (l *loader) proxy(p *string) read {
	return func(n *yaml.Node, a at) {
		text, ok := l.scalar(n, a)
		if !ok {
			return
		}
		if text != "" {
			host, found := strings.CutPrefix(text, "socks5h://")
			if strings.Contains(host, "@") {
				l.problem(a, "a name or password in the address is not supported")
				return
			}
			if !found || !isHostPort(host) || strings.HasPrefix(host, ":") {
				l.wrong(a, text, "say socks5h://host:port")
				return
			}
		}
		*p = text
	}
}

// subscriptions reads how many may be open at once; 0 is auto.
func (l *loader) subscriptions(p *int, n *yaml.Node, a at) {
	if n.Kind == yaml.ScalarNode && n.Value == "auto" {
		*p = 0
		return
	}
	l.integer(p, 1, relay.MaxSubscriptions)(n, a)
}

// pace reads 10/s, 30/m or 100/h as requests a second; 0 is auto.
func (l *loader) pace(p *float64, n *yaml.Node, a at) {
	text, ok := l.scalar(n, a)
	if !ok {
		return
	}
	if text == "auto" {
		*p = 0
		return
	}
	number, unit, _ := strings.Cut(text, "/")
	rate, err := strconv.ParseUint(number, 10, 20)
	per := map[string]float64{"s": 1, "m": 60, "h": 3600}[unit]
	if err != nil || rate == 0 || per == 0 {
		l.wrong(a, text, "say auto, or how many requests in which time: 10/s, 30/m, 100/h")
		return
	}
	*p = float64(rate) / per
}

func formatPace(p float64) string {
	if p == 0 {
		return "auto"
	}
	for _, u := range []struct {
		name string
		per  float64
	}{{"s", 1}, {"m", 60}, {"h", 3600}} {
		if n := p * u.per; n >= 1 && n == float64(int64(n)) {
			return fmt.Sprintf("%d/%s", int64(n), u.name)
		}
	}
	return fmt.Sprintf("%d/h", int64(p*3600+0.5))
}
