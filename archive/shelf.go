package archive

import (
	"cmp"
	"slices"
	"sync"

	"rebroadcastr/place"
	"rebroadcastr/record"
)

// segment is what readers know of one segment.
type segment struct {
	files
	first uint64 // ordinal of its first line
	known bool   // first is
	lines uint64 // ordinals that are used in it, also those that no line has and those of blank lines
	held  uint64 // lines that hold an event
	end   int64  // where readers stop, in bytes of text
	final bool   // nothing will be appended any more
	saved bool   // the state has it
}

// outline tells a reader what there is.
type outline interface {
	// look gives the first segment with a number ≥ number, and whether there is one after it. ok is false if there is
	// none yet. Without again the answer may be as old as the last one about the same segment. With it, if there is a
	// later segment, then the end is the last that this one had.
	look(number uint32, again bool) (s segment, later, ok bool, err error)
	// missing says that a file of s could not be found: another look may know better.
	missing(s segment)
}

// shelf is the outline of the process that writes. Whatever it says was written can be read.
type shelf struct {
	mu    sync.Mutex
	segs  []segment // by number
	next  uint64    // ordinal of the next line
	wake  chan struct{}
	moved int // how often lines were taken back
	ring  ring
}

func (sh *shelf) look(number uint32, _ bool) (s segment, later, ok bool, err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	i := sh.findLocked(number)
	if i == len(sh.segs) {
		return segment{}, false, false, nil
	}
	return sh.segs[i], i+1 < len(sh.segs), true, nil
}

func (sh *shelf) missing(segment) {}

func (sh *shelf) findLocked(number uint32) int {
	i, _ := slices.BinarySearchFunc(sh.segs, number, func(s segment, n uint32) int { return cmp.Compare(s.number, n) })
	return i
}

// recent gives the record at p if it is one of the newest.
func (sh *shelf) recent(p place.Place) (record.Record, bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.ring.at(p)
}

// news returns a channel that is closed when there is something at or after p to read, nil if there is already.
func (sh *shelf) news(p place.Place) <-chan struct{} {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	i := sh.findLocked(p.Segment())
	if i < len(sh.segs) && (i+1 < len(sh.segs) || sh.segs[i].number > p.Segment() || int64(p.Offset()) < sh.segs[i].end) {
		return nil
	}
	if sh.wake == nil {
		sh.wake = make(chan struct{})
	}
	return sh.wake
}

func (sh *shelf) notifyLocked() {
	if sh.wake != nil {
		close(sh.wake)
		sh.wake = nil
	}
}

// add puts a new last segment on the shelf. An empty one wakes nobody.
func (sh *shelf) add(s segment) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.segs = append(sh.segs, s)
	sh.next = max(sh.next, s.first+s.lines)
	if s.end > 0 {
		sh.notifyLocked()
	}
}

// publish moves the end of the last segment, to which recs were written.
func (sh *shelf) publish(end int64, lines uint64, recs []record.Record) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.ring.add(recs)
	s := &sh.segs[len(sh.segs)-1]
	s.end, s.lines, s.held = end, lines, lines // this process has written each of them
	sh.next = max(sh.next, s.first+lines)
	sh.notifyLocked()
}

// withdraw takes back what lies beyond end in the last segment. The ordinals of its lines stay used.
func (sh *shelf) withdraw(end int64, lines uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	s := &sh.segs[len(sh.segs)-1]
	if s.end != end {
		sh.moved++
	}
	sh.ring.empty()
	s.end, s.lines, s.held = end, lines, lines
}

// finish says that the last segment takes no more.
func (sh *shelf) finish() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.segs[len(sh.segs)-1].final = true
}

// drop removes the last segment, which nobody has seen a line of.
func (sh *shelf) drop() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.segs = sh.segs[:len(sh.segs)-1]
}

// end returns the written end and the next ordinal.
func (sh *shelf) end() (place.Place, uint64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if len(sh.segs) == 0 {
		return place.Place{}, sh.next
	}
	s := sh.segs[len(sh.segs)-1]
	return place.Make(s.number, uint64(s.end)), sh.next
}

// unsaved returns the complete segments that the state does not have yet.
func (sh *shelf) unsaved() (segs []segment) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, s := range sh.segs {
		if s.final && !s.saved {
			segs = append(segs, s)
		}
	}
	return segs
}

// saved says that the state has segs.
func (sh *shelf) saved(segs []segment) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, s := range segs {
		if i := sh.findLocked(s.number); i < len(sh.segs) && sh.segs[i].number == s.number {
			sh.segs[i].saved = true
		}
	}
}

// all returns a copy of the segments.
func (sh *shelf) all() []segment {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return slices.Clone(sh.segs)
}
