package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"rebroadcastr/record"
)

// segmentFile is the segment that is being written, with its origin file. The appender owns it; sync is called by the
// syncer too.
type segmentFile struct {
	name
	fs     FS
	dir    string
	text   File
	origin File
	enc    *originEncoder

	first     uint64 // ordinal of its first line
	written   int64  // length of the text that is good
	lines     uint64
	originEnd int64 // length of the origin file that belongs to written

	buf []byte
}

// createSegment makes a segment that did not exist, durably, and with its origin file first: a text always has one.
// What it made it removes again if it fails.
func createSegment(fsys FS, dir string, n name, mode fs.FileMode, first uint64) (_ *segmentFile, err error) {
	s := &segmentFile{name: n, fs: fsys, dir: dir, enc: newOriginEncoder(), first: first, originEnd: originHeaderSize}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("create segment %s: %w", n.base(), err), s.remove())
		}
	}()
	if s.origin, err = fsys.Create(filepath.Join(dir, n.origin()), mode); err != nil {
		return nil, err
	}
	if _, err := s.origin.WriteAt(appendOriginHeader(nil, n.number, first), 0); err != nil {
		return nil, err
	}
	if err := s.origin.Sync(); err != nil {
		return nil, err
	}
	if s.text, err = fsys.Create(filepath.Join(dir, n.text()), mode); err != nil {
		return nil, err
	}
	if err := s.text.Sync(); err != nil {
		return nil, err
	}
	if err := fsys.SyncDir(dir); err != nil {
		return nil, err
	}
	return s, nil
}

// write appends a group: origins first, each in one write. recs have their places. After an error the files may
// have more than written and originEnd say.
func (s *segmentFile) write(recs []record.Record) error {
	s.buf = s.enc.appendBlock(s.buf[:0], len(recs), func(i int) originRecord {
		return originRecord{offset: int64(recs[i].Place.Offset()), ordinal: recs[i].Ordinal, origin: recs[i].Origin}
	})
	if err := writeAt(s.origin, s.buf, s.originEnd); err != nil {
		return fmt.Errorf("append to %s: %w", s.name.origin(), err)
	}
	originEnd := s.originEnd + int64(len(s.buf))
	s.buf = s.buf[:0]
	for i := range recs {
		s.buf = append(s.buf, recs[i].Event.Line...)
		s.buf = append(s.buf, '\n')
	}
	if err := writeAt(s.text, s.buf, s.written); err != nil {
		return fmt.Errorf("append to %s: %w", s.name.text(), err)
	}
	s.originEnd = originEnd
	s.written += int64(len(s.buf))
	s.lines += uint64(len(recs))
	if cap(s.buf) > 4*maxGroupBytes {
		s.buf = nil
	}
	return nil
}

func writeAt(f File, b []byte, off int64) error {
	n, err := f.WriteAt(b, off)
	if err == nil && n < len(b) {
		err = fmt.Errorf("%d of %d bytes written", n, len(b))
	}
	return err
}

// sync makes the segment durable: origins before the lines that they belong to.
func (s *segmentFile) sync() error {
	if err := s.origin.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", s.name.origin(), err)
	}
	if err := s.text.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", s.name.text(), err)
	}
	return nil
}

// cut gives the files back the lengths that are known to be good.
func (s *segmentFile) cut() error {
	if err := s.text.Truncate(s.written); err != nil {
		return err
	}
	return s.origin.Truncate(s.originEnd)
}

// withdraw makes sure, durably, that no reader ever gets beyond end in the text: by cutting it, else by spaces
// without a newline, else by a file beside it that says where to stop.
func withdraw(fsys FS, dir string, n name, text File, end int64, mode fs.FileMode) error {
	cutErr := text.Truncate(end)
	if cutErr == nil {
		cutErr = text.Sync()
	}
	if cutErr == nil {
		return nil
	}
	size, blankErr := text.Size()
	if blankErr == nil {
		blankErr = overwrite(text, end, size)
	}
	if blankErr == nil {
		blankErr = text.Sync()
	}
	if blankErr == nil {
		return nil
	}
	endErr := writeEnd(fsys, dir, n, end, mode)
	if endErr == nil {
		return nil
	}
	return fmt.Errorf("withdraw %s beyond byte %d: cut: %w; blank: %w; end mark: %w", n.text(), end, cutErr, blankErr, endErr)
}

// overwrite puts spaces in place of from up to to.
func overwrite(f File, from, to int64) error {
	spaces := make([]byte, min(max(to-from, 0), readAhead))
	for i := range spaces {
		spaces[i] = ' '
	}
	for from < to {
		n := min(int64(len(spaces)), to-from)
		if err := writeAt(f, spaces[:n], from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// writeEnd makes NAME.end anew.
func writeEnd(fsys FS, dir string, n name, end int64, mode fs.FileMode) error {
	path := filepath.Join(dir, n.end())
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(path, mode)
	if err != nil {
		return err
	}
	err = writeAt(f, append(strconv.AppendInt(nil, end, 10), '\n'), 0)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, fsys.Remove(path))
	}
	return fsys.SyncDir(dir)
}

func (s *segmentFile) close() error {
	var err error
	if s.text != nil {
		err = s.text.Close()
	}
	if s.origin != nil {
		err = errors.Join(err, s.origin.Close())
	}
	return err
}

// remove closes and deletes a segment of which no line was ever published: its number can be used again.
func (s *segmentFile) remove() error {
	var err error
	if s.text != nil {
		err = s.fs.Remove(filepath.Join(s.dir, s.name.text()))
	}
	if s.origin != nil {
		err = errors.Join(err, s.fs.Remove(filepath.Join(s.dir, s.name.origin())))
	}
	err = errors.Join(err, s.close())
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	return err
}
