package archive

import (
	"sort"
	"sync"
)

// guideStep is how much of an origin file, in bytes, lies between two places at which its guide lets a reader begin: 120
// records of groups of one, some 500 of full ones. A segment of 256 MiB of the shortest events, each its own group, has 26 MB
// of origins: 6,400 places of 80 bytes.
const guideStep = 4 << 10

// guide remembers where in one origin file a reader may begin, so that to find one record it need not read all before it. It
// knows what its readers have passed so far. Any number of them share it.
type guide struct {
	mu     sync.Mutex
	points []originPoint // ascending
}

// originPoint is what an originReader knows where a block begins.
type originPoint struct {
	pos     int64             // of the block
	last    originRecord      // before it
	strings map[uint64]string // not changed any more
}

// note remembers where o is, between two blocks.
func (g *guide) note(o *originReader) {
	if g == nil || !o.hasLast {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if n := len(g.points); n > 0 && o.pos < g.points[n-1].pos+guideStep {
		return
	}
	g.points = append(g.points, originPoint{o.pos, o.last, o.strings})
	o.shared = true
}

// lead brings o, which has read nothing yet, near the record of the line at offset, and not past it.
func (g *guide) lead(o *originReader, offset int64) {
	if g == nil {
		return
	}
	o.guide = g
	g.mu.Lock()
	defer g.mu.Unlock()
	i := sort.Search(len(g.points), func(i int) bool { return g.points[i].last.offset >= offset })
	if i == 0 {
		return
	}
	p := g.points[i-1]
	o.pos, o.last, o.hasLast = p.pos, p.last, true
	o.strings, o.shared = p.strings, true
}
