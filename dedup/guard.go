package dedup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"
	"github.com/dgraph-io/badger/v4/y"
	"google.golang.org/protobuf/proto"
)

// Badger opens its tables on goroutines of its own, where a broken one is a panic that nobody can recover, at this
// start and at every further one; or it leaves a table out and says nothing to its caller. So tables are looked at
// before, and two files in the index's directory remember what went wrong:
const (
	openingFile = "OPENING" // one byte per Badger.Open that has not returned
	damagedFile = "DAMAGED" // a lookup or a write met damage
)

// maxDeaths at open in a row count as damage. One death may be a kill -9 in the milliseconds that an open takes.
const maxDeaths = 2

// guardOpen refuses to hand dir to Badger where that would end the process, and counts the attempt.
func guardOpen(dir string) error {
	if reason, err := os.ReadFile(filepath.Join(dir, damagedFile)); err == nil {
		return fmt.Errorf("%w: %s", ErrDamaged, reason)
	}
	deaths, err := os.ReadFile(filepath.Join(dir, openingFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(deaths) >= maxDeaths {
		return fmt.Errorf("%w: Badger ended the process %d times while it opened it", ErrDamaged, len(deaths))
	}
	tables, err := manifestTables(dir)
	if err != nil {
		return err
	}
	for _, path := range tables {
		if err := checkTable(path); err != nil {
			return fmt.Errorf("%w: table %s: %w", ErrDamaged, filepath.Base(path), err)
		}
	}
	if err := removeUnborn(dir); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, openingFile), append(deaths, '.'), 0o600)
}

// manifestTables are the tables that Badger will open: those in its manifest that exist. Another one was being written
// when the process died; its content is still in a memtable's log, and Badger removes it.
func manifestTables(dir string) (paths []string, err error) {
	f, err := os.Open(filepath.Join(dir, badger.ManifestFilename))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() // read only
	m, _, err := badger.ReplayManifestFile(f, 0, badger.DefaultOptions(dir).WithLogger(nil))
	if err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrDamaged, err)
	}
	for id := range m.Tables {
		path := filepath.Join(dir, fmt.Sprintf("%06d.sst", id))
		if _, err := os.Stat(path); err == nil { // what is missing Badger says itself
			paths = append(paths, path)
		}
	}
	return paths, nil
}

// removeUnborn removes the newest memtable's log if nothing is in it: the process died while it was made, and Badger would
// refuse the whole index for it. Should it have lost its content otherwise, the checkpoint that it held is gone with it.
func removeUnborn(dir string) error {
	logs, err := filepath.Glob(filepath.Join(dir, "*.mem"))
	if err != nil || len(logs) == 0 {
		return err
	}
	newest := slices.Max(logs) // five digits each
	if info, err := os.Stat(newest); err != nil || info.Size() > 0 {
		return err
	}
	return os.Remove(newest)
}

func opened(dir string) error { return os.Remove(filepath.Join(dir, openingFile)) }

// markDamaged makes the next Open answer ErrDamaged. What it cannot write, the next lookup will find again.
func markDamaged(dir string, cause error) error {
	return os.WriteFile(filepath.Join(dir, damagedFile), []byte(strings.ToValidUTF8(cause.Error(), "?")), 0o600)
}

// checkTable reads a table's footer as Badger will (table.initIndex), with the bounds that Badger leaves out:
// blocks, index, its length (4 bytes), checksum of the index, its length (4 bytes).
func checkTable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // read only
	info, err := f.Stat()
	if err != nil {
		return err
	}
	at := info.Size()
	back := func(n int64) ([]byte, error) {
		if n < 0 || n > at {
			return nil, fmt.Errorf("%d bytes before offset %d: %w", n, at, io.ErrUnexpectedEOF)
		}
		at -= n
		b := make([]byte, n)
		_, err := f.ReadAt(b, at)
		return b, err
	}
	sized := func() ([]byte, error) {
		b, err := back(4)
		if err != nil {
			return nil, err
		}
		return back(int64(binary.BigEndian.Uint32(b)))
	}
	sum, err := sized()
	if err != nil {
		return err
	}
	var want pb.Checksum
	if err := proto.Unmarshal(sum, &want); err != nil {
		return err
	}
	if _, known := pb.Checksum_Algorithm_name[int32(want.Algo)]; !known { // y.VerifyChecksum panics on it
		return fmt.Errorf("checksum algorithm %d", want.Algo)
	}
	index, err := sized()
	if err != nil {
		return err
	}
	if len(index) == 0 {
		return errors.New("empty index")
	}
	return y.VerifyChecksum(index, &want)
}
