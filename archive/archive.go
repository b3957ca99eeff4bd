package archive

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/record"
	"rebroadcastr/state"
)

// Observer is told what became of the events that were handed over. It is the index. Room, Written and Moved come
// from one goroutine, in the order of the log. Synced comes from another, after Written of all that it speaks of; it
// and Moved never run at once.
type Observer interface {
	// Room waits until n more entries fit into what the index keeps in memory, which Synced makes it write. Its error is
	// ctx's, which does not matter where there is room.
	Room(ctx context.Context, n int) error
	// Written says that the lines are in the log. It returns before a Reader gives them: whoever has read a line can
	// rely on what it says of others. The slice is only valid during the call, the records' events stay as they are.
	Written(rs []record.Record)
	// Synced says that everything before end is durable. It must not wait for the disk. It is held back while the
	// filesystem has less than min_free, because the index must not write then.
	Synced(end place.Place)
	// Moved gives new places to lines that were Written before, were withdrawn after an error of the disk, and are
	// now in the log again, durably. It too returns before a Reader gives them.
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
	Ring         int64            // bytes of the newest events kept in memory for readers; 0: 4 MiB, below 0: none
	Log          zerolog.Logger
	// Progress is called while Open checks what was not known to be durable, with bytes. It may be nil.
	Progress func(done, total int64)
}

// The defaults of Options.
const (
	defaultSegment = 256 << 20
	defaultMode    = 0o640
	defaultRing    = 4 << 20 // some 3,000 events of the usual size
)

// ErrClosed answers an Append or a Barrier after Drain or after Run has ended.
var ErrClosed = errors.New("archive is closed")

// Archive is the log of all events: the one writer, and the readers of the same process.
type Archive struct {
	o     Options
	shelf *shelf
	pool  *pool
	queue *queue
	ob    Observer
	live  live

	// The rest is the appender's, before Run the opener's.
	seg      *segmentFile // nil: the next append makes one
	number   uint32       // of the next segment
	date     string       // of the newest segment: the next one's is not earlier
	items    []item
	barriers []chan<- error
	recs     []record.Record

	reserved atomic.Uint64 // see mark
	tail     tail
	room     room
	warns    warnings
}

// Status is what the archive tells about itself.
type Status struct {
	Dir          string
	Segments     int
	Bytes        int64  // of text, uncompressed
	Events       uint64 // lines that hold one
	Free         int64  // bytes left on the filesystem, as last seen
	MinFree      int64
	Waiting      string // why nothing is appended now; empty: it is
	WaitingSince time.Time
	LastSync     time.Time // zero: not yet
	Unsynced     int       // events written and not yet durable
	Queued       int       // events and barriers handed over and not yet taken
	Withdrawn    int       // how often lines were taken back after an error of the disk
}

// Open mends what a crash left behind and makes the archive ready to be read and, by Run, to be written.
func Open(o Options) (*Archive, error) {
	if o.FS == nil {
		o.FS = OS{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegment
	}
	if o.Mode == 0 {
		o.Mode = defaultMode
	}
	if o.Ring == 0 {
		o.Ring = defaultRing
	}
	a := &Archive{
		o:     o,
		shelf: &shelf{ring: ring{most: o.Ring}},
		pool:  newPool(o.FS, o.Dir),
		queue: newQueue(),
		ob:    nobody{},
	}
	a.tail.init()
	a.Change(o.Sync, o.MinFree, o.Mode)
	if err := a.recover(); err != nil {
		return nil, errors.Join(err, a.pool.close())
	}
	a.look()
	return a, nil
}

// live is what may change while the archive is open.
type live struct {
	sync    atomic.Int64 // ns
	minFree atomic.Int64
	mode    atomic.Uint32
}

// Change sets archive.sync, archive.min_free and archive.mode (of segments to come; 0: the default) while the archive is
// open. To or from 0, which is "always", sync does not change: the log is written in another order then.
func (a *Archive) Change(sync time.Duration, minFree int64, mode fs.FileMode) {
	if mode == 0 {
		mode = defaultMode
	}
	if (sync == 0) == (a.o.Sync == 0) {
		a.live.sync.Store(int64(sync))
	}
	a.live.minFree.Store(minFree)
	a.live.mode.Store(uint32(mode))
}

// RaiseFloor says what the index and the ledgers know: the next segment's number is above p's, the next ordinal is
// not below ordinal. It is called before Run and Bound.
func (a *Archive) RaiseFloor(p place.Place, ordinal uint64) {
	if !p.IsZero() && p.Segment() >= a.number {
		a.number = p.Segment() + 1
	}
	a.shelf.mu.Lock()
	defer a.shelf.mu.Unlock()
	a.shelf.next = max(a.shelf.next, ordinal)
}

// SetObserver sets who is told. It is called before Run.
func (a *Archive) SetObserver(ob Observer) { a.ob = ob }

// nobody is the observer of an archive without an index.
type nobody struct{}

func (nobody) Room(ctx context.Context, _ int) error { return nil }
func (nobody) Written([]record.Record)               {}
func (nobody) Synced(place.Place)                    {}
func (nobody) Moved([]record.Record)                 {}

// Replay hands every record from from on to fn, in batches, up to the end of what is written. The zero place means
// all of it. Damaged lines are passed over. A batch is only valid during the call, its events stay as they are.
func (a *Archive) Replay(ctx context.Context, from place.Place, fn func([]record.Record) error) error {
	r := a.Reader(from)
	defer r.Close()
	batch := make([]record.Record, 0, 4*maxGroup)
	size := 0
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, ok, err := r.TryNext()
		if err != nil {
			return err
		}
		if ok {
			batch = append(batch, rec)
			size += len(rec.Event.Line)
		}
		if len(batch) == cap(batch) || size >= maxGroupBytes || !ok && len(batch) > 0 {
			if err := fn(batch); err != nil {
				return err
			}
			clear(batch)
			batch, size = batch[:0], 0
		}
		if !ok {
			return nil
		}
	}
}

// Bound reports of a place that the index remembers whether a line is there: below its segment's end as known at
// start, or in a segment that this process makes. It is called before Run.
func (a *Archive) Bound() func(p place.Place) bool {
	ends := map[uint32]int64{}
	for _, s := range a.shelf.all() {
		ends[s.number] = s.end
	}
	firstNew := a.number
	return func(p place.Place) bool {
		if p.Segment() >= firstNew {
			return true
		}
		return p.Offset() < math.MaxInt64 && int64(p.Offset()) < ends[p.Segment()]
	}
}

// Append hands over e, whose Line must not change any more, and waits while the queue is full. nil means that it will
// be written, unless the process ends first.
func (a *Archive) Append(ctx context.Context, e event.Event, o record.Origin) error {
	return a.queue.put(ctx, item{event: e, origin: o})
}

// Barrier puts a token behind everything appended before. answer gets nil once all of that is durable, or an error if
// the archive ends before; it must have room for one, so nobody has to be listening.
func (a *Archive) Barrier(ctx context.Context, answer chan<- error) error {
	return a.queue.put(ctx, item{barrier: answer})
}

// Drain says that no more Append will come: Run writes and syncs what is there and returns.
func (a *Archive) Drain() { a.queue.close() }

// End is the end of what is written and the ordinal that the next line gets.
func (a *Archive) End() (place.Place, uint64) { return a.shelf.end() }

// Reader returns a reader of the lines from from on, blank and damaged ones left out.
func (a *Archive) Reader(from place.Place) *Reader {
	r := newReader(a.shelf, a.pool, from)
	r.wait, r.recent = a.shelf.news, a.shelf.recent
	return r
}

// Where tells people where a line is: the file of its segment's text (sealed: with .zst behind it), and its offset there in bytes
// of text. false: there is no such segment.
func (a *Archive) Where(p place.Place) (segment string, offset int64, ok bool) {
	s, _, ok, _ := a.shelf.look(p.Segment(), false) // a shelf's look does not fail
	if !ok || s.number != p.Segment() {
		return "", 0, false
	}
	return s.text(), int64(p.Offset()), true
}

// Low reports whether the filesystem has less than min_free: nothing that writes may write.
func (a *Archive) Low() bool { return a.room.low.Load() }

// Status may be asked from any goroutine.
func (a *Archive) Status() Status {
	st := Status{Dir: a.o.Dir, Queued: a.queue.len()}
	a.shelf.mu.Lock()
	for _, s := range a.shelf.segs {
		st.Segments++
		st.Bytes += s.end
		st.Events += s.held
	}
	st.Withdrawn = a.shelf.moved
	a.shelf.mu.Unlock()
	a.tail.mu.Lock()
	st.Unsynced, st.LastSync = len(a.tail.recs), a.tail.lastSync
	a.tail.mu.Unlock()
	a.room.mu.Lock()
	st.Free, st.MinFree, st.Waiting, st.WaitingSince = a.room.free, a.room.need, a.room.why, a.room.since
	a.room.mu.Unlock()
	return st
}

// Close releases files. Run has returned before and no Reader is used after.
func (a *Archive) Close() error {
	a.queue.close()
	return a.pool.close()
}

// warnings remembers when each steady failure was last logged.
type warnings struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// warn logs a steady failure at most every 30 seconds.
func (a *Archive) warn(what string, err error) {
	w, now := &a.warns, a.o.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, ok := w.last[what]; ok && now.Sub(last) < 30*time.Second && !now.Before(last) {
		return
	}
	if w.last == nil {
		w.last = map[string]time.Time{}
	}
	w.last[what] = now
	a.o.Log.Error().Err(err).Msg(what)
}

// tail is what is written and not yet durable, in the order of the log and all of one segment. The appender adds to
// it, the syncer takes from it.
type tail struct {
	mu       sync.Mutex
	seg      *segmentFile
	recs     []record.Record
	bytes    int64
	end      place.Place // of recs
	syncedTo int64       // length of seg's text that is durable
	synced   uint64      // lines of seg that are
	barriers []chan<- error
	busy     bool        // the syncer is at it
	stopped  bool        // the syncer leaves it alone
	failed   error       // an fsync's; the syncer leaves it alone until the appender has mended it
	dead     bool        // the syncer has ended by a panic: failed cannot be mended
	mark     place.Place // everything before is durable
	markHeld uint64      // events in mark's segment before it
	number   uint32      // of the next segment, as the mark has it
	lastSync time.Time
	held     place.Place // the end that the observer is to be told when there is room; zero: none

	armed   chan struct{} // a token: there is something in it
	kick    chan struct{} // a token: sync now
	markDue chan struct{} // a token: save a mark now
	news    chan struct{} // a token for the appender: the syncer has finished something
}

func (t *tail) init() {
	for _, c := range []*chan struct{}{&t.armed, &t.kick, &t.markDue, &t.news} {
		*c = make(chan struct{}, 1)
	}
}
