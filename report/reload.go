package report

import (
	"io"
	"strings"
)

// Reloaded is what a reload changed, or would.
type Reloaded struct {
	// Changes are one line each: + comes, - goes, ~ changes, ! needs a restart.
	Changes []string `json:"changes"`
	DryRun  bool     `json:"dry_run,omitempty"`
}

// WriteText prints the changes.
func (r Reloaded) WriteText(w io.Writer) error {
	text := "nothing changed\n"
	switch {
	case len(r.Changes) > 0:
		text = strings.Join(r.Changes, "\n") + "\n"
	case r.DryRun:
		text = "nothing would change\n"
	}
	_, err := io.WriteString(w, text)
	return err
}
