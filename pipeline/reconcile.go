package pipeline

import (
	"rebroadcastr/report"
	"rebroadcastr/sources"
)

// Reconcile compares a source, or all with "", with the archive as soon as it is live: what it got late and what was missed is
// fetched. What came of it stands in the log and, until the next time, in the source's status.
func (m *Mirror) Reconcile(name string) (c report.Compared, err error) {
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
	m.applying.Lock()
	defer m.applying.Unlock()
	if m.running == nil || m.o.Once {
		return c, report.Refuse(report.Conflict, "reconcile: no source is live here; it is for run")
	}
	for _, l := range m.sorted() {
		source, _ := l.roles()
		if source == nil || only != "" && l.url != only {
			continue
		}
		source.from.Reconcile()
		asked := report.Comparison{Relay: l.url}
		if waits := l.waits(); waits != "" {
			asked.Note = waits
		} else if at := source.from.Status(); at.Phase != sources.Live && at.Phase != sources.Reconciling {
			asked.Note = "first comes its " + string(at.Phase)
		}
		c.Asked = append(c.Asked, asked)
	}
	if len(c.Asked) > 0 {
		return c, nil
	}
	if only == "" {
		return c, report.Refuse(report.Absent, "reconcile: there is no source")
	}
	known, err := m.knows(only)
	switch {
	case err != nil:
		return c, err
	case !known:
		return c, m.noRelay(only)
	}
	return c, report.Refuse(report.Conflict, "%s is no source", only)
}
