package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"rebroadcastr/event"
)

// damagedDir is where copies of what recovery takes out go.
const damagedDir = "damaged"

// recovery is one start: it mends what is behind the mark and finds out where everything ends.
type recovery struct {
	a           *Archive
	mark        mark
	rows        map[uint32]segment
	next        uint64 // the highest ordinal that anything speaks of, plus 1
	done, total int64  // bytes to check
}

// recover brings the files into the state that readers rely on, and fills the shelf.
//
// Every line behind the synced mark is checked. Only the last segment that has lines can hold some that are not
// durable, since each is made durable before the next takes any; checking all of them is for the state that is
// older than the log, or gone.
func (a *Archive) recover() error {
	found, highest, err := list(a.o.FS, a.o.Dir)
	if err != nil {
		return err
	}
	r := &recovery{a: a}
	if r.mark, r.rows, err = a.loadState(); err != nil {
		return err
	}
	a.number = max(highest+1, r.mark.number, r.mark.synced.Segment()+1)
	r.next = r.mark.next
	for _, f := range found {
		a.date = max(a.date, f.date)
		if f.hasText() && f.plain && f.number >= r.mark.synced.Segment() {
			if size, err := fileSize(a.o.FS, filepath.Join(a.o.Dir, f.text())); err == nil {
				r.total += max(0, size-r.from(f.number, size))
			}
		}
	}
	if r.total > 0 {
		a.o.Log.Info().Str("bytes", size(r.total)).Bool("mark", !r.mark.synced.IsZero()).Msg("checking what was not known to be durable")
	}
	for _, f := range found {
		if !f.hasText() {
			continue // left by a crash while a segment was made; its number stays used
		}
		s, err := r.segment(f)
		if err != nil {
			return fmt.Errorf("recover segment %s: %w", f.base(), err)
		}
		a.shelf.segs = append(a.shelf.segs, s)
		r.next = max(r.next, s.first+s.lines)
	}
	a.shelf.next = r.next
	end, _ := a.shelf.end()
	a.tail.mark, a.tail.number = end, a.number
	if n := len(a.shelf.segs); n > 0 {
		a.tail.markHeld = a.shelf.segs[n-1].held
	}
	a.saveMark()
	return nil
}

func fileSize(fsys FS, path string) (int64, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return 0, err
	}
	size, err := f.Size()
	return size, errors.Join(err, f.Close())
}

// from is where checking of a segment that is size bytes long starts.
func (r *recovery) from(number uint32, size int64) int64 {
	if m := r.mark.synced; number == m.Segment() && int64(m.Offset()) <= size {
		return int64(m.Offset())
	}
	return 0
}

// segment finds out about one segment, after mending it if it may need that.
func (r *recovery) segment(f files) (segment, error) {
	s := segment{files: f, final: true}
	row, known := r.rows[f.number]
	checked := f.plain && f.number >= r.mark.synced.Segment()
	var err error
	if checked {
		if err := r.syncOrigin(f); err != nil {
			return s, err
		}
		if s.end, err = r.checkText(f); err != nil {
			return s, err
		}
	} else if s.end, err = r.measure(f, row, known); err != nil {
		return s, err
	}
	if known && s.end == row.end {
		s.first, s.lines, s.held, s.known, s.saved = row.first, row.lines, row.held, true, true
		if !checked {
			return s, nil
		}
	}
	if err := r.number(&s, row, known, checked); err != nil {
		return s, err
	}
	before := s.held
	if err := r.count(&s, checked); err != nil {
		return s, err
	}
	s.saved = s.saved && s.held == before
	return s, nil
}

// count finds out how many events s holds: what the mark says, with those behind it counted.
func (r *recovery) count(s *segment, checked bool) error {
	s.held = 0
	from := int64(0)
	if checked && r.mark.counted && r.mark.synced.Segment() == s.number {
		if from = r.from(s.number, s.end); from > 0 {
			s.held = r.mark.held
		}
	}
	h, err := openSegment(r.a.o.FS, r.a.o.Dir, s.files)
	if err != nil {
		return err
	}
	defer h.close()
	n, err := countHeld(h.text, from, s.end)
	s.held += n
	return err
}

// syncOrigin keeps the order of all writes: origins are durable before their lines are.
func (r *recovery) syncOrigin(f files) error {
	if !f.hasOrigin {
		return nil
	}
	o, err := r.a.o.FS.OpenWrite(filepath.Join(r.a.o.Dir, f.origin()))
	if err != nil {
		return err
	}
	return errors.Join(o.Sync(), o.Close())
}

// measure finds the end of a segment that is not checked: that of its last whole line.
func (r *recovery) measure(f files, row segment, known bool) (int64, error) {
	if !f.plain && known {
		return row.end, nil
	}
	h, err := openSegment(r.a.o.FS, r.a.o.Dir, f)
	if err != nil {
		return 0, err
	}
	defer h.close()
	file, ok := h.text.(File)
	if !ok {
		return textLength(h.text)
	}
	size, err := file.Size()
	if err != nil {
		return 0, err
	}
	if f.ended {
		end, err := readEnd(r.a.o.FS, filepath.Join(r.a.o.Dir, f.end()))
		if err != nil {
			return 0, err
		}
		size = min(size, end)
	}
	if known && size == row.end {
		return size, nil
	}
	return lastNewline(file, size)
}

// textLength reads a sealed text to its end.
func textLength(text io.ReaderAt) (int64, error) {
	b, size := make([]byte, 1<<20), int64(0)
	for {
		n, err := text.ReadAt(b, size)
		size += int64(n)
		if err == io.EOF {
			return size, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// lastNewline is the end of the last whole line in the first size bytes.
func lastNewline(f io.ReaderAt, size int64) (int64, error) {
	b := make([]byte, readAhead)
	for size > 0 {
		n := min(int64(len(b)), size)
		if _, err := f.ReadAt(b[:n], size-n); err != nil && err != io.EOF {
			return 0, err
		}
		if i := bytes.LastIndexByte(b[:n], '\n'); i >= 0 {
			return size - n + int64(i) + 1, nil
		}
		size -= n
	}
	return 0, nil
}

// number finds out which ordinals s has: the first from the header of its origin file, else from the state, else
// from the segment before; how many from the origin records, with the lines behind the last one counted.
func (r *recovery) number(s *segment, row segment, known, checked bool) error {
	if n := len(r.a.shelf.segs); !s.known && n > 0 {
		before := r.a.shelf.segs[n-1]
		s.first = before.first + before.lines
	}
	if known {
		s.first = row.first
	}
	s.known = true
	if checked {
		if err := r.mendOrigin(s); err != nil {
			return err
		}
	}
	h, err := openSegment(r.a.o.FS, r.a.o.Dir, s.files)
	if err != nil {
		return err
	}
	defer h.close()
	if h.origin != nil {
		if first, err := readOriginHeader(h.origin, s.number); err == nil {
			s.first = first
		}
	}
	o := originReader{f: h.origin}
	from, ordinal := int64(0), s.first
	for {
		ok, err := o.readBlock()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if n := len(o.block); n > 0 && o.block[n-1].offset < s.end && o.block[n-1].ordinal >= ordinal {
			from, ordinal = o.block[n-1].offset, o.block[n-1].ordinal
		}
	}
	n, err := countLines(h.text, from, s.end)
	s.lines = ordinal - s.first + n
	return err
}

// badLine is a place in a text where no genuine event is.
type badLine struct{ off, length int64 }

// checkText reads every line behind the mark, takes out what is bad, and makes the segment durable. It returns where
// readers stop from now on.
func (r *recovery) checkText(f files) (end int64, err error) {
	fsys, dir := r.a.o.FS, r.a.o.Dir
	text, err := fsys.OpenWrite(filepath.Join(dir, f.text()))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, text.Close()) }()
	end, err = text.Size()
	if err != nil {
		return 0, err
	}
	if f.ended {
		if end, err = r.cutAtMark(f, text, end); err != nil {
			return 0, err
		}
	}
	from := r.from(f.number, end)
	if from == end {
		return end, nil
	}
	bad, whole, rest, err := r.check(text, from, end)
	if err != nil {
		return 0, err
	}
	if err := r.keepCopies(f, text, append(bad[:len(bad):len(bad)], rest...)); err != nil {
		return 0, err
	}
	for _, b := range bad {
		if err := overwrite(text, b.off, b.off+b.length); err != nil {
			return 0, err
		}
	}
	if whole < end {
		if err := withdraw(fsys, dir, f.name, text, whole, r.a.o.Mode); err != nil {
			return 0, err
		}
	}
	return whole, text.Sync()
}

// cutAtMark makes good what an end mark stands for, so that it can go.
func (r *recovery) cutAtMark(f files, text File, size int64) (int64, error) {
	fsys, dir := r.a.o.FS, r.a.o.Dir
	end, err := readEnd(fsys, filepath.Join(dir, f.end()))
	if err != nil {
		return 0, err
	}
	end = min(end, size)
	if text.Truncate(end) != nil || text.Sync() != nil {
		return end, nil // the mark stays, and stands
	}
	if err := fsys.Remove(filepath.Join(dir, f.end())); err != nil {
		return 0, err
	}
	return end, fsys.SyncDir(dir)
}

// check returns what is bad between from and end, the end of the last whole line, and what is behind that, if it is
// more than spaces.
func (r *recovery) check(text File, from, end int64) (bad []badLine, whole int64, rest []badLine, err error) {
	sp := newSplitter(io.NewSectionReader(text, from, end-from), from, maxLine)
	var e event.Event
	whole = from
	for {
		l, err := sp.next()
		if err == io.EOF {
			return bad, whole, nil, nil
		}
		if err != nil {
			return nil, 0, nil, err
		}
		r.progress(l.length + 1)
		if !l.ended {
			if l.text == nil || !blank(l.text) {
				rest = []badLine{{l.off, l.length}}
			}
			return bad, whole, rest, nil
		}
		whole = l.off + l.length + 1
		if l.text != nil && blank(l.text) {
			continue
		}
		if l.text == nil || event.Parse(l.text, &e) != nil || e.Hash() != e.ID {
			bad = append(bad, badLine{l.off, l.length})
		}
	}
}

func (r *recovery) progress(n int64) {
	const step = 4 << 20
	before := r.done / step
	r.done += n
	if r.a.o.Progress != nil && r.done/step != before {
		r.a.o.Progress(min(r.done, r.total), r.total)
	}
}

// keepCopies puts what will be taken out of a text into damaged/, durably, one piece a line. The file's name has the
// offset of the first. A second try after a crash writes the same file again.
func (r *recovery) keepCopies(f files, text File, pieces []badLine) (err error) {
	if len(pieces) == 0 {
		return nil
	}
	fsys, dir := r.a.o.FS, filepath.Join(r.a.o.Dir, damagedDir)
	if err := fsys.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	path := filepath.Join(dir, fmt.Sprintf("%s.%d", f.text(), pieces[0].off))
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := fsys.Create(path, r.a.o.Mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	b, at, total := make([]byte, readAhead), int64(0), int64(0)
	for _, p := range pieces {
		total += p.length
		for off := p.off; off < p.off+p.length; {
			n := min(int64(len(b)), p.off+p.length-off)
			if _, err := text.ReadAt(b[:n], off); err != nil && err != io.EOF {
				return err
			}
			if err := writeAt(out, b[:n], at); err != nil {
				return err
			}
			off, at = off+n, at+n
		}
		if err := writeAt(out, []byte{'\n'}, at); err != nil {
			return err
		}
		at++
	}
	if err := out.Sync(); err != nil {
		return err
	}
	r.a.o.Log.Warn().Str("segment", f.text()).Int("pieces", len(pieces)).Int64("bytes", total).Int64("first_at", pieces[0].off).
		Str("copy", path).Msg("took out what is no genuine event")
	return errors.Join(fsys.SyncDir(dir), fsys.SyncDir(r.a.o.Dir))
}
