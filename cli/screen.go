package cli

import (
	"io"
	"sync"
)

// clearLine takes the cursor to the line's start and wipes it (ECMA-48 EL).
const clearLine = "\r\x1b[K"

// screen is a terminal that shows log lines and, below them, one line of progress. Safe for concurrent use.
type screen struct {
	w io.Writer

	mu   sync.Mutex
	line string // of progress; empty: none is shown
}

// Write shows a log line above the progress.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.line == "" {
		return s.w.Write(p)
	}
	if _, err := io.WriteString(s.w, clearLine+string(p)+s.line); err != nil {
		return 0, err
	}
	return len(p), nil
}

// show replaces the line of progress; an empty one removes it.
func (s *screen) show(line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line = line
	_, err := io.WriteString(s.w, clearLine+line)
	return err
}
