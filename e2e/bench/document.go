package main

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// document is BENCHMARKS.md.
type document struct {
	machine machine
	command string
	rounds  int
	quick   bool
	whole   bool // every scenario, in full: the README's list is written too
	took    time.Duration
	parts   []part
}

// part is one scenario's.
type part struct {
	scenario
	result
	failed error
	lasted time.Duration
}

// plotsDir is where the plots lie, beside the file.
const plotsDir = "docs"

// write makes BENCHMARKS.md and the plots.
func (d document) write(dir string) error {
	plots := filepath.Join(dir, plotsDir)
	if err := os.MkdirAll(plots, 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	d.head(&b)
	d.targets(&b)
	for _, p := range d.parts {
		p.write(&b)
		for _, c := range p.plots {
			if err := c.write(filepath.Join(plots, c.file)); err != nil {
				return fmt.Errorf("draw %s: %w", c.file, err)
			}
			fmt.Fprintf(&b, "![%s](%s/%s)\n\n", c.title, plotsDir, c.file)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "BENCHMARKS.md"), append(bytes.TrimSpace(b.Bytes()), '\n'), 0o644); err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	if !d.whole {
		return nil
	}
	return d.readme(filepath.Join(dir, "README.md"))
}

// The README's short list stands between these lines.
const readmeFrom, readmeTo = "<!-- written by make bench -->\n", "<!-- to here -->\n"

// readme puts the headlines into the README.
func (d document) readme(file string) error {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the headlines: %w", err)
	}
	before, rest, found := strings.Cut(string(text), readmeFrom)
	_, after, ended := strings.Cut(rest, readmeTo)
	if !found || !ended {
		return fmt.Errorf("write the headlines: %s has no place for them", file)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| on %d cores (%s) | | held against | |\n|---|---|---|---|\n", d.machine.cores, d.machine.cpu)
	for _, p := range d.parts {
		for _, r := range p.rows {
			if r.headline != "" {
				_, limit := r.compared()
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", r.headline, r.held(), r.limit.what, limit)
			}
		}
	}
	return os.WriteFile(file, []byte(before+readmeFrom+b.String()+readmeTo+after), 0o644)
}

func (d document) head(b *bytes.Buffer) {
	m := d.machine
	fmt.Fprintf(b, "# Benchmarks\n\nWritten by `%s` ([e2e/bench](e2e/bench/doc.go)), which runs the built program as a child and measures it from outside. "+
		"Not edited by hand: what misses its target stands here as missed.\n\n", d.command)
	if d.quick {
		fmt.Fprint(b, "**`-quick`: tiny numbers, which say nothing about speed.**\n\n")
	}
	fmt.Fprint(b, "| | |\n|---|---|\n")
	for _, r := range [][2]string{
		{"processor", fmt.Sprintf("%s, %d cores", m.cpu, m.cores)},
		{"memory", fmt.Sprintf("%.1f GiB", float64(m.memory)/(1<<30))},
		{"kernel", m.kernel},
		{"filesystem of the archive", m.filesystem},
		{"Go", m.goVersion},
		{"program", m.version + ", signatures by " + m.verifier},
		{"commit", m.commit},
		{"date", m.date.Format("2006-01-02 15:04 UTC")},
		{"load at the start", m.load},
		{"rounds", fmt.Sprintf("%d of each, in turns; %s in all", d.rounds, d.took.Round(time.Second))},
	} {
		fmt.Fprintf(b, "| %s | %s |\n", r[0], r[1])
	}
	fmt.Fprint(b, "\nEach figure is the median of the rounds, with the lowest and the highest. What it is held against was measured in the same rounds; the ratio is the "+
		"median of the rounds' ratios. Relays, program and limits share the cores.\n\n")
}

// targets are all rows that have one.
func (d document) targets(b *bytes.Buffer) {
	fmt.Fprint(b, "## Targets\n\n| scenario | figure | | limit | | ratio | target | met? |\n|---|---|---|---|---|---|---|---|\n")
	for _, p := range d.parts {
		if p.failed != nil {
			fmt.Fprintf(b, "| %s | not measured | | | | | | **NO** |\n", p.name)
		}
		for _, r := range p.rows {
			if r.target.kind != noTarget {
				ratio, limit := r.compared()
				fmt.Fprintf(b, "| [%s](#%s) | %s | %s | %s | %s | %s | %s | %s |\n", p.name, anchor(p.name), r.figure, r.held(), r.limit.what, limit, ratio, r.wanted(), r.verdict())
			}
		}
	}
	fmt.Fprintln(b)
}

// anchor is what Markdown makes of a heading.
func anchor(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-':
			return r
		}
		return -1
	}, strings.ToLower(heading))
}

func (p part) write(b *bytes.Buffer) {
	fmt.Fprintf(b, "## %s\n\n%s\n\n", p.name, p.about)
	if p.failed != nil {
		fmt.Fprintf(b, "**Not measured**: %s\n\n", strings.ReplaceAll(p.failed.Error(), "\n", " "))
	}
	if len(p.rows) > 0 {
		fmt.Fprint(b, "| figure | median | min … max | limit | median | ratio | target | met? |\n|---|---|---|---|---|---|---|---|\n")
		for _, r := range p.rows {
			s := spreadOf(r.values)
			ratio, limit := r.compared()
			fmt.Fprintf(b, "| %s | %s | %s … %s | %s | %s | %s | %s | %s |\n", r.figure, r.value(),
				number(s.min), number(s.max), r.limit.what, limit, ratio, r.wanted(), r.verdict())
		}
		fmt.Fprintln(b)
	}
	for _, n := range p.notes {
		fmt.Fprintf(b, "%s\n\n", n)
	}
}

// value is the median with its unit.
func (r row) value() string { return strings.TrimSpace(number(r.median()) + " " + r.unit) }

// held is what is held to the target: the median, or the highest.
func (r row) held() string {
	if r.target.kind == everAtMost {
		return number(spreadOf(r.values).max) + " " + r.unit
	}
	return r.value()
}

// compared are the ratio and the limit's median in words; empty where there is no limit.
func (r row) compared() (ratio, limit string) {
	if !r.hasRatio() {
		return "", ""
	}
	unit := r.limit.unit
	if unit == "" {
		unit = r.unit
	}
	return number(r.ratio()), number(spreadOf(r.limit.values).median) + " " + unit
}

// wanted is the target in words.
func (r row) wanted() string {
	switch t := r.target; t.kind {
	case figureAtMost:
		return "≤ " + number(t.bound) + " " + r.unit
	case everAtMost:
		return "always ≤ " + number(t.bound) + " " + r.unit
	case figureAtLeast:
		return "≥ " + number(t.bound) + " " + r.unit
	case ratioAtMost:
		return "ratio ≤ " + number(t.bound)
	case ratioAtLeast:
		return "ratio ≥ " + number(t.bound)
	}
	return ""
}

func (r row) verdict() string {
	switch met, asked := r.met(); {
	case !asked:
		return ""
	case met:
		return "yes"
	}
	return "**missed**"
}

// short is the row in a line of the log.
func (r row) short() string {
	s := spreadOf(r.values)
	text := fmt.Sprintf("%s: %s (%s … %s)", r.figure, r.value(), number(s.min), number(s.max))
	if ratio, limit := r.compared(); ratio != "" {
		text += fmt.Sprintf("; %s: %s, ratio %s", r.limit.what, limit, ratio)
	}
	if v := r.verdict(); v != "" {
		text += fmt.Sprintf("; %s: %s", r.wanted(), v)
	}
	return text
}

// number writes a figure with three digits that count.
func number(x float64) string {
	switch a := math.Abs(x); {
	case a >= 1000:
		return count(int(math.Round(x)))
	case a >= 100:
		return fmt.Sprintf("%.0f", x)
	case a >= 10:
		return trim(fmt.Sprintf("%.1f", x))
	case a >= 1:
		return trim(fmt.Sprintf("%.2f", x))
	case a == 0:
		return "0"
	}
	return trim(fmt.Sprintf("%.3f", x))
}

func trim(s string) string { return strings.TrimSuffix(strings.TrimRight(s, "0"), ".") }
