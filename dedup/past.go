package dedup

import (
	"fmt"
	"slices"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/policy"
)

// Deleted reports whether the archive has a request to delete e, or to vanish from relay (a normalised URL), and where one
// stands. A deletion counts from its author, for any e it names and for the versions of an address that are not later
// (NIP-09); for a gift wrap also from whom it is for (NIP-59). A request to vanish covers what is not later (NIP-62). Neither
// can be deleted itself. Safe from any goroutine.
func (x *Index) Deleted(e *event.Event, relay string) (at place.Place, found bool, err error) {
	if e.Kind == event.KindDeletion || e.Kind == event.KindVanish {
		return at, false, nil
	}
	at, found, err = x.deletedBy(e.PubKey, e, relay)
	if e.Kind == event.KindGiftWrap && !found && err == nil {
		for tag := range e.Tags() {
			if len(tag) < 2 || string(tag[0]) != "p" {
				continue
			}
			if to, ok := tag.PubKey(); ok && !found && err == nil {
				at, found, err = x.deletedBy(to, e, relay)
			}
		}
	}
	if err != nil {
		return place.Place{}, false, fmt.Errorf("look for a deletion of %s: %w", e.ID, err)
	}
	return at, found, nil
}

func (x *Index) deletedBy(who event.PubKey, e *event.Event, relay string) (at place.Place, found bool, err error) {
	deletes, err := x.marked(markOf(spaceDeleters, who))
	if err != nil {
		return at, false, err
	}
	if deletes {
		if f, ok, err := x.find(deletionKey(e.ID, who)); ok || err != nil {
			return f.at, ok, err
		}
		if a, ok := e.Address(); ok && who == e.PubKey {
			if f, ok, err := x.find(addressKey(spaceDeletedAddresses, a)); err != nil || ok && e.CreatedAt <= f.created {
				return f.at, ok, err
			}
		}
	}
	vanishes, err := x.marked(markOf(spaceVanishers, who))
	if !vanishes || err != nil {
		return at, false, err
	}
	for _, from := range []string{relay, policy.AllRelays} {
		if f, ok, err := x.find(vanishKey(who, from)); err != nil || ok && e.CreatedAt <= f.created {
			return f.at, ok, err
		}
	}
	return at, false, nil
}

// Newer finds the newest archived version of what e is a version of, if that is not e; NIP-01 says which of two counts. Safe
// from any goroutine.
func (x *Index) Newer(e *event.Event) (at place.Place, found bool, err error) {
	a, ok := e.Address()
	if !ok {
		return at, false, nil
	}
	f, ok, err := x.find(addressKey(spaceNewest, a))
	if err != nil {
		return at, false, fmt.Errorf("look for a newer version of %s: %w", e.ID, err)
	}
	newest := event.Event{ID: f.id, CreatedAt: f.created}
	if !ok || !newest.Supersedes(e) {
		return at, false, nil
	}
	return f.at, true, nil
}

// Place is where the event called id stands in the archive; false if it is not there, or not written yet. Safe from any
// goroutine. It walks the overlay: for a question now and then.
func (x *Index) Place(id event.ID) (at place.Place, found bool, err error) {
	x.qmu.Lock()
	i := slices.IndexFunc(x.queue, func(e entry) bool { return e.id == id })
	if i >= 0 {
		at = x.queue[i].at
	}
	x.qmu.Unlock()
	if i >= 0 {
		return at, true, nil
	}
	at, found, err = x.store.get(id)
	if err != nil {
		return place.Place{}, false, fmt.Errorf("look up %s: %w", id, err)
	}
	if !found || !x.trusted(at) {
		return place.Place{}, false, nil
	}
	return at, true, nil
}

// find gives the fact under k that counts, of overlay and Badger.
func (x *Index) find(k key) (f fact, ok bool, err error) {
	// In this order: what has left the overlay is in Badger.
	f, ok = x.facts.get(k)
	stored, found, err := x.store.fact(k)
	if err != nil {
		return fact{}, false, err
	}
	if found && x.trusted(stored.at) && (!ok || stored.over(f)) {
		return stored, true, nil
	}
	return f, ok, nil
}

// marked reports whether the mark k is there, mostly without a look at Badger.
func (x *Index) marked(k key) (bool, error) {
	there, sure, made := x.marks.ask(k)
	if sure {
		return there, nil
	}
	_, there, err := x.find(k)
	if err == nil {
		x.marks.learn(k, there, made)
	}
	return there, err
}
