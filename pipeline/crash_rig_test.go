package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"go.etcd.io/bbolt"

	"rebroadcastr/config"
	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// crash is what the rows of the crash table are made of: an archive's three kinds of files as a killed process leaves
// them at two moments, once everything has come to rest, with the relays around it. A row mixes and damages them.
type crash struct {
	t            *testing.T
	cfg          *config.Config
	source, sink *relaytest.Relay
	first        []string // events archived, indexed and delivered at the first moment
	second       []string // those that the second has besides
	early, late  string   // the two moments' folders

	dir string           // of the row
	now func() time.Time // of the row's lives
}

const (
	firstEvents  = 120
	secondEvents = 60 // or some more
	leastTail    = 3  // lines of the second moment in the last segment: a row damages one, and looks at those behind it
)

// newCrash takes the two moments. With a small segment they are spread over several.
func newCrash(t *testing.T, segment int64) *crash {
	c := &crash{t: t, first: notes(1, firstEvents)}
	// Recent, so that catch-up brings back what a crash took: what is dated back only reconciliation finds.
	late := func(n int) (lines []string) {
		for range n {
			i := len(c.second)
			c.second = append(c.second, relaytest.Sign(relaytest.Key(2), 1, time.Now().Unix()-int64(i), nil, fmt.Sprintf("late note %d", i)))
		}
		return c.second[len(c.second)-n:]
	}
	c.source = relaytest.New(t, relaytest.Script{Events: c.first, Cap: 50})
	c.sink = relaytest.New(t, relaytest.Script{})
	c.cfg = testConfig(t, []*relaytest.Relay{c.source}, []*relaytest.Relay{c.sink})
	c.cfg.Archive.Segment = segment
	r := begin(t, c.cfg, Options{})
	c.early = c.rest(r, c.first)
	c.source.Publish(late(secondEvents)...)
	c.late = c.rest(r, all(c))
	for len(c.tail()) < leastTail { // where segments end depends on the order in which events came
		c.source.Publish(late(1)...)
		c.late = c.rest(r, all(c))
	}
	r.stop()
	return c
}

// rest waits until everything is archived, indexed, delivered and committed, and copies the files under the running
// process: that is what kill -9 leaves.
func (c *crash) rest(r *rig, events []string) (dir string) {
	c.t.Helper()
	r.eventually("everything archived, delivered and proven", func(s report.Status) bool {
		return s.Archive.Lines == uint64(len(events)) && settled(s) && s.Sources[0].Complete == report.Yes
	})
	end, next := r.store.Archive.End()
	r.eventually("everything indexed", func(report.Status) bool { return !r.store.Index.Checkpoint().Before(end) })
	for _, l := range r.m.sorted() {
		if _, sink := l.roles(); sink != nil {
			if err := sink.Settled(c.t.Context(), next); err != nil {
				c.t.Fatal(err)
			}
		}
	}
	dir = c.t.TempDir()
	for _, part := range []string{"events_*", "state.db", indexDir + "/*"} {
		copyFiles(c.t, c.cfg.Archive.Dir, dir, part)
	}
	return dir
}

// copyFiles copies what matches pattern below from. Badger's files are mostly holes, and stay so.
func copyFiles(t *testing.T, from, to, pattern string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(from, pattern))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Fatalf("nothing matches %s in %s", pattern, from)
	}
	for _, name := range names {
		if filepath.Base(name) == "LOCK" { // Badger's, of the process that was killed
			continue
		}
		rel, err := filepath.Rel(from, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o700); err != nil {
			t.Fatal(err)
		}
		writeHoles(t, filepath.Join(to, rel), mustRead(t, name))
	}
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writeHoles writes a file without its pages of zeros.
func writeHoles(t *testing.T, name string, content []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(len(content))); err != nil {
		t.Fatal(err)
	}
	var zero [page]byte
	for at := 0; at < len(content); at += page {
		part := content[at:min(at+page, len(content))]
		if bytes.Equal(part, zero[:len(part)]) {
			continue
		}
		if _, err := f.WriteAt(part, int64(at)); err != nil {
			t.Fatal(err)
		}
	}
}

const page = 4096

// mix makes the row's archive of the log, the index and the state of one moment each.
func (c *crash) mix(log, index, state string) {
	c.dir = c.t.TempDir()
	copyFiles(c.t, log, c.dir, "events_*")
	copyFiles(c.t, index, c.dir, indexDir+"/*")
	copyFiles(c.t, state, c.dir, "state.db")
}

// segments are the row's files of the last segments, texts or origins, oldest first.
func (c *crash) files(ext string) []string {
	c.t.Helper()
	names, err := filepath.Glob(filepath.Join(c.dir, "events_*"+ext))
	if err != nil || len(names) == 0 {
		c.t.Fatalf("%d files %s in %s: %v", len(names), ext, c.dir, err)
	}
	slices.Sort(names)
	return names
}

func (c *crash) last(ext string) string {
	names := c.files(ext)
	return names[len(names)-1]
}

// fresh is how many bytes of a segment were written after the first moment.
func (c *crash) fresh(name string) int {
	early, err := os.ReadFile(filepath.Join(c.early, filepath.Base(name)))
	if err != nil && !os.IsNotExist(err) {
		c.t.Fatal(err)
	}
	return len(mustRead(c.t, name)) - len(early)
}

// tail are the lines of the last segment that were written after the first moment, as they were then.
func (c *crash) tail() []string {
	c.t.Helper()
	late, err := filepath.Glob(filepath.Join(c.late, "events_*.jsonl"))
	if err != nil || len(late) == 0 {
		c.t.Fatalf("%d segments in %s: %v", len(late), c.late, err)
	}
	name := slices.Max(late)
	text := mustRead(c.t, name)
	return slices.Collect(strings.Lines(string(text[len(text)-c.fresh(name):])))
}

// oldMark has the row's state know no more of what is durable than the first moment's did.
func (c *crash) oldMark() {
	c.t.Helper()
	bucket, key := []byte("archive"), []byte("mark")
	var mark []byte
	early, err := bbolt.Open(filepath.Join(c.early, "state.db"), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		c.t.Fatal(err)
	}
	err = early.View(func(tx *bbolt.Tx) error {
		mark = bytes.Clone(tx.Bucket(bucket).Get(key))
		return nil
	})
	if err := errors.Join(err, early.Close()); err != nil || mark == nil {
		c.t.Fatalf("the mark of the first moment: %x, %v", mark, err)
	}
	db, err := bbolt.Open(filepath.Join(c.dir, "state.db"), 0o600, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put(key, mark) })
	if err := errors.Join(err, db.Close()); err != nil {
		c.t.Fatal(err)
	}
}

// damage rewrites a file.
func (c *crash) damage(name string, f func(b []byte) []byte) {
	c.t.Helper()
	writeHoles(c.t, name, f(bytes.Clone(mustRead(c.t, name))))
}

// config of the row's lives.
func (c *crash) config() *config.Config {
	cfg := *c.cfg
	cfg.Archive.Dir = c.dir
	return &cfg
}

// nextSegment makes a file of the segment that would be next.
func (c *crash) nextSegment(ext string, content []byte) {
	c.t.Helper()
	last := filepath.Base(c.files(".jsonl")[len(c.files(".jsonl"))-1])
	var number int
	if _, err := fmt.Sscanf(last[len("events_20060102_"):], "%d", &number); err != nil {
		c.t.Fatal(err)
	}
	name := fmt.Sprintf("%s%010d%s", last[:len("events_20060102_")], number+1, ext)
	writeHoles(c.t, filepath.Join(c.dir, name), content)
}

// seal puts a compressed copy beside a segment's text, of which only a part is there.
func (c *crash) seal(text string, part float64) {
	c.t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := w.Write(mustRead(c.t, text)); err != nil {
		c.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		c.t.Fatal(err)
	}
	writeHoles(c.t, text+".zst", b.Bytes()[:int(float64(b.Len())*part)])
}

func remove(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// live starts a process on what is there and stops it in order once it has everything, settled.
func (c *crash) live(o Options) report.Status {
	c.t.Helper()
	o.Now = c.now
	want := uint64(len(all(c)))
	r := begin(c.t, c.config(), o)
	r.eventually("everything archived and delivered", func(s report.Status) bool {
		return s.Archive.Lines == want && settled(s)
	})
	return r.stop()
}

func sentIDs(ms []relaytest.Message) (ids []string) {
	for _, m := range ms {
		event := strings.TrimSuffix(strings.TrimPrefix(m.Raw, `["EVENT",`), "]")
		ids = append(ids, relaytest.ID(event))
	}
	return ids
}

// added is what the index's file of that extension has at the second moment that it had not at the first.
func (c *crash) added(ext string) (name string, from, to int) {
	c.t.Helper()
	names, err := filepath.Glob(filepath.Join(c.late, indexDir, "*"+ext))
	if err != nil {
		c.t.Fatal(err)
	}
	for _, file := range names {
		name = filepath.Base(file)
		early, late := mustRead(c.t, filepath.Join(c.early, indexDir, name)), mustRead(c.t, file)
		for from < len(late) && early[from] == late[from] {
			from++
		}
		for to = len(late); to > from && early[to-1] == late[to-1]; to-- {
		}
		if from < to {
			return name, from, to
		}
	}
	c.t.Fatalf("the index's files %s did not change", ext)
	return "", 0, 0
}
