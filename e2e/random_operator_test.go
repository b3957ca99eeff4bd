package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// bringIn imports events through the running program.
func (r *round) bringIn() {
	r.heeded() // it goes by the config in force
	var text strings.Builder
	var facts []*fact
	for range 1 + r.rng.IntN(20) {
		f := r.maker.late()
		facts = append(facts, f)
		r.facts[f.e.ID] = f
		text.WriteString(f.raw + "\n")
	}
	file := filepath.Join(r.dir, "import.jsonl")
	r.must(os.WriteFile(file, []byte(text.String()), 0o600))
	r.command(incomplete, "import", "-c", r.config(), file)
	for _, f := range facts {
		f.imported = r.setup.want.takes(f.e) && archivable(f.e)
	}
	r.say("%d events imported", len(facts))
}

// reload changes the config under the running program.
func (r *round) reload() {
	r.heeded()
	next, what := r.setup.changed(r.rng, r.first)
	before := r.setup
	r.use(next)
	r.begins() // before it does: what is sent meanwhile may go by either
	if r.rng.IntN(3) == 0 {
		r.say("SIGHUP: %s", what)
		r.unsure = before
		r.hups++
		r.must(r.program.Signal(syscall.SIGHUP))
	} else {
		r.command(0, "reload", "-c", r.config())
		r.starts()
		r.say("reload: %s", what)
	}
}

// heeded waits until the last SIGHUP has been taken up. Nothing answers one, so until then either config may be in force.
func (r *round) heeded() {
	if r.unsure == nil {
		return
	}
	r.t.Helper()
	eventually(r.t, "SIGHUP is heeded", func() error {
		select {
		case <-r.program.Done():
			r.t.Fatalf("the program ended by itself:\n%s", tail(r.program.Stderr(), 3000))
		default:
		}
		said := r.program.Stderr()
		if strings.Contains(said, "config refused") {
			r.t.Fatalf("a good config was refused:\n%s", tail(said, 3000))
		}
		if n := strings.Count(said, `"why":"SIGHUP"`); n < r.hups {
			return fmt.Errorf("%d of %d were", n, r.hups)
		}
		return nil
	})
	r.unsure = nil
	r.starts()
}

// operate is what an operator may do to a relay while the program runs.
func (r *round) operate(s *station) {
	_, sink := r.setup.sinks[s]
	if _, source := r.setup.sources[s]; !source && !sink {
		return
	}
	r.heeded() // a relay that it does not know yet is none to operate on
	switch r.rng.IntN(6) {
	case 4:
		r.command(incomplete, "reconcile", "--archive", r.archive, s.url)
		r.say("%s is compared", s.name)
	case 5:
		r.say("%s loses %d events", s.name, s.lose(r.rng))
	case 0:
		r.command(incomplete, "pause", "--archive", r.archive, s.url)
		r.paused[s] = true
		r.say("%s is paused", s.name)
	case 1, 2:
		r.command(incomplete, "resume", "--archive", r.archive, s.url)
		delete(r.paused, s)
		r.say("%s is resumed", s.name)
	case 3:
		if sink {
			r.command(incomplete, "retry", "--archive", r.archive, "--sink", s.url)
			r.say("%s is offered again what it refused", s.name)
		}
	}
}
