package archive

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
)

// maxHandles segments are kept open for readers, with two descriptors each (text and origins): 64 in all.
const maxHandles = 32

// handle is one segment open for reading. Many readers use it at once.
type handle struct {
	number  uint32
	private bool // a decoder inside remembers where it is: one reader only
	text    io.ReaderAt
	origin  io.ReaderAt // nil: there is none
	guide   *guide      // to origin, for many readers
	closers []io.Closer
	refs    int
	used    uint64
}

func (h *handle) close() error {
	var err error
	for _, c := range h.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

// pool shares descriptors among readers: most stand in the same segment.
type pool struct {
	fs  FS
	dir string

	mu    sync.Mutex
	open  map[uint32]*handle
	clock uint64
}

func newPool(fsys FS, dir string) *pool { return &pool{fs: fsys, dir: dir, open: map[uint32]*handle{}} }

// get opens s, or finds it open. Each get is paired with a put.
func (p *pool) get(s segment) (*handle, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clock++
	if h := p.open[s.number]; h != nil {
		h.refs++
		h.used = p.clock
		return h, nil
	}
	h, err := openSegment(p.fs, p.dir, s.files)
	if err != nil {
		return nil, err
	}
	h.refs, h.used = 1, p.clock
	if h.private {
		return h, nil
	}
	for len(p.open) >= maxHandles && p.evictLocked() {
	}
	h.guide = new(guide)
	p.open[s.number] = h
	return h, nil
}

func (p *pool) evictLocked() bool {
	var oldest *handle
	for _, h := range p.open {
		if h.refs == 0 && (oldest == nil || h.used < oldest.used) {
			oldest = h
		}
	}
	if oldest == nil {
		return false
	}
	delete(p.open, oldest.number)
	_ = oldest.close() // opened for reading: nothing is lost
	return true
}

func (p *pool) put(h *handle) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h.refs--
	if h.refs == 0 && p.open[h.number] != h {
		_ = h.close()
	}
	for len(p.open) > maxHandles && p.evictLocked() {
	}
}

// forget closes number as soon as nobody reads it: its files are gone.
func (p *pool) forget(number uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.open[number]; h != nil {
		delete(p.open, number)
		if h.refs == 0 {
			_ = h.close()
		}
	}
}

func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var err error
	for _, h := range p.open {
		err = errors.Join(err, h.close())
	}
	clear(p.open)
	return err
}

// openSegment opens what there is of a segment: the plain text before the sealed one.
func openSegment(fsys FS, dir string, f files) (*handle, error) {
	h := &handle{number: f.number}
	text, err := fsys.Open(filepath.Join(dir, f.text()))
	switch {
	case err == nil:
		h.text = text
		h.closers = append(h.closers, text)
	case errors.Is(err, fs.ErrNotExist):
		sealed, err := openSealed(fsys, filepath.Join(dir, f.base()+sealedExt))
		if err != nil {
			return nil, err
		}
		h.text, h.private = sealed, true
		h.closers = append(h.closers, sealed)
	default:
		return nil, err
	}
	origin, err := fsys.Open(filepath.Join(dir, f.origin()))
	switch {
	case err == nil:
		h.origin = origin
		h.closers = append(h.closers, origin)
		return h, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, errors.Join(err, h.close())
	}
	sealed, err := openSealed(fsys, filepath.Join(dir, f.base()+sealedOriginExt))
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	h.origin, h.private = sealed, true
	h.closers = append(h.closers, sealed)
	return h, nil
}
