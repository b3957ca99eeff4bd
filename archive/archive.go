package archive

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/state"
)

// Observer is told what became of the events that were handed over, in order, from the archive's own goroutines. It
// is the index.
type Observer interface {
	// Room waits until n more entries fit into what the index keeps in memory. Its error is ctx's.
	Room(ctx context.Context, n int) error
	// Written says that the lines are in the log and can be read. The slice is only valid during the call, the
	// records' events stay as they are.
	Written(rs []record.Record)
	// Synced says that everything before end is durable. It must not wait for the disk.
	Synced(end place.Place)
	// Moved gives new places to lines that were Written before, were withdrawn after an error of the disk, and are
	// now in the log again, durably.
	Moved(rs []record.Record)
}

// Options of an archive. The zero values of the sizes and of Mode are their defaults.
type Options struct {
	Dir          string           // exists; whoever opens it holds its Lock
	FS           FS               // nil: OS
	State        *state.DB        // bucket "archive": the synced mark, the numbers, the segments' summaries
	Now          func() time.Time // nil: time.Now
	Sync         time.Duration    // archive.sync; 0: always, before anyone is told of a line
	SegmentBytes int64            // archive.segment; 0: 256 MiB
	MinFree      int64            // archive.min_free in bytes; 0: see Room
	Mode         fs.FileMode      // of new files; 0: 0640
	Log          zerolog.Logger
	// Progress is called while Open checks what was not known to be durable, with bytes. It may be nil.
	Progress func(done, total int64)
}

// ErrClosed answers an Append or a Barrier after Drain or after Run has ended.
var ErrClosed = errors.New("archive is closed")

// Archive is the log of all events: the one writer, and the readers of the same process.
type Archive struct{ o Options }

// Status is what the archive tells about itself.
type Status struct {
	Dir          string
	Segments     int
	Bytes        int64  // of text, uncompressed where known
	Events       uint64 // lines, blank ones included
	Free         int64  // bytes left on the filesystem
	MinFree      int64
	Waiting      string // why nothing is appended now; empty: it is
	WaitingSince time.Time
	LastSync     time.Time
	Unsynced     int // events written and not yet durable
	Queued       int // events handed over and not yet written
}

// Open mends what a crash left behind and makes the archive ready to be read and, by Run, to be written.
func Open(o Options) (*Archive, error) { return &Archive{o: o}, nil }

// RaiseFloor says what the index and the ledgers know: the next segment's number is above p's, the next ordinal is
// not below ordinal. It is called before Run and Bound.
func (a *Archive) RaiseFloor(p place.Place, ordinal uint64) {}

// SetObserver sets who is told. It is called before Run.
func (a *Archive) SetObserver(ob Observer) {}

// Replay hands every record from from on to fn, in batches, up to the end of what is written. The zero place means
// all of it. Damaged lines are passed over. A batch is only valid during the call, its events stay as they are.
func (a *Archive) Replay(ctx context.Context, from place.Place, fn func([]record.Record) error) error {
	return nil
}

// Bound reports of a place that the index remembers whether a line is there: below its segment's end as known at
// start, or in a segment that this process made.
func (a *Archive) Bound() func(p place.Place) bool { return func(place.Place) bool { return true } }

// Run appends and syncs until Drain was called and everything handed over is durable, or until ctx ends: then it
// writes what is queued if that goes without waiting, syncs once and returns.
func (a *Archive) Run(ctx context.Context) error { return nil }

// Append hands over e, whose Line must not change any more, and waits while the queue is full. nil means that it will
// be written, unless the process ends first.
func (a *Archive) Append(ctx context.Context, e event.Event, o record.Origin) error { return nil }

// Barrier returns a channel that gets nil once everything appended before is durable, or an error if the archive ends
// before that. It holds one answer, so nobody has to be listening.
func (a *Archive) Barrier(ctx context.Context) (<-chan error, error) { return nil, nil }

// Drain says that no more Append will come: Run writes and syncs what is there and returns.
func (a *Archive) Drain() {}

// End is the end of what is written and the ordinal that the next line gets.
func (a *Archive) End() (place.Place, uint64) { return place.Place{}, 0 }

// Reader returns a reader of the lines from from on, blank and damaged ones left out.
func (a *Archive) Reader(from place.Place) *Reader { return &Reader{} }

// Low reports whether the filesystem has less than min_free: nothing that writes may write.
func (a *Archive) Low() bool { return false }

// Status may be asked from any goroutine.
func (a *Archive) Status() Status { return Status{} }

// Close releases files. Run has returned before and no Reader is used after.
func (a *Archive) Close() error { return nil }

// Reader follows the archive from a place on. One goroutine uses it; many Readers share the archive's descriptors.
type Reader struct{}

// Next returns the next record, and waits at the written end for one to come. The error is ctx's, ErrClosed once the
// reader is closed, or the filesystem's; after the latter Next may be called again.
func (r *Reader) Next(ctx context.Context) (record.Record, error) { return record.Record{}, ErrClosed }

// TryNext is Next without waiting: false at the written end.
func (r *Reader) TryNext() (record.Record, bool, error) { return record.Record{}, false, ErrClosed }

// Close ends the reader.
func (r *Reader) Close() error { return nil }

// ScanOptions of Scan.
type ScanOptions struct {
	FS   FS          // nil: OS
	From place.Place // the zero place: everything
}

// Scan gives the records of the archive in dir, in order, without a lock and beside a running writer. A line that
// cannot be read is given as a *Damage and the scan goes on; any other error ends it.
func Scan(ctx context.Context, dir string, o ScanOptions) iter.Seq2[record.Record, error] {
	return func(func(record.Record, error) bool) {}
}
