package reconcile

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"

	"rebroadcastr/event"
)

const (
	itemSize = 8 + len(event.ID{})
	// runItems are sorted in memory at once: 5 MiB. 10 million make 77 runs.
	runItems = 1 << 17
	// fewRuns is how many sorted files a set at rest may have, and open at a time; manyRuns how many while it is filled, each read
	// through 32 KiB when they are merged: 4 MiB.
	fewRuns, manyRuns = 8, 128
	runBuffer         = 32 << 10
)

// Set is items on disk, in files without a name: whatever ends the process, they are gone with it. Add and Flush belong to one
// goroutine; Count and List may run beside them and see what was flushed.
type Set struct {
	dir string
	buf []Item
	new []*run // Add's and Flush's, not listed yet

	mu     sync.RWMutex
	runs   []*run
	closed bool
}

// run is a sorted file of items.
type run struct {
	f *os.File
	n int
}

// NewSet makes an empty set whose files are in dir's filesystem: 40 bytes an item, twice that for a moment.
func NewSet(dir string) *Set { return &Set{dir: dir} }

// Add puts an item in. One that is there already is counted twice and listed once.
func (s *Set) Add(it Item) error {
	if it.CreatedAt < 0 || it.CreatedAt >= maxCreatedAt {
		return nil // in no window of ours
	}
	if s.buf == nil {
		s.buf = make([]Item, 0, runItems)
	}
	if s.buf = append(s.buf, it); len(s.buf) < runItems {
		return nil
	}
	return s.spill()
}

// Flush makes what was added visible to Count and List.
func (s *Set) Flush() error {
	if len(s.buf) > 0 {
		if err := s.spill(); err != nil {
			return err
		}
	}
	s.buf = nil
	s.mu.RLock()
	all := slices.Concat(s.runs, s.new)
	s.mu.RUnlock()
	if len(all) > fewRuns {
		one, err := s.merge(all)
		if err != nil {
			return err
		}
		return s.put(one)
	}
	s.new = nil
	s.mu.Lock()
	s.runs = all
	s.mu.Unlock()
	return nil
}

// put makes one the only run.
func (s *Set) put(one *run) error {
	s.mu.Lock()
	old := append(s.runs, s.new...)
	s.runs, s.new = []*run{one}, nil
	s.mu.Unlock()
	return closeAll(old)
}

func (s *Set) spill() error {
	slices.SortFunc(s.buf, Item.Compare)
	w, err := s.create()
	if err != nil {
		return err
	}
	for _, it := range s.buf {
		if err := w.add(it); err != nil {
			return errors.Join(err, w.f.Close())
		}
	}
	r, err := w.end()
	if err != nil {
		return err
	}
	s.buf = s.buf[:0]
	if s.new = append(s.new, r); len(s.new) < manyRuns {
		return nil
	}
	one, err := s.merge(s.new)
	if err != nil {
		return err
	}
	old := s.new
	s.new = []*run{one}
	return closeAll(old)
}

// merge writes what is in runs to one, each item once.
func (s *Set) merge(runs []*run) (*run, error) {
	w, err := s.create()
	if err != nil {
		return nil, err
	}
	err = each(runs, 0, OpenEnd, func(it Item) (bool, error) { return true, w.add(it) })
	if err != nil {
		return nil, errors.Join(err, w.f.Close())
	}
	return w.end()
}

// Count is part of Counter.
func (s *Set) Count(lo, hi int64) (n int, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return 0, fmt.Errorf("count ids: %w", os.ErrClosed)
	}
	for _, r := range s.runs {
		from, to, err := r.between(lo, hi)
		if err != nil {
			return 0, fmt.Errorf("count ids: %w", err)
		}
		n += to - from
	}
	return n, nil
}

// List gives the items from lo to hi, both inclusive, in order and each once; ErrTooMany if they are more than MostItems.
func (s *Set) List(lo, hi int64) (out []Item, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return nil, fmt.Errorf("list ids: %w", os.ErrClosed)
	}
	err = each(s.runs, lo, hi, func(it Item) (bool, error) {
		if len(out) >= MostItems {
			return false, ErrTooMany
		}
		out = append(out, it)
		return true, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list ids: %w", err)
	}
	return out, nil
}

// Len is how many items Count and List see, with repetitions.
func (s *Set) Len() (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.runs {
		n += r.n
	}
	return n
}

// Close gives the disk back. Whoever counts or lists still gets an error, not an empty set.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := closeAll(append(s.runs, s.new...))
	s.runs, s.new, s.buf, s.closed = nil, nil, nil, true
	return err
}

func closeAll(runs []*run) error {
	var errs []error
	for _, r := range runs {
		errs = append(errs, r.f.Close())
	}
	return errors.Join(errs...)
}

// between gives the positions of the items from lo to hi: from is the first, to the one behind the last.
func (r *run) between(lo, hi int64) (from, to int, err error) {
	find := func(from int, after func(at int64) bool) int {
		return from + sort.Search(r.n-from, func(i int) bool {
			var b [8]byte
			if err == nil {
				_, err = r.f.ReadAt(b[:], int64(from+i)*int64(itemSize))
			}
			return err != nil || after(int64(binary.BigEndian.Uint64(b[:])))
		})
	}
	from = find(0, func(at int64) bool { return at >= lo })
	to = find(from, func(at int64) bool { return at > hi })
	return from, to, err
}

// cursor reads a part of a run.
type cursor struct {
	r    *bufio.Reader
	item Item
}

func (c *cursor) next() (ok bool, err error) {
	var b [itemSize]byte
	if _, err := io.ReadFull(c.r, b[:]); err != nil {
		if err == io.EOF {
			return false, nil
		}
		return false, err
	}
	c.item.CreatedAt = int64(binary.BigEndian.Uint64(b[:]))
	copy(c.item.ID[:], b[8:])
	return true, nil
}

// each gives the items of runs from lo to hi in order, each once, until fn says no.
func each(runs []*run, lo, hi int64, fn func(Item) (bool, error)) error {
	var open []*cursor
	for _, r := range runs {
		from, to, err := r.between(lo, hi)
		if err != nil {
			return err
		}
		if from == to {
			continue
		}
		size := min(runBuffer, (to-from)*itemSize)
		c := &cursor{r: bufio.NewReaderSize(io.NewSectionReader(r.f, int64(from)*int64(itemSize), int64(to-from)*int64(itemSize)), size)}
		if _, err := c.next(); err != nil {
			return err
		}
		open = append(open, c)
	}
	slices.SortFunc(open, func(a, b *cursor) int { return a.item.Compare(b.item) })
	for first, last := true, (Item{}); len(open) > 0; first = false {
		c := open[0]
		if first || c.item != last {
			last = c.item
			if more, err := fn(c.item); !more || err != nil {
				return err
			}
		}
		ok, err := c.next()
		if err != nil {
			return err
		}
		if !ok {
			open = open[1:]
			continue
		}
		i := sort.Search(len(open)-1, func(k int) bool { return open[k+1].item.Compare(c.item) > 0 })
		copy(open, open[1:i+1])
		open[i] = c
	}
	return nil
}

// writer makes a run.
type writer struct {
	f *os.File
	w *bufio.Writer
	n int
}

const nameless = ".ids-*" // until its name is taken away

// Sweep removes what a process left in dir that was killed between making a file of a Set and taking its name away. Nobody may make
// one there meanwhile.
func Sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, nameless))
	if err != nil {
		return fmt.Errorf("look for files of ids: %w", err)
	}
	var errs []error
	for _, name := range left {
		if err := os.Remove(name); err != nil {
			errs = append(errs, fmt.Errorf("remove a file of ids: %w", err))
		}
	}
	return errors.Join(errs...)
}

// create makes a file that has no name any more.
func (s *Set) create() (*writer, error) {
	f, err := os.CreateTemp(s.dir, nameless)
	if err != nil {
		return nil, fmt.Errorf("make a file of ids: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("make a file of ids: %w", errors.Join(err, f.Close()))
	}
	return &writer{f: f, w: bufio.NewWriterSize(f, 64<<10)}, nil
}

func (w *writer) add(it Item) error {
	var b [itemSize]byte
	binary.BigEndian.PutUint64(b[:], uint64(it.CreatedAt))
	copy(b[8:], it.ID[:])
	w.n++
	if _, err := w.w.Write(b[:]); err != nil {
		return fmt.Errorf("write ids: %w", err)
	}
	return nil
}

func (w *writer) end() (*run, error) {
	if err := w.w.Flush(); err != nil {
		return nil, fmt.Errorf("write ids: %w", errors.Join(err, w.f.Close()))
	}
	return &run{f: w.f, n: w.n}, nil
}
