package sinks

import (
	"fmt"

	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/policy"
	"rebroadcastr/record"
)

// Past is what the archive knows of events that speak of others: the index.
type Past interface {
	// Deleted finds a request to delete e, or to vanish from relay, that e must not outlive there.
	Deleted(e *event.Event, relay string) (at place.Place, found bool, err error)
	// Newer finds the newest version of what e is an older version of.
	Newer(e *event.Event) (at place.Place, found bool, err error)
}

// deleted reports whether the row "deleted" holds e back.
func (s *Sink) deleted(e *event.Event) (bool, error) {
	if s.o.Past == nil || s.rules.Load().allow.Lets(policy.Deleted) {
		return false, nil
	}
	_, found, err := s.o.Past.Deleted(e, s.o.URL)
	return found, err
}

// superseded reports whether the row "superseded" holds rec back: there is a newer version, and this sink gets or has that one. One
// that it does not want, that is kept from it, has to wait, or was refused, does not count: the sink would be left with neither.
func (s *Sink) superseded(rec *record.Record, sess informed) (bool, error) {
	if s.o.Past == nil || s.rules.Load().allow.Lets(policy.Superseded) {
		return false, nil
	}
	at, found, err := s.o.Past.Newer(&rec.Event)
	if !found || err != nil {
		return false, err
	}
	newer, ok, err := s.readAt(at)
	if !ok || err != nil {
		return false, err
	}
	if timely(newer.Event.CreatedAt, sess).After(s.now()) {
		return false, nil // the relay will not have it yet
	}
	if declined, err := s.ledger.Declined(newer.Ordinal); declined || err != nil {
		return false, err
	}
	newer.Origin.Relay = "" // what came from this relay it has
	d, err := s.decideAlone(&newer, sess)
	return d.sends(), err
}

// readAt reads the event whose line begins at at; false: no line does any more, or none yet that is told of.
func (s *Sink) readAt(at place.Place) (record.Record, bool, error) {
	r, err := s.o.Open(at)
	if err != nil {
		return record.Record{}, false, fmt.Errorf("read the archive at %s: %w", at, err)
	}
	defer r.Close()
	rec, ok, err := r.TryNext()
	if err != nil {
		return record.Record{}, false, fmt.Errorf("read the archive at %s: %w", at, err)
	}
	return rec, ok && rec.Place == at, nil
}
