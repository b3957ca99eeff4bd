package report

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// WriteText prints a story for people.
func (s Story) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n", s.Note, s.ID)
	if !s.Archived {
		s.writeAbsent(&b)
		_, err := io.WriteString(w, b.String())
		return err
	}
	fmt.Fprintf(&b, "kind %d by %s, dated %s\n", s.Event.Kind, s.Event.Author, moment(s.Event.CreatedAt))
	fmt.Fprintf(&b, "archived: %s/%s, byte %d, number %d", s.Dir, s.Line.File, s.Line.Offset, s.Line.Ordinal)
	if s.Indexed {
		b.WriteString(", in the index")
	}
	b.WriteByte('\n')
	switch o := s.Origin; {
	case o.Relay != "":
		fmt.Fprintf(&b, "came first from %s (%s), received %s\n", o.Relay, o.How, moment(o.Received))
	case o.How == "import":
		fmt.Fprintf(&b, "came first by an import, received %s\n", moment(o.Received))
	default:
		b.WriteString("where it came from is not known any more\n")
	}
	if len(s.Sources) > 0 {
		t := table{header: []string{"source", ""}, left: map[int]bool{0: true, 1: true}}
		for _, src := range s.Sources {
			what := "does not ask for it"
			if src.Asks {
				what = "asks for it"
			}
			if src.First {
				what += "; it came from here"
			}
			t.add(named(src.URL, src.Name), what)
		}
		t.write(&b)
	}
	if len(s.Sinks) > 0 {
		t := table{header: []string{"sink", ""}, left: map[int]bool{0: true, 1: true}}
		for _, k := range s.Sinks {
			t.add(named(k.URL, k.Name), k.text(s.Now))
			t.note(k.more(s.ID))
		}
		t.write(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (s Story) writeAbsent(b *strings.Builder) {
	fmt.Fprintf(b, "not archived in %s\n", s.Dir)
	if s.Indexed {
		b.WriteString("the index knows it, and its line is gone: withdrawn after a failed write, or damaged\n")
	}
	found := false
	var invalid, unasked int64
	for _, src := range s.Sources {
		invalid, unasked = invalid+src.Invalid, unasked+src.Unasked
		for _, x := range src.Samples {
			found = true
			fmt.Fprintf(b, "%s sent something with this id %s, last %s (%s): it was refused: %s\n",
				named(src.URL, src.Name), often(x.Times), moment(x.At), humanize.IBytes(uint64(x.Size)), x.Reason)
		}
	}
	if !found && invalid > 0 {
		fmt.Fprintf(b, "it is not among the last refused events that are kept as samples (%s were refused since the start)\n", num(invalid))
	}
	if unasked > 0 {
		fmt.Fprintf(b, "%s events that nobody asked for were passed over since the start; they are only counted\n", num(unasked))
	}
}

// text says in one line what became of the event at a sink.
func (k SinkStory) text(now time.Time) string {
	switch k.Fate {
	case "delivered":
		return "delivered, or it had it: answered before " + moment(k.At) + " (no row is kept of what was delivered)"
	case "rejected":
		return fmt.Sprintf("refused %s: %s", moment(k.At), cmp.Or(k.Text, k.Reason))
	case "parked":
		due := "due now"
		if k.Due.After(now) {
			due = "waits until " + moment(k.Due)
		}
		return fmt.Sprintf("%s: %s, put off %s", due, k.Parked, often(k.Attempts))
	case "sent":
		return "sent " + moment(k.At) + ", not answered yet"
	case "pending":
		return "pending, " + events(k.Ahead) + " before it"
	case "skipped":
		return "not sent: " + k.reason()
	case "settled":
		text := "settled before " + moment(k.At) + ": delivered or kept back (no row is kept that tells which)"
		if k.Reason != "" {
			text += "; now it would be kept back: " + k.reason()
		}
		return text
	}
	return "never at work on this archive"
}

// more is what stands in the way, and what can be done.
func (k SinkStory) more(id string) string {
	var parts []string
	switch k.Fate {
	case "pending", "parked":
		if k.Reason != "" {
			parts = append(parts, "it would not be sent: "+k.reason())
		}
	case "rejected":
		parts = append(parts, fmt.Sprintf("to offer it again: rebroadcastr retry --sink %s --id %s", k.URL, id))
	}
	if k.Stopped != "" && slices.Contains([]string{"pending", "parked", "sent"}, k.Fate) {
		parts = append(parts, k.Stopped)
	}
	if !k.Configured {
		parts = append(parts, "no sink of the config")
	}
	return strings.Join(parts, "; ")
}

// skips say the reasons that are no rows of the table.
var skips = map[string]string{
	"filter": "the sink's filter does not take it", "echo": "it came from this relay", "no_deliver": "archived with --no-deliver",
	"before start": "older than the sink's start", "withdrawn": "its line is gone",
}

func (k SinkStory) reason() string {
	if k.Why != "" {
		return fmt.Sprintf("%s (NIP-%s: %s)", k.Reason, k.NIP, k.Why)
	}
	return cmp.Or(skips[k.Reason], k.Reason)
}

// WriteText prints what is behind a relay's rows.
func (r Relay) WriteText(w io.Writer, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s since the start", r.URL, plural(r.Sessions, "session"))
	if r.LastEnd != "" {
		fmt.Fprintf(&b, "; the last end, %s ago: %s", Span(now.Sub(r.LastEndAt)), r.LastEnd)
	}
	b.WriteByte('\n')
	if i := r.Info; i != nil {
		fmt.Fprintf(&b, "  NIP-11, %s ago: %s\n", Span(now.Sub(i.Fetched)), strings.Join(i.words(), " · "))
	} else {
		b.WriteString("  no NIP-11 document\n")
	}
	if r.Window > 0 {
		fmt.Fprintf(&b, "  sink: %s sent since the start, last OK %s, window %d", events(r.Sent), ago(now, r.LastOK), r.Window)
		if r.Late > 0 {
			fmt.Fprintf(&b, ", %s too late", plural(int(r.Late), "OK"))
		}
		if r.Strays > 0 {
			fmt.Fprintf(&b, ", %s about nothing that was asked", plural(int(r.Strays), "OK"))
		}
		b.WriteByte('\n')
	}
	for _, p := range r.Parked {
		fmt.Fprintf(&b, "  parked: %s for %s, the first %s\n", events(p.Events), p.Reason, due(now, p.Next))
	}
	if c := r.Compared; c != nil {
		how := "of late"
		if c.Full {
			how = "in full"
		}
		fmt.Fprintf(&b, "  compared with the archive %s ago, %s: we lacked %s, %s came; %s it lacks", Span(now.Sub(c.At)), how,
			plural(c.Lacked, "event"), num(int64(c.Came)), num(int64(c.Ours)))
		if c.Missed > 0 {
			fmt.Fprintf(&b, "; %s it lists and does not give", num(int64(c.Missed)))
		}
		if c.Paged > 0 {
			fmt.Fprintf(&b, "; %s paged instead", plural(c.Paged, "window"))
		}
		if c.Text != "" {
			fmt.Fprintf(&b, "; incomplete: %s", c.Text)
		}
		b.WriteByte('\n')
	}
	if l := r.Lacks; l != nil {
		b.WriteString("  " + l.text(now) + "\n")
	}
	if text := reasons("frames not understood", r.BadFrames); text != "" {
		fmt.Fprintf(&b, "  %s\n", text)
	}
	const most = 5
	for _, s := range r.Samples[max(0, len(r.Samples)-most):] {
		fmt.Fprintf(&b, "  refused %s: %s, %s: %s\n", moment(s.At), s.Reason, humanize.IBytes(uint64(s.Size)), short(s.Raw))
	}
	for _, n := range r.Notices {
		fmt.Fprintf(&b, "  notice %s: %s\n", moment(n.At), n.Text)
	}
	if len(r.Notices) == 0 {
		b.WriteString("  no notices\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// text says in one line what came of a sink's comparison.
func (l *Lacks) text(now time.Time) string {
	how := "of late"
	if l.Full {
		how = "in full"
	}
	if l.Listed == 0 && l.Text != "" {
		return fmt.Sprintf("sink not compared with the archive, %s ago: %s", Span(now.Sub(l.At)), l.Text)
	}
	text := fmt.Sprintf("sink compared with the archive %s ago, %s: it lacked %s of %s", Span(now.Sub(l.At)), how, num(int64(l.Lacked)), events(uint64(l.Listed)))
	if l.Offered > 0 {
		offered := "offered %s again"
		if l.Again == 0 { // by an earlier one
			offered = "of %s offered before"
		}
		text += fmt.Sprintf("; "+offered+", %s taken, %s it had, %s refused", num(l.Offered), num(l.Taken), num(l.Had), num(l.Refused))
	}
	if l.Resting > 0 {
		text += fmt.Sprintf("; %s offered not long ago", num(int64(l.Resting)))
	}
	if rest := l.Lacked - l.Again - l.Resting; rest > 0 && !l.All && !l.More {
		text += fmt.Sprintf("; %s not for it now: kept back, refused or still to be sent", num(int64(rest)))
	}
	if l.All {
		text += "; that is most: all that it took is offered again"
	}
	if l.More {
		text += "; the rest is offered soon"
	}
	if l.Text != "" {
		text += "; incomplete: " + l.Text
	}
	return text
}

func (i RelayInfo) words() []string {
	var words []string
	for _, s := range []string{i.Name, strings.TrimSpace(i.Software + " " + i.Version)} {
		if s != "" {
			words = append(words, s)
		}
	}
	if len(i.NIPs) > 0 {
		nips := make([]string, len(i.NIPs))
		for n, nip := range i.NIPs {
			nips[n] = strconv.Itoa(nip)
		}
		words = append(words, "NIPs "+strings.Join(nips, " "))
	}
	for _, name := range slices.Sorted(maps.Keys(i.Limits)) {
		words = append(words, fmt.Sprintf("%s %d", name, i.Limits[name]))
	}
	for _, what := range i.Wants {
		words = append(words, "wants "+what)
	}
	if len(words) == 0 {
		return []string{"says nothing"}
	}
	return words
}

// WriteText prints one refused event as a line.
func (r Rejected) WriteText(w io.Writer) error {
	kind := ""
	if r.Kind != nil {
		kind = fmt.Sprintf("kind %d  ", *r.Kind)
	}
	text := r.Text
	if !strings.HasPrefix(strings.ToLower(text), strings.ToLower(r.Reason)) {
		text = r.Reason + ": " + text
	}
	_, err := fmt.Fprintf(w, "%s  %s  %s  %s%s\n", moment(r.Time), r.Sink, r.Note, kind, text)
	return err
}

// WriteText prints what a retry did.
func (r Retried) WriteText(w io.Writer) error {
	total, by := uint64(0), make(map[string]int64)
	for reason, n := range r.Offered {
		total += n
		by[reason] = int64(n)
	}
	var text string
	switch {
	case r.Due > 0:
		text = plural(int(r.Due), "parked event") + " due now"
	case total == 0 && r.Kept == 0:
		text = "nothing is offered again: it has refused nothing"
	case total == 0:
		text = fmt.Sprintf("nothing is offered again: it has refused %s, for other reasons (rebroadcastr status %s --rejected)", events(r.Kept), r.Sink)
	case total == 1:
		text = "1 refused event is offered again" + reasons("", by)
	default:
		text = plural(int(total), "refused event") + " are offered again" + reasons("", by)
	}
	if r.Kept > 0 && total > 0 {
		text += fmt.Sprintf("; %s for another reason stay refused", num(int64(r.Kept)))
	}
	if r.Note != "" {
		text += "; " + r.Note
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", r.Sink, text)
	return err
}

// WriteText prints what a pause or a resume did.
func (h Held) WriteText(w io.Writer) error {
	var text string
	switch {
	case h.Paused && h.Was != "":
		text = fmt.Sprintf("%s, since %s", h.Was, moment(h.Since))
	case h.Paused:
		text = "paused: nothing is asked of it or sent to it; its queue is kept. To go on: rebroadcastr resume " + h.Relay
	case !h.Since.IsZero():
		text = "resumed; it was paused since " + moment(h.Since)
	case h.Was != "":
		text = "tried again now; it waited: " + h.Was
	default:
		text = "it was neither paused nor waiting"
	}
	_, err := fmt.Fprintf(w, "%s: %s\n", h.Relay, text)
	return err
}

// WriteText prints what was forgotten.
func (f Forgotten) WriteText(w io.Writer) error {
	text := fmt.Sprintf("%s delivered, %s refused, %s parked, %s pending", num(f.Delivered), num(f.Refused), num(f.Parked), num(f.Pending))
	if f.Unread {
		text = "it could not be read, so what was in it is not known"
	}
	_, err := fmt.Fprintf(w, "%s: ledger forgotten: %s. As a sink again it starts anew\n", f.Sink, text)
	return err
}

// moment prints a time to the second.
func moment(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func due(now, at time.Time) string {
	if !at.After(now) {
		return "due now"
	}
	return "due in " + Span(at.Sub(now))
}

func often(n int) string {
	if n == 1 {
		return "once"
	}
	return num(int64(n)) + " times"
}

func events(n uint64) string { return plural(int(n), "event") }

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return num(int64(n)) + " " + what + "s"
}

// short is the beginning of a text from outside, on one line.
func short(s string) string {
	const most = 120
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return '·'
		}
		return r
	}, s[:min(len(s), most)])
	if len(s) > most {
		clean += "…"
	}
	return clean
}

// WriteText prints a line a source or sink.
func (c Compared) WriteText(w io.Writer) error {
	for _, r := range c.Asked {
		text := "is compared with the archive"
		if r.Note != "" {
			text = "will be compared with the archive as soon as that can be: " + r.Note
		}
		if _, err := fmt.Fprintf(w, "%s %s %s\n", r.Role, r.Relay, text); err != nil {
			return err
		}
	}
	return nil
}
