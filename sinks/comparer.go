package sinks

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"rebroadcastr/event"
	"rebroadcastr/relay"
	"rebroadcastr/state"
)

// Reconcile says how often a sink is compared with the archive, for what it lacks: every so often as far back as Depth, and all of
// it where that was done more than Full ago. Every 0: only when asked to; Depth 0: always in full; Full 0: never in full.
type Reconcile struct{ Every, Depth, Full time.Duration }

// Compared is what came of the last comparison of a sink with the archive.
type Compared struct {
	At      time.Time `json:"at"`                // its start
	Full    bool      `json:"full"`              // as far back as the sink's start
	Listed  int       `json:"listed"`            // archived events that the sink's filter takes
	Lacked  int       `json:"lacked"`            // of them the relay does not list
	Offered int       `json:"offered,omitempty"` // of those it said that it had: they are offered again
	Resting int       `json:"resting,omitempty"` // of those too, and were offered so not long ago
	All     bool      `json:"all,omitempty"`     // most are lacked: everything is offered again
	More    bool      `json:"more,omitempty"`    // more are lacked than are offered at once: the next comparison comes soon
	Deeper  bool      `json:"deeper,omitempty"`  // most of what is young is lacked: a full comparison comes at once
	Text    string    `json:"text,omitempty"`    // why not everything was compared
}

// comparingRow is what is kept of comparisons.
type comparingRow struct {
	Last        time.Time     `json:"last"`
	LastFull    time.Time     `json:"last_full"`
	Result      Compared      `json:"result"`
	Refused     time.Time     `json:"refused_until,omitzero"`
	RefusedText string        `json:"refused,omitempty"`
	AllNext     time.Time     `json:"all_next,omitzero"` // not everything is offered before
	AllWait     time.Duration `json:"all_wait,omitempty"`
}

var comparedKey = []byte("compared")

// comparer is what a sink knows of its comparisons.
type comparer struct {
	setting atomic.Pointer[comparing]
	asked   atomic.Bool
	nudged  chan struct{} // 1: setting or asked has changed

	mu  sync.Mutex
	row comparingRow

	// Of the attempt's comparing alone.
	drops relay.NegDrops
	tries int // comparisons in a row that the relay ended with the session
}

// comparing is what is compared, and how often.
type comparing struct {
	Reconcile
	filters []event.Filter
}

func (c *comparer) init(filters []event.Filter, r Reconcile) {
	c.nudged = make(chan struct{}, 1)
	c.set(filters, r)
}

func (c *comparer) set(filters []event.Filter, r Reconcile) {
	now := &comparing{Reconcile: r}
	for _, f := range filters {
		now.filters = append(now.filters, cut(f)...)
	}
	c.setting.Store(now)
}

func (c *comparer) nudge() {
	select {
	case c.nudged <- struct{}{}:
	default:
	}
}

func (c *comparer) load(row []byte) error {
	if row == nil {
		return nil
	}
	return json.Unmarshal(row, &c.row)
}

func (c *comparer) now() comparingRow {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.row
}

// all notes until when not everything is offered again.
func (c *comparer) all(next time.Time, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.row.AllNext, c.row.AllWait = next, wait
}

func (c *comparer) allAt() (next time.Time, wait time.Duration) {
	row := c.now()
	return row.AllNext, row.AllWait
}

func (c *comparer) refuse(until time.Time, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.row.Refused, c.row.RefusedText = until, why
}

func (c *comparer) refused() (until time.Time, why string) {
	row := c.now()
	return row.Refused, row.RefusedText
}

// SetReconcile changes what the sink is compared by, and how often. The filters take at least what the sink wants.
func (s *Sink) SetReconcile(filters []event.Filter, r Reconcile) {
	s.comparer.set(filters, r)
	s.comparer.nudge()
}

// Reconcile compares the sink with the archive, in full, as soon as it is connected and not paused.
func (s *Sink) Reconcile() {
	s.comparer.asked.Store(true)
	s.comparer.nudge()
}

// comparisonDue says when the next comparison is due, and whether that is to be a full one; zero: none is.
func (s *Sink) comparisonDue() (at time.Time, full bool) {
	now, row, r := s.now(), s.comparer.now(), s.comparer.setting.Load()
	if s.comparer.asked.Load() || row.Result.Deeper {
		return now, true
	}
	if row.Result.More {
		if _, parked, _ := s.ledger.Lack(); parked > 0 {
			return now.Add(moreAfter), row.Result.Full
		}
		return row.Last.Add(moreAfter), row.Result.Full
	}
	if r.Every <= 0 {
		return at, false
	}
	if row.Last.IsZero() || row.Last.After(now) { // what it has is as good as new
		s.comparer.mu.Lock()
		s.comparer.row.Last, s.comparer.row.LastFull = now, now
		row = s.comparer.row
		s.comparer.mu.Unlock()
		s.saveComparing()
	}
	at = row.Last.Add(r.Every)
	due := max(at.Unix(), now.Unix())
	return at, r.Depth <= 0 || r.Full > 0 && row.LastFull.Add(r.Full).Unix() <= due
}

// saveComparing writes what is kept of comparisons. An error costs another comparison, and is logged.
func (s *Sink) saveComparing() {
	value, err := json.Marshal(s.comparer.now())
	if err != nil {
		panic("sinks: encode a comparison: " + err.Error()) // strings and numbers only: cannot fail
	}
	err = s.o.State.Update(func(tx *state.Tx) error {
		b := tx.Bucket(sinksBucket, s.o.URL)
		if b.Get(recordKey) == nil {
			return nil // forgotten
		}
		return b.Put(comparedKey, value)
	})
	if err != nil {
		s.log.Error().Err(err).Msg("what came of the comparison is not saved")
	}
}

// readComparing reads it.
func (s *Sink) readComparing() error {
	var row []byte
	err := s.o.State.View(func(tx *state.Tx) error {
		if b := tx.Bucket(sinksBucket, s.o.URL); b != nil {
			row = append(row, b.Get(comparedKey)...)
		}
		return nil
	})
	if err == nil && row != nil {
		err = s.comparer.load(row)
	}
	if err != nil {
		return fmt.Errorf("read the comparisons of %s: %w", s.o.URL, err)
	}
	return nil
}

// compares compares whenever that is due, on run's side: an event that is being sent waits for nothing here.
func (a *attempt) compares(ctx context.Context) error {
	s := a.s
	c := &s.comparer
	if s.o.Seen == nil || a.sess.Alone() {
		return nil
	}
	for {
		at, full := s.comparisonDue()
		wait := longest
		if !at.IsZero() {
			wait = min(wait, max(at.Sub(s.now()), 0))
		}
		if wait == 0 && !s.comparable() {
			wait = notNow
		}
		if wait == 0 {
			if err := a.compareNow(ctx, full); err != nil {
				return nil // the session's end, or ours
			}
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-c.nudged:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// comparable says whether a comparison may begin.
func (s *Sink) comparable() bool {
	if p, _ := s.ledger.Again(); p != (again{}) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.draining && s.paused == ""
}

// compareNow compares and keeps what came of it.
func (a *attempt) compareNow(ctx context.Context, full bool) error {
	s := a.s
	c := &s.comparer
	insist := c.asked.Swap(false)
	full = full || insist // it may have been asked for just now
	res, err := a.compare(ctx, full, insist)
	if err != nil {
		if !relay.Ours(a.sess.Err()) {
			c.tries++
		}
		if c.tries < compareTries {
			if insist {
				c.asked.Store(true)
			}
			return err
		}
		res.Text = fmt.Sprintf("the session ended %d times meanwhile", c.tries)
	}
	c.tries = 0
	c.mu.Lock()
	c.row.Last, c.row.Result = res.At, res
	if res.Full {
		c.row.LastFull = res.At
	}
	c.mu.Unlock()
	s.saveComparing()
	res.log(s.log.Info())
	return err
}

func (c Compared) log(e *zerolog.Event) {
	if c.Text != "" {
		e = e.Str("reason", c.Text)
		if c.Listed == 0 {
			e.Msg("not compared with the archive")
			return
		}
	}
	e.Bool("full", c.Full).Int("listed", c.Listed).Int("lacked", c.Lacked).Int("offered", c.Offered).Int("resting", c.Resting).
		Bool("all", c.All).Bool("more", c.More).Msg("compared with the archive")
}
