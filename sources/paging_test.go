package sources_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/relaytest"
	"rebroadcastr/sources"
	"rebroadcastr/state"
)

// kinded is event i of author 1, of a kind, dated at.
func kinded(i, kind int, at int64) string {
	return relaytest.Sign(relaytest.Key(1), kind, at, nil, fmt.Sprintf("kind %d, %d", kind, i))
}

const busy = now - 10*86400

// A second that holds more than the relay gives at once is split; what cannot be is a gap that a restart remembers, until
// the relay gives it.
func TestADenseSecond(t *testing.T) {
	var all []string
	for i := range 30 {
		all = append(all, kinded(i, 1, now-86400-int64(i)))
		all = append(all, kinded(i, 6+i%3, busy))
	}
	all = append(all, kinded(0, 1, busy-100))
	author := []event.PubKey{author(1)}

	t.Run("of several kinds", func(t *testing.T) {
		r := relaytest.New(t, relaytest.Script{Events: all, Cap: 20})
		in := newIntake(t)
		g := start(t, r, in, openState(t), sources.Options{Once: true, Filters: []event.Filter{{Authors: author, Kinds: []int{1, 6, 7, 8}}}})
		st := g.finished()
		wantComplete(t, st, sources.Yes, "")
		if in.count() != len(all) || len(st.Gaps) != 0 {
			t.Errorf("%d events came, gaps %v, want %d and none", in.count(), st.Gaps, len(all))
		}
	})
	t.Run("of a kind", func(t *testing.T) {
		r := relaytest.New(t, relaytest.Script{Events: all, Cap: 8})
		in, db := newIntake(t), openState(t)
		o := sources.Options{Once: true, Filters: []event.Filter{{Authors: author, Kinds: []int{1, 6, 7, 8}}}}
		st := start(t, r, in, db, o).finished()
		wantComplete(t, st, sources.No, "more than 8 events in one second")
		if len(st.Gaps) != 3 || st.Gaps[0].From != busy || st.Gaps[0].To != busy || !strings.Contains(st.Gaps[0].Filter, `"kinds":[6]`) {
			t.Errorf("gaps %v, want the three kinds of that second", st.Gaps)
		}
		if in.count() != 31+3*8 {
			t.Errorf("%d events came, want all but six of that second", in.count())
		}

		o.Once = false
		g := start(t, r, in, db, o)
		if kept := func() int { return len(g.source.Status().Gaps) }; true {
			in.until("what was kept", func() bool { return kept() == 3 })
		}
		g.stop()

		r.Update(func(s *relaytest.Script) { s.Cap = 100 })
		o.Once = true
		st = start(t, r, in, db, o).finished()
		wantComplete(t, st, sources.Yes, "")
		if len(st.Gaps) != 0 || in.count() != len(all) {
			t.Errorf("%d events, gaps %v, want all %d and none once the relay gives more", in.count(), st.Gaps, len(all))
		}
	})
}

// Several windows of one relay are asked for at once, as many as it takes.
func TestWindowsAtOnce(t *testing.T) {
	all := notes(1, 1500, 3600)
	for _, test := range []struct {
		name      string
		info      string
		most      int // pages under way
		complains bool
	}{
		{"as many as there are", "", 10, false},
		{"max_subscriptions", `{"limitation":{"max_subscriptions":3}}`, 3, false},
		{"too many, says a NOTICE", "", 10, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var mu sync.Mutex
			under, most := map[string]bool{}, 0
			held := make(chan struct{})
			r := relaytest.New(t, relaytest.Script{Events: all, Cap: 50, Info: test.info, Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
				var parts []json.RawMessage
				if json.Unmarshal([]byte(m.Raw), &parts) != nil || len(parts) < 2 {
					return false
				}
				mu.Lock()
				defer mu.Unlock()
				switch sub := string(parts[1]); m.Label {
				case "CLOSE":
					delete(under, sub)
				case "REQ":
					if test.complains && len(under) >= 2 {
						c.Send(`["NOTICE","ERROR: too many concurrent REQs"]`)
						return true
					}
					under[sub] = true
					most = max(most, len(under))
					go func() { // answered later: other requests come meanwhile
						select {
						case <-held:
						case <-time.After(5 * time.Millisecond):
						}
						c.Serve(m)
					}()
					return true
				}
				return false
			}})
			defer close(held)
			in := newIntake(t)
			g := start(t, r, in, openState(t), sources.Options{Once: true, Idle: time.Second})
			st := g.finished()
			wantComplete(t, st, sources.Yes, "")
			if in.count() != len(all) {
				t.Errorf("%d events came, want %d", in.count(), len(all))
			}
			mu.Lock()
			defer mu.Unlock()
			if most > test.most || most < 2 {
				t.Errorf("%d pages were under way at once, want several, at most %d", most, test.most)
			}
			received := g.door.Tally.Received.Load()
			if !test.complains && received > int64(len(all))*105/100+50 {
				t.Errorf("%d events on the wire for %d", received, len(all))
			}
			t.Logf("%d at once, %d pages, %d events on the wire", most, st.Pages, received)
			if st.Walk != st.Walks {
				t.Errorf("%d of %d walks done", st.Walk, st.Walks)
			}
		})
	}
}

// khatru answers for several authors with about as many events of each: a full page proves nothing about any of them.
func TestKhatruIsAskedForOneAuthorAtATime(t *testing.T) {
	all := append(notes(1, 300, 7), notes(2, 20, 1000)...)
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 40, Info: `{"software":"https://github.com/fiatjaf/khatru"}`})
	in := newIntake(t)
	f := event.Filter{Authors: []event.PubKey{author(1), author(2)}}
	g := start(t, r, in, openState(t), sources.Options{Once: true, Filters: []event.Filter{f}})
	wantComplete(t, g.finished(), sources.Yes, "")
	if in.count() != len(all) {
		t.Errorf("%d events came, want %d", in.count(), len(all))
	}
	for i, p := range requests(t, r, "page-") {
		if i > 0 && len(p.Authors) != 1 && (i > 1 || len(p.Authors) > 0) { // the second is a probe
			t.Errorf("request %d asks for %d authors after a full page, want one", i+1, len(p.Authors))
		}
	}
}

// Two walks that want to know the same of a relay probe it once.
func TestOneProbeForAll(t *testing.T) {
	var all []string
	var filters []event.Filter
	for i := range 6 {
		all = append(all, kinded(10*i, i, busy), kinded(10*i+1, i, busy))
		filters = append(filters, event.Filter{Kinds: []int{i}, Authors: []event.PubKey{author(1)}})
	}
	r := relaytest.New(t, relaytest.Script{Events: all})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Once: true, Filters: filters})
	g.finished()
	probes := 0
	for _, p := range requests(t, r, "page-") {
		if len(p.Authors) == 0 {
			probes++
		}
	}
	if probes != 1 || in.count() != len(all) {
		t.Errorf("%d probes, %d events; want one and all %d", probes, in.count(), len(all))
	}
}

// What is asked only to learn how much a relay gives is not taken in.
func TestAProbeIsNotTakenIn(t *testing.T) {
	all := []string{kinded(0, 1, busy), kinded(1, 1, busy), kinded(2, 1, busy)}
	others := notes(2, 10, 7)
	r := relaytest.New(t, relaytest.Script{Events: append(all, others...)})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Once: true})
	wantComplete(t, g.finished(), sources.Yes, "")
	if in.count() != 3 || g.door.Tally.Unasked.Load() != 0 {
		t.Errorf("%d events came and %d were not asked for, want 3 and none", in.count(), g.door.Tally.Unasked.Load())
	}

	t.Run("a relay that does not answer that", func(t *testing.T) {
		r := relaytest.New(t, relaytest.Script{Events: append(all, others...), Closed: func(_ string, f []nostr.Filter) string {
			if len(f[0].Authors) == 0 {
				return "auth-required: not without authors"
			}
			return ""
		}})
		in := newIntake(t)
		g := start(t, r, in, openState(t), sources.Options{Once: true})
		st := g.finished()
		wantComplete(t, st, sources.Unknown, "may be more in it")
		if in.count() != 3 || len(st.Gaps) != 1 {
			t.Errorf("%d events, gaps %v, want 3 and the second that nothing can be said of", in.count(), st.Gaps)
		}
	})
}

// Several windows at once over connections that carry only so much: what is asked again stays in bounds.
func TestSeveralWindowsOverConnectionsThatAreCut(t *testing.T) {
	all := notes(1, 2000, 3600)
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: 50, CloseAfter: 450})
	in := newIntake(t)
	g := start(t, r, in, openState(t), sources.Options{Once: true})
	wantComplete(t, g.finished(), sources.Yes, "")
	received := g.door.Tally.Received.Load()
	if in.count() != len(all) || received > int64(len(all))*3/2 {
		t.Errorf("%d events came of %d, %d on the wire over %d connections", in.count(), len(all), received, r.Accepted())
	}
	t.Logf("%d events on the wire over %d connections", received, r.Accepted())
}

// What the state says at any moment is enough to go on from: a run that begins with it asks for little more than what had not
// come by then, a page for each window that was under way.
func TestGoingOnFromTheStateOfAMoment(t *testing.T) {
	const limit = 50
	all := notes(1, 4000, 3600)
	r := relaytest.New(t, relaytest.Script{Events: all, Cap: limit})
	for _, when := range []int{300, 1700, 3100} {
		in, db := newIntake(t), openState(t)
		g := start(t, r, in, db, sources.Options{Once: true})
		in.until("some of it", func() bool { return in.count() >= when })
		path := filepath.Join(t.TempDir(), "state.db")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.CopyTo(f), f.Close()); err != nil {
			t.Fatal(err)
		}
		had := in.count() // at least what was there at the moment of the copy
		g.stop()

		again, err := state.Open(path, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		rest := newIntake(t)
		g = start(t, r, rest, again, sources.Options{Once: true})
		wantComplete(t, g.finished(), sources.Yes, "")
		if err := again.Close(); err != nil {
			t.Error(err)
		}
		for _, ev := range all {
			if !in.has(ev) && !rest.has(ev) {
				t.Fatalf("an event that neither run has got, at %d", had)
			}
		}
		twice := int(g.door.Tally.Received.Load()) - (len(all) - had)
		t.Logf("at %d of %d: %d events were asked for twice", had, len(all), twice)
		if most := 10 * 2 * limit; twice > most {
			t.Errorf("%d events were asked for twice after %d, want at most %d: a page and what was under way for each of ten windows", twice, had, most)
		}
	}
}
