package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/child"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// A filesystem of its own, small enough to be filled in no time. min_free by itself is 128 MiB of it, and it goes on at 154.
const (
	smallSize = 400 << 20
	smallFree = 128 << 20
)

// volume is a small filesystem in memory, with a file on it that takes the room away.
type volume struct {
	t   testing.TB
	dir string
}

func smallDisk(t testing.TB) *volume {
	t.Helper()
	v := &volume{t: t, dir: tempDir(t)}
	if err := syscall.Mount("tmpfs", v.dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallSize)); err != nil {
		t.Skipf("needs a filesystem to fill, and mounting one is not permitted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(v.dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", v.dir, err)
		}
	})
	return v
}

func (v *volume) ballast() string { return filepath.Join(v.dir, "ballast") }

// leave has the ballast grow until so many bytes are free, at once.
func (v *volume) leave(free int64) {
	v.t.Helper()
	f, err := os.OpenFile(v.ballast(), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // its size is what matters
	info, err := f.Stat()
	if err != nil {
		v.t.Fatal(err)
	}
	if err := syscall.Fallocate(int(f.Fd()), 0, info.Size(), v.free()-free); err != nil {
		v.t.Fatal(err)
	}
}

// grow fills the filesystem at a rate, in bytes a second (0: as fast as it goes), until nothing is left. It is another
// process to the child.
func (v *volume) grow(perSecond int64) {
	v.t.Helper()
	f, err := os.OpenFile(v.ballast(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // its size is what matters
	const steps = 50
	piece := make([]byte, max(perSecond/steps, 1<<20))
	tick := time.NewTicker(time.Second / steps)
	defer tick.Stop()
	for {
		n, err := f.Write(piece)
		switch {
		case errors.Is(err, syscall.ENOSPC) && n == 0 && len(piece) > 512:
			piece = piece[:len(piece)/2]
		case errors.Is(err, syscall.ENOSPC):
			if n == 0 {
				return
			}
		case err != nil:
			v.t.Fatal(err)
		}
		if perSecond > 0 {
			<-tick.C
		}
	}
}

// clear gives the room back.
func (v *volume) clear() {
	v.t.Helper()
	if err := os.Remove(v.ballast()); err != nil {
		v.t.Fatal(err)
	}
}

func (v *volume) free() int64 {
	v.t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(v.dir, &s); err != nil {
		v.t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// big makes n events of 60 kB, of a kind that the sinks of these tests do not ask for.
func big(t testing.TB, p person, n int) []*nostr.Event {
	t.Helper()
	filler := strings.Repeat("0123456789abcdef", 60_000/16)
	out := make([]*nostr.Event, n)
	for i := range out {
		out[i] = p.sign(t, 1_600_000_000+int64(i), 30023, fmt.Sprintf("%d %d %s", rand.Uint64(), i, filler), nostr.Tag{"d", fmt.Sprint(i)})
	}
	return out
}

// importing hands events to the daemon of an archive; the channel gets its answer.
func importing(ctx context.Context, dir string, events []*nostr.Event) <-chan error {
	var lines strings.Builder
	for _, e := range events {
		lines.WriteString(e.String() + "\n")
	}
	answer := make(chan error, 1)
	go func() {
		done, err := importLines(ctx, dir, strings.NewReader(lines.String()))
		if err == nil && done.New+done.Copies != int64(len(events)) {
			err = fmt.Errorf("an import of %d events was answered with %d new, %d copies", len(events), done.New, done.Copies)
		}
		answer <- err
	}()
	return answer
}

// onDisk is a daemon whose archive is on a small disk.
type onDisk struct {
	*volume
	arch string
	addr string // of its listener
	cfg  string
	from *relaytest.Relay
	to   *relaytest.Relay // asks for kind 1 only
	no   *relaytest.Relay // refuses all of kind 1, so that its ledger grows
}

func newOnDisk(t *testing.T, v *volume) *onDisk {
	o := &onDisk{volume: v, arch: filepath.Join(v.dir, "a"), addr: strings.TrimPrefix(deadURL(t), "ws://"),
		from: relaytest.New(t, relaytest.Script{}), to: relaytest.New(t, relaytest.Script{}),
		no: relaytest.New(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer { return relaytest.Reject("blocked: " + strings.Repeat("no ", 60)) }})}
	o.cfg = configFile(t, fmt.Sprintf(`
all: true
sources: [%q]
sinks: [{url: %q, only: {kinds: [1]}}, {url: %q, only: {kinds: [1]}}]
archive: {dir: %q}
listen: {addr: %q}
shutdown_grace: 2s
relay_settings: {default: {backoff: {initial: 50ms, max: 500ms}}}
`, o.from.URL, o.to.URL, o.no.URL, o.arch, o.addr))
	return o
}

// child starts `run`, which may die.
func (o *onDisk) child() *child.Process {
	o.t.Helper()
	p, err := child.Start(child.Options{Binary: binary(o.t), Dir: tempDir(o.t),
		Args: []string{"run", "-c", o.cfg, "--log-format", "json", "--no-progress"}})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			o.t.Error(err)
		}
		if o.t.Failed() {
			o.t.Logf("stderr:\n%s", tail(p.Stderr(), 10000))
		}
	})
	return p
}

// run is child for one that must not die.
func (o *onDisk) run() *daemon {
	return &daemon{process: start(o.t, child.Options{Args: []string{"run", "-c", o.cfg, "--log-format", "json", "--no-progress"}}), dir: o.arch}
}

// says waits until the status says why the archive waits ("" for that it does not), and health says the same.
func (o *onDisk) says(why string, gone <-chan struct{}) {
	o.t.Helper()
	eventually(o.t, fmt.Sprintf("status and health say %q", why), func() error {
		select {
		case <-gone:
			o.t.Fatal("the child has ended")
		default:
		}
		var s status
		if err := statusOf(o.arch, &s); err != nil {
			return err
		}
		resp, err := http.Get("http://" + o.addr + "/healthz")
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
		if why == "" && (s.Archive.Waiting != "" || s.State != report.Running || resp.StatusCode != 200) {
			return fmt.Errorf("state %s, waiting %q, health %d", s.State, s.Archive.Waiting, resp.StatusCode)
		}
		if why != "" && (!strings.Contains(s.Archive.Waiting, why) || !strings.Contains(strings.Join(s.Problems, "\n"), why) || resp.StatusCode != 503) {
			return fmt.Errorf("state %s, waiting %q, problems %q, health %d", s.State, s.Archive.Waiting, s.Problems, resp.StatusCode)
		}
		return nil
	})
}

// whole waits until all is archived and answered, and compares.
func (o *onDisk) whole(d *daemon, want set) {
	o.t.Helper()
	eventually(o.t, "all is archived", func() error {
		s, err := d.ask()
		if err == nil && s.Archive.Lines < uint64(len(want)) {
			err = fmt.Errorf("%d of %d", s.Archive.Lines, len(want))
		}
		return err
	})
	d.settled()
	d.stop()
	left(o.to, o.no)
	wantSet(o.t, "archive", archived(o.t, o.arch), want)
	for name, r := range map[string]*relaytest.Relay{"the sink": o.to, "the sink that refuses": o.no} {
		sent := set{}
		for _, m := range r.Got("EVENT") {
			id := idOf(m.Raw)
			sent[id] = want[id]
		}
		if n := len(want.where(kinds(1))); len(sent) != n {
			o.t.Errorf("%s was sent %d different events, want %d", name, len(sent), n)
		}
	}
}

// TestDiskFilledByUs: our own load takes the room. The archive waits and says why, a sink that was away gets all that is
// archived meanwhile, a stop is in order, and it goes on by itself when room comes back.
func TestDiskFilledByUs(t *testing.T) {
	o := newOnDisk(t, smallDisk(t))
	o.leave(smallFree + 20<<20)
	o.to.Update(func(s *relaytest.Script) { s.Status = http.StatusServiceUnavailable })
	alice := someone(t, "alice")
	notes, heavy := alice.notes(t, time.Now().Unix()-1000, 600), big(t, alice, 500)
	want := setOf(notes).with(setOf(heavy))

	d := o.run()
	o.says("", d.Done())
	liveOn(t, o.from)
	for _, e := range notes[:300] {
		o.from.Publish(e.String())
	}
	answer := importing(t.Context(), o.arch, heavy)
	o.says("no room", d.Done())
	if free := o.free(); free < smallFree*9/10 {
		t.Errorf("%d bytes are free, want about min_free's %d", free, smallFree)
	}
	for _, e := range notes[300:400] { // some wait in the stages, none is lost
		o.from.Publish(e.String())
	}
	o.to.Update(func(s *relaytest.Script) { s.Status = 0 })
	eventually(t, "the sink has what is archived", func() error {
		s, err := d.ask()
		if err != nil {
			return err
		}
		k, err := s.findSink(o.to.URL)
		if err == nil && (k.Pending != 0 || k.Delivered < 300) {
			err = fmt.Errorf("%d delivered, %d pending", k.Delivered, k.Pending)
		}
		return err
	})
	d.stop() // full: no crash
	if err := <-answer; err == nil {
		t.Error("an import of more than there is room for was said to be done")
	}

	d = o.run()
	o.says("waiting for room", d.Done())
	o.clear()
	o.says("", d.Done())
	liveOn(t, o.from)
	for _, e := range notes[400:] {
		o.from.Publish(e.String())
	}
	o.leave(smallFree + 5<<20)
	answer = importing(t.Context(), o.arch, heavy)
	o.says("no room", d.Done())
	o.clear()
	o.says("", d.Done())
	if err := <-answer; err != nil {
		t.Errorf("the import, after there was room again: %v", err)
	}
	o.whole(d, want)
}

// TestDiskFilledByAnother: another process fills the disk, at 50 MB/s, to the last byte, while we write, and later it is
// full at our start.
func TestDiskFilledByAnother(t *testing.T) {
	o := newOnDisk(t, smallDisk(t))
	alice := someone(t, "alice")
	notes, heavy := alice.notes(t, time.Now().Unix()-3000, 2500), big(t, alice, 300)
	want := setOf(notes).with(setOf(heavy))
	o.to.Update(func(s *relaytest.Script) { s.Status = http.StatusServiceUnavailable })
	o.no.Update(func(s *relaytest.Script) { s.Status = http.StatusServiceUnavailable })

	d := o.run()
	o.says("", d.Done())
	liveOn(t, o.from)
	for _, e := range notes[:1500] {
		o.from.Publish(e.String())
	}
	o.leave(smallFree + 100<<20)
	stop := flood(t.Context(), o.from, notes[1500:])
	answer := importing(t.Context(), o.arch, heavy)
	o.grow(50_000_000)
	o.says("no room", d.Done())
	if free := o.free(); free > 1<<20 {
		t.Errorf("%d bytes are free, want none", free)
	}
	// The sinks come back; the ledger of one has no room for its rows.
	o.to.Update(func(s *relaytest.Script) { s.Status = 0 })
	o.no.Update(func(s *relaytest.Script) { s.Status = 0 })
	eventually(t, "the sinks get what is archived", func() error {
		if n, m := len(o.to.Got("EVENT")), len(o.no.Got("EVENT")); n < 1000 || m < 1000 {
			return fmt.Errorf("%d and %d events sent", n, m)
		}
		return nil
	})
	eventually(t, "the ledger is refused", func() error {
		if !strings.Contains(d.Stderr(), "answers are kept in memory") {
			return errors.New("nothing is logged")
		}
		return nil
	})
	if d.exitedEarly() {
		t.Fatal("the child has ended")
	}
	o.clear()
	o.says("", d.Done())
	if err := <-answer; err != nil {
		t.Errorf("the import, after there was room again: %v", err)
	}
	o.grow(0)
	o.says("no room", d.Done())
	// To the last byte full: no crash. Answers that the ledger has no room for are a failure that is said.
	code, err := d.Stop(patience)
	if unsaved := strings.Contains(d.Stderr(), "commit the ledger"); err != nil || code != 0 && (code != 1 || !unsaved) {
		t.Fatalf("SIGTERM on a full disk: exit %d, %v; want 0, or 1 and that a ledger was not saved", code, err)
	}
	stop()

	d = o.run()
	o.says("waiting for room", d.Done())
	if code, err := d.Stop(patience); code != 0 || err != nil {
		t.Errorf("SIGTERM while it waits for room: exit %d, %v; want 0", code, err)
	}
	d = o.run()
	o.says("waiting for room", d.Done())
	o.clear()
	o.says("", d.Done())
	liveOn(t, o.from)
	for _, e := range notes[1500:] {
		o.from.Publish(e.String())
	}
	o.whole(d, want)
}

// TestDiskFilledAtFullSpeed: against another process that fills the disk as fast as it goes, a death cannot be ruled out
// (Badger writes through mmap). Then the next start waits for room before the index is opened, and nothing is lost.
func TestDiskFilledAtFullSpeed(t *testing.T) {
	o := newOnDisk(t, smallDisk(t))
	alice := someone(t, "alice")
	heavy := big(t, alice, 200)
	want := set{}
	deaths := 0
	for round := range 4 {
		p := o.child()
		o.says("", p.Done())
		liveOn(t, o.from)
		// Young enough for a catch-up to ask for: some may be on their way to us when we stop.
		notes := alice.notes(t, time.Now().Unix()-600+int64(round), 500)
		some := heavy[round*50 : (round+1)*50]
		want = want.with(setOf(notes), setOf(some))
		stop := flood(t.Context(), o.from, notes)
		ctx, cancel := context.WithCancel(t.Context())
		answer := importing(ctx, o.arch, some)
		eventually(t, "it is at work", func() error {
			if len(o.to.Got("EVENT")) < 100 {
				return errors.New("nothing sent yet")
			}
			return nil
		})
		o.grow(0)
		// Dead, or waiting; where it lives, every second time it is helped along. A service manager starts it again.
		code := -2
		eventually(t, "it waits for room, or is dead", func() (err error) {
			if code, err = p.Wait(0); err == nil {
				return nil
			}
			code = -2
			var s status
			if err := statusOf(o.arch, &s); err != nil {
				return err
			}
			if s.Archive.Waiting == "" {
				return errors.New("it goes on")
			}
			return nil
		})
		if code != -2 {
			deaths++
			t.Logf("round %d: dead, exit %d: %s", round+1, code, firstLine(p.Stderr(), "SIGBUS"))
		} else if round%2 == 1 {
			if err := p.Kill(); err != nil {
				t.Fatal(err)
			}
			code = -1
		}
		if code != -2 {
			p = o.child()
			o.says("waiting for room", p.Done())
		}
		cancel()
		importErr := <-answer
		stop()
		o.clear()
		o.says("", p.Done())
		if importErr != nil {
			if err := <-importing(t.Context(), o.arch, some); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range notes {
			o.from.Publish(e.String())
		}
		if code, err := p.Stop(patience); err != nil || code != 0 {
			t.Fatalf("SIGTERM: exit %d, %v", code, err)
		}
	}
	d := o.run()
	o.says("", d.Done())
	o.whole(d, want)
	t.Logf("%d deaths by themselves in 4 rounds", deaths)
}

func firstLine(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func (p *process) exitedEarly() bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}
