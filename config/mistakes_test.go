package config

import (
	"strings"
	"testing"
	"time"
)

// TestFlagMistakes: the answers to mistakes on the command line and in variables.
func TestFlagMistakes(t *testing.T) {
	three := []string{"a.example.com", "b.example.com", "c.example.com"}
	for _, c := range []struct {
		name, command string
		flags         flagMap
		env           envMap
		want          []string
	}{
		{"nothing selected", "run", flagMap{"source": three}, nil, []string{"no --author, --tag or --id: this would mirror everyone on 3 relays. Say --all if that is meant"}},
		{"kinds name nobody", "backfill", flagMap{"source": {"a.example.com"}, "kind": {"1"}}, nil, []string{"no --author, --tag or --id: this would mirror everyone on 1 relay. Say --all if that is meant"}},
		{"deliver", "deliver", flagMap{"sink": {"a.example.com"}}, nil, []string{"no --author, --tag or --id: this would mirror everyone. Say --all if that is meant"}},
		{"no source", "run", flagMap{"all": {"true"}}, nil, []string{"no --source: there is no relay to take events from"}},
		{"no sink", "deliver", flagMap{"all": {"true"}}, nil, []string{"no --sink: there is no relay to send events to"}},
		{"npub as source", "run", flagMap{"all": {"true"}, "source": {npubJack}}, nil, []string{"--source npub1sg6p…: that is a person, not a relay. Did you mean --author?"}},
		{"npub as sink", "run", flagMap{"all": {"true"}, "source": {"a.example.com"}, "sink": {"nostr:" + nprofileJack}}, nil, []string{"--sink nprofile1…: that is a person, not a relay. Did you mean --author?"}},
		{"note as source", "run", flagMap{"all": {"true"}, "source": {noteJack}}, nil, []string{"--source note1sg6p…: that is an event, not a relay"}},
		{"mistyped npub", "export", flagMap{"author": {mistyped}}, nil, []string{"--author npub1alpt…: checksum wrong, a character is mistyped"}},
		{"wrong character", "export", flagMap{"author": {"npub1o" + npubJack[6:]}}, nil, []string{"--author npub1og6p…: 'o' cannot stand in it, a character is mistyped"}},
		{"mixed case", "export", flagMap{"author": {npubJack[:62] + "M"}}, nil, []string{"--author npub1sg6p…: capitals and small letters mixed, a character is mistyped"}},
		{"cut npub", "export", flagMap{"author": {npubJack[:62]}}, nil, []string{"--author npub1sg6p…: has 62 characters, npubs have 63"}},
		{"two in one", "export", flagMap{"author": {npubJack + "," + npubJack}}, nil, []string{"--author npub1sg6p…: one value at a time: repeat it, or make it a list"}},
		{"short hex", "export", flagMap{"author": {jack[:63]}}, nil, []string{"--author 82341f882…: has 63 hex digits, not 64"}},
		{"a name", "export", flagMap{"author": {"jack@example.com"}}, nil, []string{"--author jack@example.com: a NIP-05 name can change hands; say the npub"}},
		{"no key", "export", flagMap{"author": {"jack"}}, nil, []string{"--author jack: not an npub, an nprofile or 64 hex digits"}},
		{"a note as author", "export", flagMap{"author": {noteJack}}, nil, []string{"--author note1sg6p…: that is an event. Did you mean --id?"}},
		{"an npub as id", "export", flagMap{"id": {npubJack}}, nil, []string{"--id npub1sg6p…: that is a person. Did you mean --author?"}},
		{"an naddr as id", "export", flagMap{"id": {naddrJack}}, nil, []string{"--id naddr1qqq…: that is an address. Did you mean --author, --kind and --tag d=…?"}},
		{"months", "export", flagMap{"since": {"3M"}}, nil, []string{"--since 3M: m is minutes; say 30d"}},
		{"no time", "export", flagMap{"until": {"yesterday"}}, nil, []string{"--until yesterday: not a time; say 2024-01-31, 2024-01-31T10:00:00Z, 30d or unix seconds"}},
		{"the wrong way round", "export", flagMap{"since": {"2024-02-01"}, "until": {"2024-01-31"}}, nil,
			[]string{"--since and --until: since 2024-02-01T00:00:00Z is after until 2024-01-31T23:59:59Z"}},
		{"no kind", "export", flagMap{"kind": {"1,2", "65536"}}, nil, []string{"--kind 1,2: not a kind; kinds are 0 to 65535", "--kind 65536: not a kind; kinds are 0 to 65535"}},
		{"no tag", "export", flagMap{"tag": {"t", "title=x", "p=jack"}}, nil, []string{"--tag t: say a name and a value: --tag t=nostr",
			"--tag: relays filter by tags of one letter only, such as t, p, e or d", "--tag jack: not an npub, an nprofile or 64 hex digits"}},
		{"mentions of nobody", "export", flagMap{"mentions": {"true"}}, nil, []string{"--mentions: needs authors: whose mentions?"}},
		{"everyone and one", "export", flagMap{"all": {"true"}, "author": {npubJack}}, nil, []string{"--all: means everyone, and authors are named: leave one of them out"}},
		{"https", "run", flagMap{"all": {"true"}, "source": {"https://a.example.com"}}, nil, []string{`--source https://a.example.com: scheme must be ws or wss, not "https"`}},
		{"a password", "run", flagMap{"all": {"true"}, "source": {"wss://me:hunter2@a.example.com"}}, nil, []string{"--source wss://…@a.example.com: a name or password in the address is not supported"}},
		{"named twice", "run", flagMap{"all": {"true"}, "source": {"a.example.com", "wss://A.example.com:443/"}}, nil, []string{"--source wss://a.example.com: named twice"}},
		{"listen", "run", flagMap{"all": {"true"}, "source": {"a.example.com"}, "listen": {"9797"}}, nil, []string{`--listen 9797: say host:port, or "" for off`}},
		{"level", "export", flagMap{"log-level": {"loud"}, "log-format": {"xml"}}, nil, []string{"--log-level loud: say one of debug, info, warn, error", "--log-format xml: say one of auto, console, json"}},
		{"variables", "export", nil, envMap{"REBROADCASTR_AUTHOR": "jack", "REBROADCASTR_MENTIONS": "maybe"},
			[]string{"REBROADCASTR_AUTHOR jack: not an npub, an nprofile or 64 hex digits", "REBROADCASTR_MENTIONS maybe: say true or false"}},
		{"a private key", "export", flagMap{"author": {nsec}}, nil, []string{"--author holds a private key (not shown). Nothing here needs one: use the npub."}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(given(c.command, c.flags, c.env))
			wantError(t, err, c.want...)
		})
	}
}

// TestFileMistakes: the answers to mistakes in the file. Each text is checked as `config check` does, with a sound
// selection in front unless it starts with "!".
func TestFileMistakes(t *testing.T) {
	at := func(line int, rest string) string { return file + ":" + string(rune('0'+line)) + ": " + rest }
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"mistyped npub", "!sources: [nos.lol]\nauthors:\n- " + npubJack + "\n- " + mistyped, []string{file + ": authors[1], line 4: npub1alpt…: checksum wrong, a character is mistyped"}},
		{"unknown key of a sink", "sinks:\n- a.example.com\n- url: b.example.com\n  filter: {kinds: [1]}", []string{at(6, `sinks[1].filter: unknown key; did you mean "only"?`)}},
		{"npub as source", "!all: true\nsources: [" + npubJack + "]", []string{at(2, "sources[0]: npub1sg6p…: that is a person, not a relay. Did you mean authors?")}},
		{"nothing selected", "!sources: [a.example.com, b.example.com]", []string{file + ": no authors, and no filters naming authors, tags or ids: this would mirror everyone on 2 relays. Say all: true if that is meant"}},
		{"a filter that names nobody", "!sources: [a.example.com]\nfilters: [{kinds: [1]}]", []string{at(2, "filters: one names no authors, tags or ids: this would mirror everyone on 1 relay. Say all: true if that is meant")}},
		{"no source", "!all: true", []string{file + ": sources: no relay to take events from"}},
		{"all sources off", "!all: true\nsources: [{url: a.example.com, enabled: false}]", []string{file + ": sources: none of them is enabled"}},
		{"empty file", "!", []string{file + ": sources: no relay to take events from"}},

		{"unknown keys", "Authors: []\nkind: 1\nsinsk: []\nwhatever: 1\narchive: {directory: /x}", []string{
			at(3, `Authors: unknown key; did you mean "authors"?`), at(4, `kind: unknown key; did you mean "kinds"?`), at(5, `sinsk: unknown key; did you mean "sinks"?`),
			at(6, "whatever: unknown key"), at(7, `archive.directory: unknown key; did you mean "dir"?`)}},
		{"null", "kinds:\nlog: ~\narchive: {dir: null}", []string{at(3, "kinds: null: give it a value, or leave the key out"),
			at(4, "log: null: give it a value, or leave the key out"), at(5, "archive.dir: null: give it a value, or leave the key out")}},
		{"twice", "kinds: [1]\nkinds: [2]", []string{at(4, "kinds: stands twice, first on line 3")}},
		{"shapes", "log: loud\nkinds: [[1]]\nshutdown_grace: {a: 1}\nfilters: [1]", []string{at(3, "log: must be a mapping of keys to values, not a single value"),
			at(4, "kinds[0]: must be one value, not a list"), at(5, "shutdown_grace: must be one value, not a mapping"), at(6, "filters[0]: must be a mapping of keys to values, not a single value")}},
		{"a list on top", "!- a", []string{at(1, "must be a mapping of keys to values, not a list")}},
		{"aliases", "kinds: &k [1]\nexcept: [{kinds: *k}]\nlog: {<<: {level: info}}", []string{at(3, "kinds: anchors and aliases are not known here: write the value out"),
			at(4, "except[0].kinds: anchors and aliases are not known here: write the value out"), at(5, "log: a key must be plain text")}},
		{"tags of YAML", "shutdown_grace: !!int 5", []string{at(3, "shutdown_grace: tags such as !!int are not known here")}},
		{"no YAML", "kinds: [1", []string{at(3, "not YAML: did not find expected ',' or ']'")}},
		{"two documents", "kinds: 1\n---\nkinds: 2", []string{at(4, "a second document; there is one in a config file")}},
		{"not text", "name: \xff", []string{file + ": not UTF-8 text"}},

		{"numbers", "kinds: [1.5, -1, 0x1, 007]\ndedup: {lru: 1e5}", []string{at(3, "kinds[0]: 1.5: not a kind; kinds are 0 to 65535"), at(3, "kinds[1]: -1: not a kind; kinds are 0 to 65535"),
			at(3, "kinds[2]: 0x1: not a kind; kinds are 0 to 65535"), at(4, "dedup.lru: 1e5: not a whole number")}},
		{"booleans", "mentions: yes", []string{at(3, "mentions: yes: say true or false")}},
		{"durations", "shutdown_grace: 10\narchive: {sync: fast}\nrelay_settings: {default: {ping: {every: 1M, timeout: 0s}}}", []string{
			at(3, "shutdown_grace: 10: a duration needs a unit: 10s, 10m, 10h, 10d?"), at(4, "archive.sync: fast: not a duration; say 90s, 10m, 12h, 30d or 2w"),
			at(5, "relay_settings.default.ping.every: 1M: m is minutes; say 30d"), at(5, "relay_settings.default.ping.timeout: 0s: must be 1ns to 365d")}},
		{"sizes", "archive: {segment: 1MB, min_free: 5}\nrelay_settings: {default: {max_frame: 17MiB}}", []string{at(3, "archive.segment: 1MB: sizes are in KiB, MiB or GiB"),
			at(3, "archive.min_free: 5: a size needs a unit: KiB, MiB or GiB"), at(4, "relay_settings.default.max_frame: 17MiB: must be 1KiB to 16MiB")}},
		{"modes", `archive: {mode: "0999"}` + "\ncontrol: {mode: 0400}", []string{at(3, `archive.mode: 0999: say permissions in octal, such as "0640"`),
			at(4, "control.mode: 0400: the owner must be able to read and write")}},
		{"times", "filters: [{kinds: 1, since: 30d, until: 0}]\nhistory: soon\nsinks: [{url: a.example.com, start: 1M}]", []string{
			at(3, "filters[0].since: 30d: a filter takes absolute dates only; that is 2026-10-22 today"), at(3, "filters[0].until: 0: takes nothing"),
			at(4, "history: soon: say all, none, 90d or a date"), at(5, "sinks[0].start: 1M: m is minutes; say 30d")}},
		{"filters", "except: [{}]\nfilters: [{authors: [], kind: 1}, {tags: {topic: x}}]", []string{
			at(3, "except[0]: an empty filter takes everything; name ids, authors, kinds, tags, since or until"), at(4, "filters[0].authors: an empty list; leave the key out for any"),
			at(4, `filters[0].kind: unknown key; did you mean "kinds"?`), at(4, "filters[1].tags.topic: relays filter by tags of one letter only, such as t, p, e or d")}},
		{"sends", "sinks: [{url: a.example.com, send: [dms, protected, superseded]}]", []string{
			at(3, "sinks[0].send[0]: dms: not a row of what is kept back; there are dm, wallet, drafts, mls, groups, zap_requests, expiring, deleted, superseded"),
			at(3, "sinks[0].send[1]: protected: never sent (NIP-70: only its author may publish it)")}},
		{"relays", "sinks: [cluster, {name: x}, {url: a.example.com, start: now, history: all}, wss://a.example.com]", []string{
			at(3, "sinks[0]: cluster: a host needs a dot (or write ws:// or wss:// in front)"), at(3, "sinks[1]: url is missing"),
			at(3, "sinks[2].history: unknown key"), at(3, "sinks[3]: wss://a.example.com: named twice")}},
		{"settings", "relay_settings:\n  default: {tls: {insecure_skip_verify: true}, pace: fast, proxy: http://x:1, negentropy: maybe, subscriptions: 0}\n  cluster: {}\n  nos.lol: {}\n  wss://nos.lol: {}\n  defualt: {}", []string{
			at(4, "relay_settings.default.tls.insecure_skip_verify: only for a relay named by its URL"), at(4, "relay_settings.default.pace: fast: say auto, or how many requests in which time: 10/s, 30/m, 100/h"),
			at(4, "relay_settings.default.proxy: http://x:1: say socks5h://host:port"), at(4, "relay_settings.default.negentropy: maybe: say one of auto, off"),
			at(4, "relay_settings.default.subscriptions: 0: must be 1 to 100"), at(5, "relay_settings.cluster: neither default nor a URL; groups are not there yet"),
			at(7, `relay_settings."wss://nos.lol": the same relay stands on line 6`), at(8, `relay_settings.defualt: unknown key; did you mean "default"?`)}},
		{"backoff", "relay_settings: {default: {backoff: {initial: 1h, max: 1m, multiplier: 0.5}}}", []string{
			at(3, "relay_settings.default.backoff.multiplier: 0.5: must be 1 to 100"), at(3, "relay_settings.default.backoff: max 1m is less than initial 1h")}},
		{"a proxy's password", "relay_settings: {default: {proxy: \"socks5h://me:hunter2@x:1\"}}", []string{at(3, "relay_settings.default.proxy: a name or password in the address is not supported")}},

		{"variables", "sinks: [\"${NOWHERE}\", \"${\", \"${A B}\", \"${A:-${B}}\"]", []string{at(3, "sinks[0]: the variable NOWHERE is not set; ${NOWHERE:-x} gives a default"),
			at(3, "sinks[1]: ${ without }"), at(3, `sinks[2]: "${A B}": not a variable's name; say ${VAR} or ${VAR:-x}`), at(3, "sinks[3]: ${A}: a default holds no other variable")}},

		{"a private key", "# my key: " + nsec + "\nsinks: [" + strings.ToUpper(nsec) + "]\nbroken: [", []string{
			file + ":3 holds a private key (not shown). Nothing here needs one: use the npub.", file + ":4 holds a private key (not shown). Nothing here needs one: use the npub."}},
		{"an escaped private key", `sinks: ["\x6esec1` + nsec[5:] + `"]`, []string{at(3, "sinks[0] holds a private key (not shown). Nothing here needs one: use the npub.")}},
		{"an escaped private key as a key", `"\x6esec1` + nsec[5:] + `": 1`, []string{file + ":3 holds a private key (not shown). Nothing here needs one: use the npub."}},
		{"a private key by a variable", "sinks: [\"${KEY}\"]", []string{file + ":3: sinks[0] holds a private key (not shown). Nothing here needs one: use the npub."}},
		{"named like secrets", "nsec: abc\narchive: {Private-Key: hunter2}\nsecret: {a: b}", []string{
			at(3, "nsec: is named like a secret (its value is not shown). Nothing here needs a private key: remove it"),
			at(4, "archive.Private-Key: is named like a secret (its value is not shown). Nothing here needs a private key: remove it"),
			at(5, "secret: is named like a secret (its value is not shown). Nothing here needs a private key: remove it")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, whole := strings.CutPrefix(c.text, "!")
			if !whole {
				text = simple + text
			}
			_, err := fromText("check", text+"\n", nil, envMap{"KEY": nsec})
			wantError(t, err, c.want...)
			if strings.Contains(err.Error(), "hunter2") || HoldsPrivateKey(err.Error()) {
				t.Errorf("the answer repeats a secret: %v", err)
			}
		})
	}
}

// TestLater: keys of later issues are accepted as they are by default.
func TestLater(t *testing.T) {
	mustText(t, "check", simple+`
include: []
lists: {}
groups: {}
streams: {}
both: []
policy_in: {command: [], window: 64, timeout: 10s}
policy_out: {window: 64}
discover: {indexers: [wss://purplepag.es, wss://user.kindpag.es, wss://profiles.nostr1.com], refresh: 6h}
alert: {command: [], after: 10m, repeat: 24h}
archive: {frame: 128KiB, level: 3, keep: {age: 0, size: 0}, sightings: first, vanish: seal}
watch: false
`, nil, nil)
	for text, want := range map[string]string{
		"include: [a.yaml]":                  "include: not there yet: only its default [] is accepted",
		"include: a.yaml":                    "include: not there yet: only its default [] is accepted",
		"lists: {me: {authors: [x]}}":        "lists: not there yet: only its default {} is accepted",
		"groups: {a: [wss://b.example.com]}": "groups: not there yet: only its default {} is accepted",
		"streams: {a: {}}":                   "streams: not there yet: only its default {} is accepted",
		"both: [a.example.com]":              "both: not there yet: only its default [] is accepted",
		"policy_in: {command: [x]}":          "policy_in: not there yet: only its default {command: [], window: 64, timeout: 10s} is accepted",
		"policy_in: {comand: []}":            `policy_in.comand: unknown key; did you mean "command"?`,
		"alert: {after: 1m}":                 "alert: not there yet: only its default {command: [], after: 10m, repeat: 24h} is accepted",
		"archive: {keep: {age: 30d}}":        "archive.keep: not there yet: only its default {age: 0, size: 0} is accepted",
		"archive: {vanish: purge}":           "archive.vanish: not there yet: only its default seal is accepted",
		"sinks: [{relays_of: [x]}]":          "sinks[0].relays_of: unknown key",
		"sinks: [{group: x}]":                "sinks[0].group: not there yet",
	} {
		_, err := fromText("check", simple+text+"\n", nil, nil)
		wantError(t, err, file+":3: "+want)
	}
}

func TestReconcile(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string][2]Reconcile{
		"sources: [a.example.com]":                                       {},
		"sources: [a.example.com]\nreconcile: off":                       {},
		"sources: [a.example.com]\nreconcile: 12h":                       {{12 * time.Hour, 30 * day, 30 * day}, {12 * time.Hour, 30 * day, 30 * day}},
		"sources: [a.example.com]\nreconcile: {full: 90d, depth: 2w}":    {{day, 14 * day, 90 * day}, {day, 14 * day, 90 * day}},
		"sources: [{url: a.example.com, reconcile: off}]\nreconcile: 2d": {{2 * day, 30 * day, 30 * day}, {}},
		"sources: [{url: a.example.com, reconcile: 1h}]":                 {{}, {time.Hour, 30 * day, 30 * day}},
	} {
		c := mustText(t, "run", "authors: "+npubJack+"\n"+text+"\n", nil, nil)
		if got := [2]Reconcile{c.Reconcile, c.Sources[0].Reconcile}; got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]Reconcile{
		"a.example.com":                               {},
		"{url: a.example.com, reconcile: off}":        {},
		"{url: a.example.com, reconcile: 12h}":        {12 * time.Hour, 30 * day, 30 * day},
		"{url: a.example.com, reconcile: {full: 7d}}": {day, 30 * day, 7 * day},
	} {
		c := mustText(t, "run", "authors: "+npubJack+"\nreconcile: 2d\nsources: [b.example.com]\nsinks: ["+text+"]\n", nil, nil)
		if got := c.Sinks[0].Reconcile; got != want {
			t.Errorf("%s: %v, want %v: the stream's is for sources", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"sinks: [{url: c.example.com, reconcile: 1m}]": "sinks[0].reconcile: 1m: must be 1h to 365d",
		"reconcile: daily":       "reconcile: daily: say off, 24h or {every: 24h, depth: 30d, full: 30d}",
		"reconcile: 1m":          "reconcile: 1m: must be 1h to 365d",
		"reconcile: {depth: 1s}": "reconcile.depth: 1s: must be 1h to 365d",
		"reconcile: {evry: 1h}":  `reconcile.evry: unknown key; did you mean "every"?`,
	} {
		_, err := fromText("check", simple+text+"\n", nil, nil)
		wantError(t, err, file+":3: "+want)
	}
}

func TestExpand(t *testing.T) {
	c := mustText(t, "run", "authors: ${WHO}\nsources: [\"${HOST}.example.com\", \"${NONE:-b}.example.com\", \"${EMPTY:-c}.example.com\"]\n"+
		"listen: {addr: \"${OFF:-}\"}\nkinds: \"${KIND}\"\nsinks: [{url: d.example.com, name: \"$5 ${TEXT}\"}]\n", nil,
		envMap{"WHO": npubJack, "HOST": "a", "EMPTY": "", "KIND": "7", "TEXT": "null, not: yaml ${WHO}"})
	var urls []string
	for _, s := range c.Sources {
		urls = append(urls, s.URL)
	}
	if got, want := strings.Join(urls, " "), "wss://a.example.com wss://b.example.com wss://c.example.com"; got != want {
		t.Errorf("sources %s, want %s", got, want)
	}
	if c.Listen.Addr != "" || filtersText(c.Want) != `{"authors":["`+jack+`"],"kinds":[0,3,7,10002]}` {
		t.Errorf("listen %q, want %s", c.Listen.Addr, filtersText(c.Want))
	}
	if got, want := c.Sinks[0].Name, "$5 null, not: yaml ${WHO}"; got != want {
		t.Errorf("name %q, want %q: what a variable holds is text, neither YAML nor expanded again", got, want)
	}
}

func TestNProfileHints(t *testing.T) {
	c := mustFlags(t, "export", flagMap{"author": {nprofileJack}}, nil)
	want := "--author nprofile1… names 2 relays of its own: "
	if len(c.Notes) != 1 || !strings.HasPrefix(c.Notes[0], want) || filtersText(c.Want) != `{"authors":["`+jack+`"]}` {
		t.Errorf("notes %q, want one that starts with %q", c.Notes, want)
	}
}
