package report

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Coverage is how much of each source's history is proven.
type Coverage struct {
	Dir     string        `json:"archive"`
	Now     time.Time     `json:"now"`
	Sources []CoverageRow `json:"sources"`
}

// CoverageRow is one source.
type CoverageRow struct {
	URL      string    `json:"url"`
	Name     string    `json:"name,omitempty"`
	CaughtUp time.Time `json:"caught_up,omitzero"` // start of the last completed catch-up
	Parts    []Part    `json:"parts"`
	Gaps     []Gap     `json:"gaps"`
	MoreGaps int       `json:"more_gaps,omitempty"` // that are not listed
}

// Part is what is asked for in the same stretches of created_at, and proven in the same.
type Part struct {
	Asked   string   `json:"asked"` // in words
	Atoms   int      `json:"atoms"` // how many authors, tag values or ids it stands for
	Proven  []Window `json:"proven"`
	Missing []Window `json:"missing"` // below the end of what is proven; the next run asks for what is younger
}

// Window is a stretch of created_at in unix seconds, both ends inside. From 0: the beginning; To above 1<<62: no end.
type Window struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// MarshalJSON writes lists that are empty as [], as Status does.
func (c Coverage) MarshalJSON() ([]byte, error) {
	type plain Coverage
	p := plain(c)
	p.Sources = append([]CoverageRow{}, c.Sources...)
	for i := range p.Sources {
		r := &p.Sources[i]
		r.Parts, r.Gaps = append([]Part{}, r.Parts...), append([]Gap{}, r.Gaps...)
		for j := range r.Parts {
			r.Parts[j].Proven, r.Parts[j].Missing = append([]Window{}, r.Parts[j].Proven...), append([]Window{}, r.Parts[j].Missing...)
		}
	}
	return json.Marshal(p)
}

// Only is what c says of one source.
func (c Coverage) Only(url string) Coverage {
	c.Sources = slices.DeleteFunc(slices.Clone(c.Sources), func(r CoverageRow) bool { return r.URL != url })
	return c
}

// Incomplete says whether something that was asked for is not proven.
func (c Coverage) Incomplete() bool {
	for _, r := range c.Sources {
		if len(r.Gaps) > 0 {
			return true
		}
		if len(r.Parts) == 0 || slices.ContainsFunc(r.Parts, func(p Part) bool { return len(p.Missing) > 0 }) {
			return true
		}
	}
	return false
}

// What a person reads of one source; --json has all.
const (
	mostParts   = 20
	mostWindows = 5
	mostGaps    = 50
)

// WriteText prints it for people.
func (c Coverage) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, r := range c.Sources {
		r.write(&b)
	}
	if len(c.Sources) == 0 {
		fmt.Fprintf(&b, "%s: nothing is known of any source: none has answered yet\n", c.Dir)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r CoverageRow) write(b *strings.Builder) {
	b.WriteString(named(r.URL, r.Name))
	if !r.CaughtUp.IsZero() {
		fmt.Fprintf(b, "  caught up %s", moment(r.CaughtUp))
	}
	b.WriteByte('\n')
	if len(r.Parts) == 0 {
		b.WriteString("  not asked yet\n")
	}
	t := table{header: []string{"", "", ""}, left: map[int]bool{0: true, 1: true, 2: true}}
	more := func(rest, most int, what string) {
		if n := rest - most; n > 0 {
			t.add("", "", fmt.Sprintf("and %s (--json lists all)", plural(n, what)))
		}
	}
	list := func(what, asked string, ws []Window) {
		for i, w := range ws[max(0, len(ws)-mostWindows):] {
			if i > 0 {
				asked = ""
			}
			t.add("  "+what, w.text(), asked)
		}
		more(len(ws), mostWindows, "older window")
	}
	for _, p := range r.Parts[:min(len(r.Parts), mostParts)] {
		if len(p.Proven)+len(p.Missing) == 0 { // history: none, and no catch-up yet
			t.add("  nothing proven", "", p.Asked)
		}
		list("proven", p.Asked, p.Proven)
		list("missing", p.Asked, r.withoutGaps(p.Missing))
	}
	more(len(r.Parts), mostParts, "more part")
	for _, g := range r.Gaps[:min(len(r.Gaps), mostGaps)] {
		t.add("  gap", Window{g.From, g.To}.text(), g.text())
	}
	more(len(r.Gaps)+r.MoreGaps, min(len(r.Gaps), mostGaps), "more gap")
	t.writeRows(b)
}

// withoutGaps is what of the windows is told by no gap, which says why.
func (r CoverageRow) withoutGaps(ws []Window) (left []Window) {
	gaps := slices.SortedFunc(slices.Values(r.Gaps), func(a, b Gap) int { return cmp.Compare(a.From, b.From) })
next:
	for _, w := range ws {
		for _, g := range gaps {
			if g.To < w.From || w.To < g.From {
				continue
			}
			if w.From < g.From {
				left = append(left, Window{w.From, g.From - 1})
			}
			if g.To >= w.To {
				continue next
			}
			w.From = g.To + 1
		}
		left = append(left, w)
	}
	return left
}

// text is a window as people say it.
func (w Window) text() string {
	from, to := second(w.From), second(w.To)
	switch {
	case w.From <= 0 && w.To > 1<<62:
		return "all"
	case w.From <= 0:
		return "up to " + to
	case w.To > 1<<62:
		return "from " + from
	case w.From == w.To:
		return from
	}
	return from + " to " + to
}

func second(at int64) string { return time.Unix(at, 0).UTC().Format("2006-01-02T15:04:05Z") }

func (g Gap) text() string {
	text := g.Asked
	if text == "" {
		text = g.Filter
	}
	if text += ": " + g.Reason; g.Found > 0 {
		text += ", found " + second(g.Found)
	}
	return text
}
