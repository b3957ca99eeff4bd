// Package state keeps what cannot be rebuilt from the archive: sinks' ledgers, sources' proven windows and the
// archive's marks, in one bbolt file.
//
// A bucket belongs to the package that names it; nothing here knows what is inside. State that is lost or damaged
// fails towards sending and fetching again, so a file that cannot be trusted as a whole is moved aside as a whole: a
// cursor and the parked rows behind it live and die together.
package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// format is the version of what is inside; another one is not read.
const format = 1

// opening bounds the wait for bbolt's own lock. The archive's LOCK is held already, so nobody else should have it.
const opening = 5 * time.Second

var (
	metaBucket = []byte("meta")
	formatKey  = []byte("format")
)

// DB is the open state file. Its methods may be called from any goroutine.
type DB struct {
	bolt    *bbolt.DB
	commits commits
}

func newDB(db *bbolt.DB) *DB { return &DB{bolt: db, commits: commits{turn: make(chan struct{}, 1)}} }

// Open opens the state at path, or makes it. A file that is damaged or of another format is moved aside to
// path.damaged-<unix seconds>, with one line in the log, and a fresh one is made. Any other trouble (no room, no
// permission, in use) is an error and leaves the file alone.
func Open(path string, log zerolog.Logger) (*DB, error) {
	db, err := open(path)
	if d, ok := errors.AsType[*damage](err); ok {
		aside, merr := moveAside(path)
		if merr != nil {
			return nil, fmt.Errorf("open state %s: %w (%w)", path, merr, d)
		}
		log.Error().Str("state", path).Str("moved_to", aside).Err(d).Msg(
			"state is damaged and was moved aside: every sink starts at its beginning and every source is asked again")
		db, err = open(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open state %s: %w", path, err)
	}
	return newDB(db), nil
}

// damage means that the file's content cannot be trusted.
type damage struct{ cause error }

func (d *damage) Error() string { return d.cause.Error() }
func (d *damage) Unwrap() error { return d.cause }

func open(path string) (*bbolt.DB, error) {
	_, err := os.Stat(path)
	fresh := errors.Is(err, fs.ErrNotExist)
	db, err := openBolt(path, bbolt.Options{Timeout: opening})
	if err != nil {
		return nil, err
	}
	if err := check(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if err := stamp(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if fresh {
		if err := syncDir(filepath.Dir(path)); err != nil {
			return nil, errors.Join(err, db.Close())
		}
	}
	return db, nil
}

// openBolt tells a damaged file from one that cannot be opened. bbolt panics on some damage.
func openBolt(path string, o bbolt.Options) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a page beyond the file's end is a memory fault
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, &damage{fmt.Errorf("%v", p)}
		}
	}()
	db, err = bbolt.Open(path, 0o600, &o)
	if err == nil {
		return db, nil
	}
	// What the operating system or bbolt's lock says is not about the content; all the rest of bbolt's errors are.
	if _, ok := errors.AsType[*fs.PathError](err); ok || errors.Is(err, bolterrors.ErrTimeout) {
		return nil, err
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return nil, err
	}
	return nil, &damage{err}
}

// check reads every key and value, and bbolt's own books.
func check(db *bbolt.DB) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &damage{fmt.Errorf("%v", p)}
		}
	}()
	return db.View(func(tx *bbolt.Tx) error {
		info, err := os.Stat(db.Path())
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return &damage{fmt.Errorf("%d bytes long, its pages say %d", info.Size(), tx.Size())}
		}
		if err := tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return walk(b) }); err != nil {
			return &damage{err}
		}
		var bad error
		for err := range tx.Check() { // to its end: the channel's sender would wait for ever
			bad = errors.Join(bad, err)
		}
		if bad != nil {
			return &damage{bad}
		}
		meta := tx.Bucket(metaBucket)
		if meta == nil {
			if k, _ := tx.Cursor().First(); k != nil {
				return &damage{errors.New("no format version")}
			}
			return nil
		}
		if v := meta.Get(formatKey); len(v) != 4 || binary.BigEndian.Uint32(v) != format {
			return &damage{fmt.Errorf("format %x, this program knows %d", v, format)}
		}
		return nil
	})
}

func walk(b *bbolt.Bucket) error {
	return b.ForEach(func(k, v []byte) error {
		if v != nil {
			return nil
		}
		child := b.Bucket(k)
		if child == nil {
			return fmt.Errorf("bucket %q has neither value nor bucket", k)
		}
		return walk(child)
	})
}

func stamp(db *bbolt.DB) error {
	known := false
	if err := db.View(func(tx *bbolt.Tx) error {
		known = tx.Bucket(metaBucket) != nil
		return nil
	}); err != nil || known {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		return meta.Put(formatKey, binary.BigEndian.AppendUint32(nil, format))
	})
}

// moveAside never writes over an older copy.
func moveAside(path string) (string, error) {
	base := fmt.Sprintf("%s.damaged-%d", path, time.Now().Unix())
	aside := base
	for n := 1; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
		aside = fmt.Sprintf("%s-%d", base, n)
	}
	if err := os.Rename(path, aside); err != nil {
		return "", fmt.Errorf("move damaged state aside: %w", err)
	}
	return aside, syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Tx is one transaction. It is valid until the function it was given to returns.
type Tx struct{ bolt *bbolt.Tx }

// View runs fn on an unchanging picture of the state.
func (db *DB) View(fn func(tx *Tx) error) error {
	return db.bolt.View(func(tx *bbolt.Tx) error { return fn(&Tx{tx}) })
}

// Close waits for running transactions and releases the file.
func (db *DB) Close() error { return db.bolt.Close() }

// CopyTo writes a consistent copy of the state, for a backup.
func (db *DB) CopyTo(w io.Writer) error {
	return db.bolt.View(func(tx *bbolt.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	})
}

// Bucket returns the bucket at path, each element inside the one before it. In a View it is nil when missing; in an
// Update it is made. An element that is already a key with a value is a broken invariant and panics.
func (tx *Tx) Bucket(path ...string) *bbolt.Bucket {
	type parent interface {
		Bucket([]byte) *bbolt.Bucket
		CreateBucketIfNotExists([]byte) (*bbolt.Bucket, error)
	}
	var at parent = tx.bolt
	var b *bbolt.Bucket
	for _, name := range path {
		if tx.bolt.Writable() {
			var err error
			if b, err = at.CreateBucketIfNotExists([]byte(name)); err != nil {
				panic(fmt.Sprintf("state: bucket %q: %v", path, err))
			}
		} else if b = at.Bucket([]byte(name)); b == nil {
			return nil
		}
		at = b
	}
	return b
}
