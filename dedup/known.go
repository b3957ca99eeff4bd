package dedup

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/badger/v4"

	"rebroadcastr/event"
)

// knownIDs keeps the filter in front of Badger. A new index has one from the start, one that was closed has what its close
// has kept. After any other end all ids must be read for it, which takes as long as a tenth of them takes to be looked for in
// vain: so that is done once a part of that was, beside everything else.
type knownIDs struct {
	filter atomic.Pointer[filter] // whole: it has every id in Badger, and those of a put before they are committed
	asked  atomic.Uint64          // lookups without a filter
	due    uint64                 // so many are worth one
	wanted chan struct{}          // a token: they were
	put    sync.Mutex             // held from a batch's way into the filters until it is committed
	young  *filter                // not whole yet; put's
}

const (
	askedPerID = 16 // a filter is wanted after one lookup in vain for so many ids
	minAsked   = 4096
	fillStep   = 1000 // ids
)

func (k *knownIDs) init(f *filter, ids uint64) {
	k.wanted = make(chan struct{}, 1)
	k.due = max(ids/askedPerID, minAsked)
	if f != nil {
		k.filter.Store(f)
	}
}

// perhaps is false for an id that is not in Badger.
func (k *knownIDs) perhaps(id *event.ID) bool {
	if f := k.filter.Load(); f != nil {
		return f.has(id)
	}
	if k.asked.Add(1) == k.due {
		k.wanted <- struct{}{} // once: there is room
	}
	return true
}

// addLocked comes before the commit: who finds nothing in the filter does not ask Badger.
func (k *knownIDs) addLocked(batch []entry) {
	f := k.filter.Load()
	if f == nil {
		f = k.young
	}
	if f != nil {
		f.add(batch)
	}
}

// fill reads all ids into a filter once that is wanted. It returns when that is done, or when ctx ends.
func (s *store) fill(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("read the ids of the index: panic: %v\n%s", p, debug.Stack())
		}
	}()
	select {
	case <-s.known.wanted:
	case <-ctx.Done():
		return nil
	}
	// An iterator leaves out what it cannot read, and says nothing.
	if err := s.verify(); err != nil {
		return fmt.Errorf("read the ids of the index: %w", err)
	}
	young := newFilter(s.ids())
	s.known.put.Lock()
	s.known.young = young
	tx := s.db.NewTransactionAt(latest, false)
	defer tx.Discard()
	it := tx.NewIterator(badger.IteratorOptions{Prefix: []byte{spaceIDs}}) // has what was committed; what comes now is added by put
	s.known.put.Unlock()
	defer it.Close()
	batch := make([]entry, 0, fillStep)
	for it.Rewind(); it.Valid(); it.Next() {
		var e entry
		copy(e.id[:], it.Item().Key()[1:])
		if batch = append(batch, e); len(batch) == cap(batch) {
			if ctx.Err() != nil {
				return nil
			}
			young.add(batch)
			batch = batch[:0]
		}
	}
	young.add(batch)
	s.known.put.Lock()
	s.known.filter.Store(young)
	s.known.put.Unlock()
	return nil
}

// ids is about how many keys are in Badger's tables.
func (s *store) ids() (n uint64) {
	for _, t := range s.db.Tables() {
		n += uint64(t.KeyCount)
	}
	return n
}
