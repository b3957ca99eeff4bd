package sinks

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Numbers of a suspicion.
const (
	// poisonDeaths is how many connections an event must end, each time right after the relay had answered others.
	poisonDeaths = 3
	// leastControls is how many controls go before the suspect on its first trial. Each trial that is spoilt, and each suspect
	// that was answered, is a sign of a link that breaks by itself, and doubles it up to mostControls; a conviction halves it. Where
	// one message in five ends the connection, three deaths that look like poison happen to three suspects in 10,000 with 4
	// controls, and to one in ten million with 16.
	leastControls = 4
	mostControls  = 16
	// trialEvery is the least time between the connections of two trials of one event.
	trialEvery = 10 * time.Second
	// mostCalm bounds how often calm doubles, from trialEvery on, while trials say nothing: for so long nobody is tried after
	// one, and the event lets others go first.
	mostCalm = 5
	// headDeaths is how often in a row one event must be the oldest unanswered at a death to be suspected at any window: a
	// relay that answers others meanwhile keeps the window open.
	headDeaths = 10
	// mostAside bounds the events that let others go first.
	mostAside = 1000
)

// suspicion finds the event that ends connections, if one does, among all else that ends them. It knows no relay and no
// clock: its owner tells it how sessions ended, and locks.
//
// The suspect is what was alone in flight when a connection broke at window 1, so the oldest open event. It is tried on
// connections that the sink has to itself: first an event that the relay has, to be answered, then the suspect, then nothing.
// How often the control is sent grows from trial to trial: a relay that closes at each third message, or some time after
// the connect, ends one of the trials at a control. What ends any other way is trouble of the link: nobody is charged, the
// deaths so far count no more, and the suspect lets others go first for a while, so that it holds up nobody for good.
//
// A new sink has no event to send as a control. Then too the suspect steps aside until another one was taken.
//
// Nothing of it is stored. An event that ends connections does so again after a restart, and the few connections that
// this costs are cheaper than a verdict for good that rests on what another process saw, of a relay that may be mended.
type suspicion struct {
	every time.Duration

	on      bool // suspect is to be tried
	suspect item
	deaths  []time.Time // on trial, in a row
	next    time.Time   // no trial before
	need    int         // controls on a first trial, if more than leastControls

	spoilt int       // times in a row that an event stepped aside for want of a trial that told something
	calm   time.Time // nobody is tried before
	head   uint64    // ordinal of the oldest unanswered at the last deaths
	heads  int       // how many in a row
	aside  map[uint64]time.Time
}

// prefixPoison is what a convicted event's row is counted under.
const prefixPoison = "poison"

// ending is how a session ended.
type ending struct {
	trial      bool
	broken     bool // by the relay or the line
	silent     bool // by us: the relay answered nothing
	window     int
	unanswered int    // events of the ledger; the control is none
	oldest     flight // of them
	control    bool   // the control was unanswered too
	controls   int    // answered, on a trial
	intime     bool   // the oldest had not waited longer than the OK timeout
	known      bool   // there is an event to send as a control
}

// ruling is what follows from an ending.
type ruling uint8

const (
	noSuspect ruling = iota
	toBeTried        // on a connection of the sink's own, not before next
	convicted        // poison
)

// controls is how many answered controls go before the suspect on the next trial.
func (p *suspicion) controls() int { return max(p.need, leastControls) + len(p.deaths) }

// ended judges the end of a session.
func (p *suspicion) ended(now time.Time, e ending) ruling {
	if e.trial {
		return p.tried(now, e)
	}
	if e.silent && !e.known && e.window == 1 && e.unanswered == 1 {
		p.stepAside(now, e.oldest.Ordinal) // nothing could tell whether it is about this event
		return noSuspect
	}
	if !e.broken || e.unanswered == 0 {
		return noSuspect
	}
	if p.head != e.oldest.Ordinal {
		p.head, p.heads = e.oldest.Ordinal, 0
	}
	p.heads++
	alone := e.window == 1 && e.unanswered == 1 && !e.control
	if !alone && p.heads < headDeaths {
		return noSuspect
	}
	p.heads = 0
	if !e.known || now.Before(p.calm) {
		p.stepAside(now, e.oldest.Ordinal)
		return noSuspect
	}
	p.on, p.suspect, p.deaths, p.next = true, e.oldest.item, nil, now
	return toBeTried
}

// tried judges the end of a trial's connection.
func (p *suspicion) tried(now time.Time, e ending) ruling {
	switch {
	case !p.on:
		return noSuspect // acquitted on it
	case !e.broken || e.unanswered != 1 || e.control || e.controls < p.controls() || !e.intime:
		p.unclear(now)
		return noSuspect
	}
	p.deaths = append(p.deaths, now)
	if len(p.deaths) < poisonDeaths {
		p.next = now.Add(p.every)
		return toBeTried
	}
	p.on, p.need, p.spoilt = false, p.need/2, 0
	return convicted
}

// acquit ends the suspicion: the suspect is not waiting any more, or waits for something else.
func (p *suspicion) acquit() { p.on, p.deaths = false, nil }

// answered acquits the suspect: the deaths so far were chance.
func (p *suspicion) answered() {
	p.doubt()
	p.acquit()
	p.spoilt = 0
}

func (p *suspicion) doubt() { p.need = min(2*max(p.need, leastControls), mostControls) }

// unclear ends the suspicion for now: the trial told nothing.
func (p *suspicion) unclear(now time.Time) {
	p.doubt()
	p.acquit()
	p.calm = p.stepAside(now, p.suspect.Ordinal)
}

// stepAside lets others go before the event, until the time returned. The cursor stands meanwhile.
func (p *suspicion) stepAside(now time.Time, ordinal uint64) (until time.Time) {
	until = now.Add(p.every << p.spoilt)
	p.spoilt = min(p.spoilt+1, mostCalm)
	if p.aside == nil {
		p.aside = make(map[uint64]time.Time)
	}
	if len(p.aside) < mostAside {
		p.aside[ordinal] = until
	}
	return until
}

// isAside says whether others go before the event.
func (p *suspicion) isAside(ordinal uint64) bool { _, ok := p.aside[ordinal]; return ok }

// recall ends the event's time aside.
func (p *suspicion) recall(ordinal uint64) { delete(p.aside, ordinal) }

// back takes out those whose time aside is over; next is when there are more, zero if none are left.
func (p *suspicion) back(now time.Time) (ordinals []uint64, next time.Time) {
	for o, until := range p.aside {
		switch {
		case !now.Before(until):
			delete(p.aside, o)
			ordinals = append(ordinals, o)
		case next.IsZero() || until.Before(next):
			next = until
		}
	}
	slices.Sort(ordinals)
	return ordinals, next
}

// verdict tells why the suspect was convicted; why is how the last connection ended.
func (p *suspicion) verdict(why string) string {
	const most = 100 // bytes; the rest of the text must have room in the row too
	why = why[:min(len(why), most)]
	at := make([]string, len(p.deaths))
	for i, d := range p.deaths {
		at[i] = d.UTC().Format(time.TimeOnly)
	}
	return fmt.Sprintf("ended %d connections (%s) with nothing else in flight, each after the relay had answered %d and more other events: %s",
		len(at), strings.Join(at, ", "), leastControls, why)
}
