package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nbd-wtf/go-nostr"
)

// hoard is what a relay holds.
type hoard struct {
	file   string // one event a line
	people []person
	ids    map[string]struct{}
}

// makeHoard makes n events of about 1.1 kB by 200 people in two years, now and then several in one second.
func makeHoard(t testing.TB, n int) *hoard {
	t.Helper()
	people := make([]person, 200)
	for i := range people {
		people[i] = someone(t, fmt.Sprint("writer ", i))
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	const words = "the relay said \"no\" and nobody knew why,\nso we asked again — gm ☀️ nostr:npub1 "
	at := nostr.Timestamp(1_680_000_000)
	step := 2 * 365 * 86400 / n
	events, by := make([]*nostr.Event, n), make([]person, n)
	for i := range events {
		if rnd.IntN(5) > 0 {
			at += nostr.Timestamp(1 + rnd.IntN(2*step))
		}
		by[i] = people[rnd.IntN(len(people))]
		start := rnd.IntN(len(words))
		e := &nostr.Event{CreatedAt: at, Kind: []int{1, 1, 1, 6, 7, 1111}[rnd.IntN(6)], Tags: nostr.Tags{
			{"e", fmt.Sprintf("%064x", rnd.Uint64()), "wss://relay.example.com", "root"},
			{"p", people[rnd.IntN(len(people))].pubkey},
			{"client", "somewhere"},
		}}
		e.Content = strings.ToValidUTF8(fmt.Sprint(i, " ", strings.Repeat(words, 9)[start:start+400+rnd.IntN(160)]), "")
		events[i] = e
	}
	var next atomic.Int64
	var signing sync.WaitGroup
	for range runtime.NumCPU() {
		signing.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := events[i].Sign(by[i].secret); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	signing.Wait()
	h := &hoard{people: people, file: filepath.Join(tempDir(t), "hoard.jsonl"), ids: make(map[string]struct{}, n)}
	f, err := os.Create(h.file)
	if err != nil {
		t.Fatal(err)
	}
	w, size := bufio.NewWriter(f), 0
	for _, e := range events {
		h.ids[e.ID] = struct{}{}
		line := e.String() + "\n"
		size += len(line)
		if _, err := w.WriteString(line); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events of %d bytes", n, size/n)
	return h
}

// authors asks for everybody who wrote.
func (h *hoard) authors(t testing.TB) (args []string) {
	for _, who := range h.people {
		args = append(args, "--author", who.npub(t))
	}
	return args
}

// isIn wants an archive to hold exactly these events.
func (h *hoard) isIn(t testing.TB, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "events_*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]struct{}, len(h.ids))
	for _, f := range files {
		read(t, f, func(line []byte) {
			var e struct{ ID string }
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			if _, ok := h.ids[e.ID]; !ok {
				t.Errorf("%s is archived, and the relay has not got it", e.ID)
			}
			if _, ok := got[e.ID]; ok {
				t.Errorf("%s is archived twice", e.ID)
			}
			got[e.ID] = struct{}{}
		})
	}
	if len(got) != len(h.ids) {
		t.Errorf("%d events are archived, want %d", len(got), len(h.ids))
	}
}

// read gives each line of a file.
func read(t testing.TB, file string, take func([]byte)) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		take(lines.Bytes())
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}
