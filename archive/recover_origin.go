package archive

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"

	"rebroadcastr/record"
)

// mendOrigin gives a checked segment an origin file with a sound header and without records beyond the text's end.
func (r *recovery) mendOrigin(s *segment) (err error) {
	if s.sealedOrigin {
		return nil
	}
	fsys, path := r.a.o.FS, filepath.Join(r.a.o.Dir, s.name.origin())
	f, err := fsys.OpenWrite(path)
	if errors.Is(err, fs.ErrNotExist) {
		r.a.o.Log.Warn().Str("segment", s.base()).Msg("has no origin file: where its events came from is unknown")
		s.hasOrigin = true
		f, err = fsys.Create(path, r.a.o.Mode)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	first, err := readOriginHeader(f, s.number)
	switch {
	case err == nil:
		s.first = first
	case errors.Is(err, errOriginHeader):
		if err := writeAt(f, appendOriginHeader(nil, s.number, s.first), 0); err != nil {
			return err
		}
	default:
		return err
	}
	if err := r.cutOrigin(f, s.end); err != nil {
		return err
	}
	if err := r.renumber(s, f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return fsys.SyncDir(r.a.o.Dir)
}

// cutOrigin removes the records of lines at or beyond end, and what is no block behind the last one. Ordinals that
// it removes stay used: somebody may have been told of them.
func (r *recovery) cutOrigin(f File, end int64) error {
	o := originReader{f: f}
	good := int64(originHeaderSize)
	var keep []originRecord
	for cut := false; ; {
		ok, err := o.readBlock()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		for _, rec := range o.block {
			r.next = max(r.next, rec.ordinal+1)
		}
		n := len(o.block)
		if cut || n == 0 {
			continue
		}
		if o.block[n-1].offset < end {
			good = o.pos
			continue
		}
		cut = true
		for _, rec := range o.block {
			if rec.offset < end {
				keep = append(keep, rec)
			}
		}
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size == good {
		return nil
	}
	if err := f.Truncate(good); err != nil {
		return err
	}
	if len(keep) == 0 {
		return nil
	}
	// Its strings are numbered anew; nothing comes behind it that could mean the old numbers.
	b := newOriginEncoder().appendBlock(nil, len(keep), func(i int) originRecord { return keep[i] })
	return writeAt(f, b, good)
}

// renumber gives new ordinals where the old ones cannot be known any more. A bad line may have been several, their
// newlines gone: behind it only an origin record tells which ordinal a line has. From the first good line on that has
// none, to the end, all lines get ordinals that nobody was ever told, and records that say so: the old ones may stand
// in a ledger for another event.
func (r *recovery) renumber(s *segment, origin File) error {
	text, err := r.a.o.FS.Open(filepath.Join(r.a.o.Dir, s.text()))
	if err != nil {
		return err
	}
	lines, before, err := r.unsure(s, text, origin)
	if err := errors.Join(err, text.Close()); err != nil || len(lines) == 0 {
		return err
	}
	if err := r.cutOrigin(origin, lines[0].offset); err != nil {
		return err
	}
	end, err := origin.Size()
	if err != nil {
		return err
	}
	ordinal := max(r.next, r.mark.reserved, before)
	r.a.o.Log.Warn().Str("segment", s.base()).Int("lines", len(lines)).Uint64("from", ordinal).Msg("renumbered what stands behind damage")
	enc := newOriginEncoder()
	for len(lines) > 0 {
		n := min(len(lines), maxGroup)
		for i := range n {
			lines[i].ordinal = ordinal
			ordinal++
		}
		b := enc.appendBlock(nil, n, func(i int) originRecord { return lines[i] })
		if err := writeAt(origin, b, end); err != nil {
			return err
		}
		end += int64(len(b))
		lines = lines[n:]
	}
	r.next = ordinal
	return nil
}

// unsure returns the lines that renumber is about, with what is known of their origins, and the ordinal behind the lines before
// them: a line that has its record no more is counted from the last one that has, and somebody may have been told of that.
func (r *recovery) unsure(s *segment, text, origin File) (lines []originRecord, before uint64, err error) {
	from := r.from(s.number, s.end) // before that, all was mended by an earlier start
	sp := newSplitter(io.NewSectionReader(text, from, s.end-from), from, maxLine)
	o := originReader{f: origin}
	sure := true
	before = s.first
	for {
		l, err := sp.next()
		if err == io.EOF {
			return lines, before, nil
		}
		if err != nil {
			return nil, 0, err
		}
		rec, ok, err := o.at(l.off)
		if err != nil {
			return nil, 0, err
		}
		if ok && len(lines) == 0 {
			before = rec.ordinal
		}
		if blank(l.text) { // or too long to be an event
			sure = false
			before++
			continue
		}
		sure = sure || ok
		if sure && len(lines) == 0 {
			before++
			continue
		}
		if !ok {
			rec.origin = record.Origin{}
		}
		rec.offset = l.off
		lines = append(lines, rec)
	}
}
