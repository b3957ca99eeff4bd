package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is where and of what the figures are.
type machine struct {
	cpu, kernel, filesystem, goVersion string
	cores                              int
	memory                             int64
	version, verifier                  string
	commit                             string
	date                               time.Time
	load                               string
}

// look describes this machine and the program before anything runs. What cannot be told says so.
func (b *bench) look() machine {
	m := machine{cores: runtime.NumCPU(), goVersion: runtime.Version(), date: time.Now().UTC(), cpu: "unknown", kernel: "unknown", load: "unknown"}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		_, rest, _ := strings.Cut(string(text), "model name")
		_, rest, _ = strings.Cut(rest, ":")
		name, _, _ := strings.Cut(rest, "\n")
		m.cpu = strings.Join(strings.Fields(name), " ")
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		fmt.Sscanf(string(text), "MemTotal: %d kB", &m.memory) //nolint:errcheck // 0 then
		m.memory <<= 10
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.load = strings.Join(strings.Fields(string(text))[:3], " ")
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	m.filesystem = filesystemOf(b.dir)
	var v struct{ Version, Verifier string }
	if out, err := exec.Command(b.binary, "version", "--json").Output(); err == nil {
		json.Unmarshal(out, &v) //nolint:errcheck // empty then
	}
	m.version, m.verifier = v.Version, v.Verifier
	m.commit = commit()
	return m
}

// filesystemOf names the type of the filesystem of a folder: the longest mount point above it.
func filesystemOf(dir string) string {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "unknown"
	}
	best, kind := "", "unknown"
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 3 || len(f[1]) < len(best) {
			continue
		}
		if rel, err := filepath.Rel(f[1], dir); err == nil && !strings.HasPrefix(rel, "..") {
			best, kind = f[1], f[2]
		}
	}
	return kind
}

// commit is what is checked out, and whether anything is changed beside what this command writes.
func commit() string {
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	c := strings.TrimSpace(string(out))
	top, err := exec.Command("git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return c
	}
	status := exec.Command("git", "status", "--porcelain", "--", ":!BENCHMARKS.md", ":!README.md", ":!docs")
	status.Dir = strings.TrimSpace(string(top))
	if out, err := status.Output(); err != nil || len(out) > 0 {
		c += ", dirty"
	}
	return c
}
