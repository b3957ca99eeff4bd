package archive

import (
	"bytes"
	"errors"
	"io"
)

// maxLine bounds a line in memory: the largest frame that a config may allow (16 MiB), and some.
const maxLine = 17 << 20

// errLineTooLong is the damage of a line that is not even looked at.
var errLineTooLong = errors.New("line too long")

// textLine is one line of a text. Its bytes are valid until the next one is asked for.
type textLine struct {
	off    int64
	length int64  // without the newline
	text   []byte // nil if the line is too long
	ended  bool   // by a newline: only the last may not be
}

// splitter cuts a text at newlines, and only there: U+2028 and friends are content. A line beyond max is passed over
// without being held.
type splitter struct {
	r        io.Reader
	max      int
	buf      []byte
	from, to int
	off      int64 // of buf[from]
}

func newSplitter(r io.Reader, off int64, limit int) *splitter {
	return &splitter{r: r, max: limit, buf: make([]byte, 64<<10), off: off}
}

// next returns io.EOF after the last line.
func (s *splitter) next() (textLine, error) {
	l := textLine{off: s.off}
	seen := 0 // bytes of buf[from:to] known to hold no newline
	skipped := int64(0)
	for {
		if i := bytes.IndexByte(s.buf[s.from+seen:s.to], '\n'); i >= 0 {
			n := seen + i
			l.length, l.ended = skipped+int64(n), true
			if skipped == 0 && n <= s.max {
				l.text = s.buf[s.from : s.from+n]
			}
			s.from += n + 1
			s.off += int64(n) + 1
			return l, nil
		}
		seen = s.to - s.from
		if seen > s.max || skipped > 0 {
			skipped += int64(seen)
			s.off += int64(seen)
			s.from, s.to, seen = 0, 0, 0
		}
		if err := s.fill(); err == io.EOF {
			if l.length = skipped + int64(seen); l.length == 0 {
				return l, io.EOF
			}
			if skipped == 0 {
				l.text = s.buf[s.from:s.to]
			}
			s.off += int64(seen)
			s.from = s.to
			return l, nil
		} else if err != nil {
			return l, err
		}
	}
}

func (s *splitter) fill() error {
	if s.from > 0 {
		s.to = copy(s.buf, s.buf[s.from:s.to])
		s.from = 0
	}
	if s.to == len(s.buf) {
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	for range 100 {
		n, err := s.r.Read(s.buf[s.to:])
		s.to += n
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// Line is one line of a foreign JSONL text.
type Line struct {
	Number int64  // from 1
	Offset int64  // in bytes
	Length int64  // without the newline
	Text   []byte // valid until the next call of Next; nil if TooLong
	// TooLong says that the line was passed over unread, being longer than what Lines was told.
	TooLong bool
}

// LineReader reads JSONL as others write it: lines of any length, a last one without newline, "\r\n", a byte order
// mark, blank lines (left out). What a line holds is the caller's to judge.
type LineReader struct {
	s      *splitter
	number int64
}

// Lines reads r, whose lines may have up to limit bytes.
func Lines(r io.Reader, limit int) *LineReader { return &LineReader{s: newSplitter(r, 0, limit)} }

var byteOrderMark = []byte("\xef\xbb\xbf")

// Next returns the next line that is not blank, io.EOF after the last, or the error of the reader below.
func (lr *LineReader) Next() (Line, error) {
	for {
		l, err := lr.s.next()
		if err != nil {
			return Line{}, err
		}
		lr.number++
		out := Line{Number: lr.number, Offset: l.off, Length: l.length, Text: l.text, TooLong: l.text == nil}
		if out.TooLong {
			return out, nil
		}
		if lr.number == 1 {
			out.Text = bytes.TrimPrefix(out.Text, byteOrderMark)
		}
		out.Text = bytes.TrimRight(out.Text, " \t\r")
		if len(out.Text) > 0 {
			return out, nil
		}
	}
}

// blank reports whether a line is of spaces only, or empty.
func blank(line []byte) bool {
	for _, c := range line {
		if c != ' ' {
			return false
		}
	}
	return true
}
