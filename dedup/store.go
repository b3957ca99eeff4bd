package dedup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/place"
)

// ErrDamaged means that the index must be rebuilt: it is broken, or of a format that this version does not know.
var ErrDamaged = errors.New("index damaged")

// format of the keys and values below.
const format = 2

// Key spaces. A fact's value is the place of the event that says so and a time; see key.
const (
	spaceMeta             byte = 0
	spaceIDs              byte = 1 // id → place
	spaceDeleters         byte = 2 // author of a deletion → its first one
	spaceDeletedIDs       byte = 3 // hash of target id, author → the first request
	spaceDeletedAddresses byte = 4 // hash of an address → the latest request
	spaceVanishers        byte = 5 // author of a request to vanish → the first one
	spaceVanish           byte = 6 // hash of author, relay or AllRelays → the latest request
	spaceNewest           byte = 7 // hash of an address → the newest version, and its id
)

var (
	keyFormat     = []byte{spaceMeta, 'f'}
	keyCheckpoint = []byte{spaceMeta, 'c'} // a place: everything before it is here
)

// DefaultMemory for Badger: two memtables, 24 MiB for tables' indexes and bloom filters (10 million ids take 22 MiB of those), and
// what a compaction makes anew.
const DefaultMemory = 64 << 20

const (
	memTable   = 16 << 20
	memTables  = 2
	compaction = 8 << 20
	minIndex   = 8 << 20
	// table is the size of one on every level. A compaction makes up to 5 at once, each in memory of twice this; with Badger's default,
	// which is twice as much on each further level, that was 1.7 GiB with 10 million ids.
	table = 4 << 20
)

// store is the Badger side of the index. Badger is in managed mode: a read finds whatever is there, each key by itself. In its
// other mode every read tells two goroutines that it begins and ends, and waits for the fsync of a transaction that is being
// committed; all for one picture of many keys, which nobody here asks for: what is not committed yet the overlay has.
type store struct {
	dir        string
	log        zerolog.Logger
	db         *badger.DB
	reads      *badger.Txn // every lookup's, from any goroutine; never discarded, which says nothing to a managed Badger
	version    uint64      // of the last put; the one writer's
	unsure     bool        // a commit has failed: what the next start finds may be of this version or of the one before
	checkpoint place.Place // as found at open
	known      knownIDs
}

// latest reads the newest version of a key.
const latest = math.MaxUint64

func badgerOptions(dir string, memory int64, log zerolog.Logger) badger.Options {
	if memory <= 0 {
		memory = DefaultMemory
	}
	o := badger.DefaultOptions(dir).
		WithMemTableSize(memTable).
		WithNumMemtables(memTables).
		WithBaseTableSize(table).
		WithValueLogFileSize(1 << 20). // Badger maps twice this at open; our values never go there
		WithBlockCacheSize(0).         // uncompressed blocks are read where they are mapped; the cache would count each as the rest of its table
		WithIndexCacheSize(max(minIndex, memory-memTables*memTable-compaction)).
		WithCompression(options.None). // ids are random: nothing to gain
		WithChecksumVerificationMode(options.OnBlockRead).
		WithNumCompactors(2).
		WithNumVersionsToKeep(1).
		WithDetectConflicts(false). // one writer
		WithMetricsEnabled(false).
		WithSyncWrites(true).
		WithLogger(quiet{log})
	o.TableSizeMultiplier = 1
	return o
}

func openStore(dir string, memory int64, log zerolog.Logger) (s *store, err error) {
	defer func() {
		if r := recover(); r != nil { // Badger panics on some broken tables
			err = fmt.Errorf("%w: %v", ErrDamaged, r)
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := guardOpen(dir); err != nil {
		return nil, err
	}
	db, err := badger.OpenManaged(badgerOptions(dir, memory, log))
	if err != nil {
		return nil, errors.Join(classify(err), opened(dir))
	}
	s = &store{dir: dir, log: log, db: db, reads: db.NewTransactionAt(latest, false), version: db.MaxVersion()}
	if err := errors.Join(s.begin(), opened(dir)); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// classify tells damage from trouble around the index. Badger flattens its errors into text.
func classify(err error) error {
	for _, around := range []string{"Cannot acquire directory lock", "no space left", "permission denied", "read-only file system", "too many open files", "cannot allocate memory"} {
		if strings.Contains(err.Error(), around) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// begin reads the format and the checkpoint, or writes them into a new database.
func (s *store) begin() error {
	var version, checkpoint []byte
	err := s.db.View(func(tx *badger.Txn) (err error) {
		if version, err = value(tx, keyFormat); err != nil {
			return err
		}
		checkpoint, err = value(tx, keyCheckpoint)
		return err
	})
	switch {
	case err != nil:
		return classify(err)
	case version == nil && checkpoint == nil:
		s.known.init(newFilter(0), 0)
		return s.put(nil, nil, place.Place{}, nil)
	case len(version) != 1 || version[0] != format:
		return fmt.Errorf("%w: format %x, this version knows %d", ErrDamaged, version, format)
	}
	if s.checkpoint, err = place.Decode(checkpoint); err != nil {
		return fmt.Errorf("%w: checkpoint: %w", ErrDamaged, err)
	}
	if f := loadFilter(s.dir, s.version); f != nil {
		s.known.init(f, 0)
	} else {
		s.known.init(nil, s.ids())
	}
	return nil
}

// value returns nil where key is not there.
func value(tx *badger.Txn, key []byte) ([]byte, error) {
	item, err := tx.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return item.ValueCopy(nil)
}

func (s *store) get(id event.ID) (p place.Place, ok bool, err error) {
	if !s.known.perhaps(&id) {
		return p, false, nil
	}
	ok, err = s.read(markOf(spaceIDs, event.PubKey(id)), func(b []byte) (err error) {
		p, err = place.Decode(b)
		return err
	})
	return p, ok, err
}

// fact reads one fact. A value that cannot be read is none: that fails towards sending.
func (s *store) fact(k key) (f fact, ok bool, err error) {
	readable := false
	ok, err = s.read(k, func(b []byte) error {
		f, readable = decodeFact(k[0], b)
		return nil
	})
	return f, ok && readable, err
}

// read hands the value under k to fn; false: there is none.
func (s *store) read(k key, fn func([]byte) error) (ok bool, err error) {
	defer s.recovered(&err)
	item, err := s.reads.Get(k[:])
	if errors.Is(err, badger.ErrKeyNotFound) {
		return false, nil
	}
	if err == nil {
		err = item.Value(fn)
	}
	if err != nil {
		return false, s.broken(err)
	}
	return true, nil
}

const factSize = place.Size + 8 // without an id

func (f fact) append(dst []byte, space byte) []byte {
	dst = binary.BigEndian.AppendUint64(f.at.Append(dst), uint64(f.created))
	if space == spaceNewest {
		dst = append(dst, f.id[:]...)
	}
	return dst
}

func decodeFact(space byte, b []byte) (f fact, ok bool) {
	size := factSize
	if space == spaceNewest {
		size += len(f.id)
	}
	if len(b) != size {
		return f, false
	}
	at, err := place.Decode(b)
	f = fact{at: at, created: int64(binary.BigEndian.Uint64(b[place.Size:]))}
	copy(f.id[:], b[factSize:])
	return f, err == nil
}

func (s *store) verify() (err error) {
	defer s.recovered(&err)
	if err := s.db.VerifyChecksum(); err != nil {
		return s.broken(err)
	}
	return nil
}

// recovered turns a panic of Badger's over a broken block into damage.
func (s *store) recovered(err *error) {
	if r := recover(); r != nil {
		*err = s.broken(fmt.Errorf("badger panicked: %v", r))
	}
}

// broken remembers that a read met damage, so that the next Open asks for a rebuild.
func (s *store) broken(err error) error {
	err = classify(err)
	if errors.Is(err, ErrDamaged) {
		return errors.Join(err, markDamaged(s.dir, err))
	}
	return err
}

// put writes ids, facts and the checkpoint in one transaction, synced. A fact takes the place of one that it is over, or
// that does not count because its place is not trusted.
func (s *store) put(batch []entry, says []said, checkpoint place.Place, trusted func(place.Place) bool) (err error) {
	defer s.recovered(&err)
	s.known.put.Lock()
	defer s.known.put.Unlock()
	s.known.addLocked(batch)
	tx := s.db.NewTransactionAt(latest, true)
	defer tx.Discard()
	const keySize = 1 + len(event.ID{})
	block := make([]byte, 0, len(batch)*(keySize+place.Size)) // Badger keeps keys and values until the commit
	for _, e := range batch {
		at := len(block)
		block = append(block, spaceIDs)
		block = append(block, e.id[:]...)
		block = e.at.Append(block)
		if err := tx.Set(block[at:at+keySize:at+keySize], block[at+keySize:]); err != nil {
			return err
		}
	}
	for i := range says {
		if err := s.putFact(tx, &says[i], trusted); err != nil {
			return err
		}
	}
	if err := tx.Set(keyFormat, []byte{format}); err != nil {
		return err
	}
	if err := tx.Set(keyCheckpoint, checkpoint.Append(nil)); err != nil {
		return err
	}
	s.version++
	s.unsure = true
	if err := tx.CommitAt(s.version, nil); err != nil {
		return err
	}
	s.unsure = false
	s.db.SetDiscardTs(s.version) // compaction keeps no older version of a key: nobody reads one
	return nil
}

func (s *store) putFact(tx *badger.Txn, f *said, trusted func(place.Place) bool) error {
	k := bytes.Clone(f.key[:]) // Badger keeps it until the commit
	item, err := tx.Get(k)
	if err == nil {
		var old fact
		readable := false
		err = item.Value(func(b []byte) error {
			old, readable = decodeFact(k[0], b)
			return nil
		})
		if err == nil && readable && trusted(old.at) && !f.over(old) {
			return nil
		}
	}
	if err != nil && !errors.Is(err, badger.ErrKeyNotFound) {
		return s.broken(err)
	}
	return tx.Set(k, f.append(nil, k[0]))
}

// close keeps the filter for the next start, which can do without.
func (s *store) close() error {
	if f := s.known.filter.Load(); f != nil && !s.unsure {
		if err := f.save(s.dir, s.version); err != nil {
			s.log.Debug().Err(err).Msg("the next start has to read the ids of the index")
		}
	}
	return s.db.Close()
}

// Destroy removes the index in dir, which nobody may have open. It is gone as a whole, also when this is interrupted.
func Destroy(dir string) error {
	old := filepath.Clean(dir) + ".old"
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("destroy index: %w", err)
	}
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("destroy index: %w", err)
	}
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("destroy index: %w", err)
	}
	return nil
}

// quiet passes on what Badger has to complain about; the rest is for debugging.
type quiet struct{ log zerolog.Logger }

func (q quiet) Errorf(f string, v ...any)   { q.log.Error().Msg(line(f, v)) }
func (q quiet) Warningf(f string, v ...any) { q.log.Warn().Msg(line(f, v)) }
func (q quiet) Infof(f string, v ...any)    { q.log.Trace().Msg(line(f, v)) }
func (q quiet) Debugf(f string, v ...any)   { q.log.Trace().Msg(line(f, v)) }

func line(f string, v []any) string { return "badger: " + strings.TrimSpace(fmt.Sprintf(f, v...)) }
