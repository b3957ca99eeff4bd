package archive

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// FS is where segments and origin files live. Tests put faults into it; everything else uses OS.
type FS interface {
	// Create makes a file that must not exist yet (O_EXCL), for reading and writing.
	Create(name string, mode fs.FileMode) (File, error)
	// Open opens for reading only.
	Open(name string) (File, error)
	// OpenWrite opens what exists for reading and writing.
	OpenWrite(name string) (File, error)
	ReadDir(dir string) ([]fs.DirEntry, error)
	MkdirAll(dir string, mode fs.FileMode) error
	Remove(name string) error
	// SyncDir makes names that were created or removed in dir durable.
	SyncDir(dir string) error
	// Free is what an unprivileged process may still write to the filesystem of dir, and its whole size, in bytes.
	Free(dir string) (free, total int64, err error)
}

// File is an open segment or origin file. It is written at offsets only, so a write that failed halfway can be
// repeated in its place.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	// Sync makes content and length durable (fdatasync).
	Sync() error
	Size() (int64, error)
}

// OS is the operating system's filesystem.
type OS struct{}

type osFile struct{ *os.File }

// Create is part of FS.
func (OS) Create(name string, mode fs.FileMode) (File, error) {
	return opened(os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode))
}

// Open is part of FS.
func (OS) Open(name string) (File, error) { return opened(os.Open(name)) }

// OpenWrite is part of FS.
func (OS) OpenWrite(name string) (File, error) { return opened(os.OpenFile(name, os.O_RDWR, 0)) }

func opened(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// ReadDir is part of FS.
func (OS) ReadDir(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }

// MkdirAll is part of FS.
func (OS) MkdirAll(dir string, mode fs.FileMode) error { return os.MkdirAll(dir, mode) }

// Remove is part of FS.
func (OS) Remove(name string) error { return os.Remove(name) }

// SyncDir is part of FS.
func (OS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Free is part of FS.
func (OS) Free(dir string) (free, total int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	block := int64(s.Bsize) // an int32 on some machines
	return int64(s.Bavail) * block, int64(s.Blocks) * block, nil
}

func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
		}
		return nil
	}
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// The bounds of min_free when it is left to us: 5 % of the filesystem, within these.
const (
	leastFree = 128 << 20
	mostFree  = 1 << 30
)

// Room reports what is free for dir and what must be (archive.min_free; 0: 5 % of the filesystem, at least 128 MiB
// and at most 1 GiB), in bytes. It is asked before the index is opened, which dies on a full filesystem.
func Room(fsys FS, dir string, minFree int64) (free, need int64, err error) {
	if fsys == nil {
		fsys = OS{}
	}
	free, total, err := fsys.Free(dir)
	if err != nil {
		return 0, 0, err
	}
	if minFree > 0 {
		return free, minFree, nil
	}
	return free, min(max(total/20, leastFree), mostFree), nil
}
