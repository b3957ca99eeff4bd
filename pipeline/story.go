package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/nbd-wtf/go-nostr/nip19"

	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/policy"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/report"
	"rebroadcastr/sinks"
	"rebroadcastr/sources"
)

// find reads an event of the archive by its id; nil: it is not there. indexed: the index has a place for it.
func (m *Mirror) find(id event.ID) (rec *record.Record, indexed bool, err error) {
	at, indexed, err := m.o.Store.Index.Place(id)
	if !indexed || err != nil {
		return nil, indexed, err
	}
	r := m.o.Store.Archive.Reader(at)
	defer r.Close()
	got, ok, err := r.TryNext()
	if err != nil {
		return nil, true, fmt.Errorf("read the archive at %s: %w", at, err)
	}
	if !ok || got.Event.ID != id { // its line is blank, or was withdrawn
		return nil, true, nil
	}
	return &got, true, nil
}

// Explain tells all that is known of the event with the id (hex).
func (m *Mirror) Explain(_ context.Context, text string) (report.Story, error) {
	id, err := event.ParseID(text)
	if err != nil {
		return report.Story{}, report.Refuse(report.Malformed, "explain: %v", err)
	}
	if err := m.asking.begin(); err != nil {
		return report.Story{}, err
	}
	defer m.asking.end()
	s := report.Story{ID: id.String(), Note: note(id), Now: m.o.Now(), Dir: m.o.Store.Archive.Status().Dir}
	rec, indexed, err := m.find(id)
	if err != nil {
		return s, err
	}
	s.Indexed, s.Archived = indexed, rec != nil
	cfg := m.config()
	s.Sources = m.sourceStories(cfg, id, rec)
	if rec == nil {
		return s, nil
	}
	file, offset, _ := m.o.Store.Archive.Where(rec.Place)
	s.Line = &report.Line{File: file, Offset: offset, Ordinal: rec.Ordinal}
	e := &rec.Event
	s.Event = &report.EventHead{Kind: e.Kind, Author: npub(e.PubKey), PubKey: e.PubKey.String(), CreatedAt: time.Unix(e.CreatedAt, 0).UTC()}
	s.Origin = &report.Origin{Relay: rec.Origin.Relay, How: rec.Origin.How.String(), Received: rec.Origin.Received, NoDeliver: rec.Origin.NoDeliver}
	s.Sinks, err = m.sinkStories(cfg, rec)
	return s, err
}

func note(id event.ID) string {
	s, _ := nip19.EncodeNote(id.String()) // 64 hex digits: cannot fail
	return s
}

func npub(key event.PubKey) string {
	s, _ := nip19.EncodePublicKey(key.String()) // 64 hex digits: cannot fail
	return s
}

// sourceStories asks each source of the config. rec is nil for an event that is not archived.
func (m *Mirror) sourceStories(cfg *config.Config, id event.ID, rec *record.Record) (stories []report.SourceStory) {
	for _, c := range cfg.Sources {
		if !c.Enabled {
			continue
		}
		s := report.SourceStory{URL: c.URL, Name: c.Name}
		if rec != nil {
			s.First = rec.Origin.Relay == c.URL
			s.Asks = sources.NewDoor(c.URL, wanted(cfg, c.Only, c.Except).Compile()).Wants(&rec.Event)
		} else if l := m.link(c.URL); l != nil {
			if source, _ := l.roles(); source != nil {
				s.Invalid, s.Unasked = source.door.Tally.Invalid(), source.door.Tally.Unasked.Load()
				s.Samples = samples(source.door, id)
			}
		}
		stories = append(stories, s)
	}
	return stories
}

// samples are those of a door that give their id as id, one for each reason. They are no events, mostly: only their text can be
// asked.
func samples(d *sources.Door, id event.ID) (found []report.Sample) {
	says := regexp.MustCompile(`(?i)"id"\s*:\s*"` + id.String() + `"`)
	for _, s := range d.Samples() {
		if !says.MatchString(s.Raw) {
			continue
		}
		i := slices.IndexFunc(found, func(f report.Sample) bool { return f.Reason == string(s.Reason) })
		if i < 0 {
			i = len(found)
			found = append(found, report.Sample{Reason: string(s.Reason)})
		}
		found[i].At, found[i].Size, found[i].Times = s.At, s.Size, found[i].Times+1
	}
	return found
}

// sinkStories asks each sink of the config, and each that was one.
func (m *Mirror) sinkStories(cfg *config.Config, rec *record.Record) (stories []report.SinkStory, err error) {
	urls, err := sinks.Ledgers(m.o.Store.State)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, c := range cfg.Sinks {
		all = append(all, c.URL)
	}
	for _, u := range urls {
		if !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	for _, u := range all {
		s, err := m.sinkStory(cfg, u, rec, slices.Contains(urls, u))
		if err != nil {
			return nil, err
		}
		stories = append(stories, s)
	}
	return stories, nil
}

func (m *Mirror) sinkStory(cfg *config.Config, relayURL string, rec *record.Record, ledger bool) (report.SinkStory, error) {
	s := report.SinkStory{URL: relayURL}
	if c := sinkIn(cfg, relayURL); c != nil {
		s.Name, s.Configured = c.Name, c.Enabled
	}
	if !ledger {
		s.Fate = "none"
		return s, nil
	}
	sink, info, rules, err := m.sinkOf(relayURL)
	if err != nil {
		return s, err
	}
	st, err := sink.Story(rec, info, rules)
	if err != nil {
		return s, err
	}
	s.Fate, s.Reason, s.Text, s.At, s.Due = string(st.Fate), st.Reason, st.Text, st.At, st.Due
	s.Parked, s.Attempts, s.Ahead = st.Again, st.Attempts, st.Ahead
	for _, row := range policy.Table() {
		if row.Name == st.Reason && st.Fate != sinks.Refused {
			s.NIP, s.Why = row.NIP, row.Reason
		}
	}
	since, err := pausedSince(m.o.Store.State, relayURL)
	switch {
	case err != nil:
		return s, err
	case !since.IsZero():
		s.Stopped = heldText(relayURL, since)
	default:
		s.Stopped = sink.Status().Paused
	}
	if l := m.link(relayURL); l != nil && s.Stopped == "" {
		s.Stopped = l.waits()
	}
	return s, nil
}

// Relay tells all that is known of one relay beside its rows in the status.
func (m *Mirror) Relay(name string) (report.Relay, error) {
	relayURL, err := m.urlOf(name)
	if err != nil {
		return report.Relay{}, err
	}
	if err := m.asking.begin(); err != nil {
		return report.Relay{}, err
	}
	defer m.asking.end()
	l := m.link(relayURL)
	if l == nil {
		return report.Relay{}, m.noRelay(relayURL)
	}
	w := l.wire.Status()
	r := report.Relay{
		URL: relayURL, Paused: w.Held, Sessions: w.Sessions, LastEnd: w.LastEnd, LastEndAt: w.LastEndAt, BadFrames: w.Unknown,
		Info: infoOf(w.Info), Notices: []report.Notice{}, Samples: []report.Sample{},
	}
	for _, n := range w.Notices {
		r.Notices = append(r.Notices, report.Notice(n))
	}
	source, sink := l.roles()
	if source != nil {
		if a := source.from.Status().Audit; !a.At.IsZero() {
			r.Compared = &report.Audit{At: a.At, Full: a.Full, Lacked: a.Needed, Came: a.Came, Missed: a.Missed, Ours: a.Lacks, Paged: a.Paged, Text: a.Text}
		}
		for _, s := range source.door.Samples() {
			r.Samples = append(r.Samples, report.Sample{At: s.At, Reason: string(s.Reason), Size: s.Size, Raw: s.Raw})
		}
	}
	if sink == nil {
		return r, nil
	}
	st := sink.Status()
	r.Window, r.Sent, r.Late, r.Strays, r.LastOK = st.Window, st.Session.Sent, st.Session.Late, st.Session.Strays, st.LastOK
	waiting, err := sink.Parked()
	for _, w := range waiting {
		r.Parked = append(r.Parked, report.Parked(w))
	}
	if c := st.Compared; !c.At.IsZero() {
		r.Lacks = &report.Lacks{
			At: c.At, Full: c.Full, Listed: c.Listed, Lacked: c.Lacked, Again: c.Offered, All: c.All, More: c.More || c.Deeper, Resting: c.Resting, Text: c.Text,
			Offered: int64(st.Lack.Offered), Taken: int64(st.Lack.Taken), Had: int64(st.Lack.Had), Refused: int64(st.Lack.Refused),
		}
	}
	return r, err
}

func infoOf(i relay.Info) *report.RelayInfo {
	if !i.Known {
		return nil
	}
	r := &report.RelayInfo{Fetched: i.Fetched, Name: i.Name, Software: i.Software, Version: i.Version, NIPs: i.NIPs, Limits: make(map[string]int64)}
	l := i.Limits
	for name, n := range map[string]int64{
		"max_message_length": int64(l.MaxMessageLength), "max_subscriptions": int64(l.MaxSubscriptions), "max_limit": int64(l.MaxLimit),
		"default_limit": int64(l.DefaultLimit), "max_subid_length": int64(l.MaxSubIDLength), "max_event_tags": int64(l.MaxEventTags),
		"max_content_length": int64(l.MaxContentLength), "min_pow_difficulty": int64(l.MinPoW),
		"created_at_lower_limit": l.CreatedAtLower, "created_at_upper_limit": l.CreatedAtUpper,
	} {
		if n > 0 {
			r.Limits[name] = n
		}
	}
	for _, w := range []struct {
		wants bool
		what  string
	}{{l.AuthRequired, "auth"}, {l.PaymentRequired, "payment"}, {l.RestrictedWrites, "restricted writes"}} {
		if w.wants {
			r.Wants = append(r.Wants, w.what)
		}
	}
	return r
}

// maxRejected bounds how many refused events are held to be sorted.
const maxRejected = 10_000

// Rejected gives to fn what a sink refused for good, all sinks with name "": the last limit ones, newest last; with limit 0 all,
// sink by sink in the order of the archive and without their kinds, each of which costs a look into the archive.
func (m *Mirror) Rejected(ctx context.Context, name string, limit int, fn func(report.Rejected) error) error {
	if limit < 0 || limit > maxRejected {
		return report.Refuse(report.Malformed, "at most %d refused events are sorted by time; 0: all, in the order of the archive", maxRejected)
	}
	if err := m.asking.begin(); err != nil {
		return err
	}
	begun := true
	defer func() {
		if begun {
			m.asking.end()
		}
	}()
	give := func(r report.Rejected) error { // no stop waits for a reader
		m.asking.end()
		begun = false
		err := fn(r)
		if err == nil {
			err = m.asking.begin()
			begun = err == nil
		}
		return err
	}
	urls, err := sinks.Ledgers(m.o.Store.State)
	if err != nil {
		return err
	}
	if name != "" {
		relayURL, err := m.urlOf(name)
		if err != nil {
			return err
		}
		if !slices.Contains(urls, relayURL) {
			return m.noSink(relayURL)
		}
		urls = []string{relayURL}
	}
	type row struct {
		sinks.Rejected
		sink string
	}
	var last []row
	older := func(a, b row) int { return a.Time.Compare(b.Time) }
	for _, u := range urls {
		sink, _, _, err := m.sinkOf(u)
		if err != nil {
			return err
		}
		var failed error
		err = sink.Rejected(func(r sinks.Rejected) bool {
			if failed = ctx.Err(); failed != nil {
				return false
			}
			if limit == 0 {
				failed = give(rejected(u, r))
				return failed == nil
			}
			if last = append(last, row{r, u}); len(last) >= 2*limit {
				slices.SortStableFunc(last, older)
				last = append(last[:0], last[len(last)-limit:]...)
			}
			return true
		})
		if err = cmp.Or(failed, err); err != nil {
			return err
		}
	}
	slices.SortStableFunc(last, older)
	for _, r := range last[max(0, len(last)-limit):] {
		out := rejected(r.sink, r.Rejected)
		if out.Kind, err = m.kindAt(r.At, r.ID); err != nil {
			return err
		}
		if err := give(out); err != nil {
			return err
		}
	}
	return nil
}

func rejected(sink string, r sinks.Rejected) report.Rejected {
	return report.Rejected{Sink: sink, Time: r.Time, ID: r.ID.String(), Note: note(r.ID), Reason: r.Prefix, Text: r.Text}
}

// kindAt is the kind of the event at a place; nil: it is not there any more.
func (m *Mirror) kindAt(at place.Place, id event.ID) (*int, error) {
	r := m.o.Store.Archive.Reader(at)
	defer r.Close()
	rec, ok, err := r.TryNext()
	if err != nil {
		return nil, fmt.Errorf("read the archive at %s: %w", at, err)
	}
	if !ok || rec.Event.ID != id {
		return nil, nil
	}
	return &rec.Event.Kind, nil
}
