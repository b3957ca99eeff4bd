package dedup

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/place"
)

// State of an id.
type State uint8

// The three states of an id.
const (
	Absent State = iota
	Pending
	Known
)

func (s State) String() string { return [...]string{"absent", "pending", "known"}[s] }

// DefaultLRU is the number of known ids held in memory: 174 to 221 bytes each in golang-lru, 20 MiB in all.
const DefaultLRU = 100_000

// Options of an Index.
type Options struct {
	Dir    string
	LRU    int   // entries over all shards; 0: DefaultLRU
	Shards int   // 0: one per core
	Memory int64 // bytes for Badger; 0: DefaultMemory
	// Writable is asked before each batch; while it says no (below archive.min_free, where Badger's mapped files
	// would die by SIGBUS) nothing is written and the overlay fills up. nil: always.
	Writable func() bool
	Log      zerolog.Logger
}

// Index holds the state of every id. Hit, Status and Checkpoint are safe from any goroutine; Lookup and Begin belong
// to the shard that owns the id; Written, Synced, Moved and Room to the archive.
type Index struct {
	log      zerolog.Logger
	store    *store
	recent   recent
	shards   []shard
	trust    func(place.Place) bool
	writable func() bool
	from     atomic.Pointer[place.Place] // first place written by this process; everything from here on is trusted

	overlay
}

type shard struct {
	mu  sync.Mutex
	way map[event.ID]State // Pending, or Known while in the overlay
}

// Open opens or creates the index in o.Dir. It starts no goroutine of ours (Badger starts its own). An error that
// wraps ErrDamaged means: Destroy it, Open again and Replay the whole log.
func Open(o Options) (*Index, error) {
	if o.Shards <= 0 {
		o.Shards = runtime.GOMAXPROCS(0)
	}
	if o.LRU <= 0 {
		o.LRU = DefaultLRU
	}
	if o.Writable == nil {
		o.Writable = func() bool { return true }
	}
	x := &Index{log: o.Log, shards: make([]shard, o.Shards), writable: o.Writable}
	if err := x.recent.init(o.LRU); err != nil {
		return nil, err
	}
	st, err := openStore(o.Dir, o.Memory, o.Log)
	if err != nil {
		return nil, fmt.Errorf("open index %s: %w", o.Dir, err)
	}
	x.store = st
	x.overlay.init(st.checkpoint)
	for i := range x.shards {
		x.shards[i].way = make(map[event.ID]State)
	}
	return x, nil
}

// Shards is the number of shards.
func (x *Index) Shards() int { return len(x.shards) }

// Shard is the number of the shard that owns id. It takes the id's last bytes: its first are zeros under NIP-13.
func (x *Index) Shard(id event.ID) int {
	return int(binary.LittleEndian.Uint64(id[24:]) % uint64(len(x.shards)))
}

// Hit reports whether id is in the LRU, that is known. It allocates nothing and may be called from any goroutine. A
// miss says nothing.
func (x *Index) Hit(id event.ID) bool { return x.recent.has(id) }

// Lookup tells the state of id. Only the owning shard may act on Absent: nobody else can then make it pending.
func (x *Index) Lookup(id event.ID) (State, error) {
	sh := &x.shards[x.Shard(id)]
	if x.Hit(id) {
		return Known, nil
	}
	sh.mu.Lock()
	state := sh.way[id]
	sh.mu.Unlock()
	switch state {
	case Pending:
		return Pending, nil
	case Known:
		x.recent.add(id)
		return Known, nil
	}
	// Gone from the overlay means: committed to Badger before, so this read sees it.
	p, ok, err := x.store.get(id)
	if err != nil {
		return Absent, fmt.Errorf("look up %s: %w", id, err)
	}
	if !ok || !x.trusted(p) {
		return Absent, nil
	}
	x.recent.add(id)
	return Known, nil
}

// Begin makes an absent id pending: it is about to be handed to the archive, which never gives up.
func (x *Index) Begin(id event.ID) {
	sh := &x.shards[x.Shard(id)]
	sh.mu.Lock()
	sh.way[id] = Pending
	sh.mu.Unlock()
}

// Trust sets what a place in Badger is worth: a hit counts only if fn says so, or if this process wrote it. It must
// be set before the first Lookup; without it every hit counts.
func (x *Index) Trust(fn func(place.Place) bool) { x.trust = fn }

func (x *Index) trusted(p place.Place) bool {
	if x.trust == nil {
		return true
	}
	// A segment number is never reused, so nothing that was in Badger before lies at or behind this one.
	if from := x.from.Load(); from != nil && !p.Before(*from) {
		return true
	}
	return x.trust(p)
}

// Status of the index.
type Status struct {
	LRU        int // ids in the LRU
	Pending    int // handed to the archive, not answered
	Overlay    int // written, not in Badger yet
	Facts      int // the same events' facts: what they say of others
	Checkpoint place.Place
}

// Status counts. It walks what is on its way (at most the overlay's bound).
func (x *Index) Status() Status {
	s := Status{Checkpoint: x.Checkpoint(), LRU: x.recent.size()}
	x.facts.mu.RLock()
	s.Facts = len(x.facts.held)
	x.facts.mu.RUnlock()
	for i := range x.shards {
		sh := &x.shards[i]
		sh.mu.Lock()
		for _, state := range sh.way {
			if state == Pending {
				s.Pending++
			} else {
				s.Overlay++
			}
		}
		sh.mu.Unlock()
	}
	return s
}

// Verify reads every table against its checksums; an error that wraps ErrDamaged makes the next Open say so too. Badger
// itself takes a damaged block for one without the key, so until a rebuild some known ids look absent, and their events
// are archived a second time: never lost.
func (x *Index) Verify() error {
	if err := x.store.verify(); err != nil {
		return fmt.Errorf("verify index: %w", err)
	}
	return nil
}

// Close closes Badger, which flushes its tables. Run must have ended, and no lookup may follow.
func (x *Index) Close() error {
	if err := x.store.close(); err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// Abandon gives the index up without Badger's flush, which would die on a full filesystem. What was committed is
// synced already. The process must end: Badger's goroutines and its lock stay.
func (x *Index) Abandon() {
	x.log.Warn().Msg("index left without a flush: the filesystem is too full; the next start replays what is missing")
}
