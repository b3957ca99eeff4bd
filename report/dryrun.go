package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// DryRun is what a backfill would do.
type DryRun struct {
	Dir         string          `json:"archive"`
	Now         time.Time       `json:"now"`
	Asked       string          `json:"asked"`
	Limit       int             `json:"limit,omitempty"` // of each source; 0: none
	Sources     []SourceOutlook `json:"sources"`
	Sinks       []SinkOutlook   `json:"sinks"`
	Interrupted bool            `json:"interrupted,omitempty"`
}

// Reach is a relay, and whether it was there.
type Reach struct {
	URL       string     `json:"url"`
	Name      string     `json:"name,omitempty"`
	Unreached string     `json:"unreached,omitempty"` // why the relay could not be asked
	Paused    string     `json:"paused,omitempty"`    // by the operator: a backfill leaves it out
	Info      *RelayInfo `json:"nip11,omitempty"`
}

// SourceOutlook is what one source would be asked for.
type SourceOutlook struct {
	Reach
	Parts     []Prospect `json:"parts"`
	Pace      float64    `json:"pace,omitempty"`       // requests a second
	NoCount   string     `json:"no_count,omitempty"`   // why not everything was counted (NIP-45)
	NoCompare string     `json:"no_compare,omitempty"` // why ids were not compared (NIP-77)
}

// Prospect is what is asked for in the same windows.
type Prospect struct {
	Asked    string   `json:"asked"`    // in words
	Atoms    int      `json:"atoms"`    // how many authors, tag values or ids it stands for
	Windows  []Window `json:"windows"`  // newest first
	Requests int64    `json:"requests"` // at least
	Events   int64    `json:"events"`   // that would come, as far as known
	Known    bool     `json:"known"`    // all of them were counted or compared
	About    bool     `json:"approximate,omitempty"`
	Lacking  int64    `json:"lacking,omitempty"` // ids that were compared and are not archived
	Had      int64    `json:"had,omitempty"`     // ids that were compared and are archived
}

// SinkOutlook is what one sink would get.
type SinkOutlook struct {
	Reach
	Fresh   bool  `json:"new"`     // it has no ledger yet
	Pending int64 `json:"pending"` // archived and not settled, before what a sink's rules keep back
	Parked  int64 `json:"parked"`
}

// MarshalJSON writes lists that are empty as [], as Status does.
func (d DryRun) MarshalJSON() ([]byte, error) {
	type plain DryRun
	p := plain(d)
	p.Sources, p.Sinks = append([]SourceOutlook{}, d.Sources...), append([]SinkOutlook{}, d.Sinks...)
	for i := range p.Sources {
		p.Sources[i].Parts = append([]Prospect{}, p.Sources[i].Parts...)
	}
	return json.Marshal(p)
}

// Unreached says whether a relay could not be asked.
func (d DryRun) Unreached() bool {
	return slices.ContainsFunc(d.Sources, func(s SourceOutlook) bool { return s.Unreached != "" }) ||
		slices.ContainsFunc(d.Sinks, func(s SinkOutlook) bool { return s.Unreached != "" })
}

// page is what one request brings at most.
func (s SourceOutlook) page() int64 {
	if s.Info != nil && s.Info.Limits["max_limit"] > 0 {
		return min(500, s.Info.Limits["max_limit"])
	}
	return 500
}

// total is over all parts; limit as in DryRun.
func (s SourceOutlook) total(limit int) (all Prospect) {
	all.Known = true
	for _, p := range s.Parts {
		all.Requests, all.Events, all.Lacking = all.Requests+p.Requests, all.Events+p.Events, all.Lacking+p.Lacking
		all.Known, all.About = all.Known && p.Known, all.About || p.About
	}
	if n := int64(limit); n > 0 {
		all.Events = min(all.Events, n)
		all.Requests = min(all.Requests, (n+s.page()-1)/s.page())
	}
	return all
}

// takes is the least time that the requests need at the pace.
func (s SourceOutlook) takes(requests int64) time.Duration {
	if s.Pace <= 0 || requests == 0 {
		return 0
	}
	return time.Duration(math.Ceil(float64(requests-1)/s.Pace)) * time.Second
}

// WriteText prints it for people.
func (d DryRun) WriteText(w io.Writer) error {
	var b strings.Builder
	t := table{header: []string{"source", "events", "requests", "time", "asked for", "window"}, left: map[int]bool{0: true, 4: true, 5: true}}
	var events, requests int64
	var longest time.Duration
	known, about := true, false
	for _, s := range d.Sources {
		url, all := named(s.URL, s.Name), s.total(d.Limit)
		takes := span(s.takes(all.Requests), all.Requests)
		if s.Unreached != "" || s.Paused != "" {
			all.Known, takes = s.Paused != "" && known, "-"
		}
		if s.Paused == "" {
			known, about = known && all.Known, about || all.About
			events, requests, longest = events+all.Events, requests+all.Requests, max(longest, s.takes(all.Requests))
		}
		switch len(s.Parts) {
		case 0:
			t.add(url, "0", "0", takes, "nothing: all is proven", "")
		case 1:
			t.add(url, all.count(), num(all.Requests), takes, s.Parts[0].Asked, spanOf(s.Parts[0].Windows))
		default:
			t.add(url, all.count(), num(all.Requests), takes, fmt.Sprintf("%d parts", len(s.Parts)), "")
			for _, p := range s.Parts[:min(len(s.Parts), mostParts)] {
				t.add("", p.count(), num(p.Requests), "", p.Asked, spanOf(p.Windows))
			}
			if n := len(s.Parts) - mostParts; n > 0 {
				t.add("", "", "", "", fmt.Sprintf("and %s (--json lists all)", plural(n, "more part")), "")
			}
		}
		t.note(s.notes(all)...)
	}
	t.write(&b)
	if len(d.Sinks) > 0 {
		t := table{header: []string{"sink", "pending", "parked", "note"}, left: map[int]bool{0: true, 3: true}}
		for _, k := range d.Sinks {
			t.add(named(k.URL, k.Name), num(k.Pending), num(k.Parked), k.note())
		}
		t.write(&b)
	}
	fmt.Fprintf(&b, "dry run: nothing was fetched, archived or sent. A backfill makes at least %s, %s at the set pace, for %s\n",
		plural(int(requests), "request"), span(longest, requests), Prospect{Events: events, Known: known, About: about}.words())
	_, err := io.WriteString(w, b.String())
	return err
}

// count is how many events, as far as that is known.
func (p Prospect) count() string {
	switch {
	case !p.Known && p.Events == 0:
		return "?"
	case !p.Known:
		return num(p.Events) + "+"
	case p.About:
		return "~" + num(p.Events)
	}
	return num(p.Events)
}

func (p Prospect) words() string {
	switch {
	case !p.Known && p.Events == 0:
		return "nobody knows how many events"
	case !p.Known:
		return "at least " + plural(int(p.Events), "event")
	case p.About:
		return "about " + plural(int(p.Events), "event")
	}
	return plural(int(p.Events), "event")
}

// notes are what is worth knowing of a source before it is asked.
func (s SourceOutlook) notes(all Prospect) (notes []string) {
	switch {
	case s.Paused != "":
		return []string{"LEFT OUT: " + s.Paused}
	case s.Unreached != "":
		return []string{"NOT REACHED: " + s.Unreached}
	case all.Lacking > 0:
		notes = append(notes, fmt.Sprintf("compared (NIP-77): %s not archived yet", num(all.Lacking)))
	}
	if s.NoCompare != "" {
		notes = append(notes, "not compared (NIP-77): "+s.NoCompare)
	}
	if s.NoCount != "" {
		notes = append(notes, "not counted: "+s.NoCount)
	}
	if i := s.Info; i != nil {
		for _, limit := range []struct{ name, what string }{{"max_limit", "events a request"}, {"max_subscriptions", "subscriptions"}} {
			if n := i.Limits[limit.name]; n > 0 {
				notes = append(notes, fmt.Sprintf("at most %s %s", num(n), limit.what))
			}
		}
		for _, what := range i.Wants {
			if what != "restricted writes" {
				notes = append(notes, "WANTS "+what)
			}
		}
	}
	return notes
}

func (k SinkOutlook) note() string {
	var notes []string
	switch {
	case k.Paused != "":
		notes = append(notes, k.Paused)
	case k.Unreached != "":
		notes = append(notes, "NOT REACHED: "+k.Unreached)
	}
	if k.Fresh {
		notes = append(notes, "new: it has no ledger yet")
	}
	if k.Info != nil {
		for _, what := range k.Info.Wants {
			notes = append(notes, "WANTS "+what)
		}
	}
	return strings.Join(append(notes, "and what comes"), "; ")
}

// spanOf is windows in one cell, from the oldest to the newest.
func spanOf(ws []Window) string {
	if len(ws) == 1 {
		return ws[0].text()
	}
	if len(ws) == 0 {
		return ""
	}
	return fmt.Sprintf("%s, %d windows of it", Window{ws[len(ws)-1].From, ws[0].To}.text(), len(ws))
}

// span is how long requests take at least.
func span(d time.Duration, requests int64) string {
	if requests > 0 {
		d = max(d, time.Second)
	}
	return Span(d)
}
