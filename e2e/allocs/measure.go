package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// prefix of the benchmarks that are measured: the stages of an event's way.
const prefix = "BenchmarkStage"

// sample is what runs of one benchmark showed: allocations per operation, as Go prints them, and of the last run bytes and time.
type sample struct {
	least, most    int64
	bytes, seconds float64
}

// stagePackages are the packages of the module in dir that have stage benchmarks, as paths from there. Modules inside it are others.
func stagePackages(dir string) (packages []string, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != dir {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte("\nfunc "+prefix)) {
			return err
		}
		rel, err := filepath.Rel(dir, filepath.Dir(path))
		if rel = "./" + filepath.ToSlash(rel); !slices.Contains(packages, rel) {
			packages = append(packages, rel)
		}
		return err
	})
	if err == nil && len(packages) == 0 {
		err = fmt.Errorf("look for %s… in %s: there is none", prefix, dir)
	}
	return packages, err
}

// measure runs the stage benchmarks of these packages whose functions match. Names in the answer begin with the package:
// rebroadcastr/dedup.StageLRUHit.
func (c *check) measure(ctx context.Context, runs int, functions string, packages ...string) (map[string]sample, error) {
	// Two processors: how goroutines share work and pools changes what is allocated.
	args := []string{"test", "-tags", c.tags, "-run", "^$", "-bench", functions, "-benchmem", "-benchtime", c.benchtime,
		"-count", strconv.Itoa(runs), "-cpu", "2", "-short"}
	cmd := exec.CommandContext(ctx, "go", append(args, packages...)...)
	cmd.Dir = c.dir
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run the benchmarks: %w\n%s%s", err, out.Bytes(), problems.Bytes())
	}
	return samples(&out)
}

// samples reads what go test -bench has printed.
func samples(out io.Reader) (map[string]sample, error) {
	found := make(map[string]sample)
	lines := benchfmt.NewReader(out, "benchmarks")
	for lines.Scan() {
		switch line := lines.Result().(type) {
		case *benchfmt.SyntaxError:
			return nil, fmt.Errorf("read a line of the benchmarks: %w", line)
		case *benchfmt.Result:
			_, parts := line.Name.Parts()
			name := line.Name.String()
			if last := len(parts) - 1; last >= 0 && parts[last][0] == '-' { // the number of processors
				name = strings.TrimSuffix(name, string(parts[last]))
			}
			name = line.GetConfig("pkg") + "." + name
			allocs, measured := line.Value("allocs/op")
			if !measured {
				return nil, fmt.Errorf("%s has no allocs/op", name)
			}
			s, again := found[name]
			if !again {
				s.least = math.MaxInt64
			}
			s.least, s.most = min(s.least, int64(allocs)), max(s.most, int64(allocs))
			s.bytes, _ = line.Value("B/op")
			s.seconds, _ = line.Value("sec/op")
			found[name] = s
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the benchmarks: %w", err)
	}
	return found, nil
}
