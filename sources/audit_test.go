package sources_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rebroadcastr/record"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
)

// TestAudit: what a relay got late, dated back, is found without asking for what is there already.
func TestAudit(t *testing.T) {
	old := notes(1, 1000, 4000) // 46 days
	late, lateAndOld := note(1, 5001, now-10*86400), note(1, 5002, now-40*86400)
	all := append([]string{late, lateAndOld}, old...)
	n := &reconciler{events: old}
	r := relaytest.New(t, relaytest.Script{Events: old, Cap: 100, Handle: n.handle})
	in, db := newIntake(t), openState(t)
	o := sources.Options{Seen: archived{in, all}, Reconcile: sources.Reconcile{Every: 24 * time.Hour, Depth: 30 * 24 * time.Hour, Full: 60 * 24 * time.Hour}}
	g := start(t, r, in, db, o)
	in.until("live", func() bool { return in.count() == len(old) && g.source.Status().Phase == sources.Live })
	if at := g.source.Status().Audit.At; !at.IsZero() {
		t.Errorf("an audit right after the first history, at %v", at)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	n.events = all
	n.mu.Unlock()
	r.Update(func(s *relaytest.Script) { s.Events = append(s.Events, late, lateAndOld) })
	pages := len(requests(t, r, "page-"))

	// daysLater runs it again until it has been audited.
	daysLater := func(days int, what string, do func(*sources.Source)) sources.Audit {
		t.Helper()
		o.Now = func() time.Time { return time.Unix(now, 0).Add(time.Duration(days) * 24 * time.Hour) }
		g := start(t, r, in, db, o)
		if do != nil {
			in.until("live", func() bool { return g.source.Status().Phase == sources.Live })
			do(g.source)
		}
		in.until(what, func() bool { return !g.source.Status().Audit.At.IsZero() && g.source.Status().Phase == sources.Live })
		if err := g.stop(); err != nil {
			t.Fatal(err)
		}
		return g.source.Status().Audit
	}
	if a := daysLater(2, "an audit", nil); a.Full || a.Needed != 1 || a.Came != 1 || a.Lacks != 0 || a.Paged != 0 || a.Text != "" {
		t.Errorf("the first audit: %+v, want the one event of the last 30 days", a)
	}
	if !in.has(late) || in.has(lateAndOld) || in.how(late) != record.Negentropy {
		t.Errorf("late: %t by %v, late and old: %t; want the one by %v", in.has(late), in.how(late), in.has(lateAndOld), record.Negentropy)
	}
	if a := daysLater(2, "an audit that was asked for", func(s *sources.Source) { s.Reconcile() }); !a.Full || a.Needed != 1 || a.Came != 1 {
		t.Errorf("the audit that was asked for: %+v, want a full one with one event", a)
	}
	if !in.has(lateAndOld) {
		t.Error("a full audit has not brought the event of 40 days ago")
	}
	n.mu.Lock()
	n.events = append(slices.Clone(all), note(1, 5003, now-5*86400)) // which only its list has
	n.mu.Unlock()
	for _, when := range []string{"asked for", "not asked for again the same day"} {
		if a := daysLater(2, "an audit of what is not given", func(s *sources.Source) { s.Reconcile() }); a.Needed != 1 || a.Came != 0 || a.Missed != 1 || a.Paged != 0 || a.Text != "" {
			t.Errorf("an event that is listed and not given, %s: %+v, want it counted and nothing paged", when, a)
		}
	}
	n.mu.Lock()
	n.events = all
	n.mu.Unlock()
	if a := daysLater(70, "a full audit", nil); !a.Full || a.Needed != 0 {
		t.Errorf("the audit after 70 days: %+v, want a full one without news", a)
	}
	for _, f := range requests(t, r, "page-")[pages:] {
		if f.Since == nil || int64(*f.Since) < now-8*86400 {
			t.Errorf("a page was asked for: %v", f)
		}
	}
}

// TestAuditOfARelayWithoutNegentropy: it is paged, as far as the audit goes.
func TestAuditOfARelayWithoutNegentropy(t *testing.T) {
	old := notes(1, 1000, 4000)
	late := note(1, 5001, now-10*86400)
	r := relaytest.New(t, relaytest.Script{Events: old, Cap: 100})
	in, db := newIntake(t), openState(t)
	g := start(t, r, in, db, sources.Options{Seen: archived{in, append(old, late)}})
	in.until("live", func() bool { return in.count() == len(old) && g.source.Status().Phase == sources.Live })
	r.Update(func(s *relaytest.Script) { s.Events = append(s.Events, late) })
	g.source.Reconcile()
	in.until("the late event", func() bool { return in.has(late) })
	in.until("live again", func() bool { return g.source.Status().Phase == sources.Live })
	if a := g.source.Status().Audit; a.Paged == 0 || a.Text != "" {
		t.Errorf("the audit: %+v, want one that paged", a)
	}
}

// TestAuditOfARelayThatRefusedBefore: whoever asks for an audit has it asked again, within the day.
func TestAuditOfARelayThatRefusedBefore(t *testing.T) {
	old := notes(1, 1000, 4000)
	late := note(1, 5001, now-10*86400)
	n := &reconciler{events: append(old[:len(old):len(old)], late)}
	var refuses atomic.Bool
	refuses.Store(true)
	r := relaytest.New(t, relaytest.Script{Events: old, Cap: 100, Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		if m.Label == "NEG-OPEN" && refuses.Load() {
			c.Send(`["NEG-ERR",` + strings.Split(m.Raw, ",")[1] + `,"blocked: not today"]`)
			return true
		}
		return n.handle(c, m)
	}})
	in, db, begun := newIntake(t), openState(t), time.Now()
	clock := func() time.Time { return time.Unix(now, 0).Add(time.Since(begun)) }
	g := start(t, r, in, db, sources.Options{Seen: archived{in, append(old, late)}, Now: clock})
	in.until("live", func() bool { return in.count() == len(old) && g.source.Status().Phase == sources.Live })
	audited := func() sources.Audit {
		t.Helper()
		before := g.source.Status().Audit.At
		g.source.Reconcile()
		in.until("an audit", func() bool {
			s := g.source.Status()
			return s.Audit.At.After(before) && s.Phase == sources.Live
		})
		return g.source.Status().Audit
	}
	if a := audited(); a.Paged == 0 {
		t.Errorf("the relay refuses: %+v, want an audit that paged", a)
	}
	refuses.Store(false)
	r.Update(func(s *relaytest.Script) { s.Events = append(s.Events, late) })
	if a := audited(); a.Paged > 0 || a.Came != 1 {
		t.Errorf("the relay does not refuse any more: %+v, want one that fetched what is lacked by its id", a)
	}
	if !in.has(late) {
		t.Error("what came late is not there")
	}
}

// TestAuditAskedForDuringAnother: one that is asked for while a shorter one is under way is made after it.
func TestAuditAskedForDuringAnother(t *testing.T) {
	old := notes(1, 1000, 4000) // 46 days
	late := note(1, 5001, now-40*86400)
	r := relaytest.New(t, relaytest.Script{Events: old, Cap: 100})
	in, db := newIntake(t), openState(t)
	o := sources.Options{Seen: archived{in, append(old, late)}, Reconcile: sources.Reconcile{Every: 24 * time.Hour, Depth: 10 * 24 * time.Hour}}
	g := start(t, r, in, db, o)
	in.until("live", func() bool { return in.count() == len(old) && g.source.Status().Phase == sources.Live })
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	begun, goOn := make(chan struct{}, 100), make(chan struct{})
	var source atomic.Pointer[sources.Source]
	r.Update(func(s *relaytest.Script) {
		s.Events = append(s.Events, late)
		s.Handle = func(_ *relaytest.Conn, m relaytest.Message) bool {
			if s := source.Load(); m.Label == "REQ" && s != nil && s.Status().Phase == sources.Reconciling {
				begun <- struct{}{}
				<-goOn
			}
			return false
		}
	})
	o.Now = func() time.Time { return time.Unix(now, 0).Add(2 * 24 * time.Hour) }
	g = start(t, r, in, db, o)
	source.Store(g.source)
	<-begun
	g.source.Reconcile()
	close(goOn)
	in.until("the late event", func() bool { return in.has(late) })
	in.until("a full audit", func() bool { return g.source.Status().Audit.Full })
}

// TestAuditThatEndsTheSession: after a few tries it is let be, and live goes on.
func TestAuditThatEndsTheSession(t *testing.T) {
	old := notes(1, 300, 4000)
	had, _ := without(old, 13)
	n := &reconciler{events: old}
	r := relaytest.New(t, relaytest.Script{Events: had, Cap: 100, Handle: n.handle})
	in, db := newIntake(t), openState(t)
	g := start(t, r, in, db, sources.Options{Seen: archived{in, old}})
	in.until("live", func() bool { return in.count() == len(had) && g.source.Status().Phase == sources.Live })
	r.Update(func(s *relaytest.Script) {
		s.Handle = func(c *relaytest.Conn, m relaytest.Message) bool {
			if strings.Contains(m.Raw, `"ids-`) {
				c.Drop()
				return true
			}
			return n.handle(c, m)
		}
	})
	before := r.Accepted()
	g.source.Reconcile()
	r.Wait("the tries", func() bool { return r.Accepted() >= before+3 })
	in.until("live", func() bool { return g.source.Status().Phase == sources.Live })
	r.Wait("a live subscription", func() bool { return slices.Contains(subscribed(r), "live-0") })
	late := note(1, 7001, now-3*86400)
	r.Publish(late)
	in.until("a live event", func() bool { return in.has(late) })
	if got := r.Accepted() - before; got > 4 {
		t.Errorf("%d connections for an audit that ends each, want at most 4", got)
	}
}

func subscribed(r *relaytest.Relay) (out []string) {
	for _, c := range r.Conns() {
		out = append(out, c.Subscriptions()...)
	}
	return out
}
