// Package systemd holds the units; its test asks systemd itself about them.
package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// exposure is the most that `systemd-analyze security` may find, in tenths: 2.0 of 10, where 10 is a unit without any
// hardening.
const exposure = "20"

var units = []string{"rebroadcastr.service", "rebroadcastr@.service"}

// TestUnits: systemd can load the units, and finds them hardened. A copy is looked at, whose binary exists.
func TestUnits(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("systemd-analyze is missing: .ci/run installs systemd: %v", err)
		}
		t.Skip("systemd-analyze is missing: apt-get install systemd, to have the units checked")
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range units {
		t.Run(unit, func(t *testing.T) {
			text := read(t, unit)
			const installed = "/usr/local/bin/rebroadcastr "
			for _, line := range []string{"ExecStart=" + installed + "run ", "ExecReload=" + installed + "reload "} {
				if strings.Count(text, "\n"+line) != 1 {
					t.Fatalf("want one line that begins with %q", line)
				}
			}
			copied := filepath.Join(t.TempDir(), unit)
			if err := os.WriteFile(copied, []byte(strings.ReplaceAll(text, installed, binary+" ")), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{
				{"verify", "--man=false", copied},
				{"security", "--no-pager", "--offline=true", "--threshold=" + exposure, copied},
			} {
				out, err := exec.Command(analyze, args...).CombinedOutput()
				if err != nil {
					t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
				}
				if args[0] == "verify" && strings.Contains(string(out), copied) {
					t.Errorf("systemd-analyze verify has something to say:\n%s", out)
				}
			}
		})
	}
}

// TestPromises: what the contract says of the units, beyond what systemd looks at.
func TestPromises(t *testing.T) {
	for _, unit := range units {
		text := read(t, unit)
		for _, line := range []string{
			"Type=notify", "DynamicUser=yes", "ProtectSystem=strict", "RestartPreventExitStatus=2", "SystemCallFilter=@system-service",
		} {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("%s: no line %q", unit, line)
			}
		}
		for _, key := range []string{"StateDirectory=", "WatchdogSec="} {
			if !strings.Contains(text, "\n"+key) {
				t.Errorf("%s: no %s", unit, key)
			}
		}
	}
	template := read(t, "rebroadcastr@.service")
	for _, line := range []string{"StateDirectory=rebroadcastr-%i", "Environment=REBROADCASTR_LISTEN="} {
		if !strings.Contains(template, "\n"+line+"\n") {
			t.Errorf("the template: no line %q: two instances would share it", line)
		}
	}
}

func read(t *testing.T, unit string) string {
	t.Helper()
	b, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
