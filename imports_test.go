package main_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layers says which of our packages each package may import: imports point one way, siblings do not
// import each other. A package that is missing here fails the test too: whoever adds one says where it stands.
var layers = map[string][]string{
	"main":         {"cli"},
	"cli":          join([]string{"pipeline", "web", "config"}, stages, links, leaves),
	"web":          leaves,
	"pipeline":     join([]string{"config"}, stages, links, leaves),
	"config":       join(links, leaves),
	"sources":      join(links, leaves),
	"sinks":        join(links, leaves),
	"dedup":        join(links, leaves),
	"archive":      join(links, leaves),
	"relay":        leaves,
	"state":        leaves,
	"policy":       {"event", "relay/url"},
	"record":       {"event", "place"},
	"reconcile":    {"event"},
	"event":        {"event/bip340"}, // without a C compiler
	"place":        nil,
	"report":       nil,
	"relay/url":    nil,
	"event/bip340": nil,
	"relaytest":    nil,
	"systemd":      nil,
}

var (
	stages = []string{"sources", "sinks", "dedup", "archive"}
	links  = []string{"relay", "state"}
	leaves = []string{"event", "place", "record", "report", "policy", "reconcile", "relay/url"}
)

func join(lists ...[]string) []string { return slices.Concat(lists...) }

const module = "rebroadcastr"

func name(path string) string {
	if path == module {
		return "main"
	}
	return strings.TrimPrefix(path, module+"/")
}

// TestImportDirection asks the go command for every import of ours, tests aside.
func TestImportDirection(t *testing.T) {
	for from, imports := range goList(t, "./...") {
		allowed, known := layers[from]
		if !known {
			t.Errorf("package %s stands in no layer: add it to the list in this test", from)
			continue
		}
		for _, to := range imports {
			if !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s; it may import %s", from, to, strings.Join(allowed, ", "))
			}
		}
	}
}

// TestTestsStayOutside: what is made for tests is in no binary, and the e2e module's relays neither.
func TestTestsStayOutside(t *testing.T) {
	out := command(t, "go", "list", "-deps", "-tags", "libsecp256k1", ".")
	for _, path := range strings.Fields(out) {
		for _, no := range []string{module + "/relaytest", module + "/e2e", "testing", "github.com/fiatjaf/"} {
			if path == no || strings.HasSuffix(no, "/") && strings.HasPrefix(path, no) {
				t.Errorf("the program contains %s", path)
			}
		}
	}
}

// TestOneVerifier: a program has its own verifier, not also the tables of the other one.
func TestOneVerifier(t *testing.T) {
	for tags, want := range map[string]bool{"libsecp256k1": false, "": true} {
		if got := slices.Contains(strings.Fields(command(t, "go", "list", "-deps", "-tags", tags, ".")), module+"/event/bip340"); got != want {
			t.Errorf("with tags %q the program contains event/bip340: %t, want %t", tags, got, want)
		}
	}
}

// TestFixedNames: these packages and files have the names that the owner gave them.
func TestFixedNames(t *testing.T) {
	packages := goList(t, "./...")
	for _, p := range []string{"pipeline", "sources", "sinks", "dedup", "config"} {
		if _, ok := packages[p]; !ok {
			t.Errorf("there is no package %s", p)
		}
	}
}

// goList gives our imports of our packages, by package.
func goList(t *testing.T, pattern string) map[string][]string {
	t.Helper()
	out := command(t, "go", "list", "-tags", "libsecp256k1", "-f", `{{.ImportPath}} {{join .Imports " "}}`, pattern)
	list := map[string][]string{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		var ours []string
		for _, path := range fields[1:] {
			if path == module || strings.HasPrefix(path, module+"/") {
				ours = append(ours, name(path))
			}
		}
		list[name(fields[0])] = ours
	}
	return list
}

func command(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	out, err := cmd.Output()
	if err != nil {
		detail := ""
		if exit, ok := err.(*exec.ExitError); ok {
			detail = string(exit.Stderr)
		}
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, detail)
	}
	return string(out)
}
