package pipeline

import (
	"rebroadcastr/report"
	"rebroadcastr/sources"
)

// Reconcile compares a relay, or all with "", with the archive as soon as that can be: what a source got late and what was missed
// is fetched, what a sink lacks is offered to it again. What came of it stands in the log and in the relay's status.
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
		return c, report.Refuse(report.Conflict, "reconcile: no relay is live here; it is for run")
	}
	for _, l := range m.sorted() {
		if only != "" && l.url != only {
			continue
		}
		source, sink := l.roles()
		waits := l.waits()
		if source != nil {
			source.from.Reconcile()
			asked := report.Comparison{Relay: l.url, Role: sourceRole, Note: waits}
			if at := source.from.Status(); waits == "" && at.Phase != sources.Live && at.Phase != sources.Reconciling {
				asked.Note = "first comes its " + string(at.Phase)
			}
			c.Asked = append(c.Asked, asked)
		}
		if sink != nil {
			sink.Reconcile()
			asked := report.Comparison{Relay: l.url, Role: sinkRole, Note: waits}
			switch st := sink.Status(); {
			case waits != "":
			case st.Paused != "":
				asked.Note = "it takes nothing: " + st.Paused
			case st.Again > 0:
				asked.Note = "first all that it took is offered again"
			}
			c.Asked = append(c.Asked, asked)
		}
	}
	if len(c.Asked) > 0 {
		return c, nil
	}
	if only == "" {
		return c, report.Refuse(report.Absent, "reconcile: there is no source and no sink")
	}
	known, err := m.knows(only)
	switch {
	case err != nil:
		return c, err
	case !known:
		return c, m.noRelay(only)
	}
	return c, report.Refuse(report.Conflict, "%s is no source and no sink", only)
}
