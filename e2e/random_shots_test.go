package e2e

import "time"

// shots are several one-shot backfills in a row, some of them killed, in a world that is ill.
func (r *round) shots() {
	r.fsync = []int{0, 0, 30}[r.rng.IntN(3)]
	for range 1 + r.rng.IntN(4) {
		s := r.stations[r.rng.IntN(len(r.stations))]
		if r.rng.IntN(2) == 0 {
			s.calm()
		} else {
			s.spoil(r.rng, r.say)
		}
		r.shot(r.rng.IntN(3) > 0)
		for range r.rng.IntN(10) {
			r.publish(false)
		}
	}
	for _, s := range r.stations {
		s.calm()
	}
	r.shot(false)
}

// shot runs one backfill, to its end or until it is killed. One that says that it is complete has everything; unless its clock is ahead:
// then what is new comes as if it were dated back.
func (r *round) shot(killed bool) {
	r.begins()
	r.starts()
	p := r.launch("backfill", "-c", r.config(), "--no-progress", "--give-up", "500ms")
	r.program = p
	most := 4 * time.Second // events that end a connection are tried alone, each after 10 s: that may take minutes
	if killed {
		most = time.Duration(r.rng.IntN(1500)) * time.Millisecond
	}
	select {
	case <-p.Done():
	case <-time.After(most):
		r.must(p.Kill())
		r.say("backfill, killed")
		r.ended()
		return
	}
	code, err := p.Wait(patience)
	if code != 0 && code != incomplete || err != nil {
		r.t.Fatalf("backfill: exit %d, %v\n%s", code, err, tail(p.Stderr(), 3000))
	}
	r.say("backfill: exit %d", code)
	r.ended()
	if code == 0 && r.clock.wrong.Load() <= 0 {
		ids, err := archivedIDs(r.archive)
		r.must(err)
		r.report("a backfill that ended with 0", r.lacks(ids))
	}
}

// compare has all relays compared with the archive: what was dated back while nobody listened comes too, and what sinks lost goes
// to them again.
func (r *round) compare() {
	r.t.Helper()
	for _, s := range r.stations {
		if n := s.lose(r.rng); n > 0 {
			r.say("%s loses %d events", s.name, n)
		}
	}
	for _, f := range r.facts {
		for s := range f.at {
			if _, named := r.setup.sources[s]; named {
				f.at[s] = true
			}
		}
	}
	r.compared = true
	r.command(incomplete, "reconcile", "--archive", r.archive)
	r.quiet("what only a comparison finds")
}
