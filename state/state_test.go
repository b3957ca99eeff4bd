package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"rebroadcastr/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) (*state.DB, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	db, err := state.Open(path, zerolog.New(&log))
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	return db, &log
}

func closed(t *testing.T, db *state.DB) {
	t.Helper()
	if err := db.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func put(t *testing.T, db *state.DB, key, value string) {
	t.Helper()
	if err := db.Update(func(tx *state.Tx) error {
		return tx.Bucket("sinks", "wss://a.example").Put([]byte(key), []byte(value))
	}); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func get(t *testing.T, db *state.DB, key string) (value string) {
	t.Helper()
	if err := db.View(func(tx *state.Tx) error {
		if b := tx.Bucket("sinks", "wss://a.example"); b != nil {
			value = string(b.Get([]byte(key)))
		}
		return nil
	}); err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	return value
}

func TestKeepsWhatWasCommitted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, _ := open(t, path)
	if err := db.View(func(tx *state.Tx) error {
		if tx.Bucket("sinks") != nil {
			return errors.New("a View made a bucket, or found one in a fresh file")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	put(t, db, "cursor", "7")
	refused := errors.New("no")
	if err := db.Update(func(tx *state.Tx) error {
		if err := tx.Bucket("sinks", "wss://a.example").Put([]byte("cursor"), []byte("8")); err != nil {
			return err
		}
		return refused
	}); !errors.Is(err, refused) {
		t.Errorf("an update that fails answers %v, want its own error", err)
	}
	closed(t, db)
	db, log := open(t, path)
	defer closed(t, db)
	if got := get(t, db, "cursor"); got != "7" {
		t.Errorf("cursor after reopening = %q, want 7", got)
	}
	if log.Len() > 0 {
		t.Errorf("a sound file was opened with words: %s", log)
	}
}

func TestOneFailureDoesNotSpoilTheOthers(t *testing.T) {
	db, _ := open(t, filepath.Join(t.TempDir(), "state.db"))
	defer closed(t, db)
	var wg sync.WaitGroup
	for n := range 40 {
		wg.Go(func() {
			err := db.Update(func(tx *state.Tx) error {
				if n == 13 {
					return errors.New("unlucky")
				}
				return tx.Bucket("sinks", "wss://a.example").Put(fmt.Append(nil, n), []byte("x"))
			})
			if (err != nil) != (n == 13) {
				t.Errorf("update %d: %v", n, err)
			}
		})
	}
	wg.Wait()
	for n := range 40 {
		if got := get(t, db, fmt.Sprint(n)); (got == "x") != (n != 13) {
			t.Errorf("key %d = %q", n, got)
		}
	}
}

// Updates that come while one is under way share the next commit; a panic among them is its caller's alone.
func TestUpdatesShareACommit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, _ := open(t, path)
	defer closed(t, db)
	entered, leave := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	var once sync.Once
	go func() {
		first <- db.Update(func(*state.Tx) error {
			once.Do(func() { close(entered); <-leave })
			return nil
		})
	}()
	<-entered
	var transactions sync.Map
	var wg sync.WaitGroup
	asked := make(chan struct{}, 20)
	for n := range 20 {
		wg.Go(func() {
			defer func() {
				if p := recover(); (p != nil) != (n == 7) {
					t.Errorf("update %d: panic %v", n, p)
				}
			}()
			asked <- struct{}{}
			if err := db.Update(func(tx *state.Tx) error {
				if n == 7 {
					panic("unlucky")
				}
				b := tx.Bucket("sinks", "wss://a.example")
				transactions.Store(b.Tx().ID(), true)
				return b.Put(fmt.Append(nil, n), []byte("x"))
			}); err != nil {
				t.Errorf("update %d: %v", n, err)
			}
		})
	}
	for range 20 {
		<-asked
	}
	close(leave)
	wg.Wait()
	if err := <-first; err != nil {
		t.Error(err)
	}
	commits := 0
	transactions.Range(func(any, any) bool { commits++; return true })
	if commits > 10 { // one; more where goroutines were late, and where the panic was taken out
		t.Errorf("19 updates took %d transactions", commits)
	}
	for n := range 20 {
		if got := get(t, db, fmt.Sprint(n)); (got == "x") != (n != 7) {
			t.Errorf("key %d = %q", n, got)
		}
	}
}

// A page that is found damaged only while bbolt commits is a panic of bbolt's: it is the error of everybody who shares that commit,
// and the state goes on.
func TestAPanicOfACommitIsItsUpdatesError(t *testing.T) {
	db, _ := open(t, filepath.Join(t.TempDir(), "state.db"))
	defer closed(t, db)
	entered, leave := make(chan struct{}), make(chan struct{})
	answers := make(chan error, 3)
	var once sync.Once
	go func() {
		answers <- db.Update(func(*state.Tx) error {
			once.Do(func() { close(entered); <-leave })
			return nil
		})
	}()
	<-entered
	for range 2 {
		go func() {
			answers <- db.Update(func(tx *state.Tx) error {
				tx.Bucket("sinks").Tx().OnCommit(func() { panic("page 7 already freed") })
				return nil
			})
		}()
	}
	close(leave)
	failed := 0
	for range 3 {
		if err := <-answers; err != nil {
			failed++
			if !strings.Contains(err.Error(), "page 7") {
				t.Errorf("an update's error is %v, want the panic", err)
			}
		}
	}
	if failed != 2 {
		t.Errorf("%d updates failed, want the two of the commit that panicked", failed)
	}
	put(t, db, "cursor", "7")
}

func TestDamagedIsMovedAside(t *testing.T) {
	sound := func(t *testing.T) []byte {
		path := filepath.Join(t.TempDir(), "state.db")
		db, _ := open(t, path)
		for n := range 3000 {
			if n%500 == 0 {
				put(t, db, fmt.Sprintf("key %05d", n), strings.Repeat("v", 900))
			}
		}
		if err := db.Update(func(tx *state.Tx) error {
			b := tx.Bucket("sinks", "wss://b.example", "parked")
			for n := range 500 {
				if err := b.Put(fmt.Appendf(nil, "%05d", n), bytes.Repeat([]byte("p"), 200)); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		closed(t, db)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}(t)
	foreign := func(t *testing.T, bucket, key string, value []byte) []byte {
		path := filepath.Join(t.TempDir(), "foreign.db")
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucket([]byte(bucket))
			if err != nil {
				return err
			}
			return b.Put([]byte(key), value)
		}); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	tests := map[string][]byte{
		"text":               []byte("this is not a database\n"),
		"one byte":           {0},
		"first page only":    sound[:4096],
		"cut in half":        sound[:len(sound)/2],
		"zeros":              make([]byte, len(sound)),
		"both metas gone":    append(make([]byte, 8192), sound[8192:]...),
		"all but metas gone": append(bytes.Clone(sound[:8192]), make([]byte, len(sound)-8192)...),
		"format of tomorrow": foreign(t, "meta", "format", []byte{0, 0, 0, 99}),
		"another program's":  foreign(t, "widgets", "a", []byte("b")),
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "state.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			db, log := open(t, path)
			defer closed(t, db)
			put(t, db, "cursor", "1")
			if got := get(t, db, "cursor"); got != "1" {
				t.Errorf("the fresh state does not keep: cursor = %q", got)
			}
			aside, err := filepath.Glob(path + ".damaged-*")
			if err != nil || len(aside) != 1 {
				t.Fatalf("moved aside: %v (%v), want one file", aside, err)
			}
			if kept, err := os.ReadFile(aside[0]); err != nil || !bytes.Equal(kept, content) {
				t.Errorf("the file moved aside is not what was there (%v)", err)
			}
			if n := strings.Count(log.String(), "\n"); n != 1 || !strings.Contains(log.String(), "moved aside") {
				t.Errorf("log has %d lines, want one that says moved aside: %s", n, log)
			}
		})
	}
}

// Whatever page is lost, Open either notices or serves only what was written.
func TestAnyPageLost(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	db, _ := open(t, path)
	if err := db.Update(func(tx *state.Tx) error {
		for s := range 20 {
			b := tx.Bucket("sinks", fmt.Sprint(s))
			for n := range 100 {
				if err := b.Put(fmt.Appendf(nil, "%d", n), fmt.Appendf(nil, "%0100d", n)); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	closed(t, db)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	noise := rand.NewChaCha8([32]byte{1})
	for page := range len(sound) / 4096 {
		for _, kind := range []string{"zeros", "noise"} {
			content := bytes.Clone(sound)
			hole := content[page*4096:][:4096]
			clear(hole)
			if kind == "noise" {
				noise.Read(hole)
			}
			at := filepath.Join(dir, fmt.Sprintf("%d-%s.db", page, kind))
			if err := os.WriteFile(at, content, 0o600); err != nil {
				t.Fatal(err)
			}
			db, log := open(t, at)
			if err := db.View(func(tx *state.Tx) error {
				for s := range 20 {
					b := tx.Bucket("sinks", fmt.Sprint(s))
					if b == nil {
						if log.Len() == 0 {
							t.Errorf("page %d as %s: sink %d is gone without a word", page, kind, s)
						}
						continue
					}
					for n := range 100 {
						if got := b.Get(fmt.Appendf(nil, "%d", n)); string(got) != fmt.Sprintf("%0100d", n) {
							t.Errorf("page %d as %s: sink %d, key %d reads %q", page, kind, s, n, got)
						}
					}
				}
				return nil
			}); err != nil {
				t.Errorf("page %d as %s: %v", page, kind, err)
			}
			closed(t, db)
		}
	}
}

func TestTroubleThatIsNotDamageLeavesTheFileAlone(t *testing.T) {
	dir := t.TempDir()
	for name, path := range map[string]string{
		"a directory":       dir,
		"no such directory": filepath.Join(dir, "no", "state.db"),
	} {
		if db, err := state.Open(path, zerolog.Nop()); err == nil {
			closed(t, db)
			t.Errorf("%s: opened", name)
		}
	}
	if left, _ := filepath.Glob(dir + "*damaged*"); len(left) > 0 {
		t.Errorf("moved aside: %v", left)
	}
}

// A limit on the file's size stands for a full disk: the write fails halfway in the same place.
func TestFullDiskLeavesTheStateUsable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db, _ := open(t, path)
	put(t, db, "cursor", "7")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	full := old
	full.Cur = uint64(info.Size())
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("b", 1<<20)
	for range 3 {
		err := db.Update(func(tx *state.Tx) error {
			return tx.Bucket("sinks", "wss://a.example").Put([]byte("big"), []byte(big))
		})
		if err == nil {
			t.Error("a commit beyond the limit succeeded")
		}
	}
	if got := get(t, db, "cursor"); got != "7" {
		t.Errorf("cursor while full = %q, want 7", got)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	put(t, db, "big", big)
	put(t, db, "cursor", "8")
	closed(t, db)
	db, log := open(t, path)
	defer closed(t, db)
	if got := get(t, db, "cursor"); got != "8" || get(t, db, "big") != big {
		t.Errorf("after there is room again: cursor = %q, want 8; log %s", got, log)
	}
}

func TestCopyOpens(t *testing.T) {
	dir := t.TempDir()
	db, _ := open(t, filepath.Join(dir, "state.db"))
	defer closed(t, db)
	put(t, db, "cursor", "7")
	var copied bytes.Buffer
	if err := db.CopyTo(&copied); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "copy.db")
	if err := os.WriteFile(path, copied.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	again, _ := open(t, path)
	defer closed(t, again)
	if got := get(t, again, "cursor"); got != "7" {
		t.Errorf("cursor in the copy = %q, want 7", got)
	}
}

func BenchmarkUpdate(b *testing.B) {
	db, err := state.Open(filepath.Join(b.TempDir(), "state.db"), zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	for _, sinks := range []int{1, 50} {
		b.Run(fmt.Sprintf("%d at once", sinks), func(b *testing.B) {
			for b.Loop() {
				var wg sync.WaitGroup
				for n := range sinks {
					wg.Go(func() {
						if err := db.Update(func(tx *state.Tx) error {
							return tx.Bucket("sinks", fmt.Sprint(n)).Put([]byte("ledger"), make([]byte, 200))
						}); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
			}
		})
	}
}
