package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"rebroadcastr/report"
)

// statusSource is what showProgress watches.
type statusSource interface{ Status() report.Status }

// The times between two pictures of progress: on a terminal one that is redrawn, else a block a minute.
const (
	redrawEvery = 250 * time.Millisecond
	printEvery  = time.Minute
)

// showProgress shows what m says until ctx ends. On a terminal nothing of it stays.
func showProgress(ctx context.Context, out *screen, m statusSource) error {
	every := printEvery
	if out.size != nil {
		every = redrawEvery
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var p report.Progress
	p.Lines(m.Status(), report.Layout{}) // what rates begin from
	for {
		select {
		case <-ctx.Done():
			return out.show(nil, 0, 0)
		case <-tick.C:
		}
		s := m.Status()
		if out.size != nil {
			width, height := out.size()
			// One line is left to the log, and one column: some terminals go to the next line when the last one is filled.
			lines := p.Lines(s, report.Layout{Width: max(width-1, 1), Height: max(height-1, 1), Bars: true})
			if err := out.show(lines, width, height); err != nil {
				return err
			}
			continue
		}
		block := append([]string{fmt.Sprintf("after %s:", report.Span(s.Now.Sub(s.Since)))}, p.Lines(s, report.Layout{})...)
		if _, err := io.WriteString(out, strings.Join(block, "\n  ")+"\n"); err != nil {
			return err
		}
	}
}
