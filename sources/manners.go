package sources

import "time"

// steadyAfter so many pages that were cut at the same size, the relay counts events and nothing else.
const steadyAfter = 3

// orderedAfter so many steps from one event to an older one, and none to a newer one, the relay sends the newest first.
const orderedAfter = 20

// leastCap is far less than any relay is known to give at once: eventstore's badger gives 250 where it is asked for more than 1,000,
// its lmdb 375 (badger/query.go, lmdb/query.go), strfry 500.
const leastCap = 20

// manners are what is known of how one relay gives its pages: what its NIP-11 document says, until what comes says
// otherwise. All walks at a relay share them.
type manners struct {
	page     int           // most events that one request asks for
	first    int           // page, before anything was learned
	said     bool          // its document says how many
	sure     bool          // the relay says that it gives as many as page; believed once it has, and nothing says otherwise
	edge     int64         // 1: the relay's until is exclusive
	known    bool          // edge is known
	largest  int           // page so far
	filled   int           // so many were asked for, and came
	cut      int           // the smallest page below what was asked for that something was missing from; 0: none
	cuts     int           // how often that was so
	uneven   bool          // and not always at the same size: some relays count bytes
	another  bool          // page than first was tried
	steps    int           // see orderedAfter
	finished int           // the largest page that the relay called its last (NIP-67) and after which nothing came
	lies     bool          // something did
	tells    bool          // it does not say so of every page
	always   bool          // it says that there is more where there is nothing
	fickle   bool          // an event that came did not come again, and then did: several databases behind one address
	gave     int           // so many came of what was asked for only to see how many do
	counts   bool          // it answers COUNT, as far as we know
	told     bool          // it has answered one
	untold   int           // COUNTs in a row to which no answer came, or one that may pass
	slow     time.Duration // it took for the last one
	heeds    bool          // it looks at since and until then
	hides    bool          // it has counted more than it gave
	thin     bool          // it takes events out of its pages: it has more in a window than came, and gave all that it gives
	probed   int           // so many events of anybody were asked for, only to see how many come
	came     int           // events, on all pages
	twice    int           // of them, on pages that were asked for again in parts
}

func newManners(page int, sure bool) *manners {
	return &manners{page: page, first: page, said: sure, sure: sure}
}

// learned takes what was learned of the same relay before its NIP-11 document said something else. What it has counted does not become
// unknown: a document that could not be had says nothing.
func (m *manners) learned(before *manners) {
	m.edge, m.known, m.steps = before.edge, before.known, before.steps
	m.told, m.untold, m.slow, m.heeds = before.told, before.untold, before.slow, before.heeds
	m.counts = m.counts || before.counts && before.told
	if before.hides {
		m.withholds()
	}
}

// saw notes a page.
func (m *manners) saw(a *answer, asked int) {
	m.came += a.size()
	if asked == m.page { // what is asked for less may give more, or less
		m.largest = max(m.largest, a.size())
	}
	if a.size() >= asked {
		m.filled = max(m.filled, asked)
	}
	if m.page != m.first && asked == m.page && a.size() > 2*m.cut { // it does give more
		m.cut, m.cuts, m.uneven = 0, 0, false
	}
	if m.steps += a.steps; a.steps >= orderedAfter/2 { // on one page: by chance once in ten factorial
		m.steps = max(m.steps, orderedAfter)
	}
	if a.disordered {
		m.steps = 0
	}
}

// heed takes NIP-67's hints for what they are worth. Some relays may say the same of every page, or of every one that is shorter
// than what was asked for: "finish" is believed of pages shorter than one of which it proved true, and of empty ones.
func (w *walk) heed(a *answer) {
	if a.more && a.size() == 0 {
		w.m.always = true
	}
	a.more = a.more && !w.m.always
	w.m.tells = w.m.tells || !a.finish && a.size() > 0
	// One that was cut off by what was asked for, or would have been longer had less been, may be shorter than that too.
	cut := a.size() >= w.asked.limit || w.asked.limit > w.m.page
	if a.finish && a.size() > 0 && (w.m.lies || !w.m.tells || cut || a.size() >= w.m.finished) {
		a.finish, a.claims = false, !w.m.lies && a.size() == a.n // what follows a page of other things says nothing of it
	}
}

// ordered says whether a page can be taken for the newest of its window.
func (m *manners) ordered() bool { return m.steps >= orderedAfter }

// unlikely says that a page of n can hardly have been cut off, because no relay gives so few.
func (m *manners) unlikely(n, asked int) bool {
	return n < min(asked, leastCap) && !m.thin && (m.cut == 0 || n < m.cut)
}

// cutAt notes that something was missing from a page of n.
func (m *manners) cutAt(n, asked int) {
	if n >= asked || m.thin {
		return
	}
	m.sure = false
	m.cuts++
	m.uneven = m.uneven || m.cut != 0 && m.cut != n
	if m.cut == 0 || n < m.cut {
		m.cut = n
	}
	switch {
	case asked == m.first && m.page == m.first && !m.another && 4*n < m.first && n >= 10:
		// eventstore gives a quarter of what it could when asked for more than that.
		m.page, m.another = 4*n, true
	case asked == m.page && m.page != m.first && 2*n < asked: // that was not it
		m.page = m.first
	}
}

// trusted says that what the relay promises has come.
func (m *manners) trusted() bool { return m.sure && m.largest >= m.page }

// steady says that pages are cut at the same size.
func (m *manners) steady() bool { return m.cuts >= steadyAfter && !m.uneven }

// probe notes that n events came when asked were asked for, of anybody.
func (m *manners) probe(n, asked int) {
	m.probed, m.gave = max(m.probed, asked), max(m.gave, n)
}

// tried says that the relay was probed for as many.
func (m *manners) tried(n int) bool { return m.probed >= n }

// unlearned says that a page of n counts as full only because none that was longer has come yet.
func (m *manners) unlearned(n, asked int) bool {
	return n < asked && asked == m.page && m.cut == 0 && !m.trusted() && n >= m.largest
}

// full says whether something may be missing from a page of n. Half of the smallest page that was cut counts as full,
// unless several were cut at the same size. While none was, a page is as full as can be when none was longer, and none that was
// asked to hold as much has been filled.
func (m *manners) full(n, asked int) bool {
	switch {
	case n >= asked || asked > m.page: // before more was known
		return true
	case m.thin: // no page need ever have been that long
		return n >= m.page
	case m.trusted():
		return n >= m.page
	case m.steady():
		return n >= m.cut
	case m.cut > 0:
		return 2*n >= m.cut
	case asked <= m.filled:
		return false
	}
	return n >= m.largest
}
