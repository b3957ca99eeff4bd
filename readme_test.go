package main_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"rebroadcastr/config"
	"rebroadcastr/policy"
)

// TestReadme holds the README's tables to the code they describe.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"the config reference":        "```yaml\n" + string(config.Example) + "```\n",
		"the table of what is kept":   policyTable(),
		"the test command of .ci/run": "```sh\nmake test\n```\n",
		"the first command":           "```sh\nmake && bin/rebroadcastr backfill",
	} {
		if !strings.Contains(string(readme), want) {
			t.Errorf("README.md lacks %s, which is now:\n%s", name, want)
		}
	}
}

// TestReadmeFigures: the list of how fast it is says what BENCHMARKS.md says; make bench writes both.
func TestReadmeFigures(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	benchmarks, err := os.ReadFile("BENCHMARKS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(readme), "<!-- written by make bench -->\n")
	list, _, found := strings.Cut(list, "<!-- to here -->\n")
	rows := 0
	for row := range strings.Lines(list) {
		cells := strings.Split(row, " | ")
		if !strings.HasPrefix(row, "| ") || strings.HasPrefix(row, "| on ") {
			continue
		}
		if rows++; len(cells) != 4 || !strings.Contains(string(benchmarks), "| "+cells[1]+" |") {
			t.Errorf("BENCHMARKS.md does not say %q", row)
		}
	}
	if !found || rows == 0 {
		t.Error("README.md has no list of what make bench has measured")
	}
}

// TestReadmeSurvives: every test that "What it survives" names is there, and every row names one.
func TestReadmeSurvives(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(readme), "\n## What it survives\n")
	section, _, _ = strings.Cut(section, "\n## ")
	tests := testNames(t)
	named, rows := regexp.MustCompile("`(Test[A-Za-z0-9]+)`"), 0
	for row := range strings.Lines(section) {
		if !strings.HasPrefix(row, "| ") || strings.HasSuffix(row, "| test |\n") {
			continue
		}
		rows++
		names := named.FindAllStringSubmatch(row, -1)
		if len(names) == 0 {
			t.Errorf("this row names no test: %s", row)
		}
		for _, n := range names {
			if !tests[n[1]] {
				t.Errorf("there is no %s, which this row names: %s", n[1], row)
			}
		}
	}
	if rows == 0 {
		t.Error("README.md has no table under What it survives")
	}
}

// testNames are the tests of both modules.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(t \*testing\.T\)`)
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestReadmeSummary: the example of a summary adds up, as every summary does.
func TestReadmeSummary(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(readme), "\nasked 3 relays for ")
	text, _, _ = strings.Cut(text, "```")
	figures := regexp.MustCompile(`^wss?://\S+ +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+)(?: +([\d,]+)$)?`)
	sources, sinks := 0, 0
	for line := range strings.Lines(text) {
		found := figures.FindStringSubmatch(strings.TrimSpace(line))
		if found == nil {
			continue
		}
		var n [6]int
		for i, figure := range found[1:] {
			if figure != "" {
				if n[i], err = strconv.Atoi(strings.ReplaceAll(figure, ",", "")); err != nil {
					t.Fatal(err)
				}
			}
		}
		if found[6] != "" { // a sink
			if sinks++; n[0]+n[1]+n[2]+n[3]+n[4] != n[5] {
				t.Errorf("this does not add up: %s", line)
			}
		} else if sources++; n[1]+n[2]+n[3]+n[4] != n[0] {
			t.Errorf("this does not add up: %s", line)
		}
	}
	if sources != 3 || sinks != 1 {
		t.Errorf("README.md has a summary of %d sources and %d sinks, want 3 and 1:\n%s", sources, sinks, text)
	}
}

func policyTable() string {
	var b strings.Builder
	b.WriteString("| row | what | NIP | why | `send:` |\n|---|---|---|---|---|\n")
	for _, r := range policy.Table() {
		send := "yes"
		if r.Never {
			send = "never"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.Name, r.Rule, r.NIP, r.Reason, send)
	}
	return b.String()
}
