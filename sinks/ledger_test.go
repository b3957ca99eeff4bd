package sinks

import (
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/state"
)

const testURL = "wss://sink.example.com"

// fataler is what testing.T and rapid.T share.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func openState(t fataler, path string) *state.DB {
	t.Helper()
	db, err := state.Open(path, zerolog.New(io.Discard))
	if err != nil {
		t.Fatalf("open the state: %v", err)
	}
	return db
}

// copyState copies the state as a kill at this moment would leave it.
func copyState(t fataler, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatalf("copy the state: %v", err)
	}
}

func mustLedger(t fataler, db *state.DB) *ledger {
	t.Helper()
	l, lost, err := openLedger(db, testURL, mark{}, 0, "")
	if err != nil || lost != nil {
		t.Fatalf("open the ledger: %v, lost %v", err, lost)
	}
	return l
}

// recordAt is a record of 10 bytes in segments of 7 records.
func recordAt(ordinal uint64) *record.Record {
	at := func(n uint64) place.Place { return place.Make(uint32(1+n/7), n%7*10) }
	return &record.Record{Place: at(ordinal), End: at(ordinal + 1), Ordinal: ordinal}
}

func testID(ordinal uint64) (id event.ID) {
	copy(id[:], appendMark(nil, mark{Ordinal: ordinal}))
	return id
}

// account is the model of a ledger: what became of each ordinal.
type account struct {
	frontier uint64
	open     map[uint64]bool
	parked   map[uint64]item
	rejected map[uint64]string
	acked    [3]uint64
	skipped  uint64
}

func (a account) clone() account {
	a.open, a.parked, a.rejected = maps.Clone(a.open), maps.Clone(a.parked), maps.Clone(a.rejected)
	return a
}

// TestLedgerProperty: any order of answers, any commits, failed commits, restarts and kills: the cursor is the contiguous
// settled prefix, the counters balance, and what was committed is there again, whole.
func TestLedgerProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "ledger")
		if err != nil {
			t.Fatalf("%v", err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "state.db")
		db := openState(t, path)
		defer func() { db.Close() }()
		l := mustLedger(t, db)
		if err := l.Commit(); err != nil {
			t.Fatalf("commit: %v", err)
		}
		now := account{open: map[uint64]bool{}, parked: map[uint64]item{}, rejected: map[uint64]string{}}
		committed := now.clone()
		clock := time.UnixMilli(1_000_000)

		// pick draws something to settle: open, or parked.
		pick := func(t *rapid.T) (item, bool) {
			var items []item
			for _, o := range slices.Sorted(maps.Keys(now.open)) {
				items = append(items, item{mark: mark{o, recordAt(o).Place}})
			}
			for _, o := range slices.Sorted(maps.Keys(now.parked)) {
				items = append(items, now.parked[o])
			}
			if len(items) == 0 {
				return item{}, false
			}
			it := rapid.SampledFrom(items).Draw(t, "item")
			delete(now.open, it.Ordinal)
			delete(now.parked, it.Ordinal)
			return it, true
		}
		t.Repeat(map[string]func(*rapid.T){
			"next": func(t *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(t, "records") {
					gap := uint64(max(0, rapid.IntRange(-5, 2).Draw(t, "gap")))
					now.skipped += gap
					now.frontier += gap
					if _, err := l.Next(recordAt(now.frontier)); err != nil {
						t.Fatalf("next: %v", err)
					}
					now.open[now.frontier] = true
					now.frontier++
				}
			},
			"pass": func(t *rapid.T) {
				now.skipped++
				now.frontier++
				l.Pass(mark{now.frontier, recordAt(now.frontier).Place})
			},
			"ack": func(t *rapid.T) {
				for range rapid.IntRange(1, 20).Draw(t, "answers") {
					if it, ok := pick(t); ok {
						o := rapid.SampledFrom([]outcome{delivered, duplicate, superseded}).Draw(t, "outcome")
						l.Ack(it, o)
						now.acked[o]++
					}
				}
			},
			"reject": func(t *rapid.T) {
				if it, ok := pick(t); ok {
					prefix := rapid.SampledFrom([]string{"invalid", "blocked", "pow"}).Draw(t, "prefix")
					l.Reject(it, Rejected{ID: testID(it.Ordinal), Prefix: prefix, Text: prefix + ": no", Time: clock})
					now.rejected[it.Ordinal] = prefix
				}
			},
			"skip": func(t *rapid.T) {
				if it, ok := pick(t); ok {
					l.Skip(it, "dm")
					now.skipped++
				}
			},
			"later": func(t *rapid.T) {
				if it, ok := pick(t); ok {
					due := clock.Add(time.Duration(rapid.IntRange(-5, 5).Draw(t, "due")) * time.Second)
					reason := rapid.SampledFrom([]string{parkedForError, parkedForFuture}).Draw(t, "reason")
					now.parked[it.Ordinal] = l.Later(it, due, it.attempts+1, reason)
				}
			},
			"restore": func(t *rapid.T) {
				if len(now.rejected) == 0 {
					return
				}
				o := rapid.SampledFrom(slices.Sorted(maps.Keys(now.rejected))).Draw(t, "rejected")
				l.Restore(Rejected{Ordinal: o, At: recordAt(o).Place, Prefix: now.rejected[o]}, clock)
				now.parked[o] = item{mark: mark{o, recordAt(o).Place}, parked: true, key: makeParkedKey(clock, o), reason: now.rejected[o]}
				delete(now.rejected, o)
			},
			"commit": func(t *rapid.T) {
				if err := l.Commit(); err != nil {
					t.Fatalf("commit: %v", err)
				}
				committed = now.clone()
				if n := l.Uncommitted(); n != 0 {
					t.Fatalf("%d answers uncommitted after a commit", n)
				}
			},
			"failing commit": func(t *rapid.T) {
				l.db = &failing{DB: db, broken: true}
				err := l.Commit()
				l.db = db
				if err == nil && !l.dirty {
					return // there was nothing to commit
				}
				if err == nil {
					t.Fatalf("a commit without room returned nil")
				}
			},
			"kill": func(t *rapid.T) {
				to := filepath.Join(dir, "killed.db")
				copyState(t, path, to)
				db.Close()
				if err := os.Rename(to, path); err != nil {
					t.Fatalf("%v", err)
				}
				db = openState(t, path)
				l = mustLedger(t, db)
				now = committed.clone()
			},
			"": func(t *rapid.T) {
				check(t, l, now, clock)
			},
		})
	})
}

func check(t *rapid.T, l *ledger, want account, clock time.Time) {
	t.Helper()
	c, cursor, frontier, open := l.Account()
	if frontier.Ordinal != want.frontier {
		t.Fatalf("frontier %d, want %d", frontier.Ordinal, want.frontier)
	}
	wantCursor := mark{want.frontier, frontier.Place}
	if sorted := slices.Sorted(maps.Keys(want.open)); len(sorted) > 0 {
		wantCursor = mark{sorted[0], recordAt(sorted[0]).Place}
	}
	if cursor != wantCursor {
		t.Fatalf("cursor at %v, want %v: the contiguous settled prefix ends there", cursor, wantCursor)
	}
	if open != len(want.open) || len(l.Open()) != open {
		t.Fatalf("%d open (%d listed), want %d", open, len(l.Open()), len(want.open))
	}
	if len(l.open) > 2*open+1 {
		t.Fatalf("%d entries held for %d open ordinals", len(l.open), open)
	}
	if got, wantC := [3]uint64{c.Delivered, c.Duplicate, c.Superseded}, want.acked; got != wantC {
		t.Fatalf("delivered, duplicate, superseded %v, want %v", got, wantC)
	}
	if c.RejectedTotal() != uint64(len(want.rejected)) || c.SkippedTotal() != want.skipped || c.Parked != uint64(len(want.parked)) {
		t.Fatalf("rejected %d, skipped %d, parked %d, want %d, %d, %d", c.RejectedTotal(), c.SkippedTotal(), c.Parked, len(want.rejected), want.skipped, len(want.parked))
	}
	var errs uint64
	for _, it := range want.parked {
		if it.reason == parkedForError {
			errs++
		}
	}
	if c.ParkedErrors != errs {
		t.Fatalf("%d parked for errors, want %d", c.ParkedErrors, errs)
	}
	st := Status{Counters: c, Issued: frontier.Ordinal, Pending: uint64(open)}
	if err := st.Balance().Check(); err != nil {
		t.Fatalf("%v", err)
	}
	for _, at := range []time.Time{clock, never} {
		due, err := l.Due(at, 1<<20, func(parkedKey) bool { return false })
		if err != nil {
			t.Fatalf("due: %v", err)
		}
		n := 0
		for _, it := range want.parked {
			if !it.key.due().After(at) {
				n++
				if !slices.Contains(due, it) {
					t.Fatalf("parked %v is missing among those due at %v: %v", it, at, due)
				}
			}
		}
		if len(due) != n {
			t.Fatalf("%d rows due at %v, want %d", len(due), at, n)
		}
	}
}

// TestRejectedRowsAreKept: event, reason and time, across a restart.
func TestRejectedRowsAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := openState(t, path)
	l := mustLedger(t, db)
	it, err := l.Next(recordAt(0))
	if err != nil {
		t.Fatal(err)
	}
	when := time.Unix(1_700_000_000, 0).UTC()
	l.Reject(it, Rejected{ID: testID(7), Prefix: "invalid", Text: "invalid: too old", Time: when})
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	db.Close()
	db = openState(t, path)
	defer db.Close()
	l = mustLedger(t, db)
	var rows []Rejected
	if err := l.rejectedRows(func(r Rejected) bool { rows = append(rows, r); return true }); err != nil {
		t.Fatal(err)
	}
	want := Rejected{0, recordAt(0).Place, testID(7), "invalid", "invalid: too old", when}
	if len(rows) != 1 || rows[0] != want {
		t.Fatalf("rejected rows %+v, want one: %+v", rows, want)
	}
}

// TestDamagedLedgerSendsAgain: a record that cannot be read begins anew and says so; its rows do not stay behind.
func TestDamagedLedgerSendsAgain(t *testing.T) {
	db := openState(t, filepath.Join(t.TempDir(), "state.db"))
	defer db.Close()
	l := mustLedger(t, db)
	for n := range uint64(3) {
		it, err := l.Next(recordAt(n))
		if err != nil {
			t.Fatal(err)
		}
		l.Later(it, time.UnixMilli(5), 1, parkedForError)
	}
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *state.Tx) error {
		return tx.Bucket(sinksBucket, testURL).Put(recordKey, []byte(`{"version":99}`))
	}); err != nil {
		t.Fatal(err)
	}
	l, lost, err := openLedger(db, testURL, mark{}, 0, "")
	if err != nil || lost == nil {
		t.Fatalf("open a damaged ledger: error %v, lost %v; want no error and a reason", err, lost)
	}
	due, err := l.Due(never, 10, func(parkedKey) bool { return false })
	if c, cursor, _, _ := l.Account(); err != nil || len(due) != 0 || c.Parked != 0 || cursor != (mark{}) {
		t.Fatalf("after a lost record: %d rows due (%v), %d parked, cursor %v; want none, at the beginning", len(due), err, c.Parked, cursor)
	}
}

// TestHighest: the archive must not issue what a ledger has met.
func TestHighest(t *testing.T) {
	db := openState(t, filepath.Join(t.TempDir(), "state.db"))
	defer db.Close()
	if _, n, err := Highest(db); n != 0 || err != nil {
		t.Fatalf("highest of no ledgers: %d, %v; want 0", n, err)
	}
	for i, url := range []string{"ws://a", "ws://b"} {
		l, _, err := openLedger(db, url, mark{}, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		for n := range uint64(10 - i*5) {
			if _, err := l.Next(recordAt(n)); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	at, n, err := Highest(db)
	if err != nil || n != 10 || at != recordAt(10).Place {
		t.Fatalf("highest: %s, %d, %v; want %s, 10", at, n, err, recordAt(10).Place)
	}
	if err := Forget(db, "ws://a"); err != nil {
		t.Fatal(err)
	}
	if _, n, _ := Highest(db); n != 5 {
		t.Fatalf("highest after forgetting the first: %d, want 5", n)
	}
}

// TestDueByTheWallClock: the wait of a parked event is not longer because the monotonic clock stood still, as it does while the
// machine sleeps.
func TestDueByTheWallClock(t *testing.T) {
	db := openState(t, filepath.Join(t.TempDir(), "state.db"))
	defer db.Close()
	l := mustLedger(t, db)
	it, err := l.Next(recordAt(0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Due(time.Now(), 1, func(parkedKey) bool { return false }); err != nil { // from here on it knows of no row
		t.Fatal(err)
	}
	due := time.Now().Add(time.Hour)
	l.Later(it, due, 1, parkedForError)
	// A reading of the same monotonic clock would be compared with it, and not with the time of day.
	if got := l.NextDue(); got != got.Round(0) || got.UnixMilli() != due.UnixMilli() {
		t.Errorf("next due %v, want the time of day %v alone", got, due.Round(0))
	}
}
