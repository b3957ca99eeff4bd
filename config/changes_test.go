package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func home(name string) (string, bool) {
	if name != "HOME" {
		return "", false
	}
	return "/home/x", true
}

// TestSucceed: what a reload changes, in words, and that what needs a restart stays as it was.
func TestSucceed(t *testing.T) {
	const base = `authors: [` + jack + `]
sources: [a.example.com, {url: b.example.com, name: b, history: 90d}]
sinks: ["ws://127.0.0.1:7777", {url: c.example.com, send: [dm]}]
`
	for _, c := range []struct {
		name     string
		old, now string // base with each pair of old and now swapped
		want     []string
	}{
		{"nothing", "", "", nil},
		{"one author", "authors: [" + jack, "authors: [" + jack + ", " + noise(1), []string{"~ filters: 1 author more"}},
		{"another author", jack, noise(1), []string{"~ filters: 1 author more, 1 author less"}},
		{"kinds and mentions", "sources:", "kinds: [1, 7]\nprofile: false\nmentions: true\nsources:", []string{"~ filters: 2 kinds more, 1 mention more"}},
		{"an except", "sources:", "except: [{kinds: [7]}]\nsources:", []string{"~ except: new, where nothing stood: 1 kind more"}},
		{"a source and a sink", "sources: [a.example.com,", "sources: [a.example.com, d.example.com,",
			[]string{"+ source wss://d.example.com"}},
		{"a sink that leaves", `["ws://127.0.0.1:7777", `, `[`, []string{"- sink ws://127.0.0.1:7777 (its ledger is kept)"}},
		{"switched off", "name: b,", "name: b, enabled: false,", []string{"- source wss://b.example.com"}},
		{"name and only", "name: b,", "name: bee, only: [{kinds: [1]}],",
			[]string{"~ source wss://b.example.com: filters (new, where nothing stood: 1 kind more)", `~ source wss://b.example.com: name "b" → "bee"`}},
		{"history", "90d", "2024-01-31", []string{"~ source wss://b.example.com: history 2023-08-16T22:13:20Z → 2024-01-31T00:00:00Z"}},
		{"send", "[dm]", "[dm, drafts]", []string{"~ sink wss://c.example.com: send [dm] → [dm drafts]"}},
		{"a sink's reconcile", "send: [dm]", "send: [dm], reconcile: 24h",
			[]string{"~ sink wss://c.example.com: reconcile off → every 1d back 30d, in full every 30d"}},
		{"default settings", "sources:", "relay_settings: {default: {window: 100, ping: {every: 1m}}}\nsources:",
			[]string{"~ relay_settings.default: ping.every 30s → 1m, window 500 → 100"}},
		{"a proxy", "sources:", "relay_settings: {a.example.com: {proxy: \"socks5h://p:1\"}, c.example.com: {window: 7}}\nsources:",
			[]string{`~ wss://a.example.com: proxy "" → socks5h://p:1, connects anew`, "~ wss://c.example.com: window 500 → 7"}},
		{"what is live and what is not", "sources:", "archive: {dir: /x, segment: 1GiB, sync: 2s, min_free: 1GiB}\ndedup: {lru: 5}\nlisten: {pprof: true}\n" +
			"control: {path: /y}\nlog: {level: debug}\nshutdown_grace: 20s\nwatch: true\nsources:",
			[]string{"! archive.dir: needs a restart", "~ archive.min_free auto → 1GiB", "! archive.segment: needs a restart", "~ archive.sync 1s → 2s",
				"! control.path: needs a restart", "! dedup.lru: needs a restart", "! listen.pprof: needs a restart", "~ log.level info → debug",
				"~ shutdown_grace 10s → 20s", "~ watch false → true"}},
		{"sync always", "sources:", "archive: {sync: always}\nsources:", []string{"! archive.sync: needs a restart"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			load := func(text string) *Config {
				cfg, err := load(Inputs{Command: "run", File: "rebroadcastr.yaml", Now: time.Unix(1_700_000_000, 0), Env: home}, []byte(text))
				if err != nil {
					t.Fatal(err)
				}
				return cfg
			}
			old, now := load(base), load(strings.Replace(base, c.old, c.now, 1))
			next, got := now.Succeed(old)
			if !slices.Equal(got, c.want) {
				t.Errorf("changes\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(c.want, "\n  "))
			}
			if next.Archive.Dir != old.Archive.Dir || next.Archive.Segment != old.Archive.Segment || next.Dedup != old.Dedup || next.Listen != old.Listen ||
				next.Control != old.Control || next.Archive.Sync == 0 {
				t.Errorf("what needs a restart has changed: %+v", next)
			}
			if _, again := now.Succeed(next); len(again) > 0 && again[0][0] != '!' {
				t.Errorf("the same config once more changes %q", again)
			}
		})
	}
}

// TestResolved: a relative time means the same day in each reload of a process.
func TestResolved(t *testing.T) {
	in := Inputs{Command: "run", Resolved: make(map[string]int64), Env: home}
	text := []byte("all: true\nhistory: 90d\nsources: [a.example.com]\n")
	var first *Config
	for day := range 3 {
		in.Now = time.Unix(1_700_000_000+int64(day)*86400, 0)
		c, err := load(in, text)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = c
		}
		if _, changes := c.Succeed(first); len(changes) > 0 {
			t.Errorf("on day %d: %q, want no change", day, changes)
		}
	}
}

// TestDir: a mistake elsewhere does not hide where the archive is; what is no YAML may name any.
func TestDir(t *testing.T) {
	for _, c := range []struct{ text, want, problem string }{
		{"archive: {dir: /srv/nostr}\nsinks: [npub1wrong]\nnonsense: 1\n", "/srv/nostr", ""},
		{"sources: []\n", "/home/x/.local/share/rebroadcastr", ""},
		{"archive: {dir: /srv/nostr\n", "", "rebroadcastr.yaml"},
	} {
		name := filepath.Join(t.TempDir(), "rebroadcastr.yaml")
		if err := os.WriteFile(name, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		dir, err := Dir(Inputs{File: name, Now: time.Now(), Env: home})
		if dir != c.want || c.problem == "" != (err == nil) {
			t.Errorf("%q: %q %v, want %q and a problem of %q", c.text, dir, err, c.want, c.problem)
		}
	}
}
