package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// WriteSummary prints what a one-shot command has done: a row per source and sink, and the archive.
func (s Status) WriteSummary(w io.Writer) error {
	var b strings.Builder
	if s.Asked != "" && len(s.Sources) > 0 && s.Sources[0].URL != ImportName {
		fmt.Fprintf(&b, "asked %s for %s\n", plural(len(s.Sources), "relay"), s.Asked)
	}
	s.writeSources(&b, s.Archive.Dir)
	if len(s.Sinks) > 0 {
		t := table{header: []string{"sink", "delivered", "had it", "refused", "kept back", "pending", "= archived for it"}, left: map[int]bool{0: true}}
		for _, k := range s.Sinks {
			r := k
			if k.Run != nil {
				r = *k.Run
			}
			pending := r.Pending + r.Parked
			t.add(k.URL, num(r.Delivered-r.Duplicate), num(r.Duplicate+r.Superseded), num(r.Rejected), num(r.Skipped), num(pending),
				num(r.Delivered+r.Superseded+r.Rejected+r.Skipped+pending))
			parked := ""
			if r.Parked > 0 {
				parked = fmt.Sprintf("pending: %s parked until later", num(r.Parked))
			}
			t.note(refusals(r.RejectedBy, k.RejectedText), reasons("kept back", inWords(r.SkippedBy)), parked, k.Note)
		}
		t.write(&b)
	}
	fmt.Fprintf(&b, "archive %s: %s events (+%s), %s, %s\n", s.Archive.Dir, num(int64(s.Archive.Lines)), num(int64(s.Archive.Added)),
		humanize.IBytes(uint64(max(s.Archive.Bytes, 0))), Span(s.Now.Sub(s.Since)))
	for _, p := range s.Problems {
		fmt.Fprintln(&b, clean(p))
	}
	var rest []string
	if s.Interrupt {
		rest = append(rest, "interrupted")
	}
	sources, sinks := s.Incomplete()
	if len(sources)+len(sinks) > 0 {
		var what []string
		if len(sources) > 0 {
			what = append(what, fmt.Sprintf("%d of %d sources", len(sources), len(s.Sources)))
		}
		if len(sinks) > 0 {
			what = append(what, fmt.Sprintf("%d of %d sinks", len(sinks), len(s.Sinks)))
		}
		rest = append(rest, "incomplete: "+strings.Join(what, ", "))
	}
	if len(rest) > 0 {
		fmt.Fprintf(&b, "%s. The same command asks only for what is missing.\n", strings.Join(rest, "; "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Status) writeSources(b *strings.Builder, dir string) {
	if len(s.Sources) == 0 {
		return
	}
	t := table{header: []string{"source", "received", "new", "copies", "invalid", "unasked", "complete"}, left: map[int]bool{0: true, 6: true}}
	for _, src := range s.Sources {
		t.add(src.URL, num(src.Received), num(src.New), num(src.Copies), num(src.Invalid), num(src.Unasked), src.completeText())
		t.note(src.reasons()...)
		for _, line := range src.gapLines(dir) {
			t.note(line)
		}
	}
	t.write(b)
}

// reasons say why events did not get in.
func (s Source) reasons() []string {
	return []string{reasons("invalid", s.InvalidBy), reasons("unasked", s.UnaskedBy), reasons("not understood", s.BadFrames)}
}

// WriteImport prints what a daemon took from an import.
func WriteImport(w io.Writer, dir string, done Source) error {
	s := Status{Sources: []Source{done}}
	var b strings.Builder
	s.writeSources(&b, dir)
	fmt.Fprintf(&b, "archive %s: +%s events, through the running daemon\n", dir, num(done.New))
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteStatus prints how a daemon stands.
func (s Status) WriteStatus(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s, pid %d · %s", s.State, Span(s.Now.Sub(s.Since)), s.PID, s.Archive.Dir)
	if s.State != Starting { // nothing is counted before that
		fmt.Fprintf(&b, " %s events, %s, %s free", num(int64(s.Archive.Lines)), humanize.IBytes(uint64(max(s.Archive.Bytes, 0))),
			humanize.IBytes(uint64(max(s.Archive.Free, 0))))
	}
	if !s.ConfigOf.IsZero() {
		fmt.Fprintf(&b, " · config of %s", s.ConfigOf.UTC().Format("2006-01-02 15:04"))
	}
	if s.Asked != "" {
		fmt.Fprintf(&b, " · %s", s.Asked)
	}
	b.WriteByte('\n')
	for _, why := range []string{s.Reason, s.Archive.Waiting} {
		if why != "" {
			fmt.Fprintf(&b, "  %s\n", why)
		}
	}
	// What stands in a row's note is not said again below.
	told := map[string]bool{"archive: " + s.Archive.Waiting: true}
	if len(s.Sources) > 0 {
		t := table{header: []string{"source", "state", "for", "new", "copies", "invalid", "unasked", "proven back to", "last event", "note"}, left: map[int]bool{0: true, 1: true, 9: true}}
		for _, src := range s.Sources {
			t.add(named(src.URL, src.Name), state(src.State, src.Tries), age(s.Now, src.Since), num(src.New), num(src.Copies), num(src.Invalid), num(src.Unasked),
				src.provenText(), ago(s.Now, src.LastEvent), withNext(s.Now, src.Note, src.Next))
			t.note(src.reasons()...)
			told[fmt.Sprintf("source %s: %s", src.URL, src.Note)] = true
		}
		t.write(&b)
	}
	if len(s.Sinks) > 0 {
		t := table{header: []string{"sink", "state", "for", "behind", "delivered", "refused", "kept back", "parked", "pace", "note"}, left: map[int]bool{0: true, 1: true, 9: true}}
		for _, k := range s.Sinks {
			t.add(named(k.URL, k.Name), state(k.State, k.Tries), age(s.Now, k.Since), num(k.Pending), num(k.Delivered+k.Superseded), num(k.Rejected), num(k.Skipped), num(k.Parked),
				cmp.Or(k.Pace, "-"), withNext(s.Now, k.Note, k.Next))
			t.note(reasons("refused", k.RejectedBy), reasons("kept back", inWords(k.SkippedBy)))
			told[fmt.Sprintf("sink %s: %s", k.URL, k.Note)] = true
		}
		t.write(&b)
	}
	for _, p := range s.Problems {
		if !told[p] {
			fmt.Fprintf(&b, "  %s\n", p)
		}
	}
	switch n := len(s.Problems); n {
	case 0:
		b.WriteString("no problems\n")
	case 1:
		b.WriteString("1 problem\n")
	default:
		fmt.Fprintf(&b, "%d problems\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Source) completeText() string {
	switch s.Complete {
	case Yes:
		at := s.ProvenBack
		if at.Unix() <= 0 { // all time: its oldest event, if any came now
			at = s.Oldest
		}
		if at.Unix() > 0 {
			return "yes, to " + day(at)
		}
		return "yes"
	case No:
		n := len(s.Gaps) + s.MoreGaps
		switch i := slices.IndexFunc(s.Gaps, func(g Gap) bool { return g.From == g.To && g.Reason == s.CompleteNote }); {
		case i >= 0 && n == 1:
			return "GAP " + second(s.Gaps[i].From) + ": " + s.CompleteNote
		case i >= 0:
			return fmt.Sprintf("%s GAPS, one of them %s: %s", num(int64(n)), second(s.Gaps[i].From), s.CompleteNote)
		}
		return "NO: " + cmp.Or(s.CompleteNote, "unknown reason")
	case Unclear:
		if s.CompleteNote != "" {
			return "unknown: " + s.CompleteNote
		}
		return "unknown"
	}
	return "-"
}

// provenText is how far back a source is proven complete; without a date everything it stores is.
func (s Source) provenText() string {
	text := day(s.ProvenBack)
	if s.ProvenBack.Unix() <= 0 && s.Complete == Yes {
		text = "all"
	}
	if n := len(s.Gaps) + s.MoreGaps; n > 0 {
		text += ", " + plural(n, "gap")
	}
	return text
}

// fewGaps are listed in a summary.
const fewGaps = 3

// gapLines are what could not be got, unless the row itself says it.
func (s Source) gapLines(dir string) (lines []string) {
	n := len(s.Gaps) + s.MoreGaps
	if n == 0 || n == 1 && strings.HasPrefix(s.completeText(), "GAP ") {
		return nil
	}
	for _, g := range s.Gaps[:min(len(s.Gaps), fewGaps)] {
		g.Found = 0 // by this command, most of the time
		lines = append(lines, "gap "+Window{g.From, g.To}.text()+"  "+g.text())
	}
	if more := n - len(lines); more > 0 {
		lines = append(lines, fmt.Sprintf("and %s: rebroadcastr status --gaps --archive %s %s", plural(more, "more gap"), dir, s.URL))
	}
	return lines
}

// refusals prints how often a sink refused, for what, and what it said last.
func refusals(by map[string]int64, said map[string]string) string {
	words := make(map[string]int64, len(by))
	for prefix, n := range by {
		text := strings.TrimSpace(strings.TrimPrefix(said[prefix], prefix+":"))
		if text == "" || text == prefix {
			words[prefix] += n
		} else {
			words[fmt.Sprintf("%s (%s)", prefix, short(text))] += n
		}
	}
	return reasons("refused", words)
}

// skipWords are the rows of the table of what is kept back, and what else is not sent, where their names are not words already.
var skipWords = map[string]string{
	"dm": "direct messages", "wallet": "wallet data", "mls": "MLS messages", "groups": "relay groups", "zap_requests": "zap requests",
	"relay-scoped": "of one relay", "filter": "not in its filter", "echo": "came from it", "no_deliver": "archived with --no-deliver", "vanish": "vanish requests",
}

func inWords(by map[string]int64) map[string]int64 {
	words := make(map[string]int64, len(by))
	for name, n := range by {
		words[cmp.Or(skipWords[name], name)] += n
	}
	return words
}

// named is a relay with the name that its config gives it.
func named(url, name string) string {
	if name == "" {
		return url
	}
	return url + " (" + name + ")"
}

// Span prints a duration as a person would: two units at most.
func Span(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d", int(d.Hours())/24)
}

func age(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	return Span(now.Sub(then))
}

func ago(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	return Span(now.Sub(then)) + " ago"
}

func day(t time.Time) string {
	if t.Unix() <= 0 {
		return "-"
	}
	return t.UTC().Format("2006-01-02")
}

func state(s string, tries int) string {
	switch {
	case s == Waiting && tries > 0:
		return fmt.Sprintf("retry %d", tries)
	case s == Paused: // nothing moves here without an operator
		return "PAUSED"
	}
	return s
}

func withNext(now time.Time, note string, next time.Time) string {
	if next.After(now) {
		return strings.TrimPrefix(note+"; next try in "+Span(next.Sub(now)), "; ")
	}
	return note
}

func num(n int64) string { return humanize.Comma(n) }

// reasons prints "label: 2 id, 1 signature", the most frequent first, or nothing.
func reasons(label string, by map[string]int64) string {
	keys := slices.SortedFunc(maps.Keys(by), func(a, b string) int {
		return cmp.Or(cmp.Compare(by[b], by[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, k := range keys {
		if by[k] != 0 {
			parts = append(parts, num(by[k])+" "+k)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return label + ": " + strings.Join(parts, ", ")
}

// table aligns columns: numbers to the right, those in left to the left. A note is a line of its own below its row. What it is given is
// made harmless on a terminal.
type table struct {
	header []string
	left   map[int]bool
	rows   [][]string
	notes  map[int][]string
}

func (t *table) add(cells ...string) {
	for i, c := range cells {
		cells[i] = clean(c)
	}
	t.rows = append(t.rows, cells)
}

func (t *table) note(parts ...string) {
	parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
	if len(parts) == 0 {
		return
	}
	if t.notes == nil {
		t.notes = make(map[int][]string)
	}
	last := len(t.rows) - 1
	t.notes[last] = append(t.notes[last], clean("  "+strings.Join(parts, "     ")))
}

func (t *table) write(b *strings.Builder) { t.print(b, true) }

// writeRows leaves the header out.
func (t *table) writeRows(b *strings.Builder) { t.print(b, false) }

func (t *table) print(b *strings.Builder, headed bool) {
	width := make([]int, len(t.header))
	for _, row := range append([][]string{t.header}, t.rows...) {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for n, row := range append([][]string{t.header}, t.rows...) {
		if n == 0 && !headed {
			continue
		}
		var line strings.Builder
		for i, c := range row {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i > 0 {
				line.WriteString("  ")
			}
			if t.left[i] {
				line.WriteString(c + pad)
			} else {
				line.WriteString(pad + c)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " "))
		b.WriteByte('\n')
		for _, note := range t.notes[n-1] {
			b.WriteString(note)
			b.WriteByte('\n')
		}
	}
}
