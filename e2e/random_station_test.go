package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fiatjaf/eventstore"
	"github.com/nbd-wtf/go-nostr"

	"rebroadcastr/e2e/localrelay"
	"rebroadcastr/relaytest"
)

// station is a relay of a round: a scripted one, or khatru behind a proxy that spoils its line.
type station struct {
	name         string
	url          string
	source, sink bool
	nip40        bool
	nip77        bool
	documented   bool // it has a NIP-11 document
	closesEvery  int  // scripted sinks: the connection ends before each so many-th OK; 0: never

	scripted *relaytest.Relay
	info     string // its NIP-11 document
	well     string // the same without a limit
	cap      int    // most events of a page while it is ill; 0: none
	wellCap  int    // once it is healed; 0: none
	paging   relaytest.Paging
	seed     uint64
	blocked  string // the author whom this sink does not take

	real  *localrelay.Relay
	proxy *proxy

	healed atomic.Bool
	late   sync.WaitGroup // answers on their way

	mu      sync.Mutex
	sent    map[string]*sendings
	strange []string // what came that is no event
	n       int      // EVENTs
	forged  []string
	life    int   // of the program, from 0
	firsts  []int // khatru: how much it had been sent at the start of each life
}

// sendings are what a scripted sink was sent of one event.
type sendings struct {
	raw    string
	n      int
	lost   int    // n when the sink lost it; 0: it has not
	final  string // its last answer, if that settles the event
	answer []string
	lives  []int // in which it was sent
	took   int   // the life in which it was first accepted, from 1; 0: it was not
}

// newStation makes a relay. keepAll is for khatru: a relay that replaces and deletes does not serve what it was brought.
func newStation(t testing.TB, rng *rand.Rand, name string, real, keepAll bool) *station {
	s := &station{name: name, seed: rng.Uint64(), sent: map[string]*sendings{}, nip77: rng.IntN(2) == 0}
	switch rng.IntN(4) {
	case 0, 1:
		s.documented, s.nip40 = true, true
	case 2:
		s.documented = true
	}
	if real {
		o := localrelay.Options{KeepAll: keepAll, Refuse: s.refuse, MaxLimit: 500 << rng.IntN(2), Negentropy: s.nip77}
		s.documented = true
		s.nip40 = true
		s.real = relay(t, o)
		s.proxy = newProxy(t, s.real.Addr())
		s.url = s.proxy.url()
		return s
	}
	nips := "1,11"
	if s.nip40 {
		nips += ",40"
	}
	if s.nip77 {
		nips += ",77"
		s.documented = true
	}
	s.paging.UntilExclusive = rng.IntN(5) == 0
	switch rng.IntN(8) {
	case 0:
		s.paging.Order = relaytest.Shuffled(s.seed)
	case 1:
		s.paging.Hits = relaytest.OldestFirst
	case 2:
		s.paging.Hits = relaytest.TiesShuffled(s.seed)
	}
	if rng.IntN(3) == 0 {
		s.wellCap = mostAtOnce + rng.IntN(60)
	}
	limit := ""
	switch rng.IntN(4) {
	case 0:
		s.cap = 25 + rng.IntN(60)
	case 1:
		s.cap = 5 + rng.IntN(60)
		s.documented = true
		limit = fmt.Sprintf(`,"limitation":{"max_limit":%d}`, s.cap)
	}
	if s.documented {
		s.well = fmt.Sprintf(`{"name":%q,"supported_nips":[%s]}`, name, nips)
		s.info = fmt.Sprintf(`{"name":%q,"supported_nips":[%s]%s}`, name, nips, limit)
	}
	if rng.IntN(3) == 0 {
		s.closesEvery = 3 + rng.IntN(40)
	}
	s.scripted = relaytest.New(t, s.script())
	t.Cleanup(s.late.Wait)
	s.url = s.scripted.URL
	return s
}

func (s *station) refuse(e *nostr.Event) string {
	if e.PubKey == s.blocked {
		return "blocked: not this one"
	}
	return ""
}

// load stores events and tells nobody.
func (s *station) load(facts ...*fact) error {
	if s.real != nil {
		for _, f := range facts {
			if archivable(f.e) {
				if err := had(s.real.Load(f.e)); err != nil {
					return err
				}
			}
		}
		return nil
	}
	s.scripted.Update(func(sc *relaytest.Script) {
		for _, f := range facts {
			sc.Events = append(sc.Events, f.raw)
		}
	})
	return nil
}

// publish stores an event and hands it to the live subscriptions.
func (s *station) publish(f *fact) error {
	if s.real != nil {
		return had(s.real.Publish(f.e))
	}
	s.scripted.Publish(f.raw)
	return nil
}

// had is no error: as a sink it may have been sent the event before its author brings it there.
func had(err error) error {
	if errors.Is(err, eventstore.ErrDupEvent) {
		return nil
	}
	return err
}

// listening counts the live subscriptions that stand.
func (s *station) listening() (n int) {
	if s.real != nil {
		return s.real.Live()
	}
	for _, c := range s.scripted.Conns() {
		for _, id := range c.Subscriptions() {
			if strings.HasPrefix(id, "live-") {
				n++
			}
		}
	}
	return n
}

// spoil makes the station ill in some way.
func (s *station) spoil(rng *rand.Rand, say func(string, ...any)) {
	if s.real != nil {
		s.proxy.spoil(rng)
		say("%s: the line is spoiled", s.name)
		return
	}
	sc := s.script()
	var what []string
	for range 1 + rng.IntN(2) {
		switch k := rng.IntN(17); k {
		case 0, 1, 2:
			sc.CloseAfter = 1 + rng.IntN(60)
			what = append(what, fmt.Sprintf("closes after %d events", sc.CloseAfter))
		case 3:
			sc.StallAfter = 1 + rng.IntN(40)
			what = append(what, fmt.Sprintf("stalls after %d events", sc.StallAfter))
		case 4:
			sc.NoEOSE = true
			what = append(what, "no EOSE")
		case 5:
			sc.ClosedAfter = []string{"error: shutting down", "", "closed", "rate-limited: slow down"}[rng.IntN(4)]
			what = append(what, "CLOSED after EOSE: "+sc.ClosedAfter)
		case 6:
			var n atomic.Int64
			every, text := 2+rng.Int64N(3), []string{"error: busy", "rate-limited: wait 1 second", "auth-required: members", "invalid: filter"}[rng.IntN(4)]
			sc.Closed = func(string, []nostr.Filter) string {
				if n.Add(1)%every == 0 {
					return text
				}
				return ""
			}
			what = append(what, fmt.Sprintf("CLOSED instead of every %d. answer: %s", every, text))
		case 7:
			sc.RefuseLimit0 = "invalid: limit must be positive"
			what = append(what, "refuses limit 0")
		case 8:
			sc.UntilIgnored = true
			what = append(what, "ignores until")
		case 9:
			sc.Status = []int{503, 429, 500}[rng.IntN(3)]
			what = append(what, fmt.Sprintf("HTTP %d", sc.Status))
		case 10:
			sc.Silent = true
			what = append(what, "silent")
		case 11:
			sc.StopReading = true
			what = append(what, "does not read")
		case 12, 13:
			s.mu.Lock()
			sc.First = slices.Clone(s.forged)
			s.mu.Unlock()
			what = append(what, "forged copies first")
		case 14:
			sc.Between = []string{`["EVENT"]`, `garbage`, `["EVENT","live-0",{}]`, `["NOTICE","hello"]`, `["FOO",1]`, `[]`, `{"x":1}`, "\xff\xfe"}[rng.IntN(8):][:1]
			what = append(what, "garbage between: "+sc.Between[0])
		case 15:
			sc.DropBeforeOK = 1 + rng.IntN(30)
			what = append(what, fmt.Sprintf("drops before OK %d", sc.DropBeforeOK))
		case 16:
			sc.Hello = []string{`["NOTICE","welcome"]`, `["AUTH","challenge"]`, `["EOSE","live-0"]`, `["CLOSED","page-1","error: x"]`, `["OK","x",true,""]`}[rng.IntN(5):][:1]
			what = append(what, "hello: "+sc.Hello[0])
		}
	}
	s.scripted.Update(func(now *relaytest.Script) { *now = sc })
	if rng.IntN(2) == 0 {
		s.scripted.Drop()
		what = append(what, "dropped")
	}
	say("%s: %s", s.name, strings.Join(what, ", "))
}

// mostAtOnce is more than a round's events of any one second: where one holds more than a page, nobody can ask for the rest.
const mostAtOnce = 80

// script is how it is made, while nothing spoils it.
func (s *station) script() relaytest.Script {
	return relaytest.Script{Info: s.info, Cap: s.cap, Paging: s.paging, Negentropy: s.nip77, Handle: s.handle}
}

// heal makes it a good relay, whose pages hold more than any second does. Whoever is connected has to come again.
func (s *station) heal() {
	s.healed.Store(true)
	if s.real != nil {
		s.proxy.heal()
		s.proxy.cut()
		return
	}
	s.scripted.Update(func(now *relaytest.Script) { *now = s.script(); now.Info, now.Cap = s.well, s.wellCap })
	s.scripted.Drop()
}

// calm ends what spoil began and leaves the sink's own ways.
func (s *station) calm() {
	if s.real != nil {
		s.proxy.heal()
		return
	}
	s.scripted.Update(func(now *relaytest.Script) { *now = s.script() })
}

// handle takes the EVENTs that a scripted station is sent; the rest is the script's.
func (s *station) handle(c *relaytest.Conn, m relaytest.Message) bool {
	if m.Label != "EVENT" || !s.sink {
		return false
	}
	var parts []json.RawMessage
	e := new(nostr.Event)
	if err := json.Unmarshal([]byte(m.Raw), &parts); err != nil || len(parts) != 2 || e.UnmarshalJSON(parts[1]) != nil {
		s.mu.Lock()
		s.strange = append(s.strange, m.Raw)
		s.mu.Unlock()
		return true
	}
	s.mu.Lock()
	s.n++
	w := s.sent[e.ID]
	if w == nil {
		w = &sendings{raw: string(parts[1])}
		s.sent[e.ID] = w
	}
	w.n++
	if !slices.Contains(w.lives, s.life) {
		w.lives = append(w.lives, s.life)
	}
	try := w.n
	cut := s.closesEvery > 0 && s.n%s.closesEvery == 0 && !s.healed.Load()
	s.mu.Unlock()
	if cut {
		c.Drop()
		return true
	}
	s.answer(c, e, w, string(parts[1]), try)
	return true
}

// answer is the verdict: the same for an event and a try, whatever happens around it.
func (s *station) answer(c *relaytest.Conn, e *nostr.Event, w *sendings, raw string, try int) {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s", s.seed, e.ID)
	fate := int(h.Sum64() % 100)
	if try > 2 || s.healed.Load() {
		fate = 0
	}
	say := func(accepted bool, text string) {
		final := accepted || strings.HasPrefix(text, "blocked:") || strings.HasPrefix(text, "duplicate:") || strings.HasPrefix(text, "invalid:")
		s.mu.Lock()
		w.answer = append(w.answer, text)
		if w.final = ""; final {
			w.final = fmt.Sprintf("%t %s", accepted, text)
		}
		if accepted && w.took == 0 {
			w.took = s.life + 1
		}
		s.mu.Unlock()
		ok, err := json.Marshal([]any{"OK", e.ID, accepted, text})
		if err != nil {
			panic(err)
		}
		c.Send(string(ok))
	}
	take := func() {
		if s.source || s.nip77 {
			s.scripted.Publish(raw)
		}
		say(true, "")
	}
	switch {
	case e.PubKey == s.blocked:
		say(false, "blocked: not this one")
	case fate < 70:
		take()
	case fate < 74:
		say(true, "duplicate: have it")
	case fate < 76:
		say(false, "duplicate: have it")
	case fate < 79:
		take()
		take()
	case fate < 82:
		c.Send(`["OK","` + strings.Repeat("0", 64) + `",true,""]`)
		take()
	case fate < 86:
		s.late.Add(1)
		time.AfterFunc(time.Duration(50+fate%4*400)*time.Millisecond, func() { defer s.late.Done(); take() })
	case fate < 89:
		say(false, "error: database is locked")
	case fate < 91:
		c.Send(`["NOTICE","error: could not save"]`)
		s.note(w, "a NOTICE")
	case fate < 94:
		s.note(w, "nothing")
	case fate < 95:
		say(false, "rate-limited: slow down")
	case fate < 97:
		s.note(w, "closed")
		c.Drop()
	case fate < 98:
		s.note(w, "closed in order")
		c.Shut()
	case fate < 99:
		say(false, "no reason that anybody knows")
	default:
		say(false, "invalid: too many vowels")
	}
}

// lose makes a sink lose some of what it took, each event once at most, and says how much.
func (s *station) lose(rng *rand.Rand) (lost int) {
	if s.real != nil || !s.nip77 || s.source {
		return 0
	}
	s.late.Wait() // one that is answered late is kept again then, after it was lost
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := map[string]bool{}
	one := 2 + rng.IntN(20)
	for _, id := range s.scripted.Stored() {
		if w := s.sent[id]; w != nil && w.lost == 0 && w.final == "true " && rng.IntN(one) == 0 {
			w.lost, gone[id] = w.n, true
		}
	}
	return s.scripted.Lose(func(id string) bool { return gone[id] })
}

// begins notes that a life of the program begins.
func (s *station) begins(life int) {
	if s.real != nil {
		s.firsts = append(s.firsts, len(s.real.Received()))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life = life
}

func (s *station) note(w *sendings, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.answer = append(w.answer, what)
	w.final = ""
}

// got tells what a sink was sent, by id, and what settled it.
func (s *station) got() map[string]sendings {
	out := map[string]sendings{}
	if s.real != nil {
		life := 0
		for i, e := range s.real.Received() {
			for life < len(s.firsts)-1 && i >= s.firsts[life+1] {
				life++
			}
			w := out[e.ID]
			w.n++
			if !slices.Contains(w.lives, life) {
				w.lives = append(w.lives, life)
			}
			w.raw, w.final = canonical(e), "received"
			out[e.ID] = w
		}
		return out
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, w := range s.sent {
		out[id] = *w
		answers := slices.Clone(w.answer)
		c := *w
		c.answer, c.lives = answers, slices.Clone(w.lives)
		out[id] = c
	}
	return out
}
