package relaytest

import (
	"cmp"
	"slices"
	"strings"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip77"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy/storage/vector"
)

// negentropy answers a NEG message by go-nostr's responder, as khatru does.
func (c *Conn) negentropy(m Message) {
	var sub, msg string
	switch e := nip77.ParseNegMessage(m.Raw).(type) {
	case *nip77.OpenEnvelope:
		sub, msg = e.SubscriptionID, e.Message
		if c.neg == nil {
			c.neg = map[string]*negentropy.Negentropy{}
		}
		c.neg[sub] = negentropy.New(c.relay.vector(e.Filter), 1<<20)
	case *nip77.MessageEnvelope:
		sub, msg = e.SubscriptionID, e.Message
	case *nip77.CloseEnvelope:
		delete(c.neg, e.SubscriptionID)
		return
	}
	session := c.neg[sub]
	if session == nil {
		c.Send(`["NEG-ERR",` + quote(sub) + `,"closed: unknown subscription handle"]`)
		return
	}
	out, err := session.Reconcile(msg)
	if err != nil {
		c.Send(`["NEG-ERR",` + quote(sub) + `,` + quote(err.Error()) + `]`)
		return
	}
	c.Send(`["NEG-MSG",` + quote(sub) + `,"` + out + `"]`)
}

func (r *Relay) vector(f nostr.Filter) *vector.Vector {
	r.mu.Lock()
	defer r.mu.Unlock()
	var hits []*nostr.Event
	for i := range r.stored {
		if e := &r.stored[i].event; f.Matches(e) {
			hits = append(hits, e)
		}
	}
	if most := r.script.NegMost; most > 0 && len(hits) > most {
		slices.SortFunc(hits, func(a, b *nostr.Event) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) })
		hits = hits[:most]
	}
	v := vector.New()
	for _, e := range hits {
		v.Insert(e.CreatedAt, e.ID)
	}
	v.Seal()
	return v
}

// Lose deletes what gone takes, without a trace.
func (r *Relay) Lose(gone func(id string) bool) (lost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.stored)
	r.stored = slices.DeleteFunc(r.stored, func(s stored) bool {
		if !gone(s.event.ID) {
			return false
		}
		delete(r.have, s.event.ID)
		return true
	})
	r.sorted = nil
	return before - len(r.stored)
}

func isNeg(label string) bool { return strings.HasPrefix(label, "NEG-") }
