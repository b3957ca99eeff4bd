package archive

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// name is a segment's identity, its number, and the date in its file name, which is for people only.
type name struct {
	date   string // YYYYMMDD, UTC
	number uint32
}

const (
	textExt         = ".jsonl"
	sealedExt       = ".jsonl.zst"
	originExt       = ".origin"
	sealedOriginExt = ".origin.zst"
	endExt          = ".jsonl.end" // holds the length at which readers of the text stop
)

func (n name) base() string   { return fmt.Sprintf("events_%s_%010d", n.date, n.number) }
func (n name) text() string   { return n.base() + textExt }
func (n name) origin() string { return n.base() + originExt }
func (n name) end() string    { return n.base() + endExt }

const dateLayout = "20060102"

func dateOf(t time.Time) string { return t.UTC().Format(dateLayout) }

// parseName takes a file name apart. Files that are not ours give false.
func parseName(file string) (n name, ext string, ok bool) {
	rest, ok := strings.CutPrefix(file, "events_")
	if !ok || len(rest) < 8+1+10 || rest[8] != '_' {
		return name{}, "", false
	}
	n.date, ext = rest[:8], rest[19:]
	if !digits(n.date) || !digits(rest[9:19]) {
		return name{}, "", false
	}
	number, err := strconv.ParseUint(rest[9:19], 10, 32)
	if err != nil {
		return name{}, "", false
	}
	n.number = uint32(number)
	switch ext {
	case textExt, sealedExt, originExt, sealedOriginExt, endExt:
		return n, ext, true
	}
	return name{}, "", false
}

func digits(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' })
}

// files says which files of a segment there are.
type files struct {
	name
	plain, sealed, hasOrigin, sealedOrigin, ended bool
}

// hasText is false for what is left of a segment that was never finished being made.
func (f files) hasText() bool { return f.plain || f.sealed }

// list finds the segments in dir, by number, including those without text, and the highest number that any file has.
func list(fsys FS, dir string) (segs []files, highest uint32, err error) {
	entries, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, 0, fmt.Errorf("list segments: %w", err)
	}
	byNumber := map[uint32]*files{}
	for _, e := range entries {
		n, ext, ok := parseName(e.Name())
		if !ok {
			continue
		}
		highest = max(highest, n.number)
		f := byNumber[n.number]
		if f == nil {
			f = &files{name: n}
			byNumber[n.number] = f
		}
		if f.date != n.date {
			return nil, 0, fmt.Errorf("list segments: %s and %s have the same number: move one of them away", f.base(), n.base())
		}
		switch ext {
		case textExt:
			f.plain = true
		case sealedExt:
			f.sealed = true
		case originExt:
			f.hasOrigin = true
		case sealedOriginExt:
			f.sealedOrigin = true
		case endExt:
			f.ended = true
		}
	}
	for _, f := range byNumber {
		segs = append(segs, *f)
	}
	slices.SortFunc(segs, func(a, b files) int { return cmp.Compare(a.number, b.number) })
	return segs, highest, nil
}
