package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A question makes no archive, and an empty argument, mostly an unset variable of a shell, is no relay's name.
func TestAskingSlips(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"explain", strings.Repeat("0", 64)}, {"status", "--rejected"}, {"retry", "--sink", "ws://127.0.0.1:1"}, {"pause", "ws://127.0.0.1:1"},
		{"resume", "ws://127.0.0.1:1"}, {"forget", "--sink", "ws://127.0.0.1:1"},
	} {
		want(t, exitFailed, "there is no archive in "+dir, append(args, "--archive", dir)...)
	}
	if made, err := os.ReadDir(dir); err != nil || len(made) > 0 {
		t.Errorf("the empty directory holds %v now, %v", made, err)
	}
	for _, command := range []string{"status", "pause", "resume"} {
		want(t, exitUsage, command+": RELAY is empty", command, "", "--archive", dir)
	}
	want(t, exitUsage, "--sink is a flag of run, backfill, retry and forget, not of pause; without it: pause RELAY", "pause", "--sink", "ws://a")
	want(t, exitUsage, "not of explain; without it: explain ID|note1…|nevent1…", "explain", "--id", "abc")
	want(t, exitUsage, "unexpected argument ws://a: retry takes none; for a sink: retry --sink ws://a", "retry", "ws://a")
}

// Who runs a daemon and breaks its config file can still ask it, and tell it, everything.
func TestAskingWithABrokenConfig(t *testing.T) {
	dir := mirroring(t, `"message":"stopped"`)
	file := filepath.Join(t.TempDir(), "f.yaml")
	on := func(args ...string) []string { return append(args, "-c", file) }
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("archive: {dir: " + dir + "}\nsuorces: [nos.lol]\n")
	const relay = "ws://127.0.0.1:1"
	want(t, exitOK, relay+": paused: nothing is asked", on("pause", relay)...)
	want(t, exitOK, "PAUSED", on("status", relay)...)
	want(t, exitOK, relay+": resumed", on("resume", relay)...)
	want(t, exitIncomplete, "not archived in "+dir, on("explain", strings.Repeat("0", 64))...)
	want(t, exitOK, "nothing has been refused for good", on("status", "--rejected")...)
	want(t, exitOK, "", on("status", "--rejected", "--json")...)
	want(t, exitUsage, "is no sink of this archive", on("retry", "--sink", relay)...)
	want(t, exitUsage, "is no sink of this archive", on("forget", "--sink", relay)...)
	want(t, exitUsage, `"mine" is no relay's name or address`, on("status", "mine")...)
	want(t, exitUsage, "there is no relay wss://nos.lol here; these are: "+relay, on("status", "nos.lol")...)

	write("archive: {dir: " + dir + "\n") // half a file names no directory
	for _, args := range [][]string{{"status"}, {"reload"}, {"pause", relay}} {
		want(t, exitUsage, "the daemon can be asked all the same: say where its archive is, --archive DIR", on(args...)...)
	}
	want(t, exitOK, relay+": paused: nothing is asked", on("pause", relay, "--archive", dir)...)
}
