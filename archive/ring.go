package archive

import (
	"sort"
	"time"

	"rebroadcastr/place"
	"rebroadcastr/record"
)

// ring holds what was written last, so that readers who follow the log closely share one parsed copy, and read and parse
// nothing themselves. It is a cache: a reader whose record it does not have takes that out of the file. The shelf locks it.
type ring struct {
	most  int64           // in lines and recordBytes beside each
	recs  []record.Record // ascending by place, from head on
	head  int
	bytes int64
}

// add takes records that have just been written. Their events must not change any more.
func (r *ring) add(recs []record.Record) {
	if r.most < 0 {
		return
	}
	for i := range recs {
		rec := recs[i]
		if at := rec.Origin.Received; !at.IsZero() {
			rec.Origin.Received = time.UnixMilli(at.UnixMilli()) // as the file has it
		}
		r.recs = append(r.recs, rec)
		r.bytes += tailCost(&rec)
	}
	for ; r.bytes > r.most; r.head++ {
		r.bytes -= tailCost(&r.recs[r.head])
		r.recs[r.head] = record.Record{}
	}
	if r.head > len(r.recs)/2 {
		n := copy(r.recs, r.recs[r.head:])
		clear(r.recs[n:])
		r.recs, r.head = r.recs[:n], 0
	}
}

// at finds the record whose line begins at p.
func (r *ring) at(p place.Place) (record.Record, bool) {
	held := r.recs[r.head:]
	i := sort.Search(len(held), func(i int) bool { return !held[i].Place.Before(p) })
	if i == len(held) || held[i].Place != p {
		return record.Record{}, false
	}
	return held[i], true
}

// empty forgets all: lines were taken back.
func (r *ring) empty() { *r = ring{most: r.most} }
