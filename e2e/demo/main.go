// Demo shows the main job without any network: two local relays filled with real events are mirrored by the built program
// into an archive and two more local relays, and what came out is counted.
//
//	go run -tags libsecp256k1 ./demo -binary ../bin/rebroadcastr
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/child"
	"rebroadcastr/e2e/corpus"
	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/report"
)

// patience is how long any one step may take.
const patience = time.Minute

func main() {
	binary := flag.String("binary", "../bin/rebroadcastr", "the built program")
	file := flag.String("events", corpus.File, "real events, as a relay sent them")
	flag.Parse()
	if err := demo(*binary, *file); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(binary, file string) (err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	events, err := corpus.Load(file)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "rebroadcastr-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	var relays []*localrelay.Relay
	defer func() {
		for _, r := range relays {
			err = errors.Join(err, r.Close())
		}
	}()
	local := func(o localrelay.Options, events ...*nostr.Event) (*localrelay.Relay, error) {
		r, err := localrelay.Start(o)
		if err != nil {
			return nil, err
		}
		relays = append(relays, r)
		return r, r.Load(events...)
	}
	older, newer := events[:len(events)*2/3], events[len(events)/3:]
	one, err := local(localrelay.Options{KeepAll: true}, older...)
	if err != nil {
		return err
	}
	two, err := local(localrelay.Options{KeepAll: true}, newer...)
	if err != nil {
		return err
	}
	copyA, err := local(localrelay.Options{KeepAll: true})
	if err != nil {
		return err
	}
	copyB, err := local(localrelay.Options{KeepAll: true})
	if err != nil {
		return err
	}
	fmt.Printf("Two source relays stand on this machine, filled with %d real events that a public relay sent:\n", len(events))
	fmt.Printf("  %s holds %d, %s holds %d, %d of them both.\n", one.URL(), len(older), two.URL(), len(newer), len(older)+len(newer)-len(events))
	fmt.Printf("Two empty ones are the sinks: %s and %s.\n\n", copyA.URL(), copyB.URL())

	d := &show{binary: binary, home: dir, archive: filepath.Join(dir, "archive")}
	selection := []string{"--all", "--source", one.URL(), "--source", two.URL(), "--sink", copyA.URL(), "--sink", copyB.URL()}

	fmt.Println("1. Once: what the sources hold goes to the archive and to both sinks.")
	if err := d.command(append([]string{"backfill", "--archive", d.archive}, selection...)...); err != nil {
		return err
	}
	lines, err := d.archived()
	if err != nil {
		return err
	}
	counts := func() error {
		for _, r := range []*localrelay.Relay{copyA, copyB} {
			all, err := r.All()
			if err != nil {
				return err
			}
			fmt.Printf("   sink %s holds %d events\n", r.URL(), len(all))
		}
		return nil
	}
	fmt.Printf("\n   the archive holds %d lines\n", lines)
	if err := counts(); err != nil {
		return err
	}
	want := 0
	for _, e := range events {
		if !nostr.IsEphemeralKind(e.Kind) {
			want++
		}
	}
	if lines != want {
		return fmt.Errorf("the archive holds %d events, want the %d that are not ephemeral", lines, want)
	}

	fmt.Println("\n2. The same command again asks only for what is missing.")
	if err := d.command(append([]string{"backfill", "--archive", d.archive}, selection...)...); err != nil {
		return err
	}

	fmt.Println("\n3. As a service: what is published while it runs arrives at once.")
	if err := d.live(selection, []*localrelay.Relay{one, two}, []*localrelay.Relay{copyA, copyB}, want); err != nil {
		return err
	}
	if err := counts(); err != nil {
		return err
	}
	return nil
}

// show runs the program before the reader's eyes.
type show struct{ binary, home, archive string }

func (d *show) start(collect bool, args ...string) (*child.Process, error) {
	fmt.Printf("   $ rebroadcastr")
	for _, a := range args {
		if a == "" {
			a = `""`
		}
		fmt.Printf(" %s", a)
	}
	fmt.Println()
	o := child.Options{Binary: d.binary, Args: args, Dir: d.home, Env: []string{"REBROADCASTR_LOG_FORMAT=console"}}
	if !collect {
		o.Tee, o.Raw = os.Stdout, true
	}
	return child.Start(o)
}

// command runs it to its end, its output as it comes.
func (d *show) command(args ...string) error {
	p, err := d.start(false, args...)
	if err != nil {
		return err
	}
	code, err := p.Wait(patience)
	if err != nil {
		return errors.Join(err, p.Kill())
	}
	if code != 0 {
		return fmt.Errorf("exit code %d, want 0", code)
	}
	return nil
}

// archived counts the events on disk.
func (d *show) archived() (int, error) {
	files, err := filepath.Glob(filepath.Join(d.archive, "events_*.jsonl"))
	if err != nil {
		return 0, err
	}
	n := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return 0, err
		}
		for _, c := range text {
			if c == '\n' {
				n++
			}
		}
	}
	return n, nil
}

// live runs the daemon, publishes notes at the sources and waits for them at the sinks.
func (d *show) live(selection []string, sources, sinks []*localrelay.Relay, before int) (err error) {
	p, err := d.start(true, append([]string{"run", "--archive", d.archive, "--listen", ""}, selection...)...)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Kill(), fmt.Errorf("its log:\n%s", p.Stderr()))
		}
	}()
	if err := until("the sources are subscribed to", func() bool {
		for _, r := range sources {
			if !r.Subscribed() {
				return false
			}
		}
		return true
	}); err != nil {
		return err
	}
	// Nobody's key: it is made here, used for ten notes and forgotten. The program itself never holds one.
	key := nostr.GeneratePrivateKey()
	const notes = 10
	sent := make(map[string]time.Time, notes)
	for i := range notes {
		e := &nostr.Event{CreatedAt: nostr.Now(), Kind: nostr.KindTextNote, Content: fmt.Sprintf("live note %d", i+1), Tags: nostr.Tags{}}
		if err := e.Sign(key); err != nil {
			return fmt.Errorf("sign a note: %w", err)
		}
		sent[e.ID] = time.Now()
		if err := sources[i%len(sources)].Publish(e); err != nil {
			return err
		}
	}
	arrived := func() bool {
		for _, r := range sinks {
			n := 0
			for _, e := range r.Received() {
				if _, ok := sent[e.ID]; ok {
					n++
				}
			}
			if n < notes {
				return false
			}
		}
		return true
	}
	if err := until("the notes are at both sinks", arrived); err != nil {
		return err
	}
	fmt.Printf("   %d notes published at the sources, %d at each sink\n", notes, notes)
	var s report.Status
	if err := until("its figures balance", func() bool {
		ctx, cancel := contextFor()
		defer cancel()
		s = report.Status{}
		return child.Status(ctx, d.archive, &s) == nil && len(s.Unbalanced()) == 0 && s.Archive.Lines == uint64(before+notes)
	}); err != nil {
		return err
	}
	if err := d.command("status", "--archive", d.archive); err != nil {
		return err
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	code, err := p.Wait(patience)
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	fmt.Println("   stopped by SIGTERM, exit code 0")
	lines, err := d.archived()
	if err != nil {
		return err
	}
	fmt.Printf("\n   the archive holds %d lines\n", lines)
	if lines != before+notes {
		return fmt.Errorf("the archive holds %d events, want %d", lines, before+notes)
	}
	return nil
}
