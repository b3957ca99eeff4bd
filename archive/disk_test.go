package archive_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"rebroadcastr/archive"
)

// disk is a filesystem in memory that knows what a power cut leaves: content and names are safe after their sync,
// until then each page of 4 KiB and each name may be there or not.
type disk struct {
	mu    sync.Mutex
	names map[string]*inode // as they are
	safe  map[string]*inode // as a power cut leaves them at least
	free  int64
	total int64

	// before is asked before each operation; its error is the operation's. A shortWrite lets part of a write through.
	before func(op, name string) error
	log    []string
}

type inode struct {
	data []byte // as it is
	safe []byte // as it was at the last sync
}

type shortWrite struct{ n int }

func (s shortWrite) Error() string { return fmt.Sprintf("only %d bytes: no space left on device", s.n) }

func newDisk() *disk {
	return &disk{names: map[string]*inode{}, safe: map[string]*inode{}, free: 100 << 30, total: 200 << 30}
}

const page = 4096

// cut returns the disk that a power cut at this moment may leave.
func (d *disk) cut(r *rand.Rand) *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cutLocked(r)
}

func (d *disk) cutLocked(r *rand.Rand) *disk {
	left := newDisk()
	left.free, left.total = d.free, d.total
	after := map[*inode]*inode{}
	for _, name := range slices.Sorted(maps.Keys(mergeKeys(d.names, d.safe))) {
		now, safe := d.names[name], d.safe[name]
		n := safe
		if now != safe && r.IntN(2) == 0 {
			n = now
		}
		if n == nil {
			continue
		}
		if after[n] == nil {
			data := n.leave(r)
			after[n] = &inode{data: data, safe: slices.Clone(data)}
		}
		left.names[name] = after[n]
		left.safe[name] = after[n]
	}
	return left
}

func mergeKeys(a, b map[string]*inode) map[string]bool {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}

func (n *inode) leave(r *rand.Rand) []byte {
	size := len(n.safe)
	if len(n.data) != len(n.safe) {
		switch lo, hi := min(len(n.data), len(n.safe)), max(len(n.data), len(n.safe)); r.IntN(3) {
		case 0:
			size = len(n.data)
		case 1:
			size = lo + r.IntN(hi-lo+1)
		}
	}
	out := make([]byte, size)
	copy(out, n.safe)
	for at := 0; at < size; at += page {
		from, to := min(at, len(n.data)), min(at+page, len(n.data), size)
		if from < to && r.IntN(2) == 0 {
			copy(out[from:], n.data[from:to])
		}
	}
	return out
}

// killed returns the disk as the kernel has it when only the process ends.
func (d *disk) killed() *disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.killedLocked()
}

func (d *disk) killedLocked() *disk {
	left := newDisk()
	left.free, left.total = d.free, d.total
	for name, n := range d.names {
		left.names[name] = &inode{data: slices.Clone(n.data), safe: slices.Clone(n.safe)}
		if d.safe[name] != nil {
			left.safe[name] = left.names[name]
		}
	}
	return left
}

func (d *disk) do(op, name string) error {
	if d.before != nil {
		if err := d.before(op, filepath.Base(name)); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) record(op, name string) { d.log = append(d.log, op+" "+filepath.Base(name)) }

// hook replaces before.
func (d *disk) hook(f func(op, name string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = f
}

// ops returns what was done, in order.
func (d *disk) ops() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.log)
}

func (d *disk) setFree(free int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = free
}

func (d *disk) content(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := d.names[name]; n != nil {
		return string(n.data)
	}
	return ""
}

func (d *disk) set(name, content string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &inode{data: []byte(content), safe: []byte(content)}
	d.names[name], d.safe[name] = n, n
}

func (d *disk) files(suffix string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var found []string
	for name := range d.names {
		if strings.HasSuffix(name, suffix) {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	return found
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (d *disk) Create(name string, _ fs.FileMode) (archive.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("create", name); err != nil {
		return nil, pathError("create", name, err)
	}
	if d.names[name] != nil {
		return nil, pathError("create", name, fs.ErrExist)
	}
	n := &inode{}
	d.names[name] = n
	d.record("create", name)
	return &file{d: d, name: name, n: n, write: true}, nil
}

func (d *disk) Open(name string) (archive.File, error)      { return d.open(name, false) }
func (d *disk) OpenWrite(name string) (archive.File, error) { return d.open(name, true) }

func (d *disk) open(name string, write bool) (archive.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("open", name); err != nil {
		return nil, pathError("open", name, err)
	}
	if d.names[name] == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &file{d: d, name: name, n: d.names[name], write: write}, nil
}

type dirEntry struct{ name string }

func (e dirEntry) Name() string               { return e.name }
func (e dirEntry) IsDir() bool                { return false }
func (e dirEntry) Type() fs.FileMode          { return 0 }
func (e dirEntry) Info() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }

func (d *disk) ReadDir(dir string) ([]fs.DirEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var entries []fs.DirEntry
	for name := range d.names {
		if filepath.Dir(name) == dir {
			entries = append(entries, dirEntry{filepath.Base(name)})
		}
	}
	return entries, nil
}

func (d *disk) MkdirAll(string, fs.FileMode) error { return nil }

func (d *disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("remove", name); err != nil {
		return pathError("remove", name, err)
	}
	if d.names[name] == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	delete(d.names, name)
	d.record("remove", name)
	return nil
}

func (d *disk) SyncDir(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.do("syncdir", dir); err != nil {
		return pathError("sync", dir, err)
	}
	for name := range mergeKeys(d.names, d.safe) {
		if filepath.Dir(name) == dir {
			if n := d.names[name]; n != nil {
				d.safe[name] = n
			} else {
				delete(d.safe, name)
			}
		}
	}
	d.record("syncdir", dir)
	return nil
}

func (d *disk) Free(string) (int64, int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.free, d.total, nil
}

type file struct {
	d     *disk
	name  string
	n     *inode
	write bool
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.do("read", f.name); err != nil {
		return 0, pathError("read", f.name, err)
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if !f.write {
		return 0, pathError("write", f.name, syscall.EBADF)
	}
	err := f.d.do("write", f.name)
	if err != nil {
		var s shortWrite
		if !errors.As(err, &s) {
			return 0, pathError("write", f.name, err)
		}
		b = b[:min(s.n, len(b))]
	}
	if grow := int(off) + len(b) - len(f.n.data); grow > 0 {
		f.n.data = append(f.n.data, make([]byte, grow)...)
	}
	copy(f.n.data[off:], b)
	f.d.record("write", f.name)
	return len(b), pathError("write", f.name, err)
}

func (f *file) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.do("truncate", f.name); err != nil {
		return pathError("truncate", f.name, err)
	}
	if size <= int64(len(f.n.data)) {
		f.n.data = slices.Clone(f.n.data[:size])
	} else {
		f.n.data = append(f.n.data, make([]byte, int(size)-len(f.n.data))...)
	}
	f.d.record("truncate", f.name)
	return nil
}

func (f *file) Sync() error {
	f.d.mu.Lock()
	if err := f.d.do("sync", f.name); err != nil {
		f.d.mu.Unlock()
		return pathError("sync", f.name, err)
	}
	data := slices.Clone(f.n.data)
	f.d.mu.Unlock()
	time.Sleep(10 * time.Microsecond) // writes go on meanwhile, and are not part of it
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.n.safe = data
	f.d.record("sync", f.name)
	return nil
}

func (f *file) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *file) Close() error { return nil }
