package archive

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// sealed reads a zstd file by offsets in its text. It decodes forward, and from the start again when asked for what
// lies behind: readers go forward. One goroutine uses it.
type sealed struct {
	f   File
	dec *zstd.Decoder
	pos int64 // in the text, of what dec gives next
}

func openSealed(fsys FS, name string) (*sealed, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	s := &sealed{f: f}
	if err := s.rewind(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", name, err), f.Close())
	}
	return s, nil
}

func (s *sealed) rewind() error {
	size, err := s.f.Size()
	if err != nil {
		return err
	}
	s.pos = 0
	text := io.NewSectionReader(s.f, 0, size)
	if s.dec != nil {
		return s.dec.Reset(text)
	}
	s.dec, err = zstd.NewReader(text, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	return err
}

// ReadAt is part of io.ReaderAt.
func (s *sealed) ReadAt(b []byte, off int64) (int, error) {
	if off < s.pos {
		if err := s.rewind(); err != nil {
			return 0, err
		}
	}
	if off > s.pos {
		n, err := io.CopyN(io.Discard, s.dec, off-s.pos)
		s.pos += n
		if err != nil {
			return 0, err
		}
	}
	n := 0
	for n < len(b) {
		m, err := s.dec.Read(b[n:])
		n += m
		s.pos += int64(m)
		if err != nil { // not io.ReadFull: a file that was cut is not one that has ended
			return n, err
		}
	}
	return n, nil
}

// Close is part of io.Closer.
func (s *sealed) Close() error {
	s.dec.Close()
	return s.f.Close()
}
