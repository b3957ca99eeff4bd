package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"rebroadcastr/e2e/child"
)

func TestMain(m *testing.M) {
	if os.Getenv(slowVariable) != "" {
		fmt.Fprintln(os.Stderr, "run the program on a slow disk:", beSlow())
		os.Exit(1)
	}
	if os.Getenv(hostVariable) != "" {
		if err := beHost(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// TestBench: each scenario runs, in tiny numbers, and has its table and its plots in the file. What the figures are is nobody's
// business here.
func TestBench(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "rebroadcastr")
	if err := child.Build("../..", binary, false); err != nil {
		t.Fatal(err)
	}
	if err := figures(t.Context(), options{binary: binary, out: dir, rounds: 1, quick: true, command: "go test"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "BENCHMARKS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scenarios {
		_, section, found := strings.Cut(string(text), "\n## "+s.name+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		if !found || !strings.Contains(section, "\n| ") && !strings.Contains(section, "\n![") {
			t.Errorf("BENCHMARKS.md has neither a table nor a plot for %q:\n%s", s.name, section)
		}
		for line := range strings.Lines(section) {
			if _, rest, ok := strings.Cut(line, "]("+plotsDir+"/"); ok {
				file, _, _ := strings.Cut(rest, ")")
				wellFormed(t, filepath.Join(dir, plotsDir, file))
			}
		}
	}
	if strings.Contains(string(text), "Not measured") || strings.Contains(string(text), "NaN") {
		t.Errorf("something was not measured:\n%s", text)
	}
}

// wellFormed wants an SVG with something drawn in it, and nothing to be fetched.
func wellFormed(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Error(err)
		return
	}
	d := xml.NewDecoder(strings.NewReader(string(text)))
	paths := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
			return
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "path" {
			paths++
		}
	}
	if paths == 0 {
		t.Errorf("%s: nothing is drawn", file)
	}
	if strings.Contains(string(text), "@import") || strings.Contains(string(text), "url(http") {
		t.Errorf("%s fetches something", file)
	}
}

// TestVerdicts: what misses its target says so.
func TestVerdicts(t *testing.T) {
	held := limit{values: []float64{2, 2, 4}}
	for name, c := range map[string]struct {
		row  row
		want string
	}{
		"no target":             {row{values: []float64{1}}, ""},
		"at most, met":          {row{values: []float64{9, 1, 2}, target: atMost(2)}, "yes"},
		"at most, missed":       {row{values: []float64{9, 3, 2}, target: atMost(2)}, "**missed**"},
		"in each round, missed": {row{values: []float64{9, 1, 2}, target: never(2)}, "**missed**"},
		"at least, missed":      {row{values: []float64{9, 3, 2}, target: atLeast(4)}, "**missed**"},
		"ratio, met":            {row{values: []float64{2, 2.4, 5}, limit: held, target: ratioMost(1.25)}, "yes"},
		"ratio, missed":         {row{values: []float64{2, 2.4, 5}, limit: held, target: ratioMost(1.1)}, "**missed**"},
		"share, met":            {row{values: []float64{2, 2, 3.5}, limit: held, target: ratioLeast(0.9)}, "yes"},
		"ratio, no limit":       {row{values: []float64{2}, target: ratioMost(1)}, "**missed**"},
	} {
		if got := c.row.verdict(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
