package pipeline

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"rebroadcastr/relay"
	"rebroadcastr/report"
	"rebroadcastr/sinks"
	"rebroadcastr/sources"
)

// report adds the link's rows to s.
func (l *link) report(s *report.Status) {
	w := l.wire.Status()
	source, sink := l.roles()
	if source != nil {
		row := l.sourceRow(source, w)
		s.Sources = append(s.Sources, row)
		if w.Held.IsZero() { // it is as the operator wants it
			l.problem(s, "source", row.Note)
		}
	}
	if sink != nil {
		st := sink.Status()
		k := sinkRow(st)
		k.Name, k.State, k.Since, k.Tries, k.Next = sink.name, string(w.State), w.Since, w.Tries, w.Next
		if st.Paused != "" {
			k.State, k.Since = report.Paused, st.Since
		}
		run := k.Minus(sink.beforeThis(k))
		k.Run = &run
		if why := l.gaveUp.Load(); why != nil {
			k.Note = *why
		} else if k.Note == "" && k.State != report.Connected {
			k.Note = w.LastError
		}
		switch {
		case st.Paused != "":
			k.Note = l.resumable(k.Note, "probed daily, or")
		case k.State == report.Paused:
			k.Note = l.resumable(k.Note, "to try now")
		}
		if !w.Held.IsZero() {
			k.State, k.Since, k.Next, k.Note = report.Paused, w.Held, time.Time{}, l.heldNote(w)
		} else {
			l.problem(s, "sink", k.Note)
		}
		s.Sinks = append(s.Sinks, k)
	}
}

// resumable adds to the note of a pause how an operator ends it.
func (l *link) resumable(note, how string) string {
	if l.m.o.Once || note == "" {
		return note
	}
	return fmt.Sprintf("%s; %s: rebroadcastr resume %s", note, how, l.url)
}

// heldNote is the note of a relay that the operator has paused; a one-shot command leaves it out.
func (l *link) heldNote(w relay.LinkStatus) string {
	if why := l.gaveUp.Load(); why != nil {
		return *why
	}
	return heldText(l.url, w.Held)
}

// problem adds what an operator should look at: a daemon's relay that cannot be reached, or that wants something.
func (l *link) problem(s *report.Status, role, note string) {
	if l.m.o.Once || note == "" {
		return
	}
	s.Problems = append(s.Problems, fmt.Sprintf("%s %s: %s", role, l.url, note))
}

func (l *link) sourceRow(source *sourceRoleOf, w relay.LinkStatus) report.Source {
	f := source.from.Status()
	r := doorRow(source.door)
	r.URL, r.Name, r.State, r.Since, r.Tries, r.Next = l.url, source.name, string(w.State), w.Since, w.Tries, w.Next
	r.BadFrames, r.LastEvent, r.Note = w.Unknown, f.LastEvent, w.LastError
	for _, role := range w.Roles {
		if role.Name == sourceRole && role.Reason != "" {
			r.State, r.Next, r.Note = report.Paused, role.Until, role.Reason
		}
	}
	if r.State == report.Connected && r.Note == "" {
		r.Note = f.Note // the relay is there, and closes subscriptions
	}
	r.Phase, r.Share, r.Negentropy, r.Slowed = string(f.Phase), f.Share, f.Negentropy, w.Slowed
	if w.Pace > 0 {
		r.Pace = fmt.Sprintf("%.3g/s", w.Pace)
	}
	if f.Oldest > 0 {
		r.Oldest = time.Unix(f.Oldest, 0).UTC()
	}
	if r.Waits = f.Waits; w.Quiet.After(r.Waits) && w.Quiet.After(time.Now()) {
		r.Waits = w.Quiet
	}
	if r.Note == "" && w.Pace > 0 {
		r.Note = fmt.Sprintf("rate-limited: pace now %.3g/s", w.Pace)
	}
	if r.State == report.Paused {
		r.Note = l.resumable(r.Note, "to try now")
	}
	if !w.Held.IsZero() {
		r.State, r.Since, r.Next, r.Note = report.Paused, w.Held, time.Time{}, l.heldNote(w)
	}
	r.Complete, r.CompleteNote = report.Complete(f.Complete.String()), f.Text
	if f.Proven && f.ProvenBack > 0 {
		r.ProvenBack = time.Unix(f.ProvenBack, 0).UTC()
	}
	r.Gaps, r.MoreGaps = gapRows(f.Gaps), f.MoreGaps
	if why := l.gaveUp.Load(); why != nil && r.Complete != report.Yes {
		r.Complete, r.CompleteNote = report.No, *why
	}
	return r
}

// doorRow is what a door has counted.
func doorRow(d *sources.Door) report.Source {
	c := d.Tally.Read()
	r := report.Source{
		Received: c.Received, New: c.New, Copies: c.Copies, Invalid: c.Invalid, Unasked: c.Unasked, InFlight: c.InFlight,
		InvalidBy: make(map[string]int64), UnaskedBy: make(map[string]int64),
	}
	if c.Ephemeral > 0 {
		r.UnaskedBy["ephemeral"] = c.Ephemeral
	}
	if n := c.Unasked - c.Ephemeral; n > 0 {
		r.UnaskedBy["not asked for"] = n
	}
	for reason, n := range c.InvalidBy {
		r.InvalidBy[string(reason)] += n
	}
	return r
}

// sinkRow is what a ledger has counted.
func sinkRow(st sinks.Status) report.Sink {
	c := st.Counters
	k := report.Sink{
		URL: st.URL, Delivered: int64(c.Delivered + c.Duplicate), Duplicate: int64(c.Duplicate), Superseded: int64(c.Superseded),
		Rejected: int64(c.RejectedTotal()), RejectedBy: signed(c.Rejected), RejectedText: st.Texts, Skipped: int64(c.SkippedTotal()), SkippedBy: signed(c.Skipped),
		Pending: int64(st.Pending), Parked: int64(c.Parked), Issued: st.Issued, Start: c.Before,
	}
	if st.Recheck > 0 {
		k.Recheck = int64(st.Recheck)
		k.Note = fmt.Sprintf("filter changed: second pass, %s of %s", humanize.Comma(int64(st.Of-st.Recheck)), humanize.Comma(int64(st.Of)))
	}
	if st.Again > 0 {
		k.Again = int64(st.Again)
		k.Note = fmt.Sprintf("it lacks most of what it was sent: offered again, %s of %s", humanize.Comma(int64(st.AgainOf-st.Again)), humanize.Comma(int64(st.AgainOf)))
	}
	if st.Paused != "" {
		k.Note = pausedText(st)
	}
	if st.Pace > 0 && st.Paused == "" {
		k.Note = fmt.Sprintf("told to go slower %s times; pace now %.3g/s", humanize.Comma(int64(st.Session.Slower)), st.Pace)
	}
	if st.Pace > 0 {
		k.Pace = fmt.Sprintf("%.3g/s", st.Pace)
	}
	if st.Failing != "" {
		k.Note = "ledger not committed: " + st.Failing
	}
	return k
}

// beforeThis is what the ledger had before this process and still has: what a second pass took back from the skipped, and what the
// relay lacks from the delivered, is accounted for anew, by this one.
func (k *sinkRoleOf) beforeThis(now report.Sink) report.Sink {
	before := k.before
	before.SkippedBy = make(map[string]int64)
	for reason, n := range k.before.SkippedBy {
		left := min(n, now.SkippedBy[reason])
		before.SkippedBy[reason] = left
		before.Skipped -= n - left
	}
	back := k.Status().TakenBack
	before.Delivered -= min(before.Delivered, int64(back.Delivered+back.Duplicate))
	before.Duplicate -= min(before.Duplicate, int64(back.Duplicate))
	before.Superseded -= min(before.Superseded, int64(back.Superseded))
	return before
}

// pausedText says what only people can mend.
func pausedText(st sinks.Status) string {
	return fmt.Sprintf("%s. There is no key here to log in or pay with: ask the operator to allow your address, or drop the sink. Queue kept: %s",
		strings.TrimRight(st.Paused, ". "), humanize.Comma(int64(st.Pending)))
}

func signed(m map[string]uint64) map[string]int64 {
	s := make(map[string]int64, len(m))
	for k, v := range m {
		s[k] = int64(v)
	}
	return s
}
