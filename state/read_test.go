package state_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"

	"rebroadcastr/state"
)

// TestRead: who only looks sees what was saved and leaves every byte as it is, also where there is nothing or damage.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	if _, err := state.Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("without a state: %v", err)
	}
	if made, _ := os.ReadDir(dir); len(made) > 0 {
		t.Fatalf("looking has made %v", made)
	}
	db, err := state.Open(path, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	put := func(tx *state.Tx) error { return tx.Bucket("a").Put([]byte("k"), []byte("v")) }
	if err := db.Update(put); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Read(path); !errors.Is(err, state.ErrInUse) {
		t.Fatalf("beside a writer: %v, want ErrInUse", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	look, err := state.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := look.View(func(tx *state.Tx) error {
		if b := tx.Bucket("a"); b == nil || string(b.Get([]byte("k"))) != "v" {
			t.Error("what was saved is not seen")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := look.Update(put); err == nil {
		t.Error("who looks can write")
	}
	other, err := state.Read(path) // lookers do not mind each other
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(look.Close(), other.Close()); err != nil {
		t.Error(err)
	}
	same := func() {
		t.Helper()
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
			t.Errorf("looking has changed the state, %v", err)
		}
	}
	same()
	before = bytes.Repeat([]byte("x"), 8192)
	if err := os.WriteFile(path, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Read(path); err == nil {
		t.Error("damage is read")
	}
	same()
	if found, _ := os.ReadDir(dir); len(found) != 1 {
		t.Errorf("looking at damage has left %v", found)
	}
}
