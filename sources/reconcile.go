package sources

import (
	"context"
	"errors"
	"fmt"
	"time"

	"rebroadcastr/event"
	"rebroadcastr/reconcile"
	"rebroadcastr/relay"
)

// Lister lists what the archive has ever had.
type Lister interface {
	// IDs gives the ids of all archived events that f takes, its since and until aside, up to now; release is called when they
	// are not needed any more. It may take as long as reading the archive does.
	// The error is reconcile.ErrNoRoom where the disk has none for them.
	IDs(ctx context.Context, f event.Filter) (ids IDs, release func(), err error)
	// Room waits until one window more can be held in memory, over all relays, and is left when that is let go.
	Room(ctx context.Context) (leave func(), err error)
}

// Seen is what the archive has ever had, as reconciliation wants it.
type Seen interface {
	Lister
	// Known reports whether an event is archived. It is asked for ids whose events came and are behind a barrier.
	Known(id event.ID) (bool, error)
}

// IDs is a reconcile.Set, or what stands for one.
type IDs = reconcile.IDs

const (
	// negTries of one window whose reconciliation broke off: khatru forgets one that rests for 7 s.
	negTries = 3
	// mostlyMissing ids that we lack, and most of what there is, are had by paging in a fifth of the requests.
	mostlyMissing = 2000
	// roundList: a list of one second whose length is a multiple of it may be cut; the caps of relays are.
	roundList = 100
	// maxBarren requests for ids in a row that bring nothing, then the rest of a window's are left for the next time: a relay may list
	// ids that nobody ever made.
	maxBarren = 10
	// requestsFor a number of ids are so many times those for pages of as many events: while fewer are needed than for the pages, all ids
	// are asked for.
	requestsFor = 5
	// worthReconciling is the shortest window that history reconciles: to list what is archived may take reading all of it.
	worthReconciling = 7 * 24 * time.Hour
)

// reconciled is what came of reconciling a window.
type reconciled struct {
	whole  bool     // every part was proven
	reason string   // why not; of the last part that was not
	left   windows  // parts that were not proven, newest first
	dense  []window // of those: seconds that hold more than can be reconciled
	page   bool     // left is to be paged: the relay does not reconcile, or what we lack is had faster so

	need, came, missed int // ids that we lacked; of them came; of them the relay lists and did not give
	have               int // ids that the relay lacks
}

// reconcile finds what of f in w the relay has and the archive lacks, and fetches that; has takes all that f does, and perhaps
// more: ids are listed once for each has. Each part of w of which everything came is
// handed to prove at once, newest first. With force it also does what paging does faster: for a second that cannot be paged.
// An error ends the visit, errReplanned included.
func (v *visit) reconcile(f, has event.Filter, w window, force bool, prove func(window) error) (out reconciled, err error) {
	out.left = windows{}.add(w)
	low := w.lo
	w.lo = max(w.lo, 1) // until 0 would mean none
	down := func(part window) window {
		if part.lo == w.lo {
			part.lo = low
		}
		return part
	}
	can, err := v.s.reconciles(v.sess.Info())
	can = can && v.sess.Settings().Negentropy
	if err != nil {
		return out, err
	}
	if can && v.s.drops.Refuse() {
		can = false
		if err := v.s.doesNotReconcile("the connection ends when it is asked to"); err != nil {
			return out, err
		}
	}
	if !can || w.lo > w.hi {
		out.reason, out.page = "the relay is not asked to reconcile", true
		return out, nil
	}
	phase := v.s.Status().Phase
	ids, release, err := v.s.o.Seen.IDs(v.ctx, has)
	if errors.Is(err, reconcile.ErrNoRoom) {
		out.reason, out.page = err.Error(), true
		return out, nil
	}
	if err != nil {
		return out, fmt.Errorf("list what is archived: %w", err)
	}
	defer release()
	if n, err := ids.Count(w.lo, w.hi); err != nil {
		return out, err
	} else if n == 0 && !force {
		out.reason, out.page = "nothing of it is archived yet", true
		return out, nil
	}
	spans := reconcile.NewSpans(ids, w.lo, w.hi, v.s.o.Now().Unix())
	out.left = nil
	skip := func(part window, reason string) {
		out.reason = reason
		out.left = append(out.left, down(part))
		spans.Skip()
	}
	c := comparing{visit: v, filter: f, ids: ids, force: force}
	for tries := 0; ; {
		if v.replanned() {
			return out, errReplanned
		}
		if !force && v.due() {
			if err := v.catchUp(); err != nil {
				return out, err
			}
			v.s.phase(phase)
		}
		var part window
		ok := false
		if part.lo, part.hi, ok, err = spans.Next(); err != nil {
			return out, err
		} else if !ok {
			out.whole = len(out.left) == 0
			return out, nil
		}
		both, end, err := c.part(down(part), prove, &out)
		if err != nil {
			return out, err
		}
		again := (end.kind == broken || end.kind == mute) && tries+1 < negTries
		if again {
			tries++
			v.s.note("compared again: " + end.reason)
			if err := sleep(v.ctx, v.s.wait(tries, 0)); err != nil {
				return out, err
			}
			continue
		}
		tries = 0
		switch end.kind {
		case settled:
			spans.Done(both)
		case unfetched:
			skip(part, end.reason)
		case paged:
			out.page = true
			skip(part, end.reason)
		case tooMany, cut, overfull:
			if end.kind == cut {
				spans.Fewer(c.lists.Most())
			}
			if spans.Smaller() {
				continue
			}
			if end.kind != overfull || force {
				out.dense = append(out.dense, part)
				skip(part, end.reason)
				continue
			}
			end.kind = refused // it would say so of each second
			fallthrough
		default: // what is left is not asked for in this way
			switch end.kind {
			case refused:
				if err := v.s.doesNotReconcile(end.reason); err != nil {
					return out, err
				}
			case busy, mute:
				v.s.notNow = time.Now().Add(busyFor)
			}
			out.page, out.reason = true, end.reason
			out.left = append(out.left, window{low, part.hi})
			return out, nil
		}
	}
}

// reconcileFirst proves by reconciling what it can of what is missing of g. What is left is to be paged.
func (v *visit) reconcileFirst(g group, start time.Time) (left windows, err error) {
	missing := g.atoms[0].missing
	if v.s.o.Seen == nil || v.s.o.Limit > 0 || len(g.filter.IDs) > 0 {
		return missing, nil
	}
	clip := start.Add(-v.s.o.Overlap).Unix()
	for _, w := range missing {
		if min(w.hi, clip)-w.lo < int64(worthReconciling/time.Second) {
			left = append(left, w)
			continue
		}
		out, err := v.reconcile(g.filter, g.filter, w, false, func(part window) error { return v.proveReconciled(g, part, clip) })
		if err != nil {
			return nil, err
		}
		left = append(left, out.left...)
		v.log.Debug().Str("relay", v.s.o.URL).Int("needed", out.need).Int("came", out.came).Int("missed", out.missed).Int("relay_lacks", out.have).
			Int("windows_left", len(out.left)).Str("reason", out.reason).Msg("compared with the archive")
	}
	return left, nil
}

// proveReconciled takes a window as proven and hands it to the saver.
func (v *visit) proveReconciled(g group, part window, clip int64) error {
	v.s.reconciledPart()
	for _, step := range v.prove(g, windows{part}, clip) {
		if err := v.saver.add(v.ctx, step); err != nil {
			return err
		}
	}
	return nil
}

// reconcileSecond gets what of a part of g cannot be paged in one second; false: not all of it came.
func (v *visit) reconcileSecond(g group, f event.Filter, at int64) (whole bool, err error) {
	if v.s.o.Seen == nil || v.s.o.Limit > 0 || at < 1 {
		return false, nil
	}
	out, err := v.reconcile(f, g.filter, window{at, at}, true, func(window) error { return nil }) // the walk proves it
	return out.whole, err
}

// comparing is the reconciliation of one filter.
type comparing struct {
	*visit
	filter event.Filter
	ids    IDs
	force  bool
	lists  relay.Lists
}

// part is one window that both sides can hold: reconciled to its end first, then fetched. both is how many ids there are on either side.
func (c *comparing) part(part window, prove func(window) error, out *reconciled) (both int, end negEnd, err error) {
	d, ours, end, err := c.window(part)
	if err != nil {
		return 0, end, err
	}
	if end.kind == tooMany && d.Begun && !c.force {
		return 0, negEnd{paged, "most of it is missing"}, nil
	}
	if end.kind != settled {
		return 0, end, nil
	}
	both = ours + len(d.Need)
	lack, waiting, err := c.s.fetchable(d.Need)
	if err != nil {
		return both, end, err
	}
	switch {
	case !c.force && len(lack) > mostlyMissing && len(lack) > both/2:
		return both, negEnd{paged, "most of it is missing"}, nil
	case !c.force && d.Unsure:
		return both, negEnd{paged, "nothing tells whether the relay lists all of it"}, nil
	case d.Unsure && d.Listed(ours)%roundList == 0:
		return both, negEnd{tooMany, fmt.Sprintf("the relay lists %d ids of one second, perhaps of more", d.Listed(ours))}, nil
	}
	out.have += len(d.Have)
	out.need += len(d.Need)
	missed, unasked, err := c.fetch(lack, both, out)
	if err != nil {
		return both, end, err
	}
	out.missed += missed + waiting
	if unasked > 0 {
		return both, negEnd{unfetched, fmt.Sprintf("%d of the events that the relay lists and does not give were not asked for", unasked)}, nil
	}
	// A relay that was asked for an event by its id and said that it was done gives it in no page either. strfry lists what it shows
	// after a login only.
	return both, end, prove(part)
}

// window finds the difference in one. The place in memory that it takes is free again when it returns: others do not wait while a
// slow relay gives what is missing.
func (c *comparing) window(part window) (d relay.Difference, ours int, end negEnd, err error) {
	leave, err := c.s.o.Seen.Room(c.ctx)
	if err != nil {
		return d, 0, end, err
	}
	defer leave()
	f := c.filter
	if f.Since = part.lo; part.hi == openEnd {
		f.Until = 0
	} else {
		// The second behind the window is asked for too: at some relays until is exclusive. One that holds too much for a page is
		// asked for alone, where that is not known.
		if m := c.manners(); !c.force || m.edge > 0 {
			part.hi++
		}
		f.Until = part.hi
	}
	items, err := c.ids.List(part.lo, part.hi)
	if errors.Is(err, reconcile.ErrTooMany) {
		return d, 0, negEnd{tooMany, err.Error()}, nil
	}
	if err != nil {
		return d, 0, end, err
	}
	d, end, err = c.differ(&c.lists, f, items)
	return d, len(items), end, err
}

// fetch gets events by their ids, and remembers which of them cannot be had: missed. Of these the relay gave no answer about
// unasked. both is how many ids there are on either side.
func (v *visit) fetch(ids []event.ID, both int, out *reconciled) (missed, unasked int, err error) {
	var came, not []event.ID
	for barren := 0; len(ids) > 0; {
		if barren >= maxBarren && requestsFor*len(ids) > both {
			unasked += len(ids)
			break
		}
		most := v.mostIDs()
		chunk := ids[:min(most, len(ids))]
		lacks, again, done, err := v.fetchSome(chunk)
		if err != nil {
			return missed, unasked, err
		}
		if again {
			continue
		}
		ids = ids[len(chunk):]
		lacking := make(map[event.ID]struct{}, len(lacks))
		for _, id := range lacks {
			lacking[id] = struct{}{}
		}
		for _, id := range chunk {
			if _, ok := lacking[id]; !ok {
				came = append(came, id)
			}
		}
		if len(lacks) < len(chunk) { // a relay may give fewer at once, without a word
			ids, barren = append(lacks, ids...), 0
		} else {
			if barren++; done {
				not = append(not, lacks...)
			} else {
				unasked += len(lacks)
			}
		}
	}
	missed = len(not) + unasked
	out.came += len(came)
	if len(came) > 0 { // what the door refuses is not to be fetched each time
		answer, err := v.s.o.Intake.Barrier(v.ctx)
		if err != nil {
			return missed, unasked, fmt.Errorf("put a barrier: %w", err)
		}
		select {
		case err := <-answer:
			if err != nil {
				return missed, unasked, fmt.Errorf("wait for the archive: %w", err)
			}
		case <-v.ctx.Done():
			return missed, unasked, context.Cause(v.ctx)
		}
	}
	var got, refused []event.ID
	for _, id := range came {
		known, err := v.s.o.Seen.Known(id)
		if err != nil {
			return missed, unasked, err
		}
		if known {
			got = append(got, id)
		} else {
			refused = append(refused, id)
		}
	}
	if v.s.joined.Load() != &v.plan.joined { // the door may have refused them for another wish than the one they were asked for
		return missed, unasked, errReplanned
	}
	return missed, unasked, v.s.noteUnfetchable(not, refused, got)
}

// mostIDs of one request.
func (v *visit) mostIDs() int {
	most := min(v.most(), maxIDs)
	if page := v.sess.Info().Limits.MaxLimit; page > 0 {
		most = min(most, page)
	}
	return most
}

// fetchSome asks for ids in one request until they came, or the relay says that it is done. again: with what mostIDs says now.
// done: it does.
func (v *visit) fetchSome(chunk []event.ID) (missing []event.ID, again, done bool, err error) {
	for tries := 0; ; tries++ {
		x, fewest := v.exchange(chunk), v.s.fewest.Load()
		err := v.askIDs(x, chunk)
		var w word
		if err == nil {
			w, err = v.hearIDs(x)
		}
		if err := errors.Join(err, v.hangUp(x)); err != nil {
			return nil, false, false, err
		}
		missing = x.missing()
		if w.kind == saidAll || w.kind == saidEOSE || len(missing) == 0 {
			v.sess.Progress()
			v.sess.Answered()
			return missing, false, true, nil
		}
		var wanted time.Duration
		if w.kind == saidClosed {
			j := relay.ClassifyClosed(w.text)
			switch {
			case j.Verdict == relay.Paused:
				return nil, false, false, &relay.Pause{For: probe, Reason: w.text}
			case j.Verdict == relay.Narrow && v.s.narrower(len(chunk)):
				return nil, true, false, nil
			case j.Verdict == relay.Narrow:
				return missing, false, false, nil
			case j.Cause == relay.CauseTooManyREQ:
				v.s.fewer(fewest)
			case j.Verdict == relay.Slower:
				v.sess.Slower(j.Wait)
			}
			wanted = j.Wait
		}
		if tries+1 >= negTries {
			return missing, false, false, nil
		}
		v.s.note(w.text)
		if err := sleep(v.ctx, v.s.wait(tries, wanted)); err != nil {
			return nil, false, false, err
		}
	}
}

// askIDs sends the request of an exchange for ids.
func (v *visit) askIDs(x *exchange, chunk []event.ID) error {
	f := event.Filter{IDs: chunk}
	msg := append([]byte(`["REQ","`+x.sub+`",`), f.AppendJSON(nil, len(chunk))...)
	if err := v.sess.Request(v.ctx, append(msg, ']')); err != nil {
		return fmt.Errorf("ask %s: %w", v.s.o.URL, err)
	}
	x.alive(v.sess.Stalled())
	return nil
}

// hearIDs waits for the end of a request for ids.
func (v *visit) hearIDs(x *exchange) (word, error) {
	patience, complaint, at := v.s.o.Idle, "", time.Time{}
	for {
		w, err := v.hear(x, patience)
		switch {
		case err != nil:
			return w, err
		case w.kind == saidNotice: // perhaps instead of an answer
			if complaint == "" {
				at, complaint = time.Now(), w.text
				patience = min(patience, x.quiet(v.sess.Stalled())+v.s.o.Idle/10)
			}
		case w.kind == saidNothing && complaint != "" && x.heardSince(at): // it was about something else
			patience, complaint = v.s.o.Idle, ""
		case w.kind == saidNothing && complaint != "":
			return word{kind: saidNothing, text: complaint}, nil
		default:
			return w, nil
		}
	}
}
