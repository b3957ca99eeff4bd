package sources_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
	"rebroadcastr/state"
)

// row is one way in which a relay misbehaves, and what must come out of a backfill from it. What must come out of every row,
// whatever the relay does, is in TestMisbehaviour.
type row struct {
	name   string
	script relaytest.Script
	set    func(r *relaytest.Relay) // what the script alone cannot say
	events []string                 // stored; nil: usual
	o      sources.Options

	complete sources.Completeness
	text     string   // the reason; part of it
	missing  int      // stored events that did not come
	gaps     []string // each "second filter", the filter in part; nil: there must be none that is a second
	requests int      // at most; 0: 60
	wire     int      // events at most; 0: 1.6 times what is stored
	again    int      // requests that may be exactly like an earlier one: it got no answer, or a new session began
	stop     int      // the process ends after so many events, and the next one goes on; 0: it does not
	loose    bool     // only what must come out whatever the relay does is looked at
	liar     string   // why nobody can tell that something is missing: what is proven is not looked at
}

// usual is 300 events, seven in a second: 43 seconds, 77 apart.
func usual() (all []string) {
	for i := range 300 {
		all = append(all, note(1, i, now-86400-int64(i-i%7)*11))
	}
	return all
}

// spread is n events, one a second.
func spread(n int) []string { return notes(1, n, 7) }

func TestMisbehaviour(t *testing.T) {
	for _, part := range []struct {
		name string
		rows []row
	}{
		{"what is on a page", pageRows()}, {"what NIP-11 and NIP-67 say", wordRows()}, {"full seconds", secondRows()},
		{"how a page ends", endRows()}, {"what a request may be", limitRows()}, {"what changes meanwhile", changeRows()},
	} {
		t.Run(part.name, func(t *testing.T) {
			sideBySide(t, part.rows)
		})
	}
}

// sideBySide runs rows. They wait for disks and for a relay's silence, not for a core: more of them at once than t.Parallel runs.
func sideBySide(t *testing.T, rows []row) {
	var running sync.WaitGroup
	next := make(chan row)
	for range 12 {
		running.Go(func() {
			for r := range next {
				t.Run(r.name, r.test)
			}
		})
	}
	for _, r := range rows {
		next <- r
	}
	close(next)
	running.Wait()
}

func (w row) test(t *testing.T) {
	if w.events == nil {
		w.events = usual()
	}
	w.script.Events = w.events
	r := relaytest.New(t, w.script)
	if w.set != nil {
		w.set(r)
	}
	if w.o.Filters == nil {
		w.o.Filters = []event.Filter{{Authors: []event.PubKey{author(1)}}}
	}
	w.o.Once = true
	in, db, o := newIntake(t), openState(t), w.o
	if w.stop > 0 {
		g := start(t, r, in, db, o)
		in.until("some of it", func() bool { return in.count() >= w.stop || g.source.Status().Phase == sources.Done })
		if err := g.stop(); err != nil {
			t.Errorf("the first process ended: %v", err)
		}
		w.proven(t, db, r.URL, in)
	}
	g := start(t, r, in, db, o)
	st := g.finished()
	wire, pages := int(g.door.Tally.Received.Load()), requests(t, r, "page-")
	t.Logf("%d requests, %d events on the wire for %d, %d connections, complete %v %q, gaps %v", len(pages), wire, len(w.events), r.Accepted(), st.Complete, st.Text, st.Gaps)

	missing := 0
	for _, ev := range w.events {
		if !in.has(ev) && w.asked(ev) {
			missing++
		}
	}
	if w.loose {
		w.complete, w.missing, w.gaps = st.Complete, -1, nil
	}
	wantComplete(t, st, w.complete, w.text)
	if w.missing >= 0 && missing != w.missing {
		t.Errorf("%d events did not come, want %d", missing, w.missing)
	}
	var gaps []string
	for _, gap := range st.Gaps {
		if gap.From == gap.To {
			gaps = append(gaps, fmt.Sprint(gap.From, " ", gap.Filter))
		}
	}
	if !w.loose && len(gaps) != len(w.gaps) || !w.loose && !slices.EqualFunc(gaps, w.gaps, has) {
		t.Errorf("gaps %q, want %q", gaps, w.gaps)
	}
	if w.requests == 0 {
		w.requests = 60
	}
	if w.wire == 0 {
		w.wire = len(w.events) * 8 / 5
	}
	if len(pages) > w.requests || wire > w.wire {
		t.Errorf("%d requests and %d events on the wire, want at most %d and %d", len(pages), wire, w.requests, w.wire)
	}
	w.wellAsked(t, r)
	if w.liar != "" {
		return
	}
	w.proven(t, db, r.URL, in)
	if st.Complete == sources.Yes && missing > 0 {
		t.Errorf("complete, and %d events did not come", missing)
	}

	// Nothing is lost for good: once the relay is well, what did not come does.
	r.Update(func(s *relaytest.Script) { *s = relaytest.Script{Cap: 500} })
	o.Door, o.Idle = nil, 0
	if st := start(t, r, in, db, o).finished(); !w.loose || st.Complete == sources.No { // where there is one second only, nobody can tell
		wantComplete(t, st, sources.Yes, "")
	}
	for _, ev := range w.events {
		if !in.has(ev) && w.asked(ev) {
			t.Fatalf("%s did not come from the relay when it was well again", ev)
		}
	}
}

func has(gap, want string) bool {
	second, filter, _ := strings.Cut(want, " ")
	return strings.HasPrefix(gap, second+" ") && strings.Contains(gap, filter)
}

// asked says whether an event is asked for.
func (w row) asked(ev string) bool {
	var e event.Event
	if err := event.Parse([]byte(ev), &e); err != nil {
		panic(err)
	}
	return e.CreatedAt >= w.o.History.Since && slices.ContainsFunc(w.o.Filters, func(f event.Filter) bool { return f.Match(&e) })
}

// wellAsked looks at the requests themselves.
func (w row) wellAsked(t *testing.T, r *relaytest.Relay) {
	t.Helper()
	seen := make(map[string]string)
	again := 0
	for _, m := range r.Got("REQ") {
		var parts []json.RawMessage
		if err := json.Unmarshal([]byte(m.Raw), &parts); err != nil || len(parts) != 3 {
			t.Fatalf("the relay got %s, want a REQ with one filter: %v", m.Raw, err)
		}
		if sub := string(parts[1]); !regexp.MustCompile(`^"[a-z0-9-]{1,16}"$`).MatchString(sub) {
			t.Errorf("subscription %s, want one that every relay takes", sub)
		}
		if before := seen[string(parts[2])]; before != "" {
			if again++; again > w.again {
				t.Errorf("%s asks for what %s did, and so did %d before", parts[1], before, w.again)
			}
		}
		seen[string(parts[2])] = string(parts[1])
	}
}

// proven fails where something inside a saved window did not come.
func (w row) proven(t *testing.T, db *state.DB, url string, in *intake) {
	t.Helper()
	f := w.o.Filters[0]
	err := db.View(func(tx *state.Tx) error {
		b := tx.Bucket("sources", url, "windows")
		for _, ev := range w.events {
			var e event.Event
			if err := event.Parse([]byte(ev), &e); err != nil {
				return err
			}
			one := f
			if f.Authors != nil {
				one.Authors = []event.PubKey{e.PubKey}
			}
			key := one.Key()
			if b == nil {
				continue
			}
			for ws := b.Get(key[:]); len(ws) > 0; ws = ws[16:] {
				lo, hi := int64(binary.BigEndian.Uint64(ws)), int64(binary.BigEndian.Uint64(ws[8:]))
				if lo <= e.CreatedAt && e.CreatedAt <= hi && !in.has(ev) && w.asked(ev) {
					return fmt.Errorf("an event of %d did not come, and the saved window %d to %d says that it did", e.CreatedAt, lo, hi)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// instead makes an answer of these frames, % standing for the subscription in quotes, for the answers that which picks.
func instead(which func(n int) bool, frames ...string) func(relaytest.Query, []string) []string {
	return answer(which, func(q relaytest.Query, _ []string) (out []string) {
		for _, f := range frames {
			out = append(out, strings.ReplaceAll(f, "%", `"`+q.Sub+`"`))
		}
		return out
	})
}

// answer makes another answer of those that which picks.
func answer(which func(n int) bool, f func(q relaytest.Query, frames []string) []string) func(relaytest.Query, []string) []string {
	return func(q relaytest.Query, frames []string) []string {
		if !which(q.N) {
			return frames
		}
		return f(q, frames)
	}
}

func every(int) bool             { return true }
func first(n int) func(int) bool { return func(i int) bool { return i <= n } }
func only(n int) func(int) bool  { return func(i int) bool { return i == n } }
func from(n int) func(int) bool  { return func(i int) bool { return i >= n } }

// most makes a relay give at most so many events as f says, and at most as many as are asked for.
func most(f func(q relaytest.Query, hits []nostr.Event) int) func(relaytest.Query, []nostr.Event) int {
	return func(q relaytest.Query, hits []nostr.Event) int { return min(f(q, hits), q.Filter.Limit) }
}

func limits(text string) string { return `{"limitation":{` + text + `}}` }

// brief is how long a relay may be silent, where the row is about that: long enough for a busy machine to go on meanwhile.
const brief = time.Second
