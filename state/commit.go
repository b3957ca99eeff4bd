package state

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"go.etcd.io/bbolt"
)

// commits puts Updates that come while a commit is under way into the next one together. bbolt's own Batch lets each wait 10 ms
// for others, even where there are none: a tenth of a backfill's time.
type commits struct {
	turn chan struct{} // holds one: who has put it in commits

	mu      sync.Mutex
	waiting []*update
}

// update is one call of Update.
type update struct {
	fn   func(tx *Tx) error
	done chan error // holds one
}

// errAlone tells an update that it failed among others, and has to show how it does alone.
var errAlone = errors.New("to be run alone")

// Update runs fn and commits what it changed, together with the Updates that other goroutines have asked for while the commit
// before was under way: one commit for all. fn may be run more than once (when another of the same commit fails) and must set what
// it gives to its caller from the start each time. An error, such as no room on the disk, leaves the state as it was
// and usable.
func (db *DB) Update(fn func(tx *Tx) error) error {
	c := &db.commits
	u := &update{fn: fn, done: make(chan error, 1)}
	c.mu.Lock()
	c.waiting = append(c.waiting, u)
	c.mu.Unlock()
	var err error
	select {
	case err = <-u.done:
	case c.turn <- struct{}{}:
		c.mu.Lock()
		batch := c.waiting // without u, if the one before took it
		c.waiting = nil
		c.mu.Unlock()
		db.commit(batch)
		<-c.turn
		err = <-u.done
	}
	if errors.Is(err, errAlone) {
		return db.bolt.Update(func(tx *bbolt.Tx) error { return fn(&Tx{tx}) })
	}
	return err
}

// commit runs a batch in one transaction. What fails is taken out, and the others run again without it.
func (db *DB) commit(batch []*update) {
	for len(batch) > 0 {
		bad := -1
		err := db.transaction(func(tx *bbolt.Tx) error {
			for i, u := range batch {
				if err := u.guarded(&Tx{tx}); err != nil {
					bad = i
					return err
				}
			}
			return nil
		})
		if bad < 0 {
			for _, u := range batch {
				u.done <- err
			}
			return
		}
		batch[bad].done <- errAlone
		batch = append(batch[:bad], batch[bad+1:]...)
	}
}

// transaction makes a panic of bbolt's own, over a page that it finds damaged as it commits, an error of all who wait for that commit.
func (db *DB) transaction(fn func(tx *bbolt.Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("commit: panic: %v\n%s", p, debug.Stack())
		}
	}()
	return db.bolt.Update(fn)
}

// guarded makes a panic an error: it is its caller's, who runs fn again, and not that of who commits.
func (u *update) guarded(tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return u.fn(tx)
}
