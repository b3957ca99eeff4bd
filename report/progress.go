package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Progress turns what a command says of itself from time to time into lines for who watches it: a row per source and sink. The zero
// value is ready; it keeps what it was shown last, for rates.
type Progress struct{ past []sample }

// sample is what was there at one time.
type sample struct {
	at   time.Time
	seen map[string]mark // by URL; a sink's begins with an arrow
}

type mark struct {
	events int64
	share  float64
}

// rateOver is what a rate is measured over, and leftOver the time left: events come page by page.
const (
	rateOver = 10 * time.Second
	leftOver = 30 * time.Second
)

// enoughShare of the time asked for must have been proven within leftOver before the rest is foretold.
const enoughShare = 0.01

// Layout is where the lines go.
type Layout struct {
	Width, Height int  // columns and lines; 0: as many as it takes
	Bars          bool // with a bar where a share is known, and room for it
}

// row is one line, not put together yet.
type row struct {
	url   string
	bar   float64   // 0 to 1; below 0: none is drawn
	state string    // complete, 61 %, asking
	plain string    // in place of everything below: why nothing moves
	count [2]string // events, and of them or beside them
	word  string    // what the second are
	back  string
	note  string
	done  bool // nothing more will happen to it
	moves bool // something happens to it
}

const (
	barCells  = 16
	leastNote = 12 // columns, below which a note is left out
	sinkMark  = "→ "
	sinkDone  = "all sent"
)

// Lines are the rows of s, each at most as wide and together as high as o says, without line ends.
func (p *Progress) Lines(s Status, o Layout) []string {
	p.keep(s)
	var rows []row
	for _, src := range s.Sources {
		rows = append(rows, p.source(s, src))
	}
	for _, k := range s.Sinks {
		rows = append(rows, p.sink(s, k))
	}
	var last []string
	if s.Archive.Waiting != "" {
		last = append(last, "archive waits: "+clean(s.Archive.Waiting))
	}
	rows, rest := fit(rows, o.Height-len(last), o.Height > 0)
	if rest != "" {
		last = append([]string{rest}, last...)
	}
	lines := append(arrange(rows, o), last...)
	if o.Width > 0 {
		for i, line := range lines {
			lines[i] = cut(line, o.Width)
		}
	}
	return lines
}

// keep adds a sample and forgets those that are too old to be measured by.
func (p *Progress) keep(s Status) {
	now := sample{at: s.Now, seen: make(map[string]mark, len(s.Sources)+len(s.Sinks))}
	for _, src := range s.Sources {
		now.seen[src.URL] = mark{src.Received, src.Share}
	}
	for _, k := range s.Sinks {
		now.seen[sinkMark+k.URL] = mark{events: delivered(k)}
	}
	if n := len(p.past); n > 0 && now.at.Before(p.past[n-1].at) { // the clock was set back
		p.past = nil
	}
	p.past = append(p.past, now)
	for len(p.past) > 2 && s.Now.Sub(p.past[1].at) >= leftOver {
		p.past = p.past[1:]
	}
}

// since is how one row stood at the youngest sample that is at least so old, or else at the oldest one of use.
func (p *Progress) since(key string, now time.Time, old time.Duration, use func(mark) bool) (m mark, ago time.Duration, ok bool) {
	for _, was := range slices.Backward(p.past[:len(p.past)-1]) {
		then, known := was.seen[key]
		if !known || !use(then) {
			break
		}
		m, ago, ok = then, now.Sub(was.at), true
		if ago >= old {
			break
		}
	}
	return m, ago, ok
}

// rate is how many events of a row there are in a second; below 1 it is none.
func (p *Progress) rate(key string, now time.Time, events int64) string {
	m, ago, ok := p.since(key, now, rateOver, func(mark) bool { return true })
	if !ok || ago < time.Second {
		return ""
	}
	perSecond := int64(float64(events-m.events) / ago.Seconds())
	if perSecond < 1 {
		return ""
	}
	return num(perSecond) + "/s"
}

// left is how long a source will take if it goes on as in the last half minute.
func (p *Progress) left(src Source, now time.Time) string {
	m, ago, ok := p.since(src.URL, now, leftOver, func(m mark) bool { return m.share > 0 })
	if done := src.Share - m.share; ok && ago >= time.Second && done >= enoughShare {
		return rough(time.Duration((1-src.Share)/done*float64(ago))) + " left"
	}
	return ""
}

// rough is a duration of which nobody knows more than the first figures.
func rough(d time.Duration) string {
	switch {
	case d < time.Second:
		return "1 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Round(time.Second).Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d m", int(d.Round(time.Minute).Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Round(time.Hour).Hours()))
	}
	return fmt.Sprintf("%d d", int(d.Hours()/24+0.5))
}

// The phases of a source that a display tells apart.
const (
	phaseDone      = "done"
	phaseReconcile = "reconciling"
)

func (p *Progress) source(s Status, src Source) row {
	r := row{url: src.URL, bar: -1, count: [2]string{num(src.Received), num(src.New)}, word: " new", back: src.backText()}
	over := src.Phase == phaseDone || src.State == Ended
	switch {
	case over && src.Complete == Yes:
		r.done, r.bar, r.state = true, 1, "complete"
	case over && src.Complete == No:
		r.done, r.plain = true, "NO: "+cmp.Or(src.CompleteNote, "not everything came")
		if src.Received > 0 {
			r.plain, r.state, r.note = "", "NO", r.plain[len("NO: "):]
		}
	case over:
		r.done, r.state, r.note = true, "unknown", src.CompleteNote
	case src.Phase == "": // no relay: an import
		r.state, r.moves, r.note = "reading", true, p.rate(src.URL, s.Now, src.Received)
	case src.State == Paused:
		r.plain = cmp.Or(src.Note, "paused")
	case src.State == Waiting:
		r.plain = waits(s.Now, src.Next, src.Note, src.Tries, "")
	case src.State == Connected && src.Waits.After(s.Now):
		r.plain = waits(s.Now, src.Waits, src.Note, src.Slowed, src.Pace)
	case src.State != Connected && src.Received == 0:
		r.plain = "connecting"
		if src.Tries > 0 {
			r.plain += ", " + nth(src.Tries+1) + " try: " + src.Note
		}
	default:
		r.moves = true
		r.state = "asking"
		if src.Phase == phaseReconcile {
			r.state = "comparing"
		}
		// Rounded down, and never all before all is proven.
		if percent := min(99, int(100*src.Share+1e-9)); percent > 0 {
			r.state = fmt.Sprintf("%d %%", percent)
		}
		r.bar = min(src.Share, 1-1./(2*barCells))
		r.note = join(p.rate(src.URL, s.Now, src.Received), p.left(src, s.Now))
		if src.State != Connected {
			r.note = join(src.State, src.Note)
		} else {
			if src.Note != "" && !strings.Contains(src.Note, "pace now") {
				r.note = join(r.note, "asked again: "+strings.TrimPrefix(src.Note, "CLOSED "))
			}
			if src.Pace != "" {
				r.note = join(r.note, "pace "+src.Pace)
			}
		}
	}
	if src.Negentropy && r.plain == "" {
		r.note = join("negentropy", r.note)
	}
	return r
}

// waits says until when nothing happens, why, and how often that was so.
func waits(now, until time.Time, why string, times int, pace string) string {
	text := "waits"
	if left := until.Sub(now); left > 0 {
		text += " " + rough(left)
	}
	parts := []string{strings.TrimPrefix(why, "CLOSED ")}
	if times > 1 {
		parts = append(parts, nth(times)+" time")
	}
	if pace != "" && !strings.Contains(why, "pace now") {
		parts = append(parts, "pace now "+pace)
	}
	if why = join(parts...); why != "" {
		text += ": " + why
	}
	return text
}

func (p *Progress) sink(s Status, k Sink) row {
	r := row{url: sinkMark + k.URL, bar: -1, count: [2]string{num(delivered(k)), num(k.Pending)}, word: " pending"}
	moves := k.Pending > 0 || k.Recheck > 0
	switch {
	case k.State == Paused:
		r.plain = cmp.Or(k.Note, "paused")
	case k.State == Waiting && moves:
		r.plain = waits(s.Now, k.Next, k.Note, k.Tries, "")
	case k.State == Ended && moves:
		r.done, r.plain = true, "given up: "+cmp.Or(k.Note, "no more tries")
	case !moves:
		r.state = sinkDone
	default:
		r.moves, r.state = true, "sending"
		r.note = join(p.rate(r.url, s.Now, delivered(k)), k.Note)
	}
	if r.plain != "" && k.Pending > 0 {
		r.plain = r.count[1] + r.word + ", " + r.plain
	}
	return r
}

// delivered is what a sink has got in this run, or had.
func delivered(k Sink) int64 {
	if k.Run != nil {
		k = *k.Run
	}
	return k.Delivered + k.Superseded
}

// backText is how far back a source has come: what is proven without a break, and where everything is, its oldest event.
func (s Source) backText() string {
	at := s.ProvenBack
	if at.Unix() <= 0 && s.Complete == Yes {
		at = s.Oldest
	}
	if at.Unix() <= 0 {
		return ""
	}
	return "back to " + day(at)
}

func join(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}

func nth(n int) string {
	if words := []string{"", "first", "second", "third"}; n < len(words) {
		return words[max(n, 0)]
	}
	suffix := "th"
	if tens := n / 10 % 10; tens != 1 {
		suffix = [...]string{"th", "st", "nd", "rd", "th", "th", "th", "th", "th", "th"}[n%10]
	}
	return fmt.Sprintf("%d%s", n, suffix)
}

// fit leaves out rows until they fit into height lines: those first that are done, then the last ones. rest counts what is left out.
func fit(rows []row, height int, limited bool) (kept []row, rest string) {
	if !limited || len(rows) <= height {
		return rows, ""
	}
	over := len(rows) - max(height-1, 0) // one line says what is missing
	var left []row
	out := func(which func(row) bool) {
		for i := len(rows) - 1; i >= 0 && over > 0; i-- {
			if which(rows[i]) {
				left = append(left, rows[i])
				rows = slices.Delete(rows, i, i+1)
				over--
			}
		}
	}
	rows = slices.Clone(rows)
	out(func(r row) bool { return r.done && r.state == "complete" || r.state == sinkDone })
	out(func(r row) bool { return r.done })
	out(func(r row) bool { return !r.moves })
	out(func(row) bool { return true })
	count := make(map[string]int)
	for _, r := range left {
		switch {
		case r.state == "complete" || r.state == sinkDone:
			count["complete"]++
		case r.done:
			count["incomplete"]++
		case r.moves:
			count["under way"]++
		default:
			count["waiting"]++
		}
	}
	var parts []string
	for _, what := range []string{"complete", "incomplete", "under way", "waiting"} {
		if count[what] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[what], what))
		}
	}
	return rows, fmt.Sprintf("and %d more: %s", len(left), strings.Join(parts, ", "))
}

// arrange puts rows together, columns below columns: without bars, dates, second figures or the ends of URLs where it is too narrow
// for them.
func arrange(rows []row, o Layout) []string {
	wide := func(of func(row) string) (n int) {
		for _, r := range rows {
			n = max(n, cells(of(r)))
		}
		return n
	}
	full := func(of func(row) string) func(row) string { // of rows that have columns
		return func(r row) string {
			if r.plain != "" {
				return ""
			}
			return of(r)
		}
	}
	url := wide(func(r row) string { return clean(r.url) })
	state := max(8, wide(full(func(r row) string { return r.state })))
	back := wide(full(func(r row) string { return r.back }))
	first := wide(full(func(r row) string { return r.count[0] }))
	second := wide(full(func(r row) string { return r.count[1] }))
	word := 0 // of rows with a date: what has none may reach into that column
	for _, r := range rows {
		if r.plain == "" && (r.back != "" || back == 0) {
			word = max(word, cells(r.word))
		}
	}
	bar := 0
	for _, r := range rows {
		if r.bar >= 0 && o.Bars {
			bar = barCells
		}
	}
	const gap, columnGap = 2, 3 // as below
	numbers := gap + state + gap + first + columnGap + second + word
	if back > 0 {
		back += columnGap
	}
	if o.Width > 0 {
		if bar > 0 && url+gap+bar+numbers+back > o.Width {
			bar = 0
		}
		if url+numbers+back > o.Width {
			back = 0
		}
		if url+numbers > o.Width { // a URL says more than a second figure
			numbers, second = numbers-columnGap-second-word, 0
		}
		if room := o.Width - numbers; url > room {
			url = max(room, o.Width/3)
		}
	}
	var lines []string
	for _, r := range rows {
		line := pad(cut(clean(r.url), url), url, true)
		if r.plain != "" {
			lines = append(lines, line+"  "+clean(r.plain))
			continue
		}
		if bar > 0 {
			line += "  " + drawn(r.bar)
		}
		line += "  " + pad(r.state, state, true) + "  " + pad(r.count[0], first, false)
		if second == 0 {
			lines = append(lines, strings.TrimRight(line, " "))
			continue
		}
		line += "   " + pad(r.count[1], second, false)
		rest := r.word
		if back > 0 && r.back != "" {
			rest = pad(r.word, word, true) + "   " + r.back
		}
		line += pad(rest, word+back, true)
		if room := o.Width - cells(line) - columnGap; r.note != "" && (o.Width == 0 || room >= leastNote) {
			line += "   " + clean(r.note)
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	return lines
}

// drawn is a bar, in halves of a cell.
func drawn(share float64) string {
	halves := int(2*barCells*max(share, 0) + 1e-9)
	bar := strings.Repeat("━", halves/2)
	if halves%2 == 1 {
		bar += "╸"
	}
	return pad(bar, barCells, true)
}
