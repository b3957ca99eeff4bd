package sources

import (
	"encoding/binary"
	"fmt"
	"time"

	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/state"
)

// Reconcile says how often a live source is compared with the archive, for what came late (dated back) or was missed: every
// so often as far back as Depth, and as far as history is asked for where that was done more than Full ago. Every 0: only when
// asked to; Depth 0: always in full; Full 0: never in full.
type Reconcile struct{ Every, Depth, Full time.Duration }

// Audit is what came of the last comparison of a source with the archive.
type Audit struct {
	At     time.Time // its start
	Full   bool      // as far back as history is asked for
	Needed int       // ids that the relay lists and the archive lacked
	Came   int       // of them
	Missed int       // of them: the relay does not give them, or did not when it was last asked
	Lacks  int       // ids that the archive has and the relay does not list
	Paged  int       // windows that were paged instead
	Text   string    // why it is not whole; "" if it is
}

// maxAudits in a row that the relay ended in the middle, then it is let be until the next one is due: live must not suffer.
const maxAudits = 3

var (
	keyReconciled     = []byte("reconciled")         // unix seconds, 8 bytes big-endian: the start of the last audit
	keyReconciledFull = []byte("reconciled in full") // the same, of the last full one
)

// SetReconcile changes how often the source is compared with the archive.
func (s *Source) SetReconcile(r Reconcile) {
	s.reconcile.Store(&r)
	s.nudge()
}

// Reconcile compares the source with the archive, in full, as soon as it is live and nothing else is under way. A relay that refused to
// reconcile before is asked again.
func (s *Source) Reconcile() {
	s.auditAsked.Add(1)
	s.nudge()
}

func (s *Source) nudge() {
	select {
	case s.nudged <- struct{}{}:
	default:
	}
}

// auditDue says when the next audit is due, and whether that is to be a full one; zero: none is.
func (v *visit) auditDue() (at time.Time, full bool, err error) {
	now := v.s.o.Now()
	if v.s.auditAsked.Load() != v.s.auditMet {
		return now, true, nil
	}
	r := *v.s.reconcile.Load()
	if r.Every <= 0 {
		return at, false, nil
	}
	var last, lastFull time.Time
	err = v.s.o.State.View(func(tx *state.Tx) error {
		if b := tx.Bucket(v.s.path()...); b != nil {
			last, lastFull = unixOf(b.Get(keyReconciled)), unixOf(b.Get(keyReconciledFull))
		}
		return nil
	})
	if err == nil && (last.IsZero() || last.After(now)) { // history has just been asked for
		last, lastFull = now, now
		err = v.s.audited(now, true)
	}
	if err != nil {
		return at, false, fmt.Errorf("look when %s was reconciled: %w", v.s.o.URL, err)
	}
	at = last.Add(r.Every)
	due := max(at.Unix(), now.Unix())
	return at, r.Depth <= 0 || r.Full > 0 && lastFull.Add(r.Full).Unix() <= due, nil
}

func unixOf(b []byte) time.Time {
	if len(b) != 8 {
		return time.Time{}
	}
	return time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
}

// audited saves that an audit that began at start is over.
func (s *Source) audited(start time.Time, full bool) error {
	return s.o.State.Update(func(tx *state.Tx) error {
		b, at := tx.Bucket(s.path()...), binary.BigEndian.AppendUint64(nil, uint64(start.Unix()))
		if full {
			if err := b.Put(keyReconciledFull, at); err != nil {
				return err
			}
		}
		return b.Put(keyReconciled, at)
	})
}

// audit compares the relay with the archive. What cannot be reconciled is paged.
func (v *visit) audit(full bool) (err error) {
	start, met := v.s.o.Now(), v.s.auditMet
	if full {
		met = v.s.auditAsked.Load() // whoever asks from now on asks for another one
	}
	if v.s.audits++; v.s.audits > maxAudits {
		v.s.audits, v.s.auditMet = 0, met
		v.log.Warn().Str("source", v.s.o.URL).Int("tries", maxAudits).Msg("not compared with the archive: the session ends each time")
		return v.s.audited(start, false)
	}
	defer func() {
		if err != nil && relay.Ours(v.sess.Err()) {
			v.s.audits--
		}
	}()
	if met != v.s.auditMet && v.s.audits == 1 {
		if err := v.s.mayReconcileAgain(); err != nil {
			return err
		}
	}
	v.s.phase(Reconciling)
	result := Audit{At: start, Full: full}
	since := v.plan.history.Since
	if v.plan.history.None {
		since = max(0, start.Unix()-int64(v.s.reconcile.Load().Depth/time.Second))
	}
	if !full {
		since = max(since, start.Add(-v.s.reconcile.Load().Depth).Unix())
	}
	clip := start.Add(-v.s.o.Overlap).Unix()
	var list []atom
	for _, a := range v.plan.atoms {
		if a.missing = (windows{}).add(a.from(since)); len(a.missing) > 0 && len(a.filter.IDs) == 0 {
			list = append(list, a)
		}
	}
	for _, g := range v.parts(list, func(a atom) string { return string(a.missing.encode()) }) {
		out, err := v.reconcile(g.filter, g.filter, g.atoms[0].missing[0], false, func(part window) error { return v.proveReconciled(g, part, clip) })
		if err != nil {
			return err
		}
		result.Needed += out.need
		result.Came += out.came
		result.Missed += out.missed
		result.Lacks += out.have
		var tasks []*task
		for _, w := range out.left {
			result.Paged++
			tasks = append(tasks, &task{group: g, window: w})
		}
		c := v.crew(record.Page, start, tasks)
		c.done = func(t *task, out outcome) {
			if out.complete != Yes {
				result.Text = out.reason
			}
			v.fellShort(t, out, "not compared with the archive")
		}
		if err := c.run(); err != nil {
			return err
		}
	}
	v.s.audits, v.s.auditMet = 0, met
	if err := v.s.audited(start, full); err != nil { // costs another one
		v.log.Error().Err(err).Str("relay", v.s.o.URL).Msg("that it was reconciled is not saved")
	}
	v.s.mu.Lock()
	v.s.st.Audit = result
	v.s.mu.Unlock()
	because(v.log.Info(), result.Text).Str("source", v.s.o.URL).Bool("full", full).Int("lacked", result.Needed).Int("came", result.Came).
		Int("not_given", result.Missed).Int("relay_lacks", result.Lacks).Int("windows_paged", result.Paged).Msg("compared with the archive")
	return nil
}
