package sinks

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nbd-wtf/go-nostr"
	"github.com/rs/zerolog"

	"rebroadcastr/dedup"
	"rebroadcastr/event"
	"rebroadcastr/place"
	"rebroadcastr/policy"
	"rebroadcastr/record"
	"rebroadcastr/relay"
	"rebroadcastr/relaytest"
)

// past gives the rig an index, which is told of all that is archived.
func (r *rig) past() {
	r.t.Helper()
	x, err := dedup.Open(dedup.Options{Dir: r.t.TempDir(), Log: zerolog.Nop()})
	if err != nil {
		r.t.Fatalf("open the index: %v", err)
	}
	r.t.Cleanup(func() {
		r.stopped()
		if err := x.Close(); err != nil {
			r.t.Errorf("close the index: %v", err)
		}
	})
	r.o.Past, r.log.told = x, x.Written
}

// stopped ends the sink, if it was started.
func (r *rig) stopped() {
	if r.stop != nil {
		r.stop()
	}
}

// sentOnly compares what the relay was sent, in any order and however often, with the lines.
func (r *rig) sentOnly(lines ...string) {
	r.t.Helper()
	var got []string
	for _, m := range r.relay.Got("EVENT") {
		got = append(got, relaytest.ID(strings.TrimSuffix(strings.TrimPrefix(m.Raw, `["EVENT",`), "]")))
	}
	want := ids(lines)
	slices.Sort(got)
	slices.Sort(want)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		r.t.Errorf("the relay was sent %d events, want %d\n got %v\nwant %v\n%+v", len(got), len(want), got, want, r.sink.Status().Counters)
	}
}

func (r *rig) skips(want map[string]uint64) {
	r.t.Helper()
	if got := r.sink.Status().Counters.Skipped; fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("skipped %v, want %v", got, want)
	}
}

func tagged(list ...[]string) [][]string { return list }

var me = relaytest.Key(1)

func note(at int64, tags ...[]string) string {
	return relaytest.Sign(me, 1, at, tags, fmt.Sprint("note ", at))
}

func profile(at int64, tags ...[]string) string {
	return relaytest.Sign(me, 0, at, tags, fmt.Sprint("profile ", at))
}

func deletion(lines ...string) string {
	var targets [][]string
	for _, line := range lines {
		targets = append(targets, []string{"e", relaytest.ID(line)})
	}
	return relaytest.Sign(me, 5, day+1000, targets, "")
}

// TestDeletedAndSuperseded: what the log says of its events by the time they are sent.
func TestDeletedAndSuperseded(t *testing.T) {
	first, second, third := profile(day), profile(day+1), profile(day+2)
	article := func(at int64, d string) string {
		return relaytest.Sign(me, 30023, at, tagged([]string{"d", d}), fmt.Sprint("article ", at))
	}
	mine, gone := note(day), note(day+5)
	other := relaytest.Sign(relaytest.Key(2), 5, day+1000, tagged([]string{"e", relaytest.ID(mine)}), "not mine to delete")
	for _, tt := range []struct {
		name  string
		log   []string
		sent  []string
		skips map[string]uint64
	}{
		{"deleted", []string{mine, gone, deletion(gone)}, []string{mine, deletion(gone)}, map[string]uint64{policy.Deleted: 1}},
		{"the deletion came first", []string{deletion(gone), gone, mine}, []string{mine, deletion(gone)}, map[string]uint64{policy.Deleted: 1}},
		{"deleted by another", []string{mine, other}, []string{mine, other}, nil},
		{"superseded", []string{first, second, third}, []string{third}, map[string]uint64{policy.Superseded: 2}},
		{"the newest came first", []string{third, first, second}, []string{third}, map[string]uint64{policy.Superseded: 2}},
		{"other d tags", []string{article(day, "a"), article(day+1, "b"), article(day+2, "a")},
			[]string{article(day+1, "b"), article(day+2, "a")}, map[string]uint64{policy.Superseded: 1}},
		{"the newest was deleted", []string{first, second, deletion(second)}, []string{first, deletion(second)}, map[string]uint64{policy.Deleted: 1}},
		{"the newest is protected", []string{first, profile(day+1, []string{"-"})}, []string{first}, map[string]uint64{policy.Protected: 1}},
		{"the newest has expired", []string{first, profile(day+1, []string{"expiration", "1700000002"})}, []string{first}, map[string]uint64{policy.Expired: 1}},
		{"the newest waits for a better clock", []string{first, profile(99999999999)}, []string{first, profile(99999999999)}, nil},
		{"not in the filter", []string{first, profile(day+1, []string{"t", "unwanted"})}, []string{first}, map[string]uint64{SkipFilter: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, relaytest.Script{})
			r.past()
			r.o.Want = event.Selection{All: [][]event.Filter{{{}}}, Except: []event.Filter{{Tags: map[string][]string{"t": {"unwanted"}}}}}.Compile()
			if tt.skips == nil {
				tt.skips = map[string]uint64{}
			}
			r.log.add(t, record.Origin{}, tt.log...)
			r.start()
			r.settled()
			r.sentOnly(tt.sent...)
			r.skips(tt.skips)
		})
	}
}

// TestVanish: a request to vanish goes to the relays that it names, which get nothing that is older.
func TestVanish(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	r.past()
	before, after := note(day), note(day+1)
	request := relaytest.Sign(me, 62, day, tagged([]string{"relay", r.relay.URL + "/"}), "")
	elsewhere := relaytest.Sign(relaytest.Key(2), 62, day, tagged([]string{"relay", "wss://elsewhere.example.com"}), "")
	theirs := relaytest.Sign(relaytest.Key(2), 1, day, nil, "")
	r.log.add(t, record.Origin{}, before, request, after, elsewhere, theirs)
	r.start()
	r.settled()
	r.sentOnly(request, after, theirs)
	r.skips(map[string]uint64{policy.Deleted: 1, policy.Vanish: 1})
}

// TestSentAllTheSame: send: lets the two rows through.
func TestSentAllTheSame(t *testing.T) {
	for _, tt := range []struct {
		send []string
		sent func(old, newer, deleted string) []string
	}{
		{[]string{policy.Deleted}, func(_, newer, deleted string) []string { return []string{newer, deleted} }},
		{[]string{policy.Superseded}, func(old, newer, _ string) []string { return []string{old, newer} }},
		{[]string{policy.Deleted, policy.Superseded}, func(old, newer, deleted string) []string { return []string{old, newer, deleted} }},
	} {
		t.Run(fmt.Sprint(tt.send), func(t *testing.T) {
			r := newRig(t, relaytest.Script{})
			r.past()
			allow, err := policy.NewAllow(tt.send)
			if err != nil {
				t.Fatal(err)
			}
			r.o.Allow = allow
			old, newer, deleted := profile(day), profile(day+1), note(day)
			r.log.add(t, record.Origin{}, old, newer, deleted, deletion(deleted))
			r.start()
			r.settled()
			r.sentOnly(append(tt.sent(old, newer, deleted), deletion(deleted))...)
		})
	}
}

// TestNewerFromTheRelayItself: a relay that we have the newest version from gets no older one of another's.
func TestNewerFromTheRelayItself(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	r.past()
	r.log.add(t, record.Origin{Relay: "wss://elsewhere.example.com"}, profile(day))
	r.log.add(t, record.Origin{Relay: r.relay.URL}, profile(day+1))
	r.start()
	r.settled()
	r.sentOnly()
	r.skips(map[string]uint64{policy.Superseded: 1, SkipEcho: 1})
}

// TestNewerThatThisSinkDoesNotGet: an older version goes where the newer one does not, or is refused for good.
func TestNewerThatThisSinkDoesNotGet(t *testing.T) {
	old, newer := profile(day), profile(day+1)
	t.Run("no_deliver", func(t *testing.T) {
		r := newRig(t, relaytest.Script{})
		r.past()
		r.log.add(t, record.Origin{NoDeliver: true}, newer)
		r.log.add(t, record.Origin{}, old)
		r.start()
		r.settled()
		r.sentOnly(old)
	})
	t.Run("expired, from the relay itself", func(t *testing.T) {
		r := newRig(t, relaytest.Script{})
		r.past()
		r.log.add(t, record.Origin{Relay: r.relay.URL}, profile(day+1, []string{"expiration", "1700000002"}))
		r.log.add(t, record.Origin{}, old)
		r.start()
		r.settled()
		r.sentOnly(old)
	})
	t.Run("before the start", func(t *testing.T) {
		r := newRig(t, relaytest.Script{})
		r.past()
		r.o.Start = Start{Now: true}
		r.log.add(t, record.Origin{}, newer)
		r.start()
		r.log.add(t, record.Origin{}, old)
		r.settled()
		r.sentOnly(old)
	})
	t.Run("refused", func(t *testing.T) {
		r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
			if e.ID == relaytest.ID(newer) {
				return relaytest.Reject("invalid: not that one")
			}
			return relaytest.Accept()
		}})
		r.past()
		r.log.add(t, record.Origin{}, newer)
		r.start()
		r.settled()
		r.log.add(t, record.Origin{}, old)
		r.settled()
		r.sentOnly(old, newer)
		r.reopen(false) // the refusal is in the file now
		late := profile(day - 1)
		r.log.add(t, record.Origin{}, late)
		r.start()
		r.settled()
		r.sentOnly(old, newer, late)
	})
	for what, at := range map[string]place.Place{"withdrawn": place.Make(7, 0), "withdrawn, before another": place.Make(1, 1)} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, relaytest.Script{})
			r.past()
			r.o.Past = withdrawn{r.o.Past, at}
			r.log.add(t, record.Origin{}, old, newer)
			r.start()
			r.settled()
			r.sentOnly(old, newer)
		})
	}
}

// withdrawn says that the newest version is where no line is.
type withdrawn struct {
	Past
	at place.Place
}

func (w withdrawn) Newer(*event.Event) (place.Place, bool, error) { return w.at, true, nil }

// TestDeletedWhileParked: what waits is judged when its time comes: deleted, superseded, expired by then.
func TestDeletedWhileParked(t *testing.T) {
	var offset atomic.Int64
	var healed atomic.Bool
	r := newRig(t, relaytest.Script{OK: func(e nostr.Event) relaytest.Answer {
		if !healed.Load() {
			return relaytest.Reject("error: try later")
		}
		return relaytest.Accept()
	}, Info: `{"supported_nips":[40]}`})
	r.past()
	r.o.Retry = time.Hour
	r.o.Now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	soon := fmt.Sprint(time.Now().Add(time.Hour).Unix())
	stays, goes, old, brief := note(day), note(day+1), profile(day), note(day+2, []string{"expiration", soon})
	newer, request := profile(day+1), deletion(goes)
	r.log.add(t, record.Origin{}, stays, goes, old, brief)
	r.start()
	r.await("four parked", func(st Status) bool { return st.Counters.Parked == 4 })
	r.reopen(false)
	before := len(r.relay.Got("EVENT"))
	healed.Store(true)
	offset.Store(int64(3 * time.Hour))
	r.log.add(t, record.Origin{}, newer, request)
	r.start()
	r.await("none parked", func(st Status) bool { return st.Counters.Parked == 0 && st.Pending == 0 })
	r.has([]string{stays, newer, request})
	if n := len(r.relay.Got("EVENT")) - before; n != 3 {
		t.Errorf("%d sends, want 3", n)
	}
	r.skips(map[string]uint64{policy.Deleted: 1, policy.Superseded: 1, policy.Expired: 1})
}

// TestDeletedBeforeItIsSentAgain: an event that was on its way when the connection closed is judged again.
func TestDeletedBeforeItIsSentAgain(t *testing.T) {
	goes, stays := note(day), note(day+1)
	var r *rig
	var once sync.Once
	r = newRig(t, relaytest.Script{Handle: func(c *relaytest.Conn, m relaytest.Message) bool {
		first := false
		if strings.Contains(m.Raw, relaytest.ID(goes)) {
			once.Do(func() {
				first = true
				r.log.add(t, record.Origin{}, deletion(goes))
				c.Drop()
			})
		}
		return first
	}})
	r.past()
	r.log.add(t, record.Origin{}, goes, stays)
	r.start()
	r.await("all settled", func(st Status) bool { return st.Issued == 3 && st.Pending == 0 })
	r.has([]string{stays, deletion(goes)})
	r.skips(map[string]uint64{policy.Deleted: 1})
}

// TestWiderFilterAsksAgain: an older version that was held back for a newer one is sent when the sink does not get that one
// any more.
func TestWiderFilterAsksAgain(t *testing.T) {
	old, newer := profile(day), profile(day+1, []string{"t", "unwanted"})
	var taken atomic.Bool
	r := newRig(t, relaytest.Script{OK: func(nostr.Event) relaytest.Answer {
		if !taken.Load() {
			return relaytest.Reject("error: try later")
		}
		return relaytest.Accept()
	}})
	r.past()
	r.o.Retry = 10 * time.Millisecond
	r.log.add(t, record.Origin{}, old, newer)
	r.start()
	r.await("the newer one is offered", func(st Status) bool { return st.Counters.Skipped[policy.Superseded] == 1 && st.Counters.Parked == 1 })
	taken.Store(true)
	r.sink.SetRules(event.Selection{All: [][]event.Filter{{{}}}, Except: []event.Filter{{Tags: map[string][]string{"t": {"unwanted"}}}}}.Compile(), "other", policy.Allow{})
	r.await("the older one", func(st Status) bool {
		return st.Counters.Delivered >= 1 && st.Recheck == 0 && st.Pending == 0 && st.Counters.Parked == 0
	})
	if !slices.Contains(r.relay.Stored(), relaytest.ID(old)) {
		t.Errorf("the relay has %v, want the older version", r.relay.Stored())
	}
}

// TestIndexThatCannotBeRead ends the attempt, as an archive that cannot be read does; nothing is sent or skipped meanwhile.
func TestIndexThatCannotBeRead(t *testing.T) {
	r := newRig(t, relaytest.Script{})
	r.past()
	broken := &brokenPast{Past: r.o.Past}
	broken.on.Store(true)
	r.o.Past = broken
	goes, stays := note(day), note(day+1)
	r.log.add(t, record.Origin{}, goes, stays, deletion(goes))
	r.start()
	r.await("three attempts", func(st Status) bool { return st.Session.Sessions >= 3 })
	if got := r.relay.Got("EVENT"); len(got) != 0 {
		t.Fatalf("the relay was sent %d events while the index could not be asked", len(got))
	}
	if n := r.out.count("input/output error"); n == 0 {
		t.Error("nothing is logged of it")
	}
	broken.on.Store(false)
	r.settled()
	r.has([]string{stays, deletion(goes)})
}

type brokenPast struct {
	Past
	on atomic.Bool
}

func (b *brokenPast) Deleted(e *event.Event, url string) (place.Place, bool, error) {
	if b.on.Load() {
		return place.Place{}, false, errors.New("read index: input/output error")
	}
	return b.Past.Deleted(e, url)
}

// BenchmarkDecide is what is asked before each send of a plain note: of an author that has asked for nothing, and of one that has,
// with nothing that covers the note.
func BenchmarkDecide(b *testing.B) {
	x, err := dedup.Open(dedup.Options{Dir: b.TempDir(), Log: zerolog.Nop()})
	if err != nil {
		b.Fatal(err)
	}
	defer x.Close()
	var recs []record.Record
	for i := range 100_000 {
		rec := record.Record{Place: place.Make(1, uint64(i)*300), End: place.Make(1, uint64(i+1)*300)}
		line := fmt.Sprintf(`{"id":"%064x","pubkey":"%064x","created_at":%d,"kind":5,"tags":[["e","%064x"]],"content":"","sig":"%0128d"}`, i, i, day, i, 0)
		if err := event.Parse([]byte(line), &rec.Event); err != nil {
			b.Fatal(err)
		}
		recs = append(recs, rec)
	}
	if err := x.Replay(recs); err != nil {
		b.Fatal(err)
	}
	l := &ledger{}
	for name, by := range map[string]int{"asked for nothing": 1_000_000, "has deleted": 77} {
		var rec record.Record
		line := fmt.Sprintf(`{"id":"%064x","pubkey":"%064x","created_at":%d,"kind":1,"tags":[["e","%064x"],["p","%064x"]],"content":"hello","sig":"%0128d"}`, 5, by, day, 1, 2, 0)
		if err := event.Parse([]byte(line), &rec.Event); err != nil {
			b.Fatal(err)
		}
		for _, past := range []Past{nil, x} {
			s := &Sink{o: Options{URL: "wss://sink.example.com", Past: past}, ledger: l, now: time.Now}
			s.rules.Store(&rules{})
			b.Run(fmt.Sprintf("%s/index=%t", name, past != nil), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if d, err := s.decide(&rec, known(relay.Info{})); err != nil || !d.sends() {
						b.Fatalf("%+v, %v", d, err)
					}
				}
			})
		}
	}
}
