package sinks

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/state"
)

// world is a ledger with its passes, and a relay that loses what it took: what an attempt does, one step at a time.
type world struct {
	t    *rapid.T
	path string
	db   *state.DB
	log  *testLog
	l    *ledger
	pass passer
	lost reviver
	tail Reader

	has map[int]bool // by ordinal: what the relay has
	now time.Time

	rules  int          // the kinds wanted, a bit each
	again  []item       // open, and to be sent again
	flying map[int]item // sent and not answered, by ordinal
	sent   map[int]int  // times, by ordinal
	parked int          // times anything was parked, or offered because the relay lacked it
	acked  int          // since the last commit
	spared int          // sends that kills and restarts may cost
}

func (w *world) decide(rec *record.Record) decision {
	if w.rules&(1<<rec.Event.Kind) == 0 {
		return decision{skip: SkipFilter}
	}
	return decision{}
}

// act judges it and sends it, or skips it.
func (w *world) act(it item, rec *record.Record) {
	if v := w.decide(rec); v.skip != "" {
		w.l.Skip(it, v.skip)
		return
	}
	w.flying[int(it.Ordinal)] = it
	w.sent[int(it.Ordinal)]++
}

// open makes the ledger from the file, as New does, and starts anew what a session holds.
func (w *world) open() {
	w.l = mustLedger(w.t, w.db)
	w.l.SetRules(fmt.Sprint(w.rules))
	if err := w.l.Commit(); err != nil {
		w.t.Fatalf("commit: %v", err)
	}
	w.pass, w.lost, w.tail = passer{}, reviver{}, nil
	w.again, w.flying, w.acked = w.l.Open(), make(map[int]item), 0
}

func (w *world) commit() {
	if err := w.l.Commit(); err != nil {
		w.t.Fatalf("commit: %v", err)
	}
	w.acked = 0
}

// restart opens the state again, as it is or as a kill leaves it.
func (w *world) restart(kill bool) {
	w.spared += len(w.flying)
	if kill {
		w.spared += w.acked
		copyState(w.t, w.path, w.path+".killed")
	} else {
		w.commit()
	}
	w.db.Close()
	if kill {
		if err := os.Rename(w.path+".killed", w.path); err != nil {
			w.t.Fatalf("%v", err)
		}
	}
	w.db = openState(w.t, w.path)
	w.open()
}

// next does what an attempt does next, in its order; false: there is nothing.
func (w *world) next() bool {
	if len(w.again) > 0 {
		it := w.again[0]
		w.again = w.again[1:]
		w.act(it, &w.log.recs[it.Ordinal])
		return true
	}
	if w.tail == nil {
		_, _, frontier, _ := w.l.Account()
		w.tail, _ = w.log.Open(frontier.Place)
	}
	if rec, ok, _ := w.tail.TryNext(); ok {
		it, err := w.l.Next(&rec)
		if err != nil {
			w.t.Fatalf("next: %v", err)
		}
		w.act(it, &rec)
		return true
	}
	again, more, err := w.pass.on(w.l, w.log.Open, func(rec *record.Record) (decision, error) { return w.decide(rec), nil })
	if err != nil {
		w.t.Fatalf("pass: %v", err)
	}
	if again != nil {
		w.act(again.item, again.rec)
	}
	if more {
		return true
	}
	again, more, err = w.lost.on(w.l, w.log.Open, func(rec *record.Record) (decision, error) { return w.decide(rec), nil })
	if err != nil {
		w.t.Fatalf("offer all: %v", err)
	}
	if again != nil {
		w.parked++
		w.act(again.item, again.rec)
	}
	return more
}

// compare tells the ledger what the relay lacks of what the rules of now take. A hundred days have gone by.
func (w *world) compare() {
	w.now = w.now.Add(100 * 24 * time.Hour)
	var lacked []mark
	for i := range w.log.recs {
		rec := &w.log.recs[i]
		if !w.has[i] && w.decide(rec).skip == "" {
			lacked = append(lacked, mark{rec.Ordinal, rec.Place})
		}
	}
	looked, err := w.l.Lacking(lacked, w.now, false)
	if err != nil {
		w.t.Fatalf("lacking: %v", err)
	}
	n, err := w.l.OfferLacked(lacked, w.now, false)
	if err != nil || n != len(looked.marks) || len(looked.rest) > 0 {
		w.t.Fatalf("offered %d, %v; want the %d that were found, none of them resting: %v", n, err, len(looked.marks), looked.rest)
	}
	w.parked += n
	if again, err := w.l.OfferLacked(lacked, w.now, true); again != 0 || err != nil {
		w.t.Fatalf("offered at once again: %d, %v; want none", again, err)
	}
}

// due sends a parked event; false: there is none.
func (w *world) due() bool {
	rows, err := w.l.Due(never, 1, func(k parkedKey) bool {
		for _, it := range w.flying {
			if it.parked && it.key == k {
				return true
			}
		}
		return false
	})
	if err != nil {
		w.t.Fatalf("due: %v", err)
	}
	if len(rows) == 0 {
		return false
	}
	w.act(rows[0], &w.log.recs[rows[0].Ordinal])
	return true
}

// answer settles n of what is in flight.
func (w *world) answer(n int, settle func(item)) {
	for _, o := range slices.Sorted(maps.Keys(w.flying)) {
		if n--; n < 0 {
			return
		}
		settle(w.flying[o])
		delete(w.flying, o)
	}
}

func (w *world) ack(it item) {
	o := delivered
	if w.has[int(it.Ordinal)] {
		o = duplicate
	}
	w.has[int(it.Ordinal)] = true
	w.l.Ack(it, o)
	w.acked++
}

func (w *world) check() {
	c, _, frontier, open := w.l.Account()
	st := Status{Counters: c, Issued: w.log.next, Pending: w.log.next - frontier.Ordinal + uint64(open)}
	if err := st.Balance().Check(); err != nil {
		w.t.Fatalf("%v", err)
	}
	held, next := uint64(0), uint64(0)
	for {
		h, ok, err := w.l.Held(next)
		if err != nil {
			w.t.Fatalf("held: %v", err)
		}
		if !ok {
			break
		}
		for _, row := range h.by {
			held += uint64(row.set.count())
		}
		next = (h.span + 1) * heldSpan
	}
	if held != c.Skipped[SkipFilter] {
		w.t.Fatalf("%d ordinals are held, and %d counted as skipped by the filter", held, c.Skipped[SkipFilter])
	}
	sent, distinct := 0, 0
	for _, n := range w.sent {
		sent, distinct = sent+n, distinct+1
	}
	if again := sent - distinct - w.parked; again > w.spared {
		w.t.Fatalf("%d sends too many, want at most the %d of what was unanswered or uncommitted at a kill", again, w.spared)
	}
}

// TestPassProperty: whatever is archived, answered, refused, parked, committed, killed and restarted, however often the rules change
// meanwhile, and whatever the relay loses and is compared for: in the end the sink was sent what the last rules take, and nothing
// that no rules took when it went, and what it has lost and did not refuse it has again after a last comparison. The counters
// balance after each step, what is held is what is counted as held, and only kills, parking and losses cost second sends.
func TestPassProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "pass")
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer os.RemoveAll(dir)
		w := &world{t: t, path: filepath.Join(dir, "state.db"), log: newLog(), rules: 1, sent: make(map[int]int), has: make(map[int]bool), now: time.Unix(day, 0)}
		w.db = openState(t, w.path)
		defer func() { w.db.Close() }()
		w.open()
		t.Repeat(map[string]func(*rapid.T){
			"archive": func(t *rapid.T) {
				// Now and then more than a span of what is held back.
				n := rapid.SampledFrom([]int{1, 5, 20, 40, heldSpan / 2}).Draw(t, "events")
				w.log.append(n, func(int) int { return rapid.IntRange(0, 2).Draw(t, "kind") })
			},
			"go on": func(t *rapid.T) {
				for range rapid.SampledFrom([]int{1, 5, 50, heldSpan}).Draw(t, "steps") {
					w.next()
				}
			},
			"due": func(t *rapid.T) {
				for range rapid.IntRange(1, 5).Draw(t, "parked") {
					w.due()
				}
			},
			"answer": func(t *rapid.T) {
				w.answer(rapid.SampledFrom([]int{1, 5, 50, heldSpan}).Draw(t, "answers"), w.ack)
			},
			"park": func(t *rapid.T) {
				w.answer(rapid.IntRange(1, 3).Draw(t, "parked"), func(it item) {
					w.l.Later(it, time.UnixMilli(5), 1, parkedForError)
					w.parked++
				})
			},
			"refuse": func(t *rapid.T) {
				w.answer(rapid.IntRange(1, 3).Draw(t, "refused"), func(it item) {
					w.l.Reject(it, Rejected{Prefix: "blocked"})
					w.acked++
				})
			},
			"lose": func(t *rapid.T) {
				n := rapid.IntRange(1, 4).Draw(t, "each")
				maps.DeleteFunc(w.has, func(o int, _ bool) bool { return o%n == 0 })
			},
			"compare":   func(*rapid.T) { w.compare() },
			"offer all": func(*rapid.T) { w.l.OfferAll() },
			"forget what is had": func(t *rapid.T) {
				if err := w.l.KeepLacked(func(o uint64) bool { return !w.has[int(o)] }); err != nil {
					t.Fatalf("%v", err)
				}
				w.acked = 0
			},
			"rules": func(t *rapid.T) {
				// Often before the pass for those before has ended.
				for range rapid.IntRange(1, 4).Draw(t, "changes") {
					w.rules = rapid.IntRange(0, 7).Draw(t, "rules")
					w.l.SetRules(fmt.Sprint(w.rules))
					for range rapid.IntRange(0, 4).Draw(t, "steps") {
						w.next()
					}
				}
			},
			"commit": func(*rapid.T) { w.commit() },
			"failing commit": func(*rapid.T) {
				w.l.db = &failing{DB: w.db, broken: true}
				_ = w.l.Commit()
				w.l.db = w.db
			},
			"kill":    func(*rapid.T) { w.restart(true) },
			"restart": func(*rapid.T) { w.restart(false) },
			"":        func(*rapid.T) { w.check() },
		})
		finish := func() {
			for more := true; more; {
				next, due := w.next(), w.due()
				more = next || due || len(w.flying) > 0
				w.answer(50, w.ack)
			}
			w.check()
		}
		finish()
		w.compare()
		finish()
		for _, rec := range w.log.recs {
			if w.rules&(1<<rec.Event.Kind) != 0 && w.sent[int(rec.Ordinal)] == 0 {
				t.Fatalf("ordinal %d of kind %d was not sent; the rules of now (%03b) take it", rec.Ordinal, rec.Event.Kind, w.rules)
			}
			if declined, err := w.l.Declined(rec.Ordinal); err != nil || !declined && !w.has[int(rec.Ordinal)] && w.decide(&rec).skip == "" {
				t.Fatalf("ordinal %d of kind %d is not there after a comparison, nor refused; %v", rec.Ordinal, rec.Event.Kind, err)
			}
		}
		w.commit()
		if _, passing, _ := w.l.Committed(); passing {
			t.Fatalf("a pass is still under way after its end was committed")
		}
	})
}

// append adds n events of the kinds that kind draws.
func (l *testLog) append(n int, kind func(int) int) {
	for i := range n {
		rec := record.Record{Place: l.end, Ordinal: l.next}
		rec.Event.ID = sha256.Sum256(fmt.Append(nil, l.next))
		rec.Event.Kind = kind(i)
		l.end = place.Make(1, l.end.Offset()+10)
		rec.End = l.end
		l.next++
		l.recs = append(l.recs, rec)
	}
}
