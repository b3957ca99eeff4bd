package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

// readAhead is what a reader takes at once, in bytes of text: some sixty events.
const readAhead = 64 << 10

// firstRead is what a reader takes where it begins in the middle of a segment: most want one event there and no more.
const firstRead = 4 << 10

// Reader follows the archive from a place on, over segments' borders, blank and damaged lines left out. One goroutine
// uses it; any number of Readers share the archive's descriptors.
//
// An ordinal that no record has belongs to a line that is blank or damaged, or was withdrawn after an error of the
// disk and stands in the log again under another ordinal.
type Reader struct {
	log  outline
	wait func(place.Place) <-chan struct{} // see shelf.news; nil: there is nothing to wait for
	// recent gives the record at a place from memory; nil: nothing is kept there.
	recent func(place.Place) (record.Record, bool)
	pool   *pool

	number  uint32 // of the segment that offset is in
	offset  int64  // of the next line that is not in lines
	ordinal uint64 // of that line
	sure    bool   // ordinal is known; not so in the middle of a segment, at first
	origins originReader
	kept    *handle // a private one, while in its segment

	buf   []byte
	lines []pendingLine
	next  int // in lines
	skip  bool
	// damaged, when set, is told of the lines that are left out for their content.
	damaged func(*Damage)
	closed  bool
}

// pendingLine is a line in buf.
type pendingLine struct {
	from, to int
	place    place.Place
	ordinal  uint64
	origin   record.Origin
	segment  string // file name, for messages
}

func newReader(log outline, p *pool, from place.Place) *Reader {
	r := &Reader{log: log, pool: p, number: from.Segment(), offset: int64(from.Offset())}
	b := readerBuffers.Get().(*buffers)
	r.buf, r.lines, r.origins.buf, r.origins.block = b.text[:0], b.lines[:0], b.origin[:0], b.block[:0]
	return r
}

// buffers are what a Reader leaves for the next one: most are for one event, and take 28 kB for it.
type buffers struct {
	text, origin []byte
	lines        []pendingLine
	block        []originRecord
}

var readerBuffers = sync.Pool{New: func() any { return new(buffers) }}

// leave gives the buffers away. No record that was given out lies in them.
func (r *Reader) leave() {
	b := &buffers{r.buf, r.origins.buf, r.lines, r.origins.block}
	r.buf, r.lines, r.next, r.origins = nil, nil, 0, originReader{}
	if cap(b.text) <= readAhead && cap(b.origin) <= readAhead { // not what one long line needed
		readerBuffers.Put(b)
	}
}

// Next returns the next record, and waits at the written end for one to come. The error is ctx's, ErrClosed once the
// reader is closed, or the filesystem's; after the latter Next may be called again.
func (r *Reader) Next(ctx context.Context) (record.Record, error) {
	for idle := false; ; {
		rec, ok, err := r.TryNext()
		if ok || err != nil {
			return rec, err
		}
		if err := ctx.Err(); err != nil {
			return record.Record{}, err
		}
		news := r.wait(place.Make(r.number, uint64(r.offset)))
		if news == nil {
			if idle {
				return record.Record{}, fmt.Errorf("read segment %010d: it ends at byte %d, before what was written to it", r.number, r.offset)
			}
			idle = true // it came between the two questions
			continue
		}
		idle = false
		select {
		case <-news:
		case <-ctx.Done():
			return record.Record{}, ctx.Err()
		}
	}
}

// TryNext is Next without waiting: false at the written end.
func (r *Reader) TryNext() (record.Record, bool, error) {
	if r.closed {
		return record.Record{}, false, ErrClosed
	}
	for {
		for r.next < len(r.lines) {
			l := &r.lines[r.next]
			r.next++
			text := r.buf[l.from:l.to]
			if blank(text) {
				continue
			}
			rec := record.Record{
				Place:   l.place,
				End:     place.Make(l.place.Segment(), l.place.Offset()+uint64(len(text))+1),
				Ordinal: l.ordinal,
				Origin:  l.origin,
			}
			if err := event.Parse(text, &rec.Event); err != nil {
				r.report(l.segment, int64(l.place.Offset()), int64(len(text)), err)
				continue
			}
			return rec, true, nil
		}
		if rec, ok := r.newest(); ok {
			return rec, true, nil
		}
		more, err := r.fetch()
		if !more || err != nil {
			return record.Record{}, false, err
		}
	}
}

// newest takes the next record from memory.
func (r *Reader) newest() (rec record.Record, ok bool) {
	if r.recent == nil || r.skip {
		return rec, false
	}
	if rec, ok = r.recent(place.Make(r.number, uint64(r.offset))); !ok {
		return rec, false
	}
	if r.sure { // the origins are not read on from where they were: the next fetch finds its way anew
		r.release()
		r.origins = originReader{buf: r.origins.buf[:0], block: r.origins.block[:0]}
		r.sure = false
	}
	r.offset = int64(rec.End.Offset())
	return rec, true
}

// Close ends the reader.
func (r *Reader) Close() error {
	if !r.closed {
		r.closed = true
		r.release()
		r.leave()
	}
	return nil
}

func (r *Reader) report(segment string, off, length int64, err error) {
	if r.damaged != nil {
		r.damaged(&Damage{Segment: segment, Offset: off, Length: length, Err: err})
	}
}

func (r *Reader) release() {
	if r.kept != nil {
		r.pool.put(r.kept)
		r.kept = nil
	}
}

// fetch reads the next lines. It reports false where there is nothing more now.
func (r *Reader) fetch() (more bool, err error) {
	r.lines, r.next = r.lines[:0], 0
	again, lost := false, 0
	for {
		s, later, ok, err := r.log.look(r.number, again)
		if !ok || err != nil {
			return false, err
		}
		if s.number != r.number {
			r.enter(s)
		}
		if r.offset < s.end {
			got, err := r.fetchFrom(s)
			if errors.Is(err, fs.ErrNotExist) && lost < 3 {
				lost++ // sealed, or gone, since it was listed
				r.release()
				r.log.missing(s)
				continue
			}
			if got || err != nil {
				return got, err
			}
		}
		switch {
		case !again:
			again = true // that was its end when it was looked at; one more look, which also sees a later segment
		case !later:
			return false, nil
		default:
			next, _, ok, err := r.log.look(s.number+1, false)
			if !ok || err != nil {
				return false, err
			}
			r.enter(next)
			again = false
		}
	}
}

// enter goes to the start of s.
func (r *Reader) enter(s segment) {
	r.release()
	r.number, r.offset = s.number, 0
	r.origins = originReader{buf: r.origins.buf[:0], block: r.origins.block[:0]}
	r.skip = false
	if s.known {
		r.ordinal = s.first
	}
	r.sure = true
}

func (r *Reader) handle(s segment) (*handle, error) {
	if r.kept != nil {
		return r.kept, nil
	}
	h, err := r.pool.get(s)
	if err != nil {
		return nil, fmt.Errorf("read segment %s: %w", s.base(), err)
	}
	if h.private {
		r.kept = h
	}
	return h, nil
}

// fetchFrom takes lines out of s. It reports false at the end of its last whole line.
func (r *Reader) fetchFrom(s segment) (bool, error) {
	h, err := r.handle(s)
	if err != nil {
		return false, err
	}
	if r.kept == nil {
		defer r.pool.put(h)
	}
	r.origins.f = h.origin
	want := int64(readAhead)
	if !r.sure {
		want = firstRead
		if err := r.anchor(s, h); err != nil {
			return false, fmt.Errorf("read segment %s: %w", s.base(), err)
		}
	}
	for {
		want = min(want, s.end-r.offset)
		if int64(cap(r.buf)) < want || cap(r.buf) > 4*readAhead && want <= readAhead {
			size := int64(firstRead)
			if want > size {
				size = max(want, readAhead)
			}
			r.buf = make([]byte, size)
		}
		r.buf = r.buf[:want]
		n, err := h.text.ReadAt(r.buf, r.offset)
		if err != nil && err != io.EOF {
			return false, fmt.Errorf("read segment %s: %w", s.base(), err)
		}
		r.buf = r.buf[:n]
		last := bytes.LastIndexByte(r.buf, '\n')
		if last >= 0 {
			r.buf = r.buf[:last+1]
			return true, r.split(s)
		}
		if err == io.EOF || r.offset+int64(n) == s.end {
			return false, nil
		}
		if n > maxLine {
			r.report(s.text(), r.offset, int64(n), errLineTooLong)
			r.offset += int64(n)
			r.skip = true // the rest of it, up to its newline, is no line either
			n = 0
			want = readAhead
			continue
		}
		want *= 2
	}
}

// split finds the lines in buf, and what is known of each.
func (r *Reader) split(s segment) error {
	name := s.text()
	for from := 0; from < len(r.buf); {
		to := from + bytes.IndexByte(r.buf[from:], '\n')
		o, ok, err := r.origins.at(r.offset)
		if err != nil {
			r.lines = r.lines[:0]
			return fmt.Errorf("read origins of %s: %w", s.base(), err)
		}
		if ok {
			r.ordinal = o.ordinal // damage may have made more lines, or fewer, of those before
		}
		if !r.skip {
			r.lines = append(r.lines, pendingLine{
				from: from, to: to, place: place.Make(s.number, uint64(r.offset)), ordinal: r.ordinal, origin: o.origin, segment: name,
			})
		}
		r.skip = false
		r.ordinal++
		r.offset += int64(to-from) + 1
		from = to + 1
	}
	return nil
}

// anchor finds the ordinal of the line at r.offset, in the middle of s: by its origin record, else by counting lines
// from the last one before that has one.
func (r *Reader) anchor(s segment, h *handle) error {
	h.guide.lead(&r.origins, r.offset)
	o, ok, err := r.origins.at(r.offset)
	if err != nil {
		return err
	}
	if ok {
		r.origins.next-- // it will be asked for again
		r.ordinal, r.sure = o.ordinal, true
		return nil
	}
	from, ordinal := int64(0), s.first
	if r.origins.hasLast {
		from, ordinal = r.origins.last.offset, r.origins.last.ordinal
	}
	n, err := countLines(h.text, from, r.offset)
	r.ordinal, r.sure = ordinal+n, err == nil
	return err
}

// countHeld is how many lines between from, where one begins, and to hold an event: recovery leaves the others blank.
func countHeld(text io.ReaderAt, from, to int64) (n uint64, err error) {
	b, begins := make([]byte, readAhead), true
	for from < to {
		got, err := text.ReadAt(b[:min(int64(len(b)), to-from)], from)
		from += int64(got)
		for rest := b[:got]; len(rest) > 0; {
			if begins && rest[0] != ' ' && rest[0] != '\n' {
				n++
			}
			i := bytes.IndexByte(rest, '\n')
			if begins = i >= 0; !begins {
				break
			}
			rest = rest[i+1:]
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// countLines counts newlines between two offsets.
func countLines(text io.ReaderAt, from, to int64) (n uint64, err error) {
	b := make([]byte, readAhead)
	for from < to {
		got, err := text.ReadAt(b[:min(int64(len(b)), to-from)], from)
		n += uint64(bytes.Count(b[:got], []byte{'\n'}))
		from += int64(got)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
