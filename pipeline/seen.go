package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"rebroadcastr/archive"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/reconcile"
)

const (
	// maxSets of ids are kept for the next relay, or the next time: 40 bytes of disk an event, and up to 8 descriptors each.
	maxSets = 16
	// atOnce reconciliations are under way, over all relays: each holds up to 6 MiB.
	atOnce = 8
	// breathe is after how many events a reading of the archive looks whether it is still wanted; the free space is measured after
	// 64 times as many.
	breathe = 1024
	// setRoom in bytes must be free beyond archive.min_free for a set to grow, and once more what it holds: its files are merged
	// into new ones.
	setRoom, idRoom = 16 << 20, 40
)

// known is what tells whether one event is archived.
type known interface {
	Hit(id event.ID) bool
	Place(id event.ID) (at place.Place, found bool, err error)
}

// seen lists what the archive has ever had, for sources and sinks that reconcile. The first question with a filter reads the whole
// archive; what is found is kept on disk, without a name, and brought up to date by the next question: every relay that is
// asked for the same shares it. Nothing is done for it while events come in.
type seen struct {
	archive *archive.Archive
	index   known
	dir     string
	places  chan struct{} // a token for each reconciliation under way
	turn    chan struct{} // holds a token: who has it may read the archive, and use what is below

	sets   map[[16]byte]*idSet // by bare filter
	asked  int
	closed bool
}

// idSet is the ids of one filter.
type idSet struct {
	ids   *reconcile.Set
	want  *event.Matcher
	next  place.Place  // to be read
	held  int64        // ids, with repetitions
	users atomic.Int32 // who has the turn adds, anybody takes off
	last  int          // when it was asked for
}

func newSeen(a *archive.Archive, index known, dir string) *seen {
	return &seen{archive: a, index: index, dir: dir, places: make(chan struct{}, atOnce), turn: make(chan struct{}, 1), sets: make(map[[16]byte]*idSet)}
}

var errSeenClosed = errors.New("the archive is being closed")

func take(ctx context.Context, tokens chan<- struct{}) error {
	select {
	case tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Room is part of sources.Seen and sinks.Seen.
func (s *seen) Room(ctx context.Context) (leave func(), err error) {
	if err := take(ctx, s.places); err != nil {
		return nil, err
	}
	return func() { <-s.places }, nil
}

// IDs is part of sources.Seen and sinks.Seen.
func (s *seen) IDs(ctx context.Context, f event.Filter) (ids reconcile.IDs, release func(), err error) {
	f.Since, f.Until = 0, 0
	if err := take(ctx, s.turn); err != nil {
		return nil, nil, err
	}
	defer func() { <-s.turn }()
	if s.closed {
		return nil, nil, errSeenClosed
	}
	key := f.Key()
	set := s.sets[key]
	if set == nil {
		set = &idSet{ids: reconcile.NewSet(s.dir), want: event.Selection{All: [][]event.Filter{{f}}}.Compile()}
		s.sets[key] = set
	}
	if err := s.read(ctx, set); err != nil {
		if ctx.Err() == nil && !errors.Is(err, reconcile.ErrNoRoom) { // not worth less for being interrupted
			delete(s.sets, key)
			err = errors.Join(err, set.ids.Close())
		}
		return nil, nil, fmt.Errorf("list the ids of %s: %w", f, err)
	}
	s.asked++
	set.last = s.asked
	set.users.Add(1)
	if err := s.makeRoom(); err != nil {
		set.users.Add(-1)
		return nil, nil, err
	}
	return set.ids, func() { set.users.Add(-1) }, nil
}

// read brings set up to the written end.
func (s *seen) read(ctx context.Context, set *idSet) (err error) {
	r := s.archive.Reader(set.next)
	defer func() { err = errors.Join(err, r.Close()) }()
	for n := 0; ; n++ {
		if n%breathe == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n%(64*breathe) == 0 {
			switch spare, err := s.archive.Spare(); {
			case err != nil:
				return err
			case spare < setRoom+set.held*idRoom:
				return reconcile.ErrNoRoom
			}
		}
		rec, ok, err := r.TryNext()
		if err != nil {
			return err
		}
		if !ok {
			return set.ids.Flush()
		}
		if set.want.Match(&rec.Event) {
			if err := set.ids.Add(reconcile.Item{CreatedAt: rec.Event.CreatedAt, ID: rec.Event.ID}); err != nil {
				return err
			}
			set.held++
		}
		set.next = rec.End
	}
}

// makeRoom closes the set that nobody uses for the longest time, while there are more than maxSets.
func (s *seen) makeRoom() error {
	for len(s.sets) > maxSets {
		var oldest [16]byte
		var found *idSet
		for key, set := range s.sets {
			if set.users.Load() == 0 && (found == nil || set.last < found.last) {
				oldest, found = key, set
			}
		}
		if found == nil {
			return nil
		}
		delete(s.sets, oldest)
		if err := found.ids.Close(); err != nil {
			return fmt.Errorf("close a set of ids: %w", err)
		}
	}
	return nil
}

// Place is part of sinks.Seen.
func (s *seen) Place(id event.ID) (at place.Place, found bool, err error) { return s.index.Place(id) }

// Known is part of sources.Seen.
func (s *seen) Known(id event.ID) (bool, error) {
	if s.index.Hit(id) { // it was archived a moment ago; the other question walks what is not in Badger yet
		return true, nil
	}
	_, found, err := s.index.Place(id)
	return found, err
}

// close gives the disk back. Nobody may use a set any more.
func (s *seen) close() error {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.closed = true
	var errs []error
	for key, set := range s.sets {
		errs = append(errs, set.ids.Close())
		delete(s.sets, key)
	}
	return errors.Join(errs...)
}
