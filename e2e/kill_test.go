package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nbd-wtf/go-nostr"
	"go.etcd.io/bbolt"

	"rebroadcastr/e2e/child"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

var (
	kills    = flag.Int("kills", 50, "how often TestKill kills the child")
	killSeed = flag.Uint64("killseed", 0, "the seed of TestKill; 0: a new one")
)

// What kill -9 may send again to one sink: uncommitted answers, and the window.
const (
	killWindow     = 100
	resentPerDeath = 1000 + killWindow
)

// TestKill kills the child with SIGKILL at random moments while sources publish, history is fetched, lines are imported,
// segments roll and two sinks, one of them slow, take what comes. After each death the files are looked at without the
// program; at the end archive, index, ledgers and sinks agree.
func TestKill(t *testing.T) {
	t.Run("plain", func(t *testing.T) { killOften(t, *kills, built(t, buildPlain)) })
	t.Run("raced", func(t *testing.T) { killOften(t, max(3, *kills/20), binary(t)) })
}

// killed is an archive whose writer dies again and again.
type killed struct {
	t      *testing.T
	rnd    *rand.Rand
	alice  person
	dir    string
	o      child.Options
	live   []*relaytest.Relay // sources that publish
	want   set                // all that was published, loaded or acknowledged
	fast   *killedSink
	slow   *killedSink
	lines  map[string]string // line → id, of lines that were checked
	acked  set               // imports that were answered
	offer  []*nostr.Event    // the import that is not answered yet
	number int               // of events made

	early, cut, rebuilt int // deaths before the first connection, cut lines seen, indexes made anew
}

// killedSink counts what a sink is sent over the lives of the child.
type killedSink struct {
	*relaytest.Relay
	seen   int // messages counted
	sent   map[string]bool
	frames int
	resent int // the most in one life
}

func killOften(t *testing.T, times int, binary string) {
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d: repeat with -run '^TestKill$' -killseed %d", seed, seed)
	began := time.Now()
	k := &killed{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), alice: someone(t, "alice"), dir: filepath.Join(tempDir(t), "a"),
		want: set{}, lines: map[string]string{}, acked: set{}}
	k.live = []*relaytest.Relay{relaytest.New(t, relaytest.Script{}), relaytest.New(t, relaytest.Script{})}
	// Its history takes many lives to fetch: pages of 50, ten requests a second.
	history := relaytest.New(t, relaytest.Script{Cap: 50})
	for _, e := range k.alice.notes(t, 1_600_000_000, min(40*times, 4000)) {
		history.Publish(e.String())
		k.want[e.ID] = e
	}
	k.fast = &killedSink{Relay: relaytest.New(t, relaytest.Script{}), sent: map[string]bool{}}
	k.slow = &killedSink{Relay: relaytest.New(t, relaytest.Script{}), sent: map[string]bool{}}
	cfg := configFile(t, fmt.Sprintf(`
all: true
sources: [%q, %q, %q]
sinks: [%q, %q]
archive: {dir: %q, segment: 16KiB, sync: 20ms}
relay_settings: {default: {backoff: {initial: 20ms, max: 200ms}, window: %d}}
`, k.live[0].URL, k.live[1].URL, history.URL, k.fast.URL, k.slow.URL, k.dir, killWindow))
	k.o = child.Options{Binary: binary, Args: []string{"run", "-c", cfg, "--listen", "", "--log-level", "debug", "--log-format", "json", "--no-progress"}, Dir: tempDir(t)}

	for n := range times {
		k.life()
		if t.Failed() {
			t.Fatalf("at death %d", n+1)
		}
	}

	// To the end, undisturbed.
	k.fast.Update(func(s *relaytest.Script) { s.Status, s.OK = 0, nil })
	k.slow.Update(func(s *relaytest.Script) { s.Status, s.OK = 0, nil })
	d := runWith(t, k.dir, child.Options{Binary: binary, Args: []string{"-c", cfg}})
	for k.offer != nil {
		if err := k.offerOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	maps.Copy(k.want, k.acked)
	// Not by the ordinals: a death between the origins of a group and its lines leaves some that no line holds.
	for lines := -1; lines < len(k.want); {
		before := lines
		eventually(t, "more is archived", func() error {
			lines = 0
			for _, text := range k.text() {
				lines += strings.Count(text, "\n")
			}
			if lines == before {
				return fmt.Errorf("%d lines, want %d", lines, len(k.want))
			}
			return nil
		})
	}
	s := d.settled()
	d.stop()
	k.count()
	wantSet(t, "archive", archived(t, k.dir), k.want)
	for name, s := range map[string]*killedSink{"fast": k.fast, "slow": k.slow} {
		for id := range k.want {
			if !s.sent[id] {
				t.Errorf("%s sink: was never sent %s", name, id)
			}
		}
		if len(s.sent) != len(k.want) {
			t.Errorf("%s sink: was sent %d different events, want %d", name, len(s.sent), len(k.want))
		}
		if again := s.frames - len(k.want); again > times*resentPerDeath {
			t.Errorf("%s sink: %d events were sent again in %d deaths, want at most %d", name, again, times, times*resentPerDeath)
		}
		t.Logf("%s sink: %d events needed, %d sent, at most %d again in one life", name, len(k.want), s.frames, s.resent)
	}
	k.reindexed(len(k.want))

	// Once more from the new index: nothing is new, nothing is sent.
	fast, slow := k.fast.frames, k.slow.frames
	d = runWith(t, k.dir, child.Options{Binary: binary, Args: []string{"-c", cfg}})
	eventually(t, "the sources were asked once more", func() error {
		s, err := d.ask()
		if err == nil && s.total(receivedBy) == 0 {
			err = errors.New("nothing was received")
		}
		return err
	})
	if again := d.settled(); again.Archive.Lines != s.Archive.Lines {
		t.Errorf("after reindex: %d lines, want the %d before", again.Archive.Lines, s.Archive.Lines)
	}
	d.stop()
	k.count()
	if k.fast.frames != fast || k.slow.frames != slow {
		t.Errorf("after an ordinary stop and reindex %d and %d events were sent again, want none", k.fast.frames-fast, k.slow.frames-slow)
	}
	t.Logf("%d deaths in %.1f s, %d of them before the first connection; %d events in %d segments; %d cut lines met; the index was made anew %d times",
		times, time.Since(began).Seconds(), k.early, len(k.want), len(segmentFiles(t, k.dir)), k.cut, k.rebuilt)
}

func receivedBy(src report.Source) int64 { return src.Received }

// life is one start of the child and its death.
func (k *killed) life() {
	k.t.Helper()
	over := make(chan struct{})
	k.mood(over)
	accepted := k.live[0].Accepted()
	p, err := child.Start(k.o)
	if err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(k.t.Context())
	defer cancel()
	var load sync.WaitGroup
	events := k.fresh(100)
	load.Go(func() { k.publish(ctx, events) })
	load.Go(func() { k.imports(ctx) })
	select {
	case <-time.After(k.moment()):
	case <-p.Done():
	}
	code, err := -1, p.Kill()
	if err == nil {
		code, err = p.Wait(patience)
	}
	close(over)
	cancel()
	load.Wait()
	if err != nil || code != -1 {
		k.t.Errorf("the child ended by itself with exit %d, %v", code, err)
	}
	for _, bad := range []string{"DATA RACE", "panic:", "goroutine 1 [", "damaged and was moved aside"} {
		if strings.Contains(p.Stderr(), bad) {
			k.t.Errorf("%q on stderr", bad)
		}
	}
	if strings.Contains(p.Stderr(), "the index is damaged") {
		k.rebuilt++
		k.t.Log(firstLine(p.Stderr(), "the index is damaged"))
	}
	if k.live[0].Accepted() == accepted {
		k.early++
	}
	k.count()
	k.files()
	if k.t.Failed() {
		k.t.Logf("the last child's stderr:\n%s", tail(p.Stderr(), 20000))
	}
}

// moment is how long a child lives: one in five dies while it starts.
func (k *killed) moment() time.Duration {
	if k.rnd.IntN(5) == 0 {
		return time.Duration(k.rnd.Int64N(int64(150 * time.Millisecond)))
	}
	return 100*time.Millisecond + time.Duration(k.rnd.Int64N(int64(600*time.Millisecond)))
}

// mood sets how the sinks behave in the next life. The slow one answers at once when the life is over, so that what it
// was sent is read to its end.
func (k *killed) mood(over <-chan struct{}) {
	k.fast.Update(func(s *relaytest.Script) {
		s.Status = 0
		if k.rnd.IntN(5) == 0 {
			s.Status = http.StatusServiceUnavailable // what waits for it comes as a burst in another life
		}
	})
	pause := time.Duration(k.rnd.Int64N(int64(8 * time.Millisecond)))
	mute := k.rnd.IntN(8) == 0
	k.slow.Update(func(s *relaytest.Script) {
		s.OK = func(nostr.Event) relaytest.Answer {
			select {
			case <-time.After(pause):
			case <-over:
			}
			return relaytest.Answer{Accepted: true, None: mute}
		}
	})
}

// fresh makes n events of now; all of them will be published.
func (k *killed) fresh(n int) []*nostr.Event {
	out := make([]*nostr.Event, n)
	for i := range out {
		k.number++
		out[i] = k.alice.sign(k.t, time.Now().Unix(), 1, fmt.Sprintf("event %d %s", k.number, strings.Repeat("x", k.rnd.IntN(600))))
		k.want[out[i].ID] = out[i]
	}
	return out
}

// publish publishes one event after another, a third of them at both sources; when the life is over, the rest at once.
func (k *killed) publish(ctx context.Context, events []*nostr.Event) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i, e := range events {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
		k.live[i%2].Publish(e.String())
		if i%3 == 0 {
			k.live[1-i%2].Publish(e.String())
		}
	}
}

// imports offers 20 events at a time through the control socket. What is not answered is offered to the next life.
func (k *killed) imports(ctx context.Context) {
	for ctx.Err() == nil {
		if k.offer == nil {
			k.number++
			k.offer = k.alice.notes(k.t, 1_650_000_000+int64(k.number)*100, 20)
		}
		_ = k.offerOnce(ctx) // not there yet, or no longer
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// offerOnce imports what is to be offered. nil: the child has said that it is durable.
func (k *killed) offerOnce(ctx context.Context) error {
	var lines bytes.Buffer
	for _, e := range k.offer {
		lines.WriteString(e.String() + "\n")
	}
	done, err := importLines(ctx, k.dir, &lines)
	if err != nil {
		return err
	}
	if done.New+done.Copies != int64(len(k.offer)) {
		k.t.Errorf("an import of %d lines was answered with %d new, %d copies", len(k.offer), done.New, done.Copies)
	}
	maps.Copy(k.acked, setOf(k.offer))
	k.offer = nil
	return nil
}

// importLines hands JSONL to the daemon of an archive, as `import` does.
func importLines(ctx context.Context, dir string, lines io.Reader) (done report.Source, err error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "control.sock"))
	}}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://control/control/import", lines)
	if err != nil {
		return done, err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return done, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return done, err
	}
	text := strings.Split(strings.TrimSpace(string(answer)), "\n")
	var last struct {
		Done  *report.Source `json:"done"`
		Error string         `json:"error"`
	}
	if err := json.Unmarshal([]byte(text[len(text)-1]), &last); err != nil {
		return done, fmt.Errorf("the answer to an import: %w: %s", err, answer)
	}
	if last.Done == nil || last.Error != "" {
		return done, fmt.Errorf("import: %s", answer)
	}
	return *last.Done, nil
}

// count adds up what the sinks were sent in the life that is over.
func (k *killed) count() {
	k.t.Helper()
	for name, s := range map[string]*killedSink{"fast": k.fast, "slow": k.slow} {
		s.Wait("the dead child's connections are gone", func() bool { return len(s.Conns()) == 0 })
		got := s.Got("EVENT")
		again := 0
		for _, m := range got[s.seen:] {
			id := idOf(m.Raw)
			if s.sent[id] {
				again++
			}
			s.sent[id] = true
		}
		s.frames, s.seen, s.resent = s.frames+len(got)-s.seen, len(got), max(s.resent, again)
		if again > resentPerDeath {
			k.t.Errorf("%s sink: %d events were sent again in one life, want at most %d", name, again, resentPerDeath)
		}
	}
}

// idOf is the id in ["EVENT",{"id":"…", the form in which sinks are sent events; "" for another.
func idOf(raw string) string {
	const head = `["EVENT",{"id":"`
	if !strings.HasPrefix(raw, head) || len(raw) < len(head)+64 {
		return ""
	}
	return raw[len(head) : len(head)+64]
}

// files looks at what the dead child left: every line of every segment is an event whose id is its hash, no id stands twice,
// only the last line may be cut; what a sink was sent, or an import was told, is there; the state opens.
func (k *killed) files() {
	k.t.Helper()
	have := map[string]bool{}
	segments := segmentFiles(k.t, k.dir)
	for i, file := range segments {
		text, err := os.ReadFile(file)
		if err != nil {
			k.t.Fatal(err)
		}
		lines := strings.SplitAfter(string(text), "\n")
		for n, line := range lines {
			if line == "" {
				continue // behind the last newline
			}
			if !strings.HasSuffix(line, "\n") {
				if i != len(segments)-1 {
					k.t.Errorf("%s, line %d is cut, and this is not the last segment", file, n+1)
				}
				k.cut++
				continue
			}
			id, known := k.lines[line]
			if !known {
				var e nostr.Event
				if err := json.Unmarshal([]byte(line), &e); err != nil || !e.CheckID() {
					k.t.Errorf("%s, line %d is no event whose id is its hash (%v): %.200q", file, n+1, err, line)
					continue
				}
				id = e.ID
				k.lines[line] = id
			}
			if have[id] {
				k.t.Errorf("%s, line %d: event %s a second time", file, n+1, id)
			}
			have[id] = true
		}
	}
	for name, s := range map[string]*killedSink{"fast": k.fast, "slow": k.slow} {
		for id := range s.sent {
			if !have[id] {
				k.t.Errorf("%s sink was sent %s, which the archive has not", name, id)
			}
		}
	}
	for id := range k.acked {
		if !have[id] {
			k.t.Errorf("import was told that %s is archived, and it is not", id)
		}
	}
	if len(have) > 0 {
		openState(k.t, filepath.Join(k.dir, "state.db"))
	}
}

func segmentFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "events_*_*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(files, func(a, b string) int { return strings.Compare(segmentNumber(a), segmentNumber(b)) })
	return files
}

// openState opens the state as any program would and has its pages checked.
func openState(t testing.TB, file string) {
	t.Helper()
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: patience})
	if err != nil {
		t.Errorf("open %s: %v", file, err)
		return
	}
	err = db.View(func(tx *bbolt.Tx) error {
		var bad error
		for err := range tx.Check() {
			bad = errors.Join(bad, err)
		}
		return bad
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Errorf("%s: %v", file, err)
	}
}

// reindexed makes the index anew and wants its count, and segments that nobody has touched.
func (k *killed) reindexed(count int) {
	k.t.Helper()
	before := k.text()
	p := wantExit(k.t, 0, "reindex", "--archive", k.dir)
	if want := fmt.Sprintf("%s events", humanize.Comma(int64(count))); !strings.Contains(p.Stdout(), want) {
		k.t.Errorf("reindex says %q, want %s", p.Stdout(), want)
	}
	if !maps.Equal(before, k.text()) {
		k.t.Error("reindex changed the segments")
	}
}

// text is the content of every segment.
func (k *killed) text() map[string]string {
	out := map[string]string{}
	for _, f := range segmentFiles(k.t, k.dir) {
		b, err := os.ReadFile(f)
		if err != nil {
			k.t.Fatal(err)
		}
		out[f] = string(b)
	}
	return out
}
