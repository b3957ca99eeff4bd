package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rebroadcastr/e2e/child"
	"rebroadcastr/report"
)

type sinkRow = report.Sink

// program is one life of the program: this test's own binary, with the round's clock.
type program struct {
	*child.Process
	log *os.File
}

func (r *round) launch(args ...string) *program {
	r.t.Helper()
	self, err := os.Executable()
	r.must(err)
	r.lives++
	log, err := os.Create(filepath.Join(r.dir, fmt.Sprintf("life%d-%s.log", r.lives, args[0])))
	r.must(err)
	c, err := child.Start(child.Options{Binary: self, Args: args, Dir: r.dir, Env: []string{clockVariable + "=" + r.clock.file, fmt.Sprintf("%s=%d", slowVariable, r.fsync)}, Tee: log})
	r.must(err)
	p := &program{c, log}
	r.t.Cleanup(func() {
		select {
		case <-p.Done():
		default:
			if err := p.Kill(); err != nil {
				r.t.Errorf("kill the program: %v", err)
			}
		}
		log.Close() //nolint:errcheck // complete, or of a failed test
		r.sound(p)
	})
	return p
}

// sound holds a life to have had no race and no panic.
func (r *round) sound(p *program) {
	for _, bad := range []string{"DATA RACE", "panic:", "goroutine 1 ["} {
		if strings.Contains(p.Stderr(), bad) {
			r.t.Errorf("%s on stderr, in %s:\n%s", bad, p.log.Name(), tail(p.Stderr(), 3000))
		}
	}
}

// start runs the program on the setup in force and waits until it answers.
func (r *round) start() {
	r.t.Helper()
	r.begins()
	r.starts()
	r.hups = 0
	r.say("life %d, log %d", len(r.history)-1, r.lives+1)
	p := r.launch("run", "-c", r.config())
	r.program = p
	eventually(r.t, "the control socket answers", func() error {
		select {
		case <-p.Done():
			r.t.Fatalf("the program ended at its start:\n%s", tail(p.Stderr(), 3000))
		default:
		}
		var s status
		err := statusOf(r.archive, &s)
		if err == nil && s.State != "running" {
			return fmt.Errorf("state %s", s.State)
		}
		return err
	})
}

// incomplete is the exit code of a one-shot command that leaves something undone.
const incomplete = 3

// command runs one to its end and wants exit code 0, or the other.
func (r *round) command(or int, args ...string) *program {
	r.t.Helper()
	p := r.launch(args...)
	if code, err := p.Wait(patience); code != 0 && code != or || err != nil {
		r.t.Fatalf("%s: exit %d, %v\n%s", args[0], code, err, tail(p.Stderr(), 3000))
	}
	return p
}

// exported wants what export prints to be the archive.
func (r *round) exported(ids map[string]bool) {
	r.t.Helper()
	got := jsonl(r.t, "export", []byte(r.command(0, "export", "--archive", r.archive).Stdout()))
	if len(got) != len(ids) {
		r.t.Errorf("export: %d events, the archive has %d", len(got), len(ids))
	}
	for id := range got {
		if !ids[id] {
			r.t.Errorf("export: %s is not in the archive", id)
		}
	}
}

// ended is what holds after each life.
func (r *round) ended() {
	r.t.Helper()
	r.sound(r.program)
	if r.unsure != nil {
		last := &r.history[len(r.history)-1]
		last.setups = append(last.setups, r.unsure)
		r.unsure = nil
	}
	for _, s := range r.stations { // what it left on the way comes to nobody any more
		if s.real != nil {
			s.proxy.cut()
		}
	}
}
