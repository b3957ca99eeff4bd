package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stageTest = `package deep

import "testing"

var kept []byte

func BenchmarkStageParse(b *testing.B) {
	for _, size := range []int{10, 1000} {
		b.Run(map[int]string{10: "small", 1000: "large"}[size], func(b *testing.B) {
			for b.Loop() {
				kept = make([]byte, size)
				kept = make([]byte, size)
			}
		})
	}
}

func BenchmarkStageScan(b *testing.B) {
	for b.Loop() {
		kept = nil
	}
}

func BenchmarkOther(b *testing.B) { b.Fatal("is no stage") }
`

// module is a module with stage benchmarks, and a check of it against a record of these lines.
func module(t *testing.T, record ...string) (c check, out *strings.Builder) {
	t.Helper()
	dir := t.TempDir()
	for path, text := range map[string]string{
		"go.mod":              "module stages.example\n\ngo 1.26.0\n",
		"deep/stage_test.go":  stageTest,
		"plain/plain_test.go": "package plain\n\nthis does not compile, and has no benchmark\n",
		"other/go.mod":        "module other.example\n",
		"other/other_test.go": "package other\n\nfunc BenchmarkStageOther(b *testing.B) {}\n",
		"allocs.txt":          "# comment\n\n" + strings.Join(record, "\n") + "\n",
	} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	out = &strings.Builder{}
	return check{dir: dir, record: filepath.Join(dir, "allocs.txt"), benchtime: "100x", out: out}, out
}

const (
	large = "stages.example/deep.StageParse/large"
	small = "stages.example/deep.StageParse/small"
	scan  = "stages.example/deep.StageScan"
)

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name    string
		record  []string
		want    error
		verdict string // the beginning of the benchmark's line in the table, blanks aside
	}{
		{"as recorded", []string{large + " 2", small + " 2", scan + " 0"}, nil, "2 2 ... " + large},
		{"more than recorded", []string{large + " 2", small + " 1", scan + " 0"}, errMore, "2 1 ... MORE " + small},
		{"fewer than recorded", []string{large + " 3", small + " 2", scan + " 0"}, nil, "2 3 ... fewer " + large},
		{"no record", []string{large + " 2", scan + " 0"}, errMore, "2 - ... NO RECORD " + small},
		{"a benchmark that is gone", []string{large + " 2", small + " 2", scan + " 0", "stages.example/deep.StageGone 0"}, errMore,
			"- 0 ... GONE stages.example/deep.StageGone"},
		{"a package that is gone", []string{large + " 2", small + " 2", scan + " 0", "stages.example/gone.StageScan 0"}, errMore,
			"- 0 ... GONE stages.example/gone.StageScan"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, out := module(t, tt.record...)
			if err := c.run(t.Context()); !errors.Is(err, tt.want) {
				t.Errorf("ended with %v, want %v", err, tt.want)
			}
			first, last, _ := strings.Cut(tt.verdict, "...")
			found := false
			for line := range strings.Lines(out.String()) {
				line = strings.Join(strings.Fields(line), " ")
				found = found || strings.HasPrefix(line, first) && strings.HasSuffix(line, last)
			}
			if !found {
				t.Errorf("no line %q in\n%s", tt.verdict, out)
			}
		})
	}
}

// TestUpdate: what was recorded anew is as recorded.
func TestUpdate(t *testing.T) {
	c, out := module(t, scan+" 7", "stages.example/deep.StageGone 0")
	c.update = true
	if err := c.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	recorded, err := readRecord(c.record)
	if err != nil || len(recorded) != 3 || recorded[large] != 2 || recorded[small] != 2 || recorded[scan] != 0 {
		t.Errorf("recorded %v, %v; want 2, 2 and 0", recorded, err)
	}
	c.update = false
	if err := c.run(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestCheckCannotLook: what cannot be compared is an error.
func TestCheckCannotLook(t *testing.T) {
	for name, spoil := range map[string]func(c *check) error{
		"no record":              func(c *check) error { return os.Remove(c.record) },
		"a record that is twice": func(c *check) error { return os.WriteFile(c.record, []byte(scan+" 0\n"+scan+" 1\n"), 0o644) },
		"a record without a number": func(c *check) error {
			return os.WriteFile(c.record, []byte(scan+"\n"), 0o644)
		},
		"a number that is none": func(c *check) error { return os.WriteFile(c.record, []byte(scan+" few\n"), 0o644) },
		"a benchmark that fails": func(c *check) error {
			text := strings.Replace(stageTest, "kept = nil", `b.Fatal("broken")`, 1)
			return os.WriteFile(filepath.Join(c.dir, "deep/stage_test.go"), []byte(text), 0o644)
		},
		"no stages": func(c *check) error { return os.Remove(filepath.Join(c.dir, "deep/stage_test.go")) },
	} {
		t.Run(name, func(t *testing.T) {
			c, out := module(t, large+" 2", small+" 2", scan+" 0")
			if err := spoil(&c); err != nil {
				t.Fatal(err)
			}
			if err := c.run(t.Context()); err == nil || errors.Is(err, errMore) {
				t.Errorf("ended with %v, want another error\n%s", err, out)
			}
		})
	}
}
