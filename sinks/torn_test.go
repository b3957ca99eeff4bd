package sinks

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A torn commit: of the pages that it writes any may be on disk and any not when the power goes, the page that makes it
// hold last of all. The cursor and the parked row that it passed are both as before or both as after.
func TestTornCommit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	read := func() []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	db := openState(t, path)
	l := mustLedger(t, db)
	commit := func() {
		t.Helper()
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	next := func(ordinal uint64) item {
		t.Helper()
		it, err := l.Next(recordAt(ordinal))
		if err != nil {
			t.Fatal(err)
		}
		return it
	}
	due := time.UnixMilli(1_000_000)
	for n := range uint64(20) { // a history, so that bbolt has pages to reuse
		l.Later(next(n), due, 1, parkedForFuture)
		commit()
	}
	before := read()
	l.Later(next(20), due, 1, parkedForFuture)
	l.Ack(next(21), delivered)
	commit()
	after := read()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	const page, metas = 4096, 2 // bbolt writes its meta pages, the first two in turn, after all others are durable
	var changed []int
	for at := metas; at*page < len(after); at++ {
		if b := after[at*page : (at+1)*page]; (at+1)*page > len(before) || !bytes.Equal(b, before[at*page:(at+1)*page]) {
			changed = append(changed, at)
		}
	}
	if len(changed) < 2 {
		t.Fatalf("the commit wrote pages %v, want several", changed)
	}
	check := func(t *testing.T, torn []byte, wantParked uint64, wantCursor uint64) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "state.db")
		if err := os.WriteFile(file, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		db := openState(t, file)
		defer db.Close()
		if aside, _ := filepath.Glob(file + ".damaged-*"); len(aside) > 0 {
			t.Fatalf("the state was taken for damaged")
		}
		l := mustLedger(t, db)
		rows, err := l.Due(due, 100, func(parkedKey) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		at, _, _ := l.Committed()
		c, _, _, _ := l.Account()
		if at.Ordinal != wantCursor || uint64(len(rows)) != wantParked || uint64(c.Parked) != wantParked {
			t.Errorf("the cursor at %d with %d parked rows, %d counted; want %d with %d", at.Ordinal, len(rows), c.Parked, wantCursor, wantParked)
		}
	}
	random := rand.New(rand.NewPCG(3, 4))
	for n := range 40 {
		t.Run(fmt.Sprintf("some of %d pages, try %d", len(changed), n), func(t *testing.T) {
			torn := append(bytes.Clone(before), make([]byte, max(0, len(after)-len(before)))...)
			for _, at := range changed {
				switch random.IntN(3) {
				case 0: // not written
				case 1:
					copy(torn[at*page:], after[at*page:(at+1)*page])
				case 2: // half of it
					copy(torn[at*page:], after[at*page:at*page+page/2])
				}
			}
			check(t, torn, 20, 20)
		})
	}
	t.Run("every page", func(t *testing.T) { check(t, after, 21, 22) })
	for at := range metas {
		if bytes.Equal(before[at*page:(at+1)*page], after[at*page:(at+1)*page]) {
			continue
		}
		for _, cut := range []int{1, 40, 60} { // what holds ends at 80
			t.Run(fmt.Sprintf("every page, %d bytes of the meta page", cut), func(t *testing.T) {
				torn := bytes.Clone(after)
				copy(torn[at*page+cut:(at+1)*page], before[at*page+cut:(at+1)*page])
				check(t, torn, 20, 20)
			})
		}
	}
}
