package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr/nip19"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/localrelay"
)

// TestPublicKeysOnly feeds a private key through every door. Each time the answer is exit 2, says that it holds a private
// key, and repeats it in no form; nothing that was written holds it either.
func TestPublicKeysOnly(t *testing.T) {
	mallory := someone(t, "the key that must not be seen")
	nsec, err := nip19.EncodePrivateKey(mallory.secret)
	if err != nil {
		t.Fatal(err)
	}
	// NIP-49's form is not decoded by anybody here; its look is enough.
	ncryptsec := "ncryptsec1" + "qgg9947rlpvqu76pj5ecreduf9jxhselq2nae2kghhvd5g7dgjtcxfqtd67p9m0w57lspw8gsq6yphnm8623nsl8xn9j4jdzz84zm3frztj3z7s35vpzmqf6ksu8r89qk5z2zxfmu5gv8th8wclt0h4p"
	npub := someone(t, "alice").npub(t)
	from := relay(t, localrelay.Options{})

	forms := map[string]string{
		"nsec": nsec, "NSEC": strings.ToUpper(nsec), "nostr:nsec": "nostr:" + nsec, "ncryptsec": ncryptsec, "NOSTR:NSEC": strings.ToUpper("nostr:" + nsec),
	}
	for form, key := range forms {
		dir := tempDir(t)
		archive := filepath.Join(dir, "a")
		file := func(name, text string) string {
			f := filepath.Join(dir, name)
			if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			return f
		}
		plain := fmt.Sprintf("authors: [%s]\nsources: [%q]\narchive: {dir: %q}\n", npub, from.URL(), archive)
		doors := map[string]child.Options{
			"--author":             {Args: []string{"backfill", "--author", key, "--source", from.URL(), "--archive", archive}},
			"--author=":            {Args: []string{"backfill", "--author=" + key, "--source", from.URL(), "--archive", archive}},
			"among authors":        {Args: []string{"backfill", "--author", npub + "," + key, "--source", from.URL(), "--archive", archive}},
			"--source":             {Args: []string{"run", "--all", "--source", key, "--archive", archive}},
			"in a URL":             {Args: []string{"run", "--all", "--source", "wss://" + key + "@relay.example.com", "--archive", archive}},
			"--sink":               {Args: []string{"run", "--all", "--source", from.URL(), "--sink", key, "--archive", archive}},
			"--archive":            {Args: []string{"export", "--archive", filepath.Join(dir, key)}},
			"--id":                 {Args: []string{"export", "--archive", archive, "--id", key}},
			"--tag":                {Args: []string{"export", "--archive", archive, "--tag", "t=" + key}},
			"--since":              {Args: []string{"export", "--archive", archive, "--since", key}},
			"--log-level":          {Args: []string{"version", "--log-level", key}},
			"--config":             {Args: []string{"run", "-c", key}},
			"an unknown flag":      {Args: []string{"backfill", "--" + key}},
			"a flag's value":       {Args: []string{"backfill", "--nsec", key}},
			"a bare argument":      {Args: []string{"backfill", "--all", "--source", from.URL(), key}},
			"the command":          {Args: []string{key}},
			"status":               {Args: []string{"status", key}},
			"explain":              {Args: []string{"explain", key}},
			"import":               {Args: []string{"import", "--archive", archive, key}},
			"config check":         {Args: []string{"config", "check", key}},
			"the environment":      {Args: []string{"backfill", "--all", "--source", from.URL(), "--archive", archive}, Env: []string{"REBROADCASTR_AUTHOR=" + key}},
			"any variable of it":   {Args: []string{"version"}, Env: []string{"REBROADCASTR_NSEC=" + key}},
			"authors in a file":    {Args: []string{"run", "-c", file("authors.yaml", "authors: ["+npub+", "+key+"]\nsources: ["+from.URL()+"]\n")}},
			"checked":              {Args: []string{"config", "check", file("check.yaml", "authors: ["+key+"]\n")}},
			"shown":                {Args: []string{"config", "show", "-c", file("show.yaml", "authors: ["+key+"]\n")}},
			"an unknown key":       {Args: []string{"run", "-c", file("unknown.yaml", plain+"nsec: "+key+"\n")}},
			"a key of YAML":        {Args: []string{"run", "-c", file("key.yaml", plain+key+": 1\n")}},
			"a comment":            {Args: []string{"run", "-c", file("comment.yaml", plain+"# "+key+"\n")}},
			"broken YAML":          {Args: []string{"run", "-c", file("broken.yaml", plain+"sinks: [ "+key+"\n: }\n")}},
			"a name":               {Args: []string{"run", "-c", file("name.yaml", plain+"sinks: [{url: \"ws://127.0.0.1:1\", name: "+key+"}]\n")}},
			"an expanded value":    {Args: []string{"run", "-c", file("expand.yaml", "authors: [\"${WHO}\"]\nsources: ["+from.URL()+"]\n")}, Env: []string{"WHO=" + key}},
			"a file that is named": {Args: []string{"run", "-c", file("token.yaml", plain+"listen: {addr: \"127.0.0.1:0\", token_file: "+file("token", key+"\n")+"}\n")}},
		}
		for door, o := range doors {
			if form != "nsec" && !slices.Contains([]string{"--author", "a bare argument", "the environment", "authors in a file", "a file that is named"}, door) {
				continue // the other forms need not go through every door: one guard stands before all of them
			}
			t.Run(form+" by "+door, func(t *testing.T) {
				o.Dir = dir
				p := commandWith(t, o)
				if code := p.exit(); code != 2 {
					t.Errorf("exit %d, want 2", code)
				}
				said := p.Stdout() + p.Stderr()
				if !strings.Contains(said, "private key") {
					t.Errorf("the answer does not say that it is a private key:\n%s", said)
				}
				wantNoKey(t, "the output", []byte(said), mallory.secret, nsec, ncryptsec)
			})
		}
		// Whatever was written beside the config files that hold it on purpose.
		err := filepath.WalkDir(archive, func(path string, e fs.DirEntry, err error) error {
			if os.IsNotExist(err) {
				return nil
			}
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			wantNoKey(t, path, b, mallory.secret, nsec, ncryptsec)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := from.Connections(); n != 0 {
		t.Errorf("a relay was connected to %d times by a command that held a private key, want never", n)
	}
}

// TestKeyInEventText: what an event says is data, also if it is a key that its author gave away.
func TestKeyInEventText(t *testing.T) {
	mallory := someone(t, "careless")
	nsec, err := nip19.EncodePrivateKey(mallory.secret)
	if err != nil {
		t.Fatal(err)
	}
	note := mallory.sign(t, 1_700_000_000, 1, "my key is "+nsec)
	from, to := relay(t, localrelay.Options{}, note), relay(t, localrelay.Options{})
	dir := filepath.Join(tempDir(t), "a")
	p := wantExit(t, 0, "backfill", "--all", "--source", from.URL(), "--sink", to.URL(), "--archive", dir, "--log-level", "debug", "--json")
	wantSet(t, "archive", archived(t, dir), stored(t, from))
	wantSet(t, "sink", received(t, to), stored(t, from))
	wantNoKey(t, "the log", []byte(p.Stdout()+p.Stderr()), mallory.secret, nsec)
}

// wantNoKey looks for a key in any case, and for its inner part, which an answer that cuts it short would show.
func wantNoKey(t *testing.T, where string, text []byte, keys ...string) {
	t.Helper()
	lower := bytes.ToLower(text)
	for _, k := range keys {
		k = strings.ToLower(k)
		if middle := k[len(k)/3 : len(k)/3+16]; bytes.Contains(lower, []byte(middle)) {
			t.Errorf("%s holds a part of a private key", where)
		}
	}
}
