package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// end heals the world, waits until nothing is missing, publishes to a program that listens undisturbed, and compares.
func (r *round) end() {
	r.say("all is well again")
	for _, s := range r.stations {
		s.heal()
	}
	r.must(r.clock.set(0))
	r.fsync = 0
	if next := r.setup.whole(r.first); len(next.sources)+len(next.sinks) > len(r.setup.sources)+len(r.setup.sinks) {
		r.use(next)
	}
	r.start()
	for s := range r.paused {
		r.command(incomplete, "resume", "--archive", r.archive, s.url)
	}
	r.quiet("everything that came before")
	if r.t.Failed() {
		return
	}
	r.compare()
	r.listened()
	for range 5 + r.rng.IntN(20) {
		f := r.maker.live()
		if r.rng.IntN(3) == 0 {
			f = r.maker.late()
		}
		for _, s := range r.some() {
			r.serve(f, s, true) // dated back or not: it is listened to
			r.must(s.publish(f))
		}
	}
	r.quiet("what was published at last")
	r.term(false)
	r.ended()

	all := archived(r.t, r.archive)
	ids := map[string]bool{}
	for id, e := range all {
		ids[id] = true
		if f := r.facts[id]; f != nil && canonical(e) != f.raw {
			r.t.Errorf("archived: %s\nwant:     %s", canonical(e), f.raw)
		}
	}
	r.exported(ids)
	r.report("archive", append(r.lacks(ids), r.intruders(ids)...))
	r.report("sinks", append(r.undelivered(ids), r.unasked(ids)...))
}

func (r *round) report(what string, wrong []string) {
	r.t.Helper()
	if len(wrong) > 0 {
		r.t.Errorf("%s: %d wrong:\n  %s", what, len(wrong), lines(wrong))
	}
}

// listened waits until every source has its live subscriptions, one for each filter.
func (r *round) listened() {
	r.t.Helper()
	eventually(r.t, "every source has its live subscriptions", func() error {
		for s := range r.setup.sources {
			if n, want := s.listening(), max(1, len(r.setup.want.only)); n < want {
				return fmt.Errorf("%s has %d of %d", s.name, n, want)
			}
		}
		return nil
	})
}

// quiet waits until nothing is missing anywhere. Events that wait for a later time get it: the clock goes on.
func (r *round) quiet(what string) {
	r.t.Helper()
	deadline, stuck := time.Now().Add(patience), time.Now().Add(time.Second)
	for {
		var wrong []string
		ids, err := archivedIDs(r.archive)
		r.must(err)
		var s status
		if err := statusOf(r.archive, &s); err != nil {
			wrong = append(wrong, err.Error())
		} else if err := s.idle(); err != nil {
			wrong = append(wrong, err.Error())
		}
		lacks, due := r.lacks(ids), r.undelivered(ids)
		wrong = append(wrong, append(lacks, due...)...)
		if len(wrong) == 0 {
			s.balance(r.t)
			r.say("quiet: %s: %d archived", what, len(ids))
			return
		}
		select {
		case <-r.program.Done():
			r.t.Fatalf("the program ended by itself:\n%s", tail(r.program.Stderr(), 3000))
		case <-time.After(20 * time.Millisecond):
		}
		parked := slices.ContainsFunc(s.Sinks, func(k sinkRow) bool { return k.Parked > 0 })
		if len(due) > 0 && len(lacks) == 0 && parked && time.Now().After(stuck) {
			stuck = time.Now().Add(time.Second)
			r.must(r.clock.pass(70 * time.Minute))
			r.say("70 minutes pass: %d events wait", len(due))
		}
		if time.Now().After(deadline) {
			r.report("within "+patience.String()+": "+what, wrong)
			r.say("%s", strings.Join(wrong, "\n"))
			if text, err := s.MarshalJSON(); err == nil {
				r.t.Logf("status: %s", text)
			}
			r.t.FailNow()
		}
	}
}
