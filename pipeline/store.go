package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/rs/zerolog"

	"rebroadcastr/archive"
	"rebroadcastr/config"
	"rebroadcastr/dedup"
	"rebroadcastr/place"
	"rebroadcastr/reconcile"
	"rebroadcastr/record"
	"rebroadcastr/sinks"
	"rebroadcastr/state"
)

// Store is everything on disk, opened by its one writer: the lock is held already.
type Store struct {
	State   *state.DB
	Archive *archive.Archive
	Index   *dedup.Index

	indexed int // lines that the index lacked at open
}

// indexDir is where Badger lives below the archive's directory; it can be removed at any time that nothing runs.
const indexDir = "index"

// progressEvery is how often a long start says how far it is.
const progressEvery = 2 * time.Second

// OpenStore opens state, index and archive, mends what a crash left, and brings the index up to the log before the
// first event is accepted. say gets a line now and then while that takes long.
//
// The order matters: the archive never reuses a number that the index knows, so the index is opened before it; and
// a Badger hit counts only below the end that the archive finds, so it is trusted after. fsys is where the segments live.
func OpenStore(ctx context.Context, fsys archive.FS, cfg *config.Config, log zerolog.Logger, now func() time.Time, say func(string)) (*Store, error) {
	dir := cfg.Archive.Dir
	if err := reconcile.Sweep(dir); err != nil { // costs a little room
		log.Warn().Err(err).Msg("what a killed process left stays there")
	}
	db, err := state.Open(filepath.Join(dir, "state.db"), log)
	if err != nil {
		return nil, err
	}
	s := &Store{State: db}
	if err := s.open(ctx, fsys, cfg, log, now, say); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, fsys archive.FS, cfg *config.Config, log zerolog.Logger, now func() time.Time, say func(string)) (err error) {
	dir := filepath.Join(cfg.Archive.Dir, indexDir)
	options := dedup.Options{Dir: dir, LRU: cfg.Dedup.LRU, Shards: runtime.GOMAXPROCS(0), Memory: cfg.Dedup.Memory, Log: log,
		Writable: func() bool { return s.Archive == nil || !s.Archive.Low() }}
	s.Index, err = dedup.Open(options)
	if errors.Is(err, dedup.ErrDamaged) {
		log.Warn().Err(err).Str("dir", dir).Msg("the index is damaged: making it anew from the archive")
		if err := dedup.Destroy(dir); err != nil {
			return err
		}
		s.Index, err = dedup.Open(options)
	}
	if err != nil {
		return err
	}
	s.Archive, err = archive.Open(archive.Options{
		Dir: cfg.Archive.Dir, FS: fsys, State: s.State, Now: now, Sync: cfg.Archive.Sync, SegmentBytes: cfg.Archive.Segment,
		MinFree: cfg.Archive.MinFree, Mode: cfg.Archive.Mode, Log: log,
		Progress: func(done, total int64) {
			say(fmt.Sprintf("checking the archive's tail: %s of %s", humanize.IBytes(uint64(done)), humanize.IBytes(uint64(total))))
		},
	})
	if err != nil {
		return err
	}
	// Neither a number nor an ordinal that the index or a ledger has seen may come again.
	floor, ordinal, err := sinks.Highest(s.State)
	if err != nil {
		return err
	}
	if c := s.Index.Checkpoint(); floor.Before(c) {
		floor = c
	}
	s.Archive.RaiseFloor(floor, ordinal)
	s.Archive.SetObserver(s.Index)
	s.Index.Trust(s.Archive.Bound())
	s.indexed, err = s.replay(ctx, s.Index.Checkpoint(), say)
	return err
}

// Reindex makes the index anew from the archive and returns the number of events in it. The lock is held already. A
// Reindex that is cut off is finished by the next start: the checkpoint says how far it came.
func Reindex(ctx context.Context, fsys archive.FS, cfg *config.Config, log zerolog.Logger, now func() time.Time, say func(string)) (n int, err error) {
	if err := dedup.Destroy(filepath.Join(cfg.Archive.Dir, indexDir)); err != nil {
		return 0, err
	}
	s, err := OpenStore(ctx, fsys, cfg, log, now, say)
	if err != nil {
		return 0, err
	}
	return s.indexed, s.Close()
}

// replay puts what the log has beyond from into the index.
func (s *Store) replay(ctx context.Context, from place.Place, say func(string)) (done int, err error) {
	next := time.Now().Add(progressEvery)
	err = s.Archive.Replay(ctx, from, func(rs []record.Record) error {
		done += len(rs)
		if time.Now().After(next) {
			next = time.Now().Add(progressEvery)
			say(fmt.Sprintf("indexing the archive: %d events so far", done))
		}
		return s.Index.Replay(rs)
	})
	if err != nil {
		return done, fmt.Errorf("bring the index up to the archive: %w", err)
	}
	return done, nil
}

// Close closes what is open, the index first: its last batches must not outlive the log they speak of.
func (s *Store) Close() error {
	var errs []error
	if s.Index != nil {
		if s.Archive != nil && s.Archive.Status().Waiting != "" {
			// Badger's Close flushes through mmap and dies on a full disk; SyncWrites has kept what it was given.
			s.Index.Abandon()
		} else {
			errs = append(errs, s.Index.Close())
		}
	}
	if s.Archive != nil {
		errs = append(errs, s.Archive.Close())
	}
	errs = append(errs, s.State.Close())
	return errors.Join(errs...)
}
