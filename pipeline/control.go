package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"rebroadcastr/config"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/policy"
	"rebroadcastr/relay"
	"rebroadcastr/relay/url"
	"rebroadcastr/report"
	"rebroadcastr/sinks"
	"rebroadcastr/state"
)

// What an operator asks for. A Mirror that is made and not run answers too, from the ledgers as they are on disk: commands
// that find no daemon do that with the archive's lock.

// pausedBucket keeps the operator's pauses: URL → when it began.
const pausedBucket = "paused"

// pausedSince is when the operator paused a relay; zero: it is not paused.
func pausedSince(db *state.DB, relayURL string) (since time.Time, err error) {
	err = db.View(func(tx *state.Tx) error {
		since = time.Time{}
		if b := tx.Bucket(pausedBucket); b != nil {
			if v := b.Get([]byte(relayURL)); v != nil {
				return since.UnmarshalText(v)
			}
		}
		return nil
	})
	if err != nil {
		return since, fmt.Errorf("read whether %s is paused: %w", relayURL, err)
	}
	return since, nil
}

// setPaused keeps a pause; the zero time ends it.
func setPaused(db *state.DB, relayURL string, since time.Time) error {
	err := db.Update(func(tx *state.Tx) error {
		b := tx.Bucket(pausedBucket)
		if since.IsZero() {
			return b.Delete([]byte(relayURL))
		}
		v, err := since.MarshalText()
		if err != nil {
			return err
		}
		return b.Put([]byte(relayURL), v)
	})
	if err != nil {
		return fmt.Errorf("keep the pause of %s: %w", relayURL, err)
	}
	return nil
}

// urlOf is the relay that an operator means: by its URL, or by the name that the config gives it.
func (m *Mirror) urlOf(name string) (string, error) {
	cfg := m.config()
	for _, s := range cfg.Sources {
		if s.Name != "" && s.Name == name {
			return s.URL, nil
		}
	}
	for _, s := range cfg.Sinks {
		if s.Name != "" && s.Name == name {
			return s.URL, nil
		}
	}
	u, err := url.Normalize(name)
	if err != nil {
		return "", report.Refuse(report.Malformed, "%s", config.Redact(fmt.Sprintf("%q is no relay's name or address: %v%s", name, err, these(relaysOf(cfg)))))
	}
	return u, nil
}

// relaysOf lists the relays of a config with their names.
func relaysOf(cfg *config.Config) (relays []string) {
	names := make(map[string]string)
	add := func(u, name string) {
		if _, known := names[u]; !known {
			relays = append(relays, u)
		}
		names[u] = cmp.Or(names[u], name)
	}
	for _, s := range cfg.Sources {
		add(s.URL, s.Name)
	}
	for _, s := range cfg.Sinks {
		add(s.URL, s.Name)
	}
	for i, u := range relays {
		if names[u] != "" {
			relays[i] += " (" + names[u] + ")"
		}
	}
	return relays
}

// these ends a refusal with what there is, as far as a person reads.
func these(list []string) string {
	const most = 10
	if len(list) == 0 {
		return ""
	}
	text := "; these are: " + strings.Join(list[:min(len(list), most)], ", ")
	if n := len(list) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return text
}

// noRelay says which relays there are.
func (m *Mirror) noRelay(relayURL string) error {
	return report.Refuse(report.Absent, "there is no relay %s here%s", relayURL, these(relaysOf(m.config())))
}

// knows says whether the config, or else a ledger, names a relay. A config without relays knows every one: they came as flags.
func (m *Mirror) knows(relayURL string) (bool, error) {
	cfg := m.config()
	if m.link(relayURL) != nil || slices.ContainsFunc(cfg.Sources, func(s config.Source) bool { return s.URL == relayURL }) || sinkIn(cfg, relayURL) != nil {
		return true, nil
	}
	if m.running != nil {
		return false, nil
	}
	urls, err := sinks.Ledgers(m.o.Store.State)
	return slices.Contains(urls, relayURL) || len(cfg.Sources)+len(cfg.Sinks) == 0, err
}

func sinkIn(cfg *config.Config, relayURL string) *config.Sink {
	i := slices.IndexFunc(cfg.Sinks, func(s config.Sink) bool { return s.URL == relayURL })
	if i < 0 {
		return nil
	}
	return &cfg.Sinks[i]
}

// Pause stops both roles of a relay until Resume, also over restarts: CLOSE, a close frame, and its queue is kept.
func (m *Mirror) Pause(name string) (report.Held, error) {
	relayURL, err := m.urlOf(name)
	if err != nil {
		return report.Held{}, err
	}
	if err := m.asking.begin(); err != nil {
		return report.Held{}, err
	}
	defer m.asking.end()
	m.applying.Lock()
	defer m.applying.Unlock()
	if m.running != nil && m.o.Once {
		return report.Held{}, report.Refuse(report.Conflict, "pause: a command that ends by itself is at work on this archive; pause is for run")
	}
	known, err := m.knows(relayURL)
	if err != nil {
		return report.Held{}, err
	}
	if !known {
		return report.Held{}, m.noRelay(relayURL)
	}
	since, err := pausedSince(m.o.Store.State, relayURL)
	if err != nil {
		return report.Held{}, err
	}
	if !since.IsZero() {
		return report.Held{Relay: relayURL, Paused: true, Since: since, Was: "it is paused already"}, nil
	}
	since = m.o.Now()
	// Kept first: what was answered with "paused" stays so.
	if err := setPaused(m.o.Store.State, relayURL, since); err != nil {
		return report.Held{}, err
	}
	if l := m.link(relayURL); l != nil {
		l.wire.Pause(since)
	}
	m.log.Info().Str("relay", relayURL).Msg("paused by the operator")
	return report.Held{Relay: relayURL, Paused: true, Since: since}, nil
}

// Resume ends a Pause, and any other wait of the relay at once: a backoff, a daily probe, a role's own pause. A link that
// has given up is made anew.
func (m *Mirror) Resume(name string) (h report.Held, err error) {
	if h.Relay, err = m.urlOf(name); err != nil {
		return h, err
	}
	if err := m.asking.begin(); err != nil {
		return h, err
	}
	defer m.asking.end()
	m.applying.Lock()
	defer m.applying.Unlock()
	if h.Since, err = pausedSince(m.o.Store.State, h.Relay); err != nil {
		return h, err
	}
	known, err := m.knows(h.Relay)
	switch {
	case err != nil:
		return h, err
	case !known && h.Since.IsZero():
		return h, m.noRelay(h.Relay)
	case !h.Since.IsZero():
		if err := setPaused(m.o.Store.State, h.Relay, time.Time{}); err != nil {
			return h, err
		}
	}
	l := m.link(h.Relay)
	if l == nil {
		return h, nil
	}
	h.Was = l.waits()
	_, sink := l.roles()
	if sink != nil {
		sink.Wake()
	}
	l.wire.Resume()
	m.log.Info().Str("relay", h.Relay).Str("was", h.Was).Msg("resumed by the operator")
	if m.running != nil && !m.o.Once && l.over() {
		// Under the same lock: a config that is taken up meanwhile must not be taken back.
		err = m.applyLocked(m.config())
	}
	return h, err
}

// waits says what a link waits for; empty: nothing.
func (l *link) waits() string {
	w := l.wire.Status()
	source, sink := l.roles()
	switch {
	case !w.Held.IsZero():
		return ""
	case l.gaveUp.Load() != nil:
		return "given up: " + *l.gaveUp.Load()
	case w.State == relay.StateEnded:
		return "given up: " + w.LastError
	case w.State == relay.StateWaiting, w.State == relay.StatePaused:
		return w.LastError
	case sink != nil && sink.Status().Paused != "":
		return sink.Status().Paused
	}
	for _, r := range w.Roles {
		if !r.Until.IsZero() && (source != nil || r.Name != sourceRole) {
			return r.Reason
		}
	}
	return ""
}

// sinkOf is the sink at a URL: the running one, or else its ledger alone. rules: its config is known. info is the relay's
// document, where one was fetched. The caller that changes something holds applying.
func (m *Mirror) sinkOf(relayURL string) (s *sinks.Sink, info relay.Info, rules bool, err error) {
	if l := m.link(relayURL); l != nil {
		if _, sink := l.roles(); sink != nil {
			return sink.Sink, l.wire.Status().Info, true, nil
		}
	}
	cfg := m.config()
	o := m.bareSink(cfg, relayURL)
	if c := sinkIn(cfg, relayURL); c != nil {
		if o, err = m.sinkOptions(cfg, c); err != nil {
			return nil, info, false, err
		}
		rules = true
	}
	s, err = sinks.Look(o)
	if errors.Is(err, sinks.ErrNoLedger) {
		err = m.noSink(relayURL)
	}
	return s, info, rules, err
}

// bareSink is what every sink of the archive has.
func (m *Mirror) bareSink(cfg *config.Config, relayURL string) sinks.Options {
	a := m.o.Store.Archive
	return sinks.Options{
		URL: relayURL, State: m.o.Store.State, Settings: cfg.Relay(relayURL), Now: m.o.Now, Log: m.log,
		Open: func(from place.Place) (sinks.Reader, error) { return a.Reader(from), nil }, End: a.End, Resume: a.Resume, Past: m.o.Store.Index,
	}
}

// sinkOptions are those of a sink of the config.
func (m *Mirror) sinkOptions(cfg *config.Config, c *config.Sink) (sinks.Options, error) {
	allow, err := policy.NewAllow(c.Send)
	if err != nil {
		return sinks.Options{}, fmt.Errorf("sink %s: %w", c.URL, err)
	}
	selection := wanted(cfg, c.Only, c.Except)
	o := m.bareSink(cfg, c.URL)
	o.Want, o.FilterKey, o.Allow, o.Start = selection.Compile(), selectionKey(selection), allow, sinks.Start(c.Start)
	if !m.o.Once { // who sends and ends is not kept waiting by a comparison
		o.Seen, o.Filters, o.Reconcile = m.seen, asked(cfg, c.Only), sinks.Reconcile(c.Reconcile)
	}
	return o, nil
}

// noSink says which sinks there are.
func (m *Mirror) noSink(relayURL string) error {
	urls, err := sinks.Ledgers(m.o.Store.State)
	if err != nil {
		return err
	}
	if len(urls) == 0 {
		return report.Refuse(report.Absent, "%s is no sink of this archive; it has none", relayURL)
	}
	return report.Refuse(report.Absent, "%s is no sink of this archive%s", relayURL, these(urls))
}

// Retry offers again what a sink refused: what reason names, all with "", or the one event whose id (hex) is given; a parked one
// is due now.
func (m *Mirror) Retry(ctx context.Context, name, reason, id string) (report.Retried, error) {
	relayURL, err := m.urlOf(name)
	if err != nil {
		return report.Retried{}, err
	}
	if reason != "" && id != "" {
		return report.Retried{}, report.Refuse(report.Malformed, "retry: a reason or an id, not both")
	}
	if err := m.asking.begin(); err != nil {
		return report.Retried{}, err
	}
	defer m.asking.end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(m.asked, cancel)
	defer stop()
	m.applying.Lock() // no sink may come to run on a ledger that is changed here
	defer m.applying.Unlock()
	m.awaitLeft(ctx, relayURL)
	r := report.Retried{Sink: relayURL, Offered: make(map[string]uint64)}
	sink, _, rules, err := m.sinkOf(relayURL)
	if err != nil {
		return r, err
	}
	if id != "" {
		err = m.retryOne(sink, id, &r)
	} else {
		var done sinks.Retried
		done, err = sink.Retry(ctx, reason)
		r.Offered, r.Kept = done.Offered, done.Kept
	}
	if err != nil {
		return r, err
	}
	since, err := pausedSince(m.o.Store.State, relayURL)
	switch {
	case err != nil:
		return r, err
	case !since.IsZero():
		r.Note = "it is paused by the operator: rebroadcastr resume " + relayURL
	case sink.Status().Paused != "":
		r.Note = "it takes nothing from us: " + sink.Status().Paused + "; to try now: rebroadcastr resume " + relayURL
	case len(r.Offered) == 0 && r.Due == 0:
	case !rules:
		r.Note = "it is no sink of the config: nothing is sent before it is one again"
	case m.link(relayURL) == nil:
		r.Note = "the next run sends them"
	}
	return r, nil
}

func (m *Mirror) retryOne(sink *sinks.Sink, text string, r *report.Retried) error {
	id, err := event.ParseID(text)
	if err != nil {
		return report.Refuse(report.Malformed, "retry: %v", err)
	}
	rec, _, err := m.find(id)
	if err != nil {
		return err
	}
	if rec == nil {
		return report.Refuse(report.Absent, "%s is not archived", id)
	}
	story, err := sink.Story(rec, relay.Info{}, false)
	if err != nil {
		return err
	}
	switch was, err := sink.RetryOne(rec); {
	case err != nil:
		return err
	case was == sinks.Refused:
		r.Offered[story.Reason] = 1
	case was == sinks.Parked:
		r.Due = 1
	case was == sinks.Pending:
		return report.Refuse(report.Conflict, "%s has not been answered yet: it is on its way to %s", id, r.Sink)
	default:
		return report.Refuse(report.Conflict, "%s was not refused by %s: rebroadcastr explain %s", id, r.Sink, id)
	}
	return nil
}

// Forget removes the ledger of a sink that is none any more. One that becomes a sink again starts anew.
func (m *Mirror) Forget(name string) (report.Forgotten, error) {
	relayURL, err := m.urlOf(name)
	if err != nil {
		return report.Forgotten{}, err
	}
	if err := m.asking.begin(); err != nil {
		return report.Forgotten{}, err
	}
	defer m.asking.end()
	m.applying.Lock()
	defer m.applying.Unlock()
	f := report.Forgotten{Sink: relayURL}
	running := m.running != nil && sinkIn(m.config(), relayURL) != nil
	if l := m.link(relayURL); l != nil && !running {
		_, sink := l.roles()
		running = sink != nil
	}
	switch {
	case running:
		return f, report.Refuse(report.Conflict, "%s is a sink of the running config: remove it first (reload)", relayURL)
	case sinkIn(m.config(), relayURL) != nil: // its start would count again: from now on, what is pending would be gone
		return f, report.Refuse(report.Conflict, "%s is a sink of the config: remove it there first", relayURL)
	}
	m.awaitLeft(m.asked, relayURL) // else it would write its ledger anew
	urls, err := sinks.Ledgers(m.o.Store.State)
	if err != nil {
		return f, err
	}
	if !slices.Contains(urls, relayURL) {
		return f, m.noSink(relayURL)
	}
	if sink, err := sinks.Look(m.bareSink(m.config(), relayURL)); err != nil {
		f.Unread = true
	} else {
		k := sinkRow(sink.Status())
		f.Delivered, f.Refused, f.Pending, f.Parked = k.Delivered+k.Superseded, k.Rejected, k.Pending, k.Parked
	}
	if err := sinks.Forget(m.o.Store.State, relayURL); err != nil {
		return f, err
	}
	m.log.Info().Str("sink", relayURL).Str("delivered", humanize.Comma(f.Delivered)).Str("pending", humanize.Comma(f.Pending)).Msg("ledger forgotten")
	return f, nil
}

// heldText is the note of a relay that the operator has paused.
func heldText(relayURL string, since time.Time) string {
	return fmt.Sprintf("paused by the operator since %s; to go on: rebroadcastr resume %s", since.UTC().Format("2006-01-02 15:04 MST"), relayURL)
}
