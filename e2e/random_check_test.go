package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nbd-wtf/go-nostr"
)

// lacks lists what the archive does not have of what a source serves and the last setup asks it for.
func (r *round) lacks(archived map[string]bool) (out []string) {
	for id, f := range r.facts {
		if archived[id] {
			continue
		}
		if f.imported {
			out = append(out, "not archived: "+f.String())
			continue
		}
		for s, sure := range f.at {
			if sure && r.setup.reads(s, f.e) {
				out = append(out, "not archived: "+f.String())
				break
			}
		}
	}
	slices.Sort(out)
	return out
}

// intruders lists what the archive has and should not have: what no source ever had, or what no setup asked for.
func (r *round) intruders(archived map[string]bool) (out []string) {
	for id := range archived {
		f := r.facts[id]
		switch {
		case f == nil:
			out = append(out, "archived, but in no source: "+id)
		case !slices.ContainsFunc(r.setups, func(c *setup) bool { return c.want.takes(f.e) && archivable(f.e) }):
			out = append(out, "archived, but not wanted: "+f.String())
		}
	}
	slices.Sort(out)
	return out
}

// rule is what a sink's rules say of an archived event.
type rule int

const (
	forbidden rule = iota
	may
	must
)

// rule tells whether a sink gets an event, from its setups so far. may: it depends on a moment that the test does not know.
func (r *round) rule(s *station, f *fact, all past) (rule, string) {
	x := expiry(f.e)
	switch {
	case never(f.e):
		return forbidden, "never sent to anyone"
	case x > 0 && x <= r.clock.earliest.Load():
		return forbidden, "expired before the round"
	}
	why, ever := "", false
	for _, c := range r.setups {
		if why = c.holds(s, f.e); why == "" {
			ever = true
		}
	}
	_, own := f.at[s]
	switch {
	case !ever:
		return forbidden, why
	case why != "":
		return may, "not any more: " + why
	case own:
		return may, "it is from there"
	case r.passed(s, f):
		return may, "from before the sink's start"
	case s.real != nil && f.e.Kind == 5:
		return may, "khatru answers requests to delete what it does not have before the relay sees them"
	case x > 0 && x <= r.clock.reached():
		return may, "expired meanwhile"
	case r.departed(s, f.e, all):
		return may, "deleted or superseded"
	}
	return must, ""
}

// passed says whether an event stood before the start of a sink's ledger, or of one that came after it was lost: with `start: now`
// such a ledger takes it for one that the sink never gets, also where an earlier one had sent it.
func (r *round) passed(s *station, f *fact) bool { return r.setup.sinks[s].now && r.before[s][f.e.ID] }

// holds says why a setup keeps an event from a sink; "": it does not.
func (c *setup) holds(s *station, e *nostr.Event) string {
	k, named := c.sinks[s]
	switch {
	case !named:
		return "it is no sink"
	case !c.want.takes(e) || !k.takes(e):
		return "its filters do not take it"
	case int64(e.CreatedAt) < k.since:
		return "from before the sink's start"
	}
	if e.Kind == 62 && !names(e, s.url) {
		return "it is for other relays"
	}
	for _, row := range rows {
		if row.holds(e) && !slices.Contains(k.send, row.name) && (row.name != "expiring" || !s.nip40) {
			return "row " + row.name
		}
	}
	return ""
}

// undelivered lists what sinks have not settled of what they must get.
func (r *round) undelivered(archived map[string]bool) (out []string) {
	all := r.all()
	for _, s := range ordered(r.setup.sinks) {
		got := s.got()
		for id := range archived {
			f := r.facts[id]
			if f == nil {
				continue
			}
			rule, _ := r.rule(s, f, all)
			if lost := got[id].lost; rule == must && r.compared && lost > 0 && got[id].n == lost {
				out = append(out, fmt.Sprintf("%s lost it after it was sent %d times, and was not sent it again: %s", s.name, lost, f))
			}
			if rule == must && got[id].final == "" {
				out = append(out, fmt.Sprintf("%s was sent %d times (answers %q): %s", s.name, got[id].n, got[id].answer, f))
			}
		}
	}
	slices.Sort(out)
	return out
}

// unasked lists what sinks were sent and should not have been.
func (r *round) unasked(archived map[string]bool) (out []string) {
	all := r.all()
	for _, s := range r.stations {
		if !s.sink {
			continue
		}
		for _, raw := range s.strange {
			out = append(out, s.name+" was sent what is no event: "+raw)
		}
		got := s.got()
		for id, w := range got {
			f := r.facts[id]
			switch {
			case f == nil:
				out = append(out, s.name+" was sent what was in no source: "+w.raw)
				continue
			case w.raw != f.raw:
				out = append(out, fmt.Sprintf("%s was sent a form that is not canonical: %s; want %s", s.name, w.raw, f.raw))
			case !archived[id] && !r.powerCut:
				out = append(out, s.name+" was sent what is not archived: "+f.String())
			}
			if rule, why := r.rule(s, f, all); rule == forbidden {
				out = append(out, fmt.Sprintf("%s was sent, against the rules (%s): %s", s.name, why, f))
				continue
			}
			for _, in := range w.lives {
				if why := r.tooLate(s, f, in, got); why != "" {
					out = append(out, fmt.Sprintf("%s was sent in life %d (%v), though %s: %s", s.name, in, w.lives, why, f))
					break
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// archivedIDs reads the ids of an archive's whole lines, also while it grows.
func archivedIDs(dir string) (map[string]bool, error) {
	files, err := filepath.Glob(filepath.Join(dir, "events_*_*.jsonl"))
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(text) {
			if rest, ok := bytes.CutPrefix(line, []byte(`{"id":"`)); ok && line[len(line)-1] == '\n' && len(rest) > 64 {
				out[string(rest[:64])] = true
			}
		}
	}
	return out, nil
}

func lines(list []string) string {
	const most = 15
	if len(list) > most {
		list = append(slices.Clone(list[:most]), fmt.Sprintf("… and %d more", len(list)-most))
	}
	return strings.Join(list, "\n  ")
}
