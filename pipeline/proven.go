package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"rebroadcastr/report"
	"rebroadcastr/sources"
	"rebroadcastr/state"
)

// ReadCoverage tells what is proven of each source of the archive in dir, while nobody writes to it. It writes nothing and takes no
// lock; state.ErrInUse: somebody writes.
func ReadCoverage(dir string, now time.Time) (c report.Coverage, err error) {
	c = report.Coverage{Dir: dir, Now: now}
	db, err := state.Read(filepath.Join(dir, "state.db"))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	c.Sources, err = coverage(db, now)
	return c, err
}

func coverage(db *state.DB, now time.Time) (rows []report.CoverageRow, err error) {
	proofs, err := sources.Proofs(db, now)
	if err != nil {
		return nil, err
	}
	for _, p := range proofs {
		row := report.CoverageRow{URL: p.URL, Gaps: gapRows(p.Gaps), MoreGaps: p.MoreGaps}
		if !p.CaughtUp.IsZero() {
			row.CaughtUp = p.CaughtUp.UTC()
		}
		for _, part := range p.Parts {
			row.Parts = append(row.Parts, report.Part{Asked: part.Words, Atoms: part.Atoms, Proven: windowRows(part.Proven), Missing: windowRows(part.Missing)})
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func windowRows(ws []sources.Window) []report.Window {
	rows := make([]report.Window, len(ws))
	for i, w := range ws {
		rows[i] = report.Window(w)
	}
	return rows
}

func gapRows(gaps []sources.Gap) (rows []report.Gap) {
	for _, g := range gaps {
		rows = append(rows, report.Gap{Filter: g.Filter, Asked: g.Words, From: g.From, To: g.To, Reason: g.Reason, Found: g.Found})
	}
	return rows
}

// Coverage tells what is proven of a source, by its URL or name, or of all with "": what is on disk, and what the running ones
// could not get.
func (m *Mirror) Coverage(name string) (c report.Coverage, err error) {
	c = report.Coverage{Dir: m.config().Archive.Dir, Now: m.o.Now()}
	only := ""
	if name != "" {
		if only, err = m.urlOf(name); err != nil {
			return c, err
		}
	}
	if err := m.asking.begin(); err != nil {
		return c, err
	}
	defer m.asking.end()
	if c.Sources, err = coverage(m.o.Store.State, c.Now); err != nil {
		return c, err
	}
	for _, l := range m.sorted() {
		source, _ := l.roles()
		if source == nil {
			continue
		}
		i := slices.IndexFunc(c.Sources, func(r report.CoverageRow) bool { return r.URL == l.url })
		if i < 0 {
			i = len(c.Sources)
			c.Sources = append(c.Sources, report.CoverageRow{URL: l.url})
		}
		st := source.from.Status()
		c.Sources[i].Name, c.Sources[i].Gaps, c.Sources[i].MoreGaps = source.name, gapRows(st.Gaps), st.MoreGaps
	}
	if only == "" {
		return c, nil
	}
	if c = c.Only(only); len(c.Sources) == 0 {
		return c, report.Refuse(report.Absent, "%s", NoSource(only))
	}
	return c, nil
}

// NoSource is the answer about a relay that was never asked.
func NoSource(relayURL string) string {
	return fmt.Sprintf("%s is no source of this archive: it was never asked", relayURL)
}
