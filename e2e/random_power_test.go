package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rebroadcastr/archive"
)

// journal is the child's filesystem of segments. Beside doing its work it writes down what is durable, after it is and before
// the program hears of it: so a power cut after kill -9 can be played without guessing, and takes nothing that the program may
// rely on.
type journal struct {
	archive.OS
	slow time.Duration // of every fsync, before the disk has it
	gate string        // the socket of an fsyncGate; empty: none
	mu   sync.Mutex
	f    *os.File
}

func openJournal(file string) (*journal, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return &journal{f: f}, err
}

func (j *journal) note(what, file string, size int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err := fmt.Fprintf(j.f, "%s %d %s\n", what, size, file)
	return err
}

func (j *journal) Create(name string, mode fs.FileMode) (archive.File, error) {
	f, err := j.OS.Create(name, mode)
	return j.noted(f, name, "create", err)
}

func (j *journal) OpenWrite(name string) (archive.File, error) {
	f, err := j.OS.OpenWrite(name)
	return j.noted(f, name, "", err)
}

func (j *journal) noted(f archive.File, name, what string, err error) (archive.File, error) {
	if err != nil {
		return nil, err
	}
	if what != "" {
		if err := j.note(what, name, 0); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &notedFile{f, j, name}, nil
}

func (j *journal) SyncDir(dir string) error {
	if err := j.OS.SyncDir(dir); err != nil {
		return err
	}
	return j.note("dir", dir, 0)
}

type notedFile struct {
	archive.File
	j    *journal
	name string
}

func (f *notedFile) Sync() error {
	size, err := f.Size() // what is written while the disk works is not durable
	if err != nil {
		return err
	}
	time.Sleep(f.j.slow)
	if f.j.gate != "" {
		if err := askGate(f.j.gate, f.name); err != nil {
			return err
		}
	}
	if err := f.File.Sync(); err != nil {
		return err
	}
	return f.j.note("sync", f.name, size)
}

func (f *notedFile) Truncate(size int64) error {
	if err := f.j.note("cut", f.name, size); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

// durable reads a journal: how much of each file is on the disk, and which files' names are not.
func durable(text []byte) (sizes map[string]int64, nameless map[string]bool, err error) {
	sizes, nameless = map[string]int64{}, map[string]bool{}
	for line := range bytes.Lines(text) {
		var what, name string
		var size int64
		if _, err := fmt.Sscanf(string(line), "%s %d %s\n", &what, &size, &name); err != nil {
			return nil, nil, fmt.Errorf("read a journal: %w: %q", err, line)
		}
		switch what {
		case "create":
			nameless[name] = true
		case "dir":
			clear(nameless)
		case "sync":
			sizes[name] = size
		case "cut":
			sizes[name] = min(sizes[name], size)
		}
	}
	return sizes, nameless, nil
}

const page = 4096

// powerCut does to the files of a killed program what a power cut may do: of what was not durable, whole pages or the end are
// lost, and so are files whose names were not. It tells what it did.
func powerCut(rng *rand.Rand, dir, journalFile string) (did []string, err error) {
	text, err := os.ReadFile(journalFile)
	if err != nil {
		return nil, err
	}
	sizes, nameless, err := durable(text)
	if err != nil {
		return nil, err
	}
	j, err := openJournal(journalFile)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.f.Close()) }()
	for _, name := range slices.Sorted(maps.Keys(nameless)) {
		if rng.IntN(2) == 0 {
			continue
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return did, err
		}
		did = append(did, filepath.Base(name)+" is gone")
	}
	files, err := filepath.Glob(filepath.Join(dir, "events_*"))
	if err != nil {
		return did, err
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return did, err
		}
		kept := sizes[name]
		if tail := int64(len(text)) - kept; tail > 0 {
			what := ""
			switch rng.IntN(4) {
			case 0:
				continue // it came through, and is known to nobody as durable
			case 1:
				text, what = text[:kept], "the whole tail"
			case 2:
				text, what = text[:kept+rng.Int64N(tail)], "the end"
			case 3:
				at := max(kept, (kept+rng.Int64N(tail))/page*page)
				end := min(int64(len(text)), (at/page+1)*page)
				clear(text[at:end])
				what = fmt.Sprintf("the page at %d", at)
			}
			if err := os.WriteFile(name, text, 0o640); err != nil {
				return did, err
			}
			did = append(did, fmt.Sprintf("%s: %d durable of %d, lost %s, %d left", filepath.Base(name), kept, kept+tail, what, len(text)))
		}
	}
	return did, nil
}

// TestPowerCut: nothing that was fsynced is taken, whatever was not may be.
func TestPowerCut(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	lost := map[string]bool{}
	for range 200 {
		dir := t.TempDir()
		j, err := openJournal(filepath.Join(dir, "journal"))
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, "events_20261121_0000000001.jsonl")
		f, err := j.Create(name, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		safe, tail := strings.Repeat("s", rng.IntN(2*page)), strings.Repeat("t", 1+rng.IntN(2*page))
		for _, step := range []func() error{
			func() error { return j.SyncDir(dir) },
			func() error { _, err := f.WriteAt([]byte(safe), 0); return err },
			f.Sync,
			func() error { _, err := f.WriteAt([]byte(tail), int64(len(safe))); return err },
			f.Close, j.f.Close,
		} {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := powerCut(rng, dir, filepath.Join(dir, "journal")); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(name)
		if err != nil || len(text) > len(safe)+len(tail) || string(text[:len(safe)]) != safe {
			t.Fatalf("%v: of %d durable bytes and %d others %d are left: %.20q", err, len(safe), len(tail), len(text), text)
		}
		switch left := string(text[len(safe):]); {
		case left == tail:
			lost["nothing"] = true
		case left == "":
			lost["all"] = true
		case strings.Contains(left, "\x00"):
			lost["a page"] = true
		default:
			lost["the end"] = true
		}
	}
	if len(lost) != 4 {
		t.Errorf("in 200 power cuts lost were %v, want nothing, all, a page and the end", lost)
	}
}
