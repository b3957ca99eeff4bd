package relay

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/reconcile"
)

// doubted is from how many ids on a relay's list may be cut: the smallest page of a store that lists one page whatever the window
// holds (eventstore 0.16's SQL stores, unless they are told otherwise).
const doubted = 100

// Lists compares window after window of one filter with one relay.
//
// A relay may list only the newest ids of a window, and not say so: khatru with an eventstore lists 20 times its page, its older
// stores one page. Such a list looks as if the relay had nothing older. So the first list that is longer than any that was seen
// to be whole is put to the test: the part of the window that is older than some of the list is asked for alone. What is listed
// there, and was not before, had been cut.
//
// The zero Lists is ready for use. One goroutine uses it.
type Lists struct {
	whole int // a list of so many was whole
	cut   int // one of so many was cut; 0: none was
}

// Reconciler is a *Session.
type Reconciler interface {
	Reconcile(ctx context.Context, f event.Filter, items []reconcile.Item, have func(event.ID), idle time.Duration) (*reconcile.Session, NegEnd, error)
}

// Difference is what a relay and the archive have of one window.
type Difference struct {
	Begun bool       // with anything found out
	Need  []event.ID // what only the relay has, in no order
	Have  []event.ID // what only we have, in order
	// Unsure: the list is long enough to have been cut, and nothing can tell: both sides have nothing in common, or it is one
	// second.
	Unsure bool
}

// Listed is how many of a window's ids the relay has; ours is how many we have.
func (d *Difference) Listed(ours int) int { return ours - len(d.Have) + len(d.Need) }

// Most is how many ids the relay was seen to list at most; 0: not known.
func (l *Lists) Most() int { return l.cut }

// Compare is Session.Reconcile for a window, of which the end may be NegCut too.
func (l *Lists) Compare(ctx context.Context, s Reconciler, f event.Filter, items []reconcile.Item, idle time.Duration) (d Difference, end NegEnd, err error) {
	d, end, err = differ(ctx, s, f, items, idle)
	n := d.Listed(len(items))
	if err != nil || end.Kind != NegSettled || n < doubted || n <= l.whole {
		return d, end, err
	}
	if l.cut > 0 {
		if n >= l.cut {
			end = l.isCut(n, end)
		}
		return d, end, nil
	}
	old, ok := oldest(items, d.Have)
	if !ok {
		d.Unsure = true
		return d, end, nil
	}
	// One second more, for until is exclusive at some relays.
	if f.Until == 0 || f.Until > old+1 {
		f.Until = old + 1
	}
	items = items[:sort.Search(len(items), func(i int) bool { return items[i].CreatedAt > f.Until })]
	part, partEnd, err := differ(ctx, s, f, items, idle)
	if err != nil || partEnd.Kind != NegSettled {
		return d, partEnd, err
	}
	switch {
	case l.more(items, part, d):
		l.cut = n
		end = l.isCut(n, end)
	case part.Listed(len(items)) == n: // it is the same list
		d.Unsure = true
	default:
		l.whole = n
	}
	return d, end, nil
}

func (l *Lists) isCut(n int, end NegEnd) NegEnd {
	end.Kind, end.Reason = NegCut, fmt.Sprintf("the relay lists %d ids of more", n)
	return end
}

// more says whether a part of a window, of which items are ours, was listed with something that was not listed with the whole of it.
func (l *Lists) more(items []reconcile.Item, part, whole Difference) bool {
	known := make(map[event.ID]struct{}, len(whole.Need))
	for _, id := range whole.Need {
		known[id] = struct{}{}
	}
	for _, id := range part.Need {
		if _, ok := known[id]; !ok {
			return true
		}
	}
	for _, it := range items {
		if holds(whole.Have, it.ID) && !holds(part.Have, it.ID) {
			return true
		}
	}
	return false
}

// oldest is the time of the first of items that is not in have.
func oldest(items []reconcile.Item, have []event.ID) (at int64, ok bool) {
	for _, it := range items {
		if !holds(have, it.ID) {
			return it.CreatedAt, true
		}
	}
	return 0, false
}

func holds(sorted []event.ID, id event.ID) bool {
	_, found := slices.BinarySearchFunc(sorted, id, compareIDs)
	return found
}

func compareIDs(a, b event.ID) int { return slices.Compare(a[:], b[:]) }

// differ is s.Reconcile, with what it has found.
func differ(ctx context.Context, s Reconciler, f event.Filter, items []reconcile.Item, idle time.Duration) (d Difference, end NegEnd, err error) {
	session, end, err := s.Reconcile(ctx, f, items, func(id event.ID) { d.Have = append(d.Have, id) }, idle)
	if err != nil || session == nil {
		return Difference{}, end, err
	}
	d.Begun, d.Need = true, session.Need()
	slices.SortFunc(d.Have, compareIDs)
	return d, end, nil
}
