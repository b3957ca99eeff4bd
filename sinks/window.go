package sinks

import "rebroadcastr/event"

// window bounds how many events are sent and unanswered. After a session that died with some unanswered it is halved, and
// doubles again for each full window answered: an event that kills connections ends up nearly alone, and a relay that
// only closes now and then is soon served at full width again. Its owner locks.
type window struct {
	most, now int
	answered  int // since now changed
}

func newWindow(most int) window {
	most = max(most, 1)
	return window{most: most, now: most}
}

// resize changes the bound. A window at its full width stays so; one that is finding it again goes on from where it is.
func (w *window) resize(most int) {
	most = max(most, 1)
	if w.now == w.most || w.now > most {
		w.now, w.answered = most, 0
	}
	w.most = most
}

func (w *window) died() { w.now, w.answered = max(w.now/2, 1), 0 }

func (w *window) heard() {
	if w.now == w.most {
		return
	}
	if w.answered++; w.answered >= w.now {
		w.now, w.answered = min(w.now*2, w.most), 0
	}
}

// verdicts remembers which of the last 200 answers were error:.
type verdicts struct {
	bad   [200]bool
	at    int
	count int
}

func (v *verdicts) add(bad bool) {
	if v.bad[v.at] {
		v.count--
	}
	if v.bad[v.at] = bad; bad {
		v.count++
	}
	v.at = (v.at + 1) % len(v.bad)
}

// mostly reports error: in more than half of the last 200.
func (v *verdicts) mostly() bool { return v.count > len(v.bad)/2 }

// refusals are the rows of an unbroken run of blocked: and restricted:. A relay that has never taken anything and refuses
// enough in a row, of more than one author, refuses us and not the events.
type refusals struct {
	rows    []Rejected
	authors map[event.PubKey]struct{}
}

const (
	refusalsBan  = 20
	refusalsMost = 200 // of one author only: rows beyond are let go
)

func (r *refusals) add(row Rejected, author event.PubKey) (ban bool) {
	if r.authors == nil {
		r.authors = make(map[event.PubKey]struct{})
	}
	if len(r.rows) == refusalsMost {
		r.rows = append(r.rows[:0], r.rows[1:]...)
	}
	r.rows = append(r.rows, row)
	r.authors[author] = struct{}{}
	return len(r.rows) >= refusalsBan && len(r.authors) >= 2
}

func (r *refusals) clear() { r.rows, r.authors = nil, nil }
