package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/relay"
)

const (
	jack     = "82341f882b6eabcd2ba7f1ef90aad961cf074af15b9ef44a09f9d2a8fbfbe6a2"
	npubJack = "npub1sg6plzptd64u62a878hep2kev88swjh3tw00gjsfl8f237lmu63q0uf63m"
	noteJack = "note1sg6plzptd64u62a878hep2kev88swjh3tw00gjsfl8f237lmu63q7k28gn"
	// nprofileJack names two relays.
	nprofileJack = "nprofile1qqsgydql3q4ka27d9wnlrmus4tvkrnc8ftc4h8h5fgyln54gl0a7dgspzdmhxue69uhkztn90psk6urvv5hxxmmdqyfhwumn8ghj7c3wv4uxzmtsd3jjucm0d5xzg48t"
	neventJack   = "nevent1qqsgydql3q4ka27d9wnlrmus4tvkrnc8ftc4h8h5fgyln54gl0a7dgspzdmhxue69uhkztn90psk6urvv5hxxmmdqgsgydql3q4ka27d9wnlrmus4tvkrnc8ftc4h8h5fgyln54gl0a7dgshmhzva"
	naddrJack    = "naddr1qqqhsq3qsg6plzptd64u62a878hep2kev88swjh3tw00gjsfl8f237lmu63qxpqqqp65wpxctel"
	mistyped     = "npub1alptdev3srcmh0csw4wfpwpsprhhazqxmxd0wdp69cw06muplruqxkn3yz"
	nsec         = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
	file         = "rebroadcastr.yaml"
)

var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

type (
	flagMap map[string][]string
	envMap  map[string]string
)

func given(command string, flags flagMap, env envMap) Inputs {
	if env == nil {
		env = envMap{}
	}
	if _, ok := env["HOME"]; !ok {
		env["HOME"] = "/home/u"
	}
	return Inputs{Command: command, Flags: flags, Now: now, Env: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}
}

// fromText loads text as if it stood in file.
func fromText(command, text string, flags flagMap, env envMap) (*Config, error) {
	in := given(command, flags, env)
	in.File = file
	return load(in, []byte(text))
}

func mustText(t *testing.T, command, text string, flags flagMap, env envMap) *Config {
	t.Helper()
	c, err := fromText(command, text, flags, env)
	if err != nil {
		t.Fatalf("load\n%s\n: %v", text, err)
	}
	return c
}

func mustFlags(t *testing.T, command string, flags flagMap, env envMap) *Config {
	t.Helper()
	c, err := Load(given(command, flags, env))
	if err != nil {
		t.Fatalf("load %s %v: %v", command, flags, err)
	}
	return c
}

func wantError(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("loaded, want %q", want)
	}
	if got := strings.Split(err.Error(), "\n"); !slices.Equal(got, want) {
		t.Errorf("problems\n  got  %s\n  want %s", strings.Join(got, "\n       "), strings.Join(want, "\n       "))
	}
	var ps Problems
	if !errors.As(err, &ps) {
		t.Errorf("the error is a %T, want Problems", err)
	}
}

// filtersText is what is compared: the wire form of filters.
func filtersText(fs []event.Filter) string {
	var out []string
	for _, f := range fs {
		out = append(out, f.String())
	}
	return strings.Join(out, " ")
}

const simple = "authors: [" + npubJack + "]\nsources: [relay.damus.io, nos.lol]\n"

// TestSimpleFile is the file of the README.
func TestSimpleFile(t *testing.T) {
	c := mustText(t, "run", simple+"sinks: [\"ws://127.0.0.1:7777\"]\narchive: {dir: /srv/nostr}\n", nil, nil)
	if got, want := filtersText(c.Want), `{"authors":["`+jack+`"]}`; got != want {
		t.Errorf("want %s, got %s", want, got)
	}
	wantSources := []Source{{URL: "wss://relay.damus.io", Enabled: true}, {URL: "wss://nos.lol", Enabled: true}}
	if !reflect.DeepEqual(c.Sources, wantSources) {
		t.Errorf("sources %+v, want %+v", c.Sources, wantSources)
	}
	if want := []Sink{{URL: "ws://127.0.0.1:7777", Enabled: true}}; !reflect.DeepEqual(c.Sinks, want) {
		t.Errorf("sinks %+v, want %+v", c.Sinks, want)
	}
	if c.Archive.Dir != "/srv/nostr" || c.Asked != "1 author, all time" || c.File != file {
		t.Errorf("archive %q, asked %q, file %q", c.Archive.Dir, c.Asked, c.File)
	}
	if c.Listen != (Listen{Addr: "127.0.0.1:9797"}) || !reflect.DeepEqual(c.Relay("wss://nos.lol"), relay.DefaultSettings()) {
		t.Errorf("listen %+v, settings %+v: want the defaults", c.Listen, c.Relay("wss://nos.lol"))
	}
}

// TestPrecedence: per key the flag, else the variable, else the file, else the default.
func TestPrecedence(t *testing.T) {
	text := simple + "sinks: [sink.example.com]\narchive: {dir: /file}\nlog: {level: warn}\nlisten: {addr: \"127.0.0.1:1\"}\n"
	env := func() envMap {
		return envMap{"REBROADCASTR_ARCHIVE": "/env", "REBROADCASTR_LOG_LEVEL": "error", "REBROADCASTR_LISTEN": "127.0.0.1:2",
			"REBROADCASTR_SOURCE": "a.example.com  b.example.com", "REBROADCASTR_AUTHOR": noise(1) + "\n" + noise(2)}
	}
	flags := flagMap{"archive": {"/flag"}, "log-level": {"debug"}, "listen": {""}, "source": {"c.example.com"}, "author": {noise(3)}}
	for name, c := range map[string]struct {
		config                *Config
		dir, level, addr, who string
		sources               []string
	}{
		"default": {mustText(t, "run", simple, nil, nil), "/home/u/.local/share/rebroadcastr", "info", "127.0.0.1:9797", jack, []string{"wss://relay.damus.io", "wss://nos.lol"}},
		"file":    {mustText(t, "run", text, nil, nil), "/file", "warn", "127.0.0.1:1", jack, []string{"wss://relay.damus.io", "wss://nos.lol"}},
		"env":     {mustText(t, "run", text, nil, env()), "/env", "error", "127.0.0.1:2", noise(1) + `","` + noise(2), []string{"wss://a.example.com", "wss://b.example.com"}},
		"flag":    {mustText(t, "run", text, flags, env()), "/flag", "debug", "", noise(3), []string{"wss://c.example.com"}},
	} {
		var urls []string
		for _, s := range c.config.Sources {
			urls = append(urls, s.URL)
		}
		if c.config.Archive.Dir != c.dir || c.config.Log.Level != c.level || c.config.Listen.Addr != c.addr || !slices.Equal(urls, c.sources) {
			t.Errorf("%s: dir %q level %q addr %q sources %q; want %q %q %q %q", name, c.config.Archive.Dir, c.config.Log.Level,
				c.config.Listen.Addr, urls, c.dir, c.level, c.addr, c.sources)
		}
		if got, want := filtersText(c.config.Want), `{"authors":["`+c.who+`"]}`; got != want {
			t.Errorf("%s: asked for %s, want %s", name, got, want)
		}
	}
	if c := mustText(t, "run", text, nil, envMap{"REBROADCASTR_LISTEN": ""}); c.Listen.Addr != "" {
		t.Errorf("an empty REBROADCASTR_LISTEN gives %q, want the listener off", c.Listen.Addr)
	}
	if c := mustText(t, "run", text, nil, envMap{"REBROADCASTR_ARCHIVE": "", "REBROADCASTR_SOURCE": " "}); c.Archive.Dir != "/file" || len(c.Sources) != 2 {
		t.Errorf("empty variables count as set: %q, %d sources", c.Archive.Dir, len(c.Sources))
	}
}

// noise is the n-th hex key; no point on the curve is needed here.
func noise(n int) string { return strings.Repeat(string("0123456789"[n]), 64) }

func TestDataDir(t *testing.T) {
	for _, c := range []struct {
		env  envMap
		want string
	}{
		{envMap{"STATE_DIRECTORY": "/var/lib/rebroadcastr", "XDG_DATA_HOME": "/x"}, "/var/lib/rebroadcastr"},
		{envMap{"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"},
		{envMap{"XDG_DATA_HOME": "/x"}, "/x/rebroadcastr"},
		{envMap{"XDG_DATA_HOME": "relative"}, "/home/u/.local/share/rebroadcastr"},
	} {
		if got := mustFlags(t, "export", nil, c.env).Archive.Dir; got != c.want {
			t.Errorf("with %v the archive is %q, want %q", c.env, got, c.want)
		}
	}
	_, err := Load(given("export", nil, envMap{"HOME": ""}))
	wantError(t, err, "neither STATE_DIRECTORY nor XDG_DATA_HOME nor HOME is set: say --archive DIR")
}

// TestCommands: what each command takes of a selection.
func TestCommands(t *testing.T) {
	everything := "{}"
	jackOnly := `{"authors":["` + jack + `"]}`
	for _, c := range []struct {
		name, command, text string
		flags               flagMap
		want, asked         string
	}{
		{"export takes all", "export", "", nil, everything, "everything, all time"},
		{"export does not ask the file", "export", simple, nil, everything, "everything, all time"},
		{"export by kind", "export", "", flagMap{"kind": {"1"}}, `{"kinds":[1]}`, "kind 1, all time"},
		{"import takes all", "import", "", nil, everything, "everything, all time"},
		{"import with a config takes its stream", "import", simple, nil, jackOnly, "1 author, all time"},
		{"import with flags", "import", simple, flagMap{"kind": {"7"}}, `{"kinds":[7]}`, "kind 7, all time"},
		{"audit takes all", "audit", "", nil, everything, "everything, all time"},
		{"show shows the file's", "show", simple, nil, jackOnly, "1 author, all time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got *Config
			if c.text == "" {
				got = mustFlags(t, c.command, c.flags, nil)
			} else {
				got = mustText(t, c.command, c.text, c.flags, nil)
			}
			if filtersText(got.Want) != c.want || got.Asked != c.asked {
				t.Errorf("asked for %s (%q), want %s (%q)", filtersText(got.Want), got.Asked, c.want, c.asked)
			}
			if got.Listen.Addr != "" && c.command != "show" {
				t.Errorf("a one-shot command listens on %q", got.Listen.Addr)
			}
		})
	}
	for _, command := range []string{"status", "reindex", "version"} {
		if _, err := fromText(command, "sources: [relay.damus.io]\n", nil, nil); err != nil {
			t.Errorf("%s needs no selection: %v", command, err)
		}
	}
}

func TestSelection(t *testing.T) {
	all := flagMap{"all": {"true"}}
	for _, c := range []struct {
		name, text string
		flags      flagMap
		want       string
		asked      string
	}{
		{"mentions add a filter", "authors: " + jack + "\nmentions: true\n", nil,
			`{"authors":["` + jack + `"]} {"#p":["` + jack + `"]}`, "1 author and mentions, all time"},
		{"profile kinds", "authors: " + jack + "\nkinds: [1, 3]\n", nil, `{"authors":["` + jack + `"],"kinds":[0,1,3,10002]}`, "1 author, kinds 1 3, all time"},
		{"no profile kinds", "authors: " + jack + "\nkinds: 1\nprofile: false\n", nil, `{"authors":["` + jack + `"],"kinds":[1]}`, "1 author, kind 1, all time"},
		{"mentions have no profile kinds", "authors: " + jack + "\nkinds: 1\nmentions: true\n", nil,
			`{"authors":["` + jack + `"],"kinds":[0,1,3,10002]} {"kinds":[1],"#p":["` + jack + `"]}`, "1 author and mentions, kind 1, all time"},
		{"long beside short", "authors: " + jack + "\nfilters: [{tags: {t: [nostr, x]}, until: 2024-12-31}]\n", nil,
			`{"authors":["` + jack + `"]} {"#t":["nostr","x"],"until":1735689599}`, "1 author, 1 filter, all time"},
		{"long alone", "filters: {ids: " + noteJack + ", since: 2024-01-01}\n", nil, `{"ids":["` + jack + `"],"since":1704067200}`, "1 filter, all time"},
		{"everyone", "all: true\n", nil, `{}`, "everyone, all time"},
		{"everyone's notes", "all: true\nkinds: [1]\n", nil, `{"kinds":[1]}`, "everyone, kind 1, all time"},
		{"everyone's in long form", "all: true\nfilters: [{kinds: [1]}]\n", nil, `{"kinds":[1]}`, "everyone, 1 filter, all time"},
		{"keys in tags are hex on the wire", "filters: [{tags: {p: " + npubJack + ", \"#e\": " + noteJack + "}}]\n", nil, `{"#e":["` + jack + `"],"#p":["` + jack + `"]}`, "1 filter, all time"},
		{"history", "authors: " + jack + "\nhistory: 90d\n", nil, `{"authors":["` + jack + `"]}`, "1 author, since 2026-08-23T12:00:00Z"},
		{"no history", "authors: " + jack + "\nhistory: none\n", nil, `{"authors":["` + jack + `"]}`, "1 author, from now on"},
		{"said twice", "authors: [" + jack + ", " + npubJack + ", nostr:" + npubJack + "]\n", nil, `{"authors":["` + jack + `"]}`, "1 author, all time"},

		{"--all", "", all, `{}`, "everyone, all time"},
		{"flags replace the file's", "authors: " + noise(1) + "\nkinds: 4\nfilters: [{ids: " + noise(2) + "}]\nexcept: [{kinds: 7}]\n",
			flagMap{"author": {npubJack, noise(3)}, "kind": {"1", "6"}, "tag": {"t=a,b", "t=c"}, "mentions": {"true"}},
			`{"authors":["` + noise(3) + `","` + jack + `"],"kinds":[1,6],"#t":["a,b","c"]} {"kinds":[1,6],"#p":["` + noise(3) + `","` + jack + `"],"#t":["a,b","c"]}`,
			"2 authors and mentions, tag t with 2 values, kinds 1 6, all time"},
		{"--id and times", "", flagMap{"id": {neventJack}, "since": {"30d ago"}, "until": {"2026-11-20"}},
			`{"ids":["` + jack + `"],"since":1792670400,"until":1795219199}`, "1 id, from 2026-10-22T12:00:00Z to 2026-11-20T23:59:59Z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := mustText(t, "run", c.text+"sources: [nos.lol]\n", c.flags, nil)
			if filtersText(got.Want) != c.want {
				t.Errorf("asked for\n  %s, want\n  %s", filtersText(got.Want), c.want)
			}
			if got.Asked != c.asked {
				t.Errorf("in words %q, want %q", got.Asked, c.asked)
			}
			if c.flags != nil && len(got.Except) > 0 {
				t.Errorf("the file's except survived the flags: %s", filtersText(got.Except))
			}
		})
	}
	c := mustText(t, "run", simple+"except: [{kinds: [7]}, {authors: "+noise(1)+"}]\n", nil, nil)
	if got, want := filtersText(c.Except), `{"kinds":[7]} {"authors":["`+noise(1)+`"]}`; got != want {
		t.Errorf("except is %s, want %s", got, want)
	}
}

func TestRelays(t *testing.T) {
	c := mustText(t, "run", "authors: "+jack+`
history: 2024-01-31
sources:
  - RELAY.damus.io:443/
  - {url: "ws://10.0.0.1", name: "007", only: {kinds: 1}, except: [{kinds: [7]}], history: none}
  - {url: nos.lol, enabled: false, history: all}
sinks:
  - 127.0.0.1:7777
  - {url: wss://nos.lol, start: now, send: [dm, wallet]}
  - {url: a.example.com, start: 90d, send: groups}
relay_settings:
  wss://NOS.lol/: {window: 7, tls: {insecure_skip_verify: true}}
  default: {pace: 30/m, backoff: {max: 1h}}
  wss://nobody.example.com: {max_frame: 64KiB}
`, nil, nil)
	kind1, kind7 := []event.Filter{{Kinds: []int{1}}}, []event.Filter{{Kinds: []int{7}}}
	wantSources := []Source{
		{URL: "wss://relay.damus.io", History: History{Since: 1706659200}, Enabled: true},
		{URL: "ws://10.0.0.1", Name: "007", Only: kind1, Except: kind7, History: History{None: true}, Enabled: true},
		{URL: "wss://nos.lol"},
	}
	if !reflect.DeepEqual(c.Sources, wantSources) {
		t.Errorf("sources\n  %+v, want\n  %+v", c.Sources, wantSources)
	}
	wantSinks := []Sink{
		{URL: "ws://127.0.0.1:7777", Enabled: true},
		{URL: "wss://nos.lol", Start: Start{Now: true}, Send: []string{"dm", "wallet"}, Enabled: true},
		{URL: "wss://a.example.com", Start: Start{Since: now.Add(-90 * day).Unix()}, Send: []string{"groups"}, Enabled: true},
	}
	if !reflect.DeepEqual(c.Sinks, wantSinks) {
		t.Errorf("sinks\n  %+v, want\n  %+v", c.Sinks, wantSinks)
	}
	standard := relay.DefaultSettings()
	standard.Pace, standard.Backoff.Max = 0.5, time.Hour
	own := standard
	own.Window, own.TLS.InsecureSkipVerify = 7, true
	if got := c.Relay("wss://relay.damus.io"); got != standard {
		t.Errorf("default settings %+v, want %+v", got, standard)
	}
	if got := c.Relay("wss://nos.lol"); got != own {
		t.Errorf("settings of nos.lol %+v, want %+v", got, own)
	}
	if want := []string{"relay_settings names wss://nobody.example.com, which is neither source nor sink"}; !slices.Equal(c.Notes, want) {
		t.Errorf("notes %q, want %q", c.Notes, want)
	}
}

func TestSettings(t *testing.T) {
	c := mustText(t, "run", simple+`
relay_settings:
  default:
    backoff: {initial: 2s, max: 1m, multiplier: 1.5, max_retries: -1}
    tls: {server_name: x.example.com}
    proxy: socks5h://proxy:1080
    onion_proxy: ""
    pace: 100/h
    subscriptions: 7
    negentropy: off
    ping: {every: 1m, timeout: 5s}
    timeouts: {connect: 3s, ok: 4s}
    window: 10
    max_frame: 16MiB
    compression: on
archive: {dir: rel/ative, sync: always, segment: 1MiB, min_free: 2GiB, mode: 600}
dedup: {lru: 5000, badger_memory: 32MiB}
listen: {addr: ":8080", pprof: true}
control: {path: ~/c.sock, mode: "0660"}
log: {level: debug, format: json}
shutdown_grace: 1d2h
`, nil, nil)
	want := relay.DefaultSettings()
	want.Backoff = relay.Backoff{Initial: 2 * time.Second, Max: time.Minute, Multiplier: 1.5, MaxRetries: -1}
	want.TLS.ServerName, want.Proxy, want.OnionProxy = "x.example.com", "socks5h://proxy:1080", ""
	want.Pace, want.Negentropy = 100./3600, false
	want.PingEvery, want.PingTimeout, want.Connect, want.OK = time.Minute, 5*time.Second, 3*time.Second, 4*time.Second
	want.Window, want.MaxFrame, want.Compression, want.Subscriptions = 10, 16<<20, true, 7
	if c.Default != want {
		t.Errorf("settings\n  %+v, want\n  %+v", c.Default, want)
	}
	if want := (Archive{Dir: "rel/ative", Segment: 1 << 20, Mode: 0o600, MinFree: 2 << 30}); c.Archive != want {
		t.Errorf("archive %+v, want %+v", c.Archive, want)
	}
	if want := (Listen{Addr: ":8080", Named: true, PProf: true}); c.Listen != want {
		t.Errorf("listen %+v, want %+v", c.Listen, want)
	}
	if c.Dedup != (Dedup{5000, 32 << 20}) || c.Control != (Control{"/home/u/c.sock", 0o660}) || c.Log != (Log{"debug", "json"}) || c.Grace != 26*time.Hour {
		t.Errorf("dedup %+v control %+v log %+v grace %s", c.Dedup, c.Control, c.Log, c.Grace)
	}
}

// TestFiles: paths start at the config file, and files that are named are looked into.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("token", "abc\n")
	write("key", "x\n"+strings.ToUpper(nsec)+"\n")
	path := write("c.yaml", simple+"archive: {dir: a}\nlisten: {token_file: token}\n")
	in := given("run", flagMap{"config": {path}}, nil)
	c, err := Load(in)
	if err != nil {
		t.Fatal(err)
	}
	if c.Archive.Dir != filepath.Join(dir, "a") || c.Listen.TokenFile != filepath.Join(dir, "token") || c.File != path {
		t.Errorf("archive %q, token %q, file %q", c.Archive.Dir, c.Listen.TokenFile, c.File)
	}
	for _, x := range []struct{ name, want string }{
		{"missing", "PATH: no such file"}, {"key", "PATH holds a private key (not shown). Nothing here needs one: use the npub."}, {".", "DIR: not a file"},
	} {
		path = write("c.yaml", simple+"listen: {token_file: "+x.name+"}\n")
		_, err := Load(given("run", nil, envMap{"REBROADCASTR_CONFIG": path}))
		want := strings.NewReplacer("PATH", filepath.Join(dir, x.name), "DIR", dir).Replace(x.want)
		wantError(t, err, path+":3: listen.token_file: "+want)
		if _, err := Load(Inputs{Command: "export", File: path, Now: now, Flags: flagMap{"archive": {"/a"}}}); err != nil {
			t.Errorf("export does not use the token, but: %v", err)
		}
	}
	path = write("c.yaml", simple+"relay_settings: {default: {tls: {ca_file: token}}}\n")
	_, err = Load(given("run", flagMap{"config": {path}}, nil))
	wantError(t, err, path+":3: relay_settings.default.tls.ca_file: "+filepath.Join(dir, "token")+": holds no certificate in PEM form")
	_, err = Load(given("run", flagMap{"config": {"/nonexistent/c.yaml"}}, nil))
	wantError(t, err, "/nonexistent/c.yaml: no such file")
}

// TestExample: the example is the defaults, but for its authors and sources.
func TestExample(t *testing.T) {
	in := given("check", nil, nil)
	in.File = file
	got, err := load(in, Example)
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.File, want.Archive.Dir, want.Asked = file, "/home/u/.local/share/rebroadcastr", "1 author, all time"
	want.Want, want.Sources = got.Want, got.Sources
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the example is\n  %+v, the defaults are\n  %+v", got, want)
	}
	if filtersText(got.Want) != `{"authors":["`+jack+`"]}` || len(got.Sources) != 2 {
		t.Errorf("the example asks %d relays for %s", len(got.Sources), filtersText(got.Want))
	}
	// Every key that is there stands in the example.
	l := &loader{c: Defaults()}
	for key := range l.fields(new(selection), new([]entry), new([]entry)) {
		stands := strings.Contains(string(Example), "\n"+key+":")
		if later := slices.Contains([]string{"include", "lists", "groups", "streams", "both", "policy_in", "policy_out", "discover", "alert"}, key); stands == later {
			t.Errorf("%s stands in the example: %v", key, stands)
		}
	}
}

// TestShow: what is shown loads to the same configuration.
func TestShow(t *testing.T) {
	for name, c := range map[string]*Config{
		"defaults": mustText(t, "show", string(Example), nil, nil),
		"everyone": mustText(t, "show", "all: true\nkinds: [1, 2]\n", nil, nil),
		"since":    mustText(t, "show", "", flagMap{"all": {"true"}, "since": {"30d"}}, nil),
		"rich": mustText(t, "show", "authors: ["+jack+", "+noise(1)+`]
mentions: true
kinds: [1]
filters: [{tags: {t: ["a: b", "no", "7"], d: ""}, since: 2024-01-01, until: 2024-02-01}, {ids: `+noise(2)+`}]
except: {kinds: [4]}
history: 90d
sources: [{url: a.example.com, name: "{x}", only: {kinds: 1}, enabled: false, history: none}, "ws://[::1]:7"]
sinks: [{url: "ws://127.0.0.1:7777/x%20y", start: 2024-01-01}]
`, flagMap{"source": {"a.example.com", "ws://[::1]:7"}, "sink": {"b.example.com/x?y=1"}}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			text, err := c.YAML()
			if err != nil {
				t.Fatal(err)
			}
			again, err := fromText("show", string(text), nil, nil)
			if err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			again.Asked, again.Notes = c.Asked, c.Notes // words that the long form has no more
			if !reflect.DeepEqual(again, c) {
				t.Errorf("shown and loaded again\n  %+v, want\n  %+v\n%s", again, c, text)
			}
		})
	}
}
