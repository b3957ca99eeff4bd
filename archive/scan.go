package archive

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"path/filepath"
	"strconv"
	"strings"

	"rebroadcastr/place"
	"rebroadcastr/record"
)

// ScanOptions of Scan.
type ScanOptions struct {
	FS   FS          // nil: OS
	From place.Place // the zero place: everything
}

// Scan gives the records of the archive in dir, in order, without a lock and beside a running writer, to the end as
// it is when it gets there. A line that cannot be read as an event is given as a *Damage and the scan goes on; any
// other error ends it.
func Scan(ctx context.Context, dir string, o ScanOptions) iter.Seq2[record.Record, error] {
	if o.FS == nil {
		o.FS = OS{}
	}
	return func(yield func(record.Record, error) bool) {
		p := newPool(o.FS, dir)
		r := newReader(&directory{fs: o.FS, dir: dir, pool: p}, p, o.From)
		var damaged []*Damage
		r.damaged = func(d *Damage) { damaged = append(damaged, d) }
		defer func() {
			_ = r.Close()
			_ = p.close()
		}()
		for {
			if err := ctx.Err(); err != nil {
				yield(record.Record{}, err)
				return
			}
			rec, ok, err := r.TryNext()
			for _, d := range damaged {
				if !yield(record.Record{}, d) {
					return
				}
			}
			damaged = damaged[:0]
			if err != nil {
				yield(record.Record{}, err)
				return
			}
			if !ok || !yield(rec, nil) {
				return
			}
		}
	}
}

// NextOrdinal is the number that the next line of the archive in dir gets, as far as the files tell: found without a lock and
// beside a running writer. A directory that is not there holds nothing.
func NextOrdinal(dir string, fsys FS) (_ uint64, err error) {
	p := newPool(fsys, dir)
	defer func() { err = errors.Join(err, p.close()) }()
	d := &directory{fs: fsys, dir: dir, pool: p}
	if err := d.list(); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	lines := uint64(0)
	for i := len(d.segs) - 1; i >= 0; i-- { // one before the last only where a header is damaged
		s := d.segs[i]
		if err := d.measure(&s); err != nil {
			return 0, err
		}
		h, err := p.get(s)
		if err != nil {
			return 0, err
		}
		n, err := countLines(h.text, 0, s.end)
		p.put(h)
		if err != nil {
			return 0, err
		}
		if lines += n; s.known {
			return s.first + lines, nil
		}
	}
	return lines, nil
}

// directory is the outline of who only looks: it lists the files, and measures the last segment again when asked
// where it ends.
type directory struct {
	fs   FS
	dir  string
	pool *pool

	segs []segment
	cur  *segment // what was given out last
}

// toTheEnd is the end of a segment that has to be read to know it: a sealed one.
const toTheEnd = int64(1) << 62

func (d *directory) look(number uint32, again bool) (s segment, later, ok bool, err error) {
	// A later segment that was seen before this measuring says as much as one seen now: listing the folder at each of
	// n segments would cost n².
	if d.segs == nil || again && d.find(number)+1 >= len(d.segs) {
		if err := d.list(); err != nil {
			return segment{}, false, false, err
		}
	}
	i := d.find(number)
	if i == len(d.segs) && !again {
		if err := d.list(); err != nil {
			return segment{}, false, false, err
		}
		i = d.find(number)
	}
	if i == len(d.segs) {
		return segment{}, false, false, nil
	}
	if again || d.cur == nil || d.cur.number != d.segs[i].number {
		s = d.segs[i]
		if err := d.measure(&s); err != nil { // after the list: see outline.look
			return segment{}, false, false, err
		}
		d.cur = &s
	}
	return *d.cur, i+1 < len(d.segs), true, nil
}

func (d *directory) missing(s segment) {
	d.pool.forget(s.number)
	d.segs, d.cur = nil, nil
}

func (d *directory) find(number uint32) int {
	for i, s := range d.segs {
		if s.number >= number {
			return i
		}
	}
	return len(d.segs)
}

func (d *directory) list() error {
	found, _, err := list(d.fs, d.dir)
	if err != nil {
		return err
	}
	d.segs = d.segs[:0]
	for _, f := range found {
		if f.hasText() {
			d.segs = append(d.segs, segment{files: f})
		}
	}
	return nil
}

// measure finds where s ends now, and the ordinal of its first line.
func (d *directory) measure(s *segment) error {
	h, err := d.pool.get(*s)
	if errors.Is(err, fs.ErrNotExist) {
		s.end = toTheEnd // the reader will meet the same error, and tell
		return nil
	}
	if err != nil {
		return err
	}
	defer d.pool.put(h)
	s.end = toTheEnd
	if f, ok := h.text.(File); ok {
		if s.end, err = f.Size(); err != nil {
			return err
		}
	}
	if s.ended {
		end, err := readEnd(d.fs, filepath.Join(d.dir, s.name.end()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil {
			s.end = min(s.end, end)
		}
	}
	if h.origin != nil {
		if s.first, err = readOriginHeader(h.origin, s.number); err == nil {
			s.known = true
		}
	}
	return nil
}

// readEnd reads the length in a NAME.end file.
func readEnd(fsys FS, path string) (int64, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return 0, err
	}
	b := make([]byte, 32)
	n, err := f.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b[:n])), 10, 64)
}
