package state

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrInUse is the answer of Read while another process writes to the state.
var ErrInUse = errors.New("another process writes to it")

// looking bounds Read's wait for a writer to close the file.
const looking = 200 * time.Millisecond

// Read opens the state at path to look at it: nothing is made, mended or moved aside, and Update fails. A writer that starts
// waits for Close, for a few seconds: keep it short. The error is fs.ErrNotExist where there is none, and ErrInUse.
func Read(path string) (*DB, error) {
	db, err := openBolt(path, bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: looking})
	if err == nil {
		if err = check(db); err != nil {
			err = errors.Join(err, db.Close())
		}
	}
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("read state %s: %w", path, err)
	}
	return newDB(db), nil
}
