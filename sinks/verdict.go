package sinks

import (
	"cmp"
	"fmt"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/policy"
	"rebroadcastr/record"
	"rebroadcastr/relay"
)

// Why an event was not sent, as counted, next to the names of the policy table's rows.
const (
	SkipFilter      = "filter"       // the sink does not want it
	SkipEcho        = "echo"         // it first came from this relay
	SkipNoDeliver   = "no_deliver"   // archived with --no-deliver
	SkipBeforeStart = "before start" // dated before the sink's start
	SkipWithdrawn   = "withdrawn"    // no line holds the ordinal: withdrawn after a failed write, or damaged
)

// Why an event is parked.
const (
	parkedForFuture   = "future"
	parkedForError    = "error"
	parkedForSilence  = "no answer"
	parkedForExpiry   = "expiring"
	parkedForLack     = "lacked" // the relay took it and lists it no more
	parkedUnspecified = "unclassified"
)

const (
	// maxParkedErrors is how many events wait for an error: of their own. Beyond it, or when most answers are error:, it is the
	// relay that is in trouble and not the events.
	maxParkedErrors = 1000
	// maxAttempts is how often an event is offered that is answered error:, or not at all, before it is rejected. What is not
	// answered is not read back (REQ by id) before that: offering it again asks the same, a relay that has it says duplicate:, and
	// some do not serve what they hold.
	maxAttempts = 8
	// maxUnclassified is the same for a refusal without a known prefix.
	maxUnclassified = 3
	// expiryHold is how long an expiring event waits for the relay's NIP-11 document.
	expiryHold = time.Hour
	// futureLimit is how far in the future an event may be dated where the relay does not say (strfry's default).
	futureLimit = 900 * time.Second
	// maxLate bounds how many events parked for silence are remembered for their late OKs.
	maxLate = 1000
)

// decision is what becomes of an event that is about to be sent.
type decision struct {
	skip   string
	park   time.Duration
	reject string // prefix
	reason string // of park and reject
	lesson lesson // of its answer
}

func (d *decision) sends() bool { return d.skip == "" && d.park == 0 && d.reject == "" }

// informed is who knows the relay's NIP-11 document: a session of it, or what is left of one.
type informed interface{ Info() relay.Info }

// decide applies what holds before each send, also of an event that is sent again.
func (s *Sink) decide(rec *record.Record, sess informed) (decision, error) {
	d, err := s.decideAlone(rec, sess)
	if err != nil || !d.sends() {
		return d, err
	}
	if superseded, err := s.superseded(rec, sess); err != nil || superseded {
		return decision{skip: policy.Superseded}, err
	}
	return d, nil
}

// decideAlone is decide for an event of which there are no other versions.
func (s *Sink) decideAlone(rec *record.Record, sess informed) (decision, error) {
	e := &rec.Event
	rules := s.rules.Load()
	switch {
	case rec.Origin.NoDeliver:
		return decision{skip: SkipNoDeliver}, nil
	case !rules.want.Match(e):
		return decision{skip: SkipFilter}, nil
	case e.CreatedAt < s.ledger.Since():
		return decision{skip: SkipBeforeStart}, nil
	case rec.Origin.Relay == s.o.URL:
		return decision{skip: SkipEcho}, nil
	}
	info := sess.Info()
	expiry := policy.ExpiryUnknown
	if info.Known {
		expiry = policy.ExpiryIgnored
		if info.Supports(40) {
			expiry = policy.ExpirySupported
		}
	}
	row, held := policy.Check(e, rules.allow, policy.Context{Now: s.now().Unix(), Expiry: expiry, Relay: s.o.URL})
	switch {
	case held && row == policy.Expiring && expiry == policy.ExpiryUnknown:
		return decision{park: expiryHold, reason: parkedForExpiry}, nil
	case held:
		return decision{skip: row}, nil
	}
	if deleted, err := s.deleted(e); err != nil || deleted {
		return decision{skip: policy.Deleted}, err
	}
	if most := info.Limits.MaxMessageLength; most > 0 && len(e.Line)+len(`["EVENT",]`) > most {
		return decision{reject: "too large", reason: fmt.Sprintf("the relay takes messages of %d bytes (NIP-11)", most)}, nil
	}
	now := s.now()
	if most := info.Limits.CreatedAtUpper; most > 0 && e.CreatedAt-most > now.Unix() {
		return decision{park: time.Unix(e.CreatedAt-most, 0).Sub(now), reason: parkedForFuture}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	prefix, text, ls := s.limits.check(e, &info.Limits, now)
	return decision{reject: prefix, reason: text, lesson: ls}, nil
}

// check says whether an event that a limit refuses is sent all the same.
func (s *Sink) check(ls lesson) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limits.try(ls)
}

// lateItem is an event that was parked because its OK did not come.
type lateItem struct {
	item
	author  event.PubKey
	created int64
}

// heard takes one OK. It is called on the session's reader.
func (a *attempt) heard(id event.ID, accepted bool, text string) {
	s := a.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if a.closed {
		return
	}
	now := s.now()
	f := a.sent[id]
	if f == nil {
		a.heardLateLocked(id, accepted, text, now)
		return
	}
	first := a.order.first == f
	a.landLocked(f)
	a.top = max(a.top, f.seq)
	if next := a.order.first; first && next != nil {
		// What was sent before it is answered: only now the relay (or a slow line) is at it.
		next.start, next.stalled = now, a.sess.Stalled()
	}
	s.lastOK = now
	if !a.trial {
		s.window.heard()
	}
	j := relay.Classify(accepted, text)
	if j.Verdict != relay.Slower && j.Verdict != relay.Paused && j.Verdict != relay.Transient {
		a.sess.Progress() // an answer that only puts us off is none
	}
	if f.control {
		s.counts.Controls++
		a.controls++
	} else {
		for _, text := range s.limits.learn(f.lesson, f.author, j, now) {
			s.ledger.MustOffer(text)
			s.log.Info().Str("refused", text+"…").Msg("the sink took an event that it was thought to refuse: what was kept from it for that is offered")
		}
		a.applyLocked(f, j, text, now)
		if a.trial {
			s.poison.answered()
		}
	}
	s.nudge()
}

// heardLateLocked settles an event whose OK came after it was parked for want of one. Anything else is a second OK, or
// about an event that was not sent on this session: counted only.
func (a *attempt) heardLateLocked(id event.ID, accepted bool, text string, now time.Time) {
	s := a.s
	l, parked := a.late[id]
	if _, again := a.taken[l.key]; !parked || again {
		s.counts.Strays++
		return
	}
	delete(a.late, id)
	for i, it := range a.due {
		if it.key == l.key {
			a.due = append(a.due[:i], a.due[i+1:]...)
			break
		}
	}
	s.counts.Late++
	s.lastOK = now
	a.taken[l.key] = struct{}{}
	a.applyLocked(&flight{item: l.item, id: id, author: l.author, created: l.created, sent: now}, relay.Classify(accepted, text), text, now)
	s.nudge()
}

// applyLocked does to the ledger, the pace and the state of the sink what the relay's answer says.
func (a *attempt) applyLocked(f *flight, j relay.Judgement, text string, now time.Time) {
	s := a.s
	s.recent.add(j.Verdict == relay.Transient)
	switch j.Verdict {
	case relay.Paused:
	case relay.Rejected:
		if s.paused != "" && j.Breaker && !s.accepted {
			a.pauseLocked(f, text)
			return
		}
		s.resumedLocked()
	default:
		s.resumedLocked()
	}
	switch j.Verdict {
	case relay.Delivered, relay.Duplicate, relay.Superseded:
		s.pace.answered(now)
		s.accepted = true
		s.refused.clear()
		o := delivered
		switch j.Verdict {
		case relay.Duplicate:
			o = duplicate
		case relay.Superseded:
			o = superseded
		}
		s.ledger.Ack(f.item, o)
		a.doneLocked(f.item)
	case relay.Rejected:
		s.pace.answered(now)
		row := a.rejectLocked(f, cmp.Or(j.Prefix, parkedUnspecified), text, now)
		if j.Breaker && !s.accepted && s.refused.add(row, f.author) {
			// They refuse us. What was refused so far waits with the rest.
			for _, r := range s.refused.rows {
				s.ledger.Restore(r, now)
			}
			s.refused.clear()
			a.pauseLocked(nil, text)
		}
	case relay.Later:
		s.pace.answered(now)
		a.parkLocked(f, a.futureDue(f, now), parkedForFuture)
	case relay.Slower:
		s.slowerLocked(now, f.sent, j.Wait, text)
		a.againLocked(f.item)
	case relay.Paused:
		a.pauseLocked(f, text)
	case relay.Transient, relay.Unclear:
		a.troubleLocked(f, j, text, now)
	default:
		panic("sinks: no answer to an EVENT is " + j.Verdict.String())
	}
}

// slowEvery is how often a sink that keeps asking for a slower pace is logged.
const slowEvery = 30 * time.Second

// slowerLocked takes the pace down and says so now and then.
func (s *Sink) slowerLocked(now, sent time.Time, ask time.Duration, text string) {
	s.pace.slower(now, sent, ask)
	s.counts.Slower++
	if now.Sub(s.slowSaid) >= slowEvery {
		s.slowSaid = now
		s.log.Info().Str("answer", text).Float64("pace_per_s", s.pace.rate).Uint64("times", s.counts.Slower).Msg("the sink asks for a slower pace")
	}
}

// troubleLocked deals with error: and with a refusal that says nothing known.
func (a *attempt) troubleLocked(f *flight, j relay.Judgement, text string, now time.Time) {
	s := a.s
	most, reason := maxAttempts, parkedForError
	if j.Verdict == relay.Unclear {
		most, reason = maxUnclassified, parkedUnspecified
	}
	if reason == parkedForError {
		c, _, _, _ := s.ledger.Account()
		if c.ParkedErrors >= maxParkedErrors && f.reason != parkedForError || s.recent.mostly() {
			// The relay is in trouble, not the event: nothing is charged, the cursor stands, and we slow down.
			s.slowerLocked(now, f.sent, 0, text)
			a.againLocked(f.item)
			return
		}
	}
	if f.attempts+1 >= most {
		a.rejectLocked(f, reason, text, now)
		return
	}
	a.parkLocked(f, s.retryAt(f.attempts, now), reason)
}

// unansweredLocked parks an event that the relay passed over while it answered others.
func (a *attempt) unansweredLocked(f *flight, now time.Time) {
	a.landLocked(f)
	text := "no OK"
	if a.notices != "" {
		text += "; last notice: " + a.notices
	}
	if f.attempts+1 >= maxAttempts {
		a.rejectLocked(f, parkedForSilence, text, now)
		return
	}
	it := a.parkLocked(f, a.s.retryAt(f.attempts, now), parkedForSilence)
	if len(a.late) >= maxLate {
		clear(a.late)
	}
	a.late[f.id] = lateItem{it, f.author, f.created}
}

func (a *attempt) parkLocked(f *flight, due time.Time, reason string) item {
	it := a.s.ledger.Later(f.item, due, f.attempts+1, reason)
	a.doneLocked(f.item)
	return it
}

func (a *attempt) rejectLocked(f *flight, prefix, text string, now time.Time) Rejected {
	row := a.s.ledger.Reject(f.item, Rejected{ID: f.id, Prefix: prefix, Text: text, Time: now})
	a.doneLocked(f.item)
	return row
}

// doneLocked forgets that a parked row was taken, once the ledger has settled it.
func (a *attempt) doneLocked(it item) {
	if it.parked {
		delete(a.taken, it.key)
	}
}

// pauseLocked ends the attempt for a long while: there is nothing to be done without a key or an operator. f, if any, stays
// in the queue.
func (a *attempt) pauseLocked(f *flight, text string) {
	s := a.s
	if f != nil {
		a.againLocked(f.item)
	}
	if s.paused == "" {
		s.paused, s.since = text, s.now()
		s.log.Warn().Str("answer", text).Str("probed_every", s.o.Probe.String()).Msg(
			"the sink takes nothing from us; there is no key here to log in with: ask its operator, or drop the sink. Its queue is kept")
	}
	a.pause = &relay.Pause{For: s.o.Probe, Reason: text}
	s.poison.acquit()
	s.nudge()
}

// resumedLocked notes that a sink that was paused deals with events again.
func (s *Sink) resumedLocked() {
	if s.paused == "" {
		return
	}
	s.log.Info().Str("was", s.paused).Msg("the sink takes events again")
	s.paused, s.since = "", time.Time{}
}

// futureDue is when an event that is dated in the future may be offered again.
func (a *attempt) futureDue(f *flight, now time.Time) time.Time {
	due := timely(f.created, a.sess)
	if earliest := a.s.retryAt(f.attempts, now); due.Before(earliest) {
		return earliest // its clock and ours disagree
	}
	return due
}

// timely is from when on the relay takes what is dated at created.
func timely(created int64, sess informed) time.Time {
	limit := futureLimit
	if n := sess.Info().Limits.CreatedAtUpper; n > 0 {
		limit = time.Duration(min(n, 1<<31)) * time.Second
	}
	return time.Unix(created, 0).Add(-limit)
}

// retryAt is the time of the next try after attempts earlier ones.
func (s *Sink) retryAt(attempts int, now time.Time) time.Time {
	d := s.o.Retry
	for range attempts {
		if d = 2 * d; d >= retryMost {
			return now.Add(retryMost)
		}
	}
	return now.Add(d)
}

// notice keeps the last NOTICE: some relays send one instead of an OK.
func (a *attempt) notice(text string) {
	a.s.mu.Lock()
	defer a.s.mu.Unlock()
	a.notices = text[:min(len(text), maxText)]
}
