package report

import (
	"strings"
	"unicode"
)

// cells is how many columns of a terminal a text takes at most. East Asian characters and emoji take two; a few narrow ones are
// counted like them, which costs a little room.
func cells(s string) int {
	n := 0
	for _, r := range s {
		n += cell(r)
	}
	return n
}

// wideFrom is Hangul Jamo, the first block of Unicode with characters of two columns; between the two lie the signs that we print.
const wideFrom, signsFrom, signsTo = 0x1100, 0x2000, 0x2bff

func cell(r rune) int {
	if r < wideFrom || r >= signsFrom && r <= signsTo {
		return 1
	}
	return 2
}

// cut shortens a text to so many columns, with an ellipsis where something is missing.
func cut(s string, width int) string {
	if cells(s) <= width {
		return s
	}
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n += cell(r); n > width-1 {
			break
		}
		b.WriteRune(r)
	}
	if width > 0 {
		b.WriteString("…")
	}
	return strings.TrimRight(b.String(), " ")
}

// clean makes a text from outside harmless on a terminal: one line, nothing that moves the cursor or turns the direction.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return '·'
		}
		return r
	}, s)
}

// pad fills a text up to so many columns, to the right or to the left of it.
func pad(s string, width int, left bool) string {
	gap := strings.Repeat(" ", max(0, width-cells(s)))
	if left {
		return s + gap
	}
	return gap + s
}
