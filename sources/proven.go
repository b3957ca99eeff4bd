package sources

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"rebroadcastr/state"
)

// Proof is what the state has of one source.
type Proof struct {
	URL      string
	CaughtUp time.Time // start of the last completed catch-up; zero: none
	Parts    []Part    // what lacks something first, then the largest
	Gaps     []Gap
	MoreGaps int // beyond the 1,000 newest
}

// Part is what is asked for in the same stretches, and proven in the same.
type Part struct {
	Words  string
	Atoms  int      // how many authors, tag values or ids it stands for
	Proven []Window // oldest first
	// Missing is asked for and not proven, below the end of what is proven: oldest first. What is younger than that is asked for by
	// the next run.
	Missing []Window
}

// Window is a stretch of created_at in unix seconds, both ends inside. From 0: the beginning; To above 1<<62: no end.
type Window struct{ From, To int64 }

// Proofs reads what is proven of every source that db knows, running or not, as of now.
func Proofs(db *state.DB, now time.Time) (list []Proof, err error) {
	err = db.View(func(tx *state.Tx) error {
		list = nil
		all := tx.Bucket("sources")
		if all == nil {
			return nil
		}
		return all.ForEachBucket(func(url []byte) error {
			list = append(list, proofOf(tx, string(url), now))
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read what is proven: %w", err)
	}
	return list, nil
}

// stretch is one atom with what is asked for and what is proven.
type stretch struct {
	atom
	named         bool
	spans, proven windows
}

// proofOf reads one source. Rows that are damaged are left out: they count for nothing.
func proofOf(tx *state.Tx, url string, now time.Time) Proof {
	s := &Source{o: Options{URL: url, Now: func() time.Time { return now }}}
	p := Proof{URL: url}
	if at := tx.Bucket(s.path()...).Get(keyCaughtUp); len(at) == 8 {
		p.CaughtUp = time.Unix(int64(binary.BigEndian.Uint64(at)), 0)
	}
	atoms := make(map[atomKey]*stretch)
	of := func(k []byte) *stretch {
		key := atomKey(k)
		if atoms[key] == nil {
			atoms[key] = &stretch{atom: atom{key: key}}
		}
		return atoms[key]
	}
	each := func(bucket string, fn func(k, v []byte)) {
		if b := tx.Bucket(s.path(bucket)...); b != nil {
			_ = b.ForEach(func(k, v []byte) error { fn(k, v); return nil }) // no fn fails
		}
	}
	each("windows", func(k, v []byte) {
		if ws, err := s.stored(v); err == nil && len(k) == len(atomKey{}) && len(ws) > 0 {
			of(k).proven = ws
		}
	})
	each("asked", func(k, v []byte) {
		var row askedRow
		if len(k) != len(atomKey{}) || json.Unmarshal(v, &row) != nil {
			return
		}
		f, err := parseFilter(row.Filter)
		if err != nil {
			return
		}
		a := of(k)
		a.filter, a.named = f, true
		for _, w := range row.Spans {
			a.spans = a.spans.add(window{w[0], w[1]})
		}
	})
	var gaps []Gap
	each("gaps", func(k, v []byte) {
		if g, ok := decodeGap(k, v); ok {
			gaps = append(gaps, g)
		}
	})
	p.Gaps, p.MoreGaps = sortedGaps(gaps)
	p.Parts = parts(atoms)
	return p
}

// parts joins atoms of which the same is asked for and proven.
func parts(atoms map[atomKey]*stretch) []Part {
	var named []atom
	unnamed := make(map[string]*Part) // by windows: of an earlier version, whose state does not tell what they stand for
	keys := make([]atomKey, 0, len(atoms))
	for key := range atoms {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b atomKey) int { return bytes.Compare(a[:], b[:]) })
	var out []Part
	for _, key := range keys {
		a := atoms[key]
		if a.named {
			named = append(named, a.atom)
			continue
		}
		mark := string(a.proven.encode())
		if unnamed[mark] == nil {
			unnamed[mark] = &Part{Proven: a.proven.open()}
		}
		unnamed[mark].Atoms++
	}
	for _, part := range unnamed {
		part.Words = fmt.Sprintf("%d of what was asked for once", part.Atoms)
		out = append(out, *part)
	}
	mark := func(a atom) string {
		s := atoms[a.key]
		return string(s.spans.encode()) + "\x00" + string(s.proven.encode())
	}
	for _, g := range gather(named, math.MaxInt, mark) {
		s := atoms[g.atoms[0].key]
		out = append(out, Part{Words: Words(g.filter), Atoms: len(g.atoms), Proven: s.proven.open(), Missing: s.missing().open()})
	}
	slices.SortStableFunc(out, func(a, b Part) int {
		return cmp.Or(cmp.Compare(min(len(b.Missing), 1), min(len(a.Missing), 1)), cmp.Compare(b.Atoms, a.Atoms), cmp.Compare(a.Words, b.Words))
	})
	return out
}

// missing is what lacks proof below the end of what is proven; all of it where nothing is.
func (s *stretch) missing() (out windows) {
	for _, w := range s.spans {
		if n := len(s.proven); n > 0 {
			w.hi = min(w.hi, s.proven[n-1].hi)
		}
		for _, m := range s.proven.missing(w) {
			out = out.add(m)
		}
	}
	return out
}

// open is ws for who is outside of this package.
func (ws windows) open() []Window {
	out := make([]Window, len(ws))
	for i, w := range ws {
		out[i] = Window{w.lo, w.hi}
	}
	return out
}
