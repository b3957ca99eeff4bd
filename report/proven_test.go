package report

import (
	"strings"
	"testing"
)

// TestMissingWithoutGaps: a second that is a gap is told once, with its reason, also where others beside it are missing.
func TestMissingWithoutGaps(t *testing.T) {
	const end = int64(1)<<62 + 1
	for _, c := range []struct{ missing, gaps, want []Window }{
		{[]Window{{0, 10}}, nil, []Window{{0, 10}}},
		{[]Window{{5, 5}}, []Window{{5, 5}}, nil},
		{[]Window{{5, 7}}, []Window{{7, 7}, {6, 6}, {5, 5}}, nil},
		{[]Window{{5, 9}}, []Window{{8, 8}, {6, 6}}, []Window{{5, 5}, {7, 7}, {9, 9}}},
		{[]Window{{0, 4}, {6, 9}}, []Window{{0, end}}, nil},
		{[]Window{{5, end}}, []Window{{3, 6}}, []Window{{7, end}}},
	} {
		r := CoverageRow{URL: "wss://a", Parts: []Part{{Asked: "everything", Proven: []Window{{20, 30}}, Missing: c.missing}}}
		for _, g := range c.gaps {
			r.Gaps = append(r.Gaps, Gap{Asked: "everything", From: g.From, To: g.To, Reason: "more than 4 events in one second"})
		}
		text := printed(t, Coverage{Sources: []CoverageRow{r}}.WriteText)
		if got := strings.Count(text, "  missing "); got != len(c.want) {
			t.Errorf("missing %v with the gaps %v: %d lines, want %v:\n%s", c.missing, c.gaps, got, c.want, text)
		}
		for _, w := range c.want {
			if !strings.Contains(text, "missing  "+w.text()) {
				t.Errorf("missing %v with the gaps %v: no %v in\n%s", c.missing, c.gaps, w, text)
			}
		}
	}
}
