package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

const head = `# Allocations per operation of each stage benchmark. "make allocs" fails on more; "make allocs-update" writes this file.
`

// readRecord reads lines of a benchmark's name and a number. Empty ones, and those that begin with #, say nothing.
func readRecord(path string) (map[string]int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the record: %w", err)
	}
	recorded := make(map[string]int64)
	for n, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if len(fields) != 2 {
			return nil, fmt.Errorf("%s:%d: want a name and a number, not %q", path, n+1, line)
		}
		if _, twice := recorded[fields[0]]; twice {
			return nil, fmt.Errorf("%s:%d: %s stands there twice", path, n+1, fields[0])
		}
		if recorded[fields[0]], err = strconv.ParseInt(fields[1], 10, 64); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n+1, err)
		}
	}
	return recorded, nil
}

func writeRecord(path string, now map[string]sample) error {
	b := bytes.NewBufferString(head)
	w := tabwriter.NewWriter(b, 0, 8, 2, ' ', 0)
	for _, name := range slices.Sorted(maps.Keys(now)) {
		fmt.Fprintf(w, "%s\t%d\n", name, now[name].most)
	}
	_ = w.Flush() // into memory
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the record: %w", err)
	}
	return nil
}

// compare is a table of all benchmarks, and how many of them are not as recorded. One that allocates less is: it may be recorded anew.
func compare(recorded map[string]int64, now map[string]sample) (table string, wrong int) {
	names := maps.Clone(recorded)
	for name := range now {
		names[name] = 0
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "allocs/op\trecorded\tB/op\tns/op\t\t benchmark")
	for _, name := range slices.Sorted(maps.Keys(names)) {
		most, known := recorded[name]
		s, there := now[name]
		verdict := ""
		switch {
		case !there:
			verdict = "GONE"
		case !known:
			verdict = "NO RECORD"
		case s.least > most:
			verdict = "MORE"
		}
		if verdict != "" {
			wrong++
		} else if s.least < most {
			verdict = "fewer"
		}
		measured, record, size, ns := "-", "-", "-", "-"
		if there {
			measured, size, ns = fmt.Sprint(s.least), fmt.Sprintf("%.0f", s.bytes), fmt.Sprintf("%.0f", s.seconds*1e9)
		}
		if known {
			record = fmt.Sprint(most)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t %s\n", measured, record, size, ns, verdict, name)
	}
	_ = w.Flush()
	return b.String(), wrong
}

// split takes a name apart into its package and the function without what is below it.
func split(name string) (at, function string) {
	at, function, _ = strings.Cut(name, ".Stage") // no package of ours has a dot in its path
	function, _, _ = strings.Cut(function, "/")
	return at, "Stage" + function
}
