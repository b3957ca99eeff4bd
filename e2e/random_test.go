package e2e

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rebroadcastr/relaytest"
)

var (
	randomTime   = flag.Duration("random", time.Minute, "how long TestRandom goes on")
	randomSeed   = flag.Uint64("seed", 0, "TestRandom's first round is made from this; alone: that round only")
	randomRounds = flag.Int("rounds", 0, "TestRandom ends after so many rounds; 0: by its time")
)

// mostFailures end a long run: what they show is one bug, most likely.
const mostFailures = 5

// TestRandom is "never lose an event" as one sentence over worlds made from a seed: whatever sources, sinks, faults, clock and
// restarts do, once all is well again the archive is the set of genuine wanted events that the sources serve, each sink has
// that set by its rules, and the figures balance.
//
// A round repeats with its own seed, as printed where it fails: its world and its faults are the same, the moments at which
// they meet the program are not quite.
func TestRandom(t *testing.T) {
	first, limit, rounds := *randomSeed, *randomTime, *randomRounds
	if testing.Short() {
		limit = min(limit, 10*time.Second)
	}
	given := map[string]bool{}
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	} else if rounds == 0 && !given["random"] {
		rounds = 1
	}
	t.Logf("first seed %d", first)
	seeds := rand.New(rand.NewPCG(first, 0))
	begin, failures, n := time.Now(), 0, 0
	for seed := first; failures < mostFailures; seed = seeds.Uint64() >> 1 {
		if rounds > 0 && n == rounds || rounds == 0 && time.Since(begin) >= limit {
			break
		}
		n++
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { randomRound(t, seed) }) {
			failures++
		}
	}
	t.Logf("%d rounds in %s, %d failed", n, time.Since(begin).Round(time.Second), failures)
}

// round is one world and one archive.
type round struct {
	t        *testing.T
	seed     uint64
	rng      *rand.Rand
	dir      string // everything that is kept of a failed round
	archive  string
	clock    *clock
	maker    *maker
	stations []*station
	facts    map[string]*fact
	first    *setup // the one with every relay
	setup    *setup // in force
	setups   []*setup
	program  *program
	lives    int
	fsync    int // milliseconds that one takes
	history  []life
	powerCut bool
	// before is what was archived when a sink's ledger began, each time that one did.
	before map[*station]map[string]bool
	ledger map[*station]bool // sinks that have one
	hups   int               // SIGHUPs of this life of the program
	unsure *setup            // in force before a SIGHUP that nobody has seen taken up; nil: there is none
	paused map[*station]bool
	// compared: sinks and sources are asked for what they and the archive lack, now that all is well.
	compared bool
	// ahead: the child's clock is ahead of the world's at times, and no time passes. Were it wrong, and then right again only by
	// its time's coming, nothing would show that what is proven and caught up was dated by it.
	ahead bool
	said  *os.File
}

// say writes the round's diary, which is kept when it fails.
func (r *round) say(format string, args ...any) {
	fmt.Fprintf(r.said, time.Now().Format("15:04:05.000 ")+format+"\n", args...) //nolint:errcheck // a diary
}

func (r *round) must(err error) {
	if err != nil {
		r.t.Helper()
		r.t.Fatal(err)
	}
}

func randomRound(t *testing.T, seed uint64) {
	dir, err := os.MkdirTemp("", "random-")
	if err != nil {
		t.Fatal(err)
	}
	r := &round{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), dir: dir, archive: filepath.Join(dir, "a"), facts: map[string]*fact{}, before: map[*station]map[string]bool{}, ledger: map[*station]bool{}, paused: map[*station]bool{}}
	r.said, err = os.Create(filepath.Join(dir, "diary.txt"))
	r.must(err)
	t.Cleanup(func() {
		r.said.Close() //nolint:errcheck // a diary
		if t.Failed() || *showLogs {
			t.Logf("kept in %s; again: go test -tags libsecp256k1 -run 'TestRandom$' -seed %d", dir, seed)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	r.clock, err = newClock(filepath.Join(dir, "clock"))
	r.must(err)
	r.build()
	for range 1 + r.rng.IntN(4) {
		if r.rng.IntN(3) == 0 {
			r.shots()
		} else {
			r.live()
		}
		r.down()
	}
	r.end()
}

// build makes the world before the program's first start.
func (r *round) build() {
	rng := r.rng
	r.ahead = rng.IntN(2) == 0
	r.maker = &maker{rng: rng, clock: r.clock}
	for i := range 2 + rng.IntN(5) {
		r.maker.authors = append(r.maker.authors, &author{person: someone(r.t, fmt.Sprint(r.seed, " ", i))})
	}
	for i := range 1 + rng.IntN(4) {
		s := newStation(r.t, rng, fmt.Sprintf("source%d", i), rng.IntN(3) == 0, true)
		s.source = true
		r.stations = append(r.stations, s)
	}
	for i := range 1 + rng.IntN(3) {
		if i > 0 && rng.IntN(4) == 0 {
			r.stations[0].sink = true // no echo
			continue
		}
		s := newStation(r.t, rng, fmt.Sprintf("sink%d", i), rng.IntN(3) == 0, rng.IntN(2) == 0)
		s.sink = true
		r.stations = append(r.stations, s)
	}
	r.first = newSetup(rng, r.maker.authors, r.stations)
	begin := *r.first
	begin.sinks = maps.Clone(begin.sinks)
	for _, s := range ordered(begin.sinks) {
		if rng.IntN(4) == 0 {
			delete(begin.sinks, s) // it joins later
		}
	}
	r.use(&begin)
	for _, s := range r.stations {
		r.maker.relays = append(r.maker.relays, s.url)
	}
	now := r.clock.now()
	n := 20 + rng.IntN(200)
	if rng.IntN(10) == 0 {
		n = 1500
	}
	history := r.maker.events(n, now-86400*900, now-1)
	for _, f := range history {
		for _, s := range r.some() {
			r.serve(f, s, true)
		}
	}
	for _, s := range r.stations {
		if s.sink && rng.IntN(3) == 0 {
			s.blocked = r.maker.authors[rng.IntN(len(r.maker.authors))].pubkey
		}
		for range 1 + rng.IntN(3) {
			s.forged = append(s.forged, r.forged(history[rng.IntN(len(history))]))
		}
		var mine []*fact
		for _, f := range history {
			if _, ok := f.at[s]; ok {
				mine = append(mine, f)
			}
		}
		r.must(s.load(mine...))
		r.say("%s: %s source %t sink %t document %q cap %d closes every %d blocks %.8s, %d events", s.name, s.url, s.source, s.sink, s.info, s.cap, s.closesEvery, s.blocked, len(mine))
	}
}

// forged is what a lying relay sends: a copy of a genuine event that is not, or what no event is.
func (r *round) forged(of *fact) string {
	switch r.rng.IntN(7) {
	case 0:
		return relaytest.BadSig(of.raw)
	case 1:
		return relaytest.BadID(of.raw)
	case 2:
		return relaytest.TwoIDs(relaytest.BadSig(of.raw), of.raw)
	case 3:
		return relaytest.NestedID(relaytest.BadSig(of.raw), of.raw)
	case 4:
		return relaytest.UpperID(of.raw)
	case 5:
		return strings.Replace(of.raw, `"created_at":`, `"created_at":9`, 1)
	default:
		return relaytest.Forged(of.raw)
	}
}

// serve notes that a source serves an event from now on.
func (r *round) serve(f *fact, s *station, sure bool) {
	r.facts[f.e.ID] = f
	f.at[s] = f.at[s] || sure
}

// some chooses one or more sources.
func (r *round) some() []*station {
	var all []*station
	for _, s := range r.stations {
		if s.source {
			all = append(all, s)
		}
	}
	r.rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+r.rng.IntN(len(all))]
}

// use makes a setup the one in force.
func (r *round) use(c *setup) {
	r.setup = c
	r.setups = append(r.setups, c)
	r.must(os.WriteFile(r.config(), []byte(c.yaml(r.archive)), 0o600))
}

// starts notes what is archived when the ledgers of sinks that have none begin, or have just begun.
func (r *round) starts() {
	ids, err := archivedIDs(r.archive)
	r.must(err)
	for s := range r.setup.sinks {
		if r.ledger[s] {
			continue
		}
		r.ledger[s] = true
		if r.before[s] == nil {
			r.before[s] = map[string]bool{}
		}
		maps.Copy(r.before[s], ids)
	}
}

func (r *round) config() string { return filepath.Join(r.dir, "config.yaml") }

// publish brings one new event to the world.
func (r *round) publish(tell bool) {
	f, sure := r.maker.live(), true
	if r.rng.IntN(8) == 0 {
		f, sure = r.maker.late(), false
	}
	for _, s := range r.some() {
		r.serve(f, s, sure)
		if tell {
			r.must(s.publish(f))
		} else {
			r.must(s.load(f))
		}
	}
}

// live runs the program for a while in a world that goes wrong around it.
func (r *round) live() {
	rng := r.rng
	r.fsync = []int{0, 0, 30, 300}[rng.IntN(4)]
	r.start()
	for range 3 + rng.IntN(25) {
		pause := time.Duration(rng.IntN(120)) * time.Millisecond
		select {
		case <-time.After(pause):
		case <-r.program.Done():
			r.t.Fatalf("the program ended by itself:\n%s", tail(r.program.Stderr(), 3000))
		}
		switch s := r.stations[rng.IntN(len(r.stations))]; rng.IntN(20) {
		case 0, 1:
			s.spoil(rng, r.say)
		case 2, 3:
			s.calm()
		case 4:
			r.stepClock()
		case 5:
			r.bringIn()
		case 7:
			r.operate(s)
		case 8:
			r.reload()
		case 6:
			if !r.ahead {
				d := time.Duration(rng.IntN(36*60)) * time.Minute
				r.must(r.clock.pass(d))
				r.say("%s pass", d)
			}
		default:
			for range 1 + rng.IntN(8) {
				r.publish(true)
			}
		}
	}
	r.finish()
}

// stepClock makes the child's clock wrong, or right again.
func (r *round) stepClock() {
	by := []time.Duration{0, 0, -24 * time.Hour, -time.Hour}[r.rng.IntN(4)]
	if by != 0 && r.ahead {
		by = -by
	}
	r.must(r.clock.set(by))
	r.say("the clock is wrong by %s", by)
}

// finish ends the program in one of the ways in which programs end.
func (r *round) finish() {
	p := r.program
	switch way := r.rng.IntN(10); {
	case way < 5:
		r.say("kill -9")
		r.must(p.Kill())
		if r.rng.IntN(2) == 0 {
			r.powerCut = true
			did, err := powerCut(r.rng, r.archive, filepath.Join(r.dir, "journal"))
			r.must(err)
			r.say("power cut: %s", strings.Join(did, "; "))
		}
	case way < 8:
		r.say("SIGTERM")
		r.term(false)
	default:
		r.say("SIGTERM twice")
		r.must(p.Signal(sigterm))
		time.Sleep(time.Duration(r.rng.IntN(60)) * time.Millisecond)
		r.term(true)
	}
	r.ended()
}

// term ends the program by a signal and wants exit code 0.
func (r *round) term(again bool) {
	code, err := r.program.Stop(patience)
	if again && code == -1 && strings.Contains(r.program.Stderr(), `"message":"stopped"`) {
		code = 0 // all was done, and signals were the system's again
	}
	if code == 1 && r.fsync > 0 && strings.Contains(r.program.Stderr(), "the disk does not answer") {
		code = 0 // what did not get through in the grace was promised to nobody, and it says so
	}
	if code != 0 || err != nil {
		r.t.Fatalf("SIGTERM: exit %d, %v; want 0\n%s", code, err, tail(r.program.Stderr(), 3000))
	}
}

// down is the time between two lives.
func (r *round) down() {
	rng := r.rng
	for range rng.IntN(15) {
		r.publish(false)
	}
	if rng.IntN(3) == 0 {
		d := time.Duration(rng.IntN(48*60)) * time.Minute
		if !r.ahead {
			r.must(r.clock.pass(d))
			r.say("%s pass", d)
		}
	}
	switch rng.IntN(8) {
	case 0:
		r.say("index/ is removed")
		r.must(os.RemoveAll(filepath.Join(r.archive, "index")))
	case 1:
		r.say("state.db is removed")
		r.must(os.RemoveAll(filepath.Join(r.archive, "state.db")))
		clear(r.ledger) // also of those that are no sinks now
	case 2:
		r.say("reindex")
		r.command(0, "reindex", "-c", r.config())
	case 3:
		r.say("backfill")
		for _, s := range r.stations {
			s.calm()
		}
		r.shot(false)
	}
	if rng.IntN(2) == 0 {
		next, what := r.setup.changed(rng, r.first)
		r.say("config: %s", what)
		r.use(next)
	}
}
