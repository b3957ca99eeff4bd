package sources

import (
	"strings"

	"rebroadcastr/relay"
)

// slots is how many pages may be under way at once: what the relay takes, less the live subscriptions, and less one where a second
// may be reconciled, and its ids asked for, while pages are under way.
func (v *visit) slots() int {
	if v.s.o.Limit > 0 || v.s.cuts > 1 || v.s.halved > 0 { // a connection that is cut after so much must carry one page whole
		return 1
	}
	settings, info := v.sess.Settings(), v.sess.Info()
	most := settings.Subscriptions
	limited := most > 0
	if most <= 0 {
		most = maxPages
		if said := info.Limits.MaxSubscriptions; said > 0 {
			limited, most = said <= maxPages, min(most, said)
		}
	}
	if learned := int(v.s.fewest.Load()); learned > 0 {
		limited, most = true, min(most, learned)
	}
	if limited && v.s.o.Seen != nil && settings.Negentropy && info.Supports(77) {
		most--
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for sub := range v.asked {
		if strings.HasPrefix(sub, livePrefix) {
			most--
		}
	}
	return min(max(most, 1), relay.MaxSubscriptions)
}

// fewer halves what is asked of the relay at once: it has complained about the number of subscriptions, at a request that was sent when
// fewest was then. So many that are refused together halve it once. Where one page is too many, it is asked for without the live
// subscriptions.
func (s *Source) fewer(then int64) {
	switch then {
	case 0:
		s.fewest.CompareAndSwap(0, maxPages/2)
	case 1:
		s.noRoom.Store(true)
	default:
		s.fewest.CompareAndSwap(then, then/2)
	}
}

// eventstore says whether the relay's software is built on it: its full pages for several authors are not always the newest
// events (it takes about as many of each).
func eventstore(i relay.Info) bool {
	name := strings.ToLower(i.Software + " " + i.Name)
	return strings.Contains(name, "khatru") || strings.Contains(name, "eventstore")
}
