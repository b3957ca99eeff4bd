package reconcile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/nbd-wtf/go-nostr"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy"
	"github.com/nbd-wtf/go-nostr/nip77/negentropy/storage/vector"

	"rebroadcastr/event"
)

func repeated(b byte) (id event.ID) {
	copy(id[:], bytes.Repeat([]byte{b}, len(id)))
	return id
}

// TestVectors are those of other implementations.
func TestVectors(t *testing.T) {
	for _, c := range []struct {
		items []Item
		open  string
	}{
		{nil, "6100000200"},
		{[]Item{{1700000000, repeated(0xab)}}, "6100000201" + strings.Repeat("ab", 32)},
	} {
		s, err := NewSession(c.items, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Open(); got != c.open || err != nil {
			t.Errorf("%d items open with %s, %v; want %s", len(c.items), got, err, c.open)
		}
	}
	for _, c := range []struct {
		ids  []byte
		want string
	}{
		{nil, "7f9c9e31ac8256ca2f258583df262dbc"},
		{[]byte{0xab}, "e58a2a5c80c2434d22fc49ccefe93c30"},
		{[]byte{0xf0, 0xf1, 0xf2}, "1178157c09d88526794ec9cb22fc76b3"},
	} {
		var list items
		for i, b := range c.ids {
			list = append(list, Item{int64(i), repeated(b)})
		}
		if got := list.Fingerprint(0, len(list)); got != c.want {
			t.Errorf("fingerprint of % x is %s, want %s", c.ids, got, c.want)
		}
	}
}

// peer is go-nostr's responder over its own storage, as khatru has it.
func peer(list []Item, frame int) *negentropy.Negentropy {
	v := vector.New()
	for _, it := range list {
		v.Insert(nostr.Timestamp(it.CreatedAt), it.ID.String())
	}
	v.Seal()
	return negentropy.New(v, frame)
}

func sorted(list []Item) []Item {
	slices.SortFunc(list, Item.Compare)
	return list
}

func randomItems(r *rand.Rand, n int, seconds int64) []Item {
	out := make([]Item, n)
	for i := range out {
		out[i].CreatedAt = 1_600_000_000 + r.Int64N(seconds)
		for k := range out[i].ID {
			out[i].ID[k] = byte(r.UintN(256))
		}
	}
	return out
}

// finish plays a session to its end.
func finish(t *testing.T, s *Session, p *negentropy.Negentropy, frame int) (rounds int) {
	t.Helper()
	msg, err := s.Open()
	for done := false; ; rounds++ {
		if err != nil {
			t.Fatalf("round %d: %v", rounds, err)
		}
		if done {
			return rounds
		}
		if len(msg)/2 > frame {
			t.Fatalf("round %d: a message of %d bytes, above %d", rounds, len(msg)/2, frame)
		}
		answer, peerErr := p.Reconcile(msg)
		if peerErr != nil {
			t.Fatal(peerErr)
		}
		msg, done, err = s.Answer(answer)
	}
}

// TestReconcile: whatever either side has, need and have are the two differences.
func TestReconcile(t *testing.T) {
	for _, c := range []struct {
		both, ours, theirs int
		seconds            int64
		frame, peerFrame   int
	}{
		{0, 0, 0, 1, 0, 1 << 20},
		{0, 0, 5000, 1000, 0, 1 << 20},
		{0, 5000, 0, 1000, 0, 1 << 20},
		{100, 1, 1, 50, MinFrame, 4096},
		{10_000, 0, 0, 5000, 0, 500_000},
		{10_000, 30, 40, 5000, 0, 500_000},
		{3000, 3000, 3000, 1, MinFrame, 4096}, // all in one second
		{5000, 2000, 9000, 100_000, MinFrame, 1 << 20},
		{20_000, 100, 30_000, 100, 0, 60_000},
	} {
		name := fmt.Sprintf("both=%d,ours=%d,theirs=%d,seconds=%d,frames=%d/%d", c.both, c.ours, c.theirs, c.seconds, c.frame, c.peerFrame)
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(7, uint64(c.both+c.ours)))
			both, only, want := randomItems(r, c.both, c.seconds), randomItems(r, c.ours, c.seconds), randomItems(r, c.theirs, c.seconds)
			have := map[event.ID]bool{}
			s, err := NewSession(sorted(slices.Concat(both, only)), c.frame, func(id event.ID) { have[id] = true })
			if err != nil {
				t.Fatal(err)
			}
			most := c.frame
			if most == 0 {
				most = DefaultFrame
			}
			rounds := finish(t, s, peer(slices.Concat(both, want), c.peerFrame), most)
			t.Logf("%d rounds", rounds)
			sameIDs(t, "need", s.Need(), want)
			got := make([]event.ID, 0, len(have))
			for id := range have {
				got = append(got, id)
			}
			sameIDs(t, "have", got, only)
		})
	}
}

func sameIDs(t *testing.T, what string, got []event.ID, want []Item) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s has %d ids, want %d", what, len(got), len(want))
		return
	}
	all := map[event.ID]bool{}
	for _, id := range got {
		all[id] = true
	}
	for _, it := range want {
		if !all[it.ID] {
			t.Errorf("%s lacks %s", what, it.ID)
			return
		}
	}
}

// TestTooMany: what a relay names that we lack is bounded.
func TestTooMany(t *testing.T) {
	list := randomItems(rand.New(rand.NewPCG(1, 1)), MostItems+1, 1000)
	if _, err := NewSession(sorted(list), 0, nil); !errors.Is(err, ErrTooMany) {
		t.Errorf("a session over %d items: %v, want ErrTooMany", len(list), err)
	}
	s, err := NewSession(nil, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := peer(list, 1<<20)
	msg, err := s.Open()
	for err == nil && msg != "" {
		var answer string
		if answer, err = p.Reconcile(msg); err != nil {
			t.Fatal(err)
		}
		msg, _, err = s.Answer(answer)
	}
	if need, _ := s.Counts(); !errors.Is(err, ErrTooMany) || need != MostItems {
		t.Errorf("a peer with %d ids: %v with %d, want ErrTooMany with %d", len(list), err, need, MostItems)
	}
}

// TestRefused: none of these may reach the core, which panics on them or makes room for what they say.
func TestRefused(t *testing.T) {
	huge := "ffffffffffffff7f" // 2^56-1
	for _, c := range []struct {
		name, msg string
		want      error
	}{
		{"nothing", "", ErrMessage},
		{"no hex", "6x", ErrMessage},
		{"odd hex", "610", ErrMessage},
		{"another version", "62", ErrVersion},
		{"no version", "00", ErrMessage},
		{"cut in a bound", "61" + "81", ErrMessage},
		{"cut in a fingerprint", "61" + "0000" + "01" + "abcd", ErrMessage},
		{"a count of 2^56", "61" + "0000" + "02" + huge, ErrMessage},
		{"a number of 9 groups", "61" + "0000" + "02" + "81" + huge, ErrMessage},
		{"ids cut off", "61" + "0000" + "0202" + strings.Repeat("ab", 63), ErrMessage},
		{"a prefix of 33 bytes", "61" + "0521" + strings.Repeat("ab", 33) + "00", ErrMessage},
		{"unknown mode", "61" + "0000" + "03", ErrMessage},
		{"a bound at 2^56", "61" + huge + "0000" + huge + "0000", ErrMessage},
		{"bounds out of order", "61" + "0501" + "ab" + "00" + "0101" + "aa" + "00", ErrMessage},
		{"a range behind infinity", "61" + "0000" + "00" + "0200" + "00", ErrMessage},
	} {
		s, err := NewSession(nil, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.Open(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Answer(c.msg); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestUpperCase: a peer may write its hex so.
func TestUpperCase(t *testing.T) {
	list := []Item{{5, repeated(0xab)}}
	s, err := NewSession(list, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(); err != nil {
		t.Fatal(err)
	}
	if _, done, err := s.Answer("6100000201" + strings.Repeat("AB", 32)); !done || err != nil {
		t.Fatalf("done %t, %v", done, err)
	}
	if need, have := s.Counts(); need+have != 0 {
		t.Errorf("need %d, have %d of the same id", need, have)
	}
}

// TestEndless: a relay that answers the same for ever is left.
func TestEndless(t *testing.T) {
	s, err := NewSession(sorted(randomItems(rand.New(rand.NewPCG(3, 3)), 40, 10)), 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 * maxRounds {
		if _, _, err = s.Answer("610000" + "01" + strings.Repeat("ab", 16)); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrEndless) {
		t.Errorf("ended with %v, want ErrEndless", err)
	}
}

// FuzzAnswer: whatever comes, a session neither panics nor takes more than its bound.
func FuzzAnswer(f *testing.F) {
	list := sorted(randomItems(rand.New(rand.NewPCG(5, 5)), 500, 30))
	p := peer(list[:3], 4096)
	open, _ := p.Reconcile("6100000200")
	raw, _ := hex.DecodeString(open)
	f.Add(raw)
	f.Add([]byte{version, 0, 0, 1})
	f.Fuzz(func(t *testing.T, msg []byte) {
		s, err := NewSession(list, MinFrame, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Open(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Answer(hex.EncodeToString(msg)); err != nil && strings.Contains(err.Error(), "panic") {
			t.Fatal(err)
		}
	})
}

// TestFilledFrame: where the last range fills its frame, go-nostr's responder writes the fingerprint of nothing behind it.
func TestFilledFrame(t *testing.T) {
	s, err := NewSession(nil, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(); err != nil {
		t.Fatal(err)
	}
	id := strings.Repeat("ab", 32)
	_, done, err := s.Answer("61" + "0000" + "02" + "01" + id + "0000" + "01" + "7f9c9e31ac8256ca2f258583df262dbc")
	if need := s.Need(); !done || err != nil || len(need) != 1 || need[0].String() != id {
		t.Errorf("done %t, need %v, %v; want the one id", done, need, err)
	}
}

// TestLackedOnceAndAgain: a peer that says in each round that it lacks everything costs what is held of it once.
func TestLackedOnceAndAgain(t *testing.T) {
	var window []Item
	for i := range 1000 {
		window = append(window, Item{CreatedAt: int64(i), ID: sha256.Sum256([]byte{byte(i), byte(i >> 8)})})
	}
	calls := 0
	s, err := NewSession(window, 0, func(event.ID) { calls++ })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(); err != nil {
		t.Fatal(err)
	}
	// No ids before the time 900, and a fingerprint of the rest that is wrong.
	msg := "61" + "8705" + "00" + "02" + "00" + "00" + "00" + "01" + strings.Repeat("ab", 16)
	for range 20 {
		if _, done, err := s.Answer(msg); done || err != nil {
			t.Fatalf("done %t, %v", done, err)
		}
	}
	if _, have := s.Counts(); calls != 900 || have != 900 {
		t.Errorf("%d ids were handed out, %d counted; want the 900 of them once", calls, have)
	}
}
