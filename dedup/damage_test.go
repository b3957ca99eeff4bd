package dedup_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"rebroadcastr/dedup"
)

func TestTwoProcessesDoNotShareAnIndex(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dedup.Options{Dir: dir})
	defer closeIndex(t, x)
	_, err := dedup.Open(dedup.Options{Dir: dir})
	if err == nil || errors.Is(err, dedup.ErrDamaged) {
		t.Errorf("a second Open: %v, want an error that is not damage", err)
	}
}

func TestAnUnknownFormatIsDamage(t *testing.T) {
	dir := t.TempDir()
	closeIndex(t, open(t, dedup.Options{Dir: dir}))
	db, err := badger.Open(badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *badger.Txn) error { return tx.Set([]byte{0, 'f'}, []byte{99}) }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = dedup.Open(dedup.Options{Dir: dir})
	if !errors.Is(err, dedup.ErrDamaged) || !strings.Contains(err.Error(), "format") {
		t.Errorf("Open of format 99: %v, want ErrDamaged that names the format", err)
	}
	if err := dedup.Destroy(dir); err != nil {
		t.Fatal(err)
	}
	x := open(t, dedup.Options{Dir: dir})
	defer closeIndex(t, x)
	if got := x.Checkpoint(); !got.IsZero() {
		t.Errorf("checkpoint of a new index: %v, want zero", got)
	}
}

func TestDestroyOfNothingIsFine(t *testing.T) {
	if err := dedup.Destroy(filepath.Join(t.TempDir(), "index")); err != nil {
		t.Error(err)
	}
}

// Every file of a closed index, damaged: Open says so, or the index answers rightly, or a lookup or Verify says so. It
// never calls an id known that it is not.
func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	x := open(t, dedup.Options{Dir: dir})
	const n = 3000
	if err := x.Replay(lines(1, 0, n)); err != nil {
		t.Fatal(err)
	}
	closeIndex(t, x)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	damages := map[string]func(path string, b []byte) error{
		"gone":  func(path string, _ []byte) error { return os.Remove(path) },
		"empty": func(path string, _ []byte) error { return os.Truncate(path, 0) },
		"half":  func(path string, b []byte) error { return os.Truncate(path, int64(len(b)/2)) },
		"zeroed in the middle": func(path string, b []byte) error {
			clear(b[len(b)/3 : len(b)/2])
			return os.WriteFile(path, b, 0o600)
		},
		"one bit": func(path string, b []byte) error {
			if len(b) > 0 {
				b[len(b)/2] ^= 4
			}
			return os.WriteFile(path, b, 0o600)
		},
	}
	for _, f := range files {
		for name, damage := range damages {
			t.Run(f.Name()+" "+name, func(t *testing.T) {
				at := copyDir(t, dir)
				path := filepath.Join(at, f.Name())
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := damage(path, b); err != nil {
					t.Fatal(err)
				}
				x, err := dedup.Open(dedup.Options{Dir: at})
				if err != nil {
					if !errors.Is(err, dedup.ErrDamaged) {
						t.Errorf("Open: %v, want ErrDamaged", err)
					}
					t.Logf("Open: %v", err)
					return
				}
				defer closeIndex(t, x)
				below := x.Checkpoint().Offset() / lineBytes
				wrong := 0
				for i := range uint64(n) {
					got, err := x.Lookup(id(i))
					if err != nil {
						if !errors.Is(err, dedup.ErrDamaged) {
							t.Errorf("Lookup: %v, want ErrDamaged", err)
						}
						if again, err := dedup.Open(dedup.Options{Dir: copyDir(t, at)}); !errors.Is(err, dedup.ErrDamaged) {
							t.Errorf("Open after a lookup that met damage: %v, %v; want ErrDamaged", again, err)
						}
						return
					}
					if i < below && got != dedup.Known {
						wrong++
					}
				}
				if err := x.Verify(); wrong > 0 && !errors.Is(err, dedup.ErrDamaged) {
					t.Errorf("%d ids below the checkpoint are not known, and Verify answers %v", wrong, err)
				}
				want(t, x, n, n+100, dedup.Absent)
			})
		}
	}
}

// A Badger that ends the process while it opens must not do so at every start.
func TestDeathsAtOpen(t *testing.T) {
	dir := t.TempDir()
	closeIndex(t, open(t, dedup.Options{Dir: dir}))
	opening := filepath.Join(dir, "OPENING")
	if _, err := os.Stat(opening); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there after a good open: %v", opening, err)
	}
	for deaths, wantErr := range []error{nil, nil, dedup.ErrDamaged} {
		if err := os.WriteFile(opening, []byte("..")[:deaths], 0o600); err != nil {
			t.Fatal(err)
		}
		x, err := dedup.Open(dedup.Options{Dir: dir})
		if !errors.Is(err, wantErr) {
			t.Errorf("Open after %d deaths: %v, want %v", deaths, err, wantErr)
		}
		if err == nil {
			closeIndex(t, x)
		}
	}
}

// What a kill -9 leaves of a table or a memtable's log that was being made is no damage: nothing has to be made anew.
func TestFilesThatWereBeingMade(t *testing.T) {
	for _, name := range []string{"000099.sst", "00099.mem"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			x := open(t, dedup.Options{Dir: dir})
			if err := x.Replay(lines(1, 0, 100)); err != nil {
				t.Fatal(err)
			}
			closeIndex(t, x)
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			x, err := dedup.Open(dedup.Options{Dir: dir})
			if err != nil {
				t.Fatalf("Open beside an empty %s: %v, want the index", name, err)
			}
			defer closeIndex(t, x)
			for n := range uint64(100) {
				if s, err := x.Lookup(id(n)); s != dedup.Known || err != nil {
					t.Fatalf("id %d is %s (%v), want known", n, s, err)
				}
			}
		})
	}
}
