package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen is where log lines and progress are shown. On a terminal the progress is a block of lines that stays below the log and is
// drawn anew; elsewhere it is written once and stays. Safe for concurrent use.
//
// A bar library would do this and more, but mpb keeps a log line back until its next refresh, so that the last words before a
// crash are lost, and leaves out rows without a word where the terminal is lower; progressbar draws one bar. Neither lays out
// rows in columns, which is all that is left to do.
type screen struct {
	w    io.Writer
	size func() (width, height int) // of a terminal on which the cursor can be moved; else nil

	mu    sync.Mutex
	lines []string // of progress, as they are shown now
	shape [2]int   // of the terminal when they were made
}

// newScreen shows on w. lookup gives the environment's TERM.
func newScreen(w io.Writer, lookup func(string) (string, bool)) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok && isTerminal(w) && !dumb(lookup) {
		s.size = func() (width, height int) {
			width, height, err := term.GetSize(int(f.Fd()))
			if err != nil || width <= 0 || height <= 0 { // a serial line does not know
				return 80, 24
			}
			return width, height
		}
	}
	return s
}

// dumb says that the terminal knows no control sequences.
func dumb(lookup func(string) (string, bool)) bool {
	name, _ := lookup("TERM")
	return name == "dumb"
}

// Write shows log lines above the progress. It is one write to the terminal, so that nothing is seen half.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lines) == 0 {
		return s.w.Write(p)
	}
	text := s.clearedLocked() + string(p)
	if width, height := s.size(); s.shape != [2]int{width, height} { // they may not fit any more: drawn by the next show
		s.lines = nil
	}
	if !strings.HasSuffix(text, "\n") && len(s.lines) > 0 { // the progress begins on a line of its own
		text += "\n"
	}
	if _, err := io.WriteString(s.w, text+strings.Join(s.lines, "\n")); err != nil {
		return 0, err
	}
	return len(p), nil
}

// show replaces the progress by lines made for a terminal of that width and height; without lines it is removed.
func (s *screen) show(lines []string, width, height int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.clearedLocked() + strings.Join(lines, "\n")
	// Not what the size is now: lines for another one, drawn again with each line of the log, would stay each time.
	s.lines, s.shape = lines, [2]int{width, height}
	if text == "" {
		return nil
	}
	_, err := io.WriteString(s.w, text)
	return err
}

// clearedLocked takes the cursor from the end of the progress to its beginning and wipes everything from there (ECMA-48 CUU, ED). A
// terminal that has become narrower since shows what was one line on several.
func (s *screen) clearedLocked() string {
	if len(s.lines) == 0 {
		return ""
	}
	width, height := s.size()
	rows := 0
	for _, line := range s.lines {
		rows += 1 + max(0, utf8.RuneCountInString(line)-1)/width
	}
	if up := min(rows, height) - 1; up > 0 {
		return fmt.Sprintf("\r\x1b[%dA\x1b[J", up)
	}
	return "\r\x1b[J"
}
