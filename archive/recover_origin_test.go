package archive_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"rebroadcastr/archive"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

func TestOriginsCutAtEveryByte(t *testing.T) {
	d, text, origin := written(t, 10)
	whole, origins := d.content(text), d.content(origin)
	known := -1
	for n := 0; n <= len(origins); n++ {
		a, after := recovered(t, text, whole, origin, origins[:n])
		recs := readAll(t, a, place.Place{})
		wantOrdinals(t, recs, 0)
		with := 0
		for i, rec := range recs {
			if rec.Origin.Relay != "" {
				if i != with {
					t.Fatalf("%d bytes of origins: event %d has one, event %d has none", n, i, with)
				}
				with++
			}
		}
		wantEvents(t, fmt.Sprintf("%d bytes of origins", n), withoutUnknownOrigins(recs), upTo(10))
		if with < known {
			t.Errorf("%d bytes of origins: %d origins, fewer than the %d before", n, with, known)
		}
		known = with
		if got := after.content(origin); n > 32 && !strings.HasPrefix(origins, got) {
			t.Errorf("%d bytes of origins: what is left is not what was there", n)
		}
	}
	if known != 10 {
		t.Errorf("with the whole file %d origins, want 10", known)
	}
}

// Origins ahead of the text: what speaks of lines that are gone is cut, the rest of its block stays.
func TestOriginsAhead(t *testing.T) {
	d, text, origin := written(t, 12)
	whole, origins := d.content(text), d.content(origin)
	end := 0
	for n, l := range strings.SplitAfter(whole, "\n")[:12] {
		after := newDisk()
		after.set(text, whole[:end])
		after.set(origin, origins)
		o := archive.Options{Dir: "/a", FS: after, State: openState(t, filepath.Join(t.TempDir(), "state.db"))}
		a := opened(t, o)
		wantEvents(t, fmt.Sprintf("%d lines", n), readAll(t, a, place.Place{}), upTo(n))
		if _, next := a.End(); next != 12 {
			t.Errorf("%d lines: next ordinal %d, want 12: somebody may have been told of the 12 that there were", n, next)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		r := start(t, o)
		r.append(12)
		r.stop()
		recs, _ := scan(t, after, "/a")
		wantEvents(t, fmt.Sprintf("%d lines and one more", n), recs, append(upTo(n), 12))
		if len(recs) > 0 && recs[len(recs)-1].Ordinal < 12 {
			t.Errorf("%d lines: the next event got ordinal %d", n, recs[len(recs)-1].Ordinal)
		}
		end += len(l)
	}
}

// withOrigins gives the records that lost theirs the origins of the events ns.
func withOrigins(recs []record.Record, ns ...int) []record.Record {
	out := append([]record.Record(nil), recs...)
	for i := range out {
		if i < len(ns) && out[i].Origin == (record.Origin{}) {
			out[i].Origin = originOf(ns[i])
		}
	}
	return out
}

// Damage whose extent only lost origin records knew: what stands behind gets ordinals that nobody was told.
func TestRenumbersBehindDamageWithoutOrigins(t *testing.T) {
	d, text, origin := written(t, 8)
	whole, origins := d.content(text), d.content(origin)
	lines := strings.SplitAfter(whole, "\n")[:8]
	hole := len(lines[0]) + len(lines[1])
	to := hole + len(lines[2]) + len(lines[3]) // both lines' newlines are gone
	content := whole[:hole] + strings.Repeat("\x00", to-hole) + whole[to:]
	block := strings.LastIndex(origins, "RBob") // of the last four lines
	a, after := recovered(t, text, content, origin, origins[:block])
	recs := readAll(t, a, place.Place{})
	wantEvents(t, "survivors", withOrigins(recs, 0, 1, 5, 6, 7), []int{0, 1, 5, 6, 7})
	for i, rec := range recs[2:] {
		if rec.Ordinal < 4 {
			t.Errorf("event %d has ordinal %d, which event %d had", 5+i, rec.Ordinal, rec.Ordinal)
		}
	}
	b := opened(t, archive.Options{Dir: "/a", FS: after})
	defer b.Close()
	for i, rec := range readAll(t, b, place.Place{}) {
		if rec.Ordinal != recs[i].Ordinal {
			t.Errorf("another start gives ordinal %d where the one before gave %d", rec.Ordinal, recs[i].Ordinal)
		}
	}
	_, next := b.End()
	if last := recs[len(recs)-1].Ordinal; next <= last {
		t.Errorf("the next ordinal is %d, not above %d", next, last)
	}
}

// Who had read the lines that were renumbered reads them again; nobody else goes back.
func TestResume(t *testing.T) {
	d, text, origin := written(t, 12)
	whole, origins := d.content(text), d.content(origin)
	before := readAll(t, opened(t, archive.Options{Dir: "/a", FS: d}), place.Place{})
	to := int(before[6].Place.Offset())
	hole := int(before[4].Place.Offset()) // events 4 and 5, with 6 behind them: their newlines are gone
	damaged := whole[:hole] + strings.Repeat("\x00", to-hole) + whole[to:]
	second := strings.Index(origins[40:], "RBob") + 40
	for name, tt := range map[string]struct {
		text, origins string
		back          place.Place // where who was behind it goes on; zero: nobody goes back
	}{
		"undamaged":                   {whole, origins, place.Place{}},
		"origins cut":                 {whole, origins[:second], place.Place{}},
		"damaged, ordinals are known": {damaged, origins, place.Place{}},
		"damaged, origins cut":        {damaged, origins[:second], before[7].Place},
		"the same, and its end cut":   {damaged[:before[10].Place.Offset()], origins[:second], before[7].Place},
	} {
		t.Run(name, func(t *testing.T) {
			// A state that was last written when there was nothing: it reserved the ordinals that have been told.
			o := archive.Options{Dir: "/a", FS: newDisk(), State: openState(t, filepath.Join(t.TempDir(), "state.db"))}
			if err := opened(t, o).Close(); err != nil {
				t.Fatal(err)
			}
			after := newDisk()
			after.set(text, tt.text)
			after.set(origin, tt.origins)
			o.FS = after
			a := opened(t, o)
			defer a.Close()
			for _, rec := range before {
				want := rec.End
				if !tt.back.IsZero() && tt.back.Before(rec.End) {
					want = tt.back
				}
				if got, err := a.Resume(rec.End, rec.Ordinal+1); err != nil || got != want {
					t.Errorf("from %s, ordinal %d: %s, %v; want %s", rec.End, rec.Ordinal+1, got, err, want)
				}
			}
			for _, rec := range readAll(t, a, place.Place{}) { // by the ordinals of now there is nothing to go back for
				if got, err := a.Resume(rec.End, rec.Ordinal+1); err != nil || got != rec.End {
					t.Errorf("from %s, ordinal %d: %s, %v; want no other place", rec.End, rec.Ordinal+1, got, err)
				}
			}
			if got, err := a.Resume(place.Place{}, 0); err != nil || !got.IsZero() {
				t.Errorf("from the start: %s, %v", got, err)
			}
		})
	}
}

// The same where a line before the damage has lost its record too: its ordinal is the one that it is counted to have.
func TestRenumbersAboveLinesWithoutOrigins(t *testing.T) {
	d, text, origin := written(t, 8)
	whole, origins := d.content(text), d.content(origin)
	lines := strings.SplitAfter(whole, "\n")[:8]
	hole := len(strings.Join(lines[:5], ""))
	to := hole + len(lines[5]) // its newline is gone, and takes event 6 with it
	content := whole[:hole] + strings.Repeat("\x00", to-hole) + whole[to:]
	block := strings.LastIndex(origins, "RBob") // of the last four lines
	a, _ := recovered(t, text, content, origin, origins[:block])
	recs := readAll(t, a, place.Place{})
	wantEvents(t, "survivors", withOrigins(recs, 0, 1, 2, 3, 4, 7), []int{0, 1, 2, 3, 4, 7})
	wantOrdinals(t, recs[:5], 0)
	if last := recs[5].Ordinal; last <= recs[4].Ordinal {
		t.Errorf("event 7 has ordinal %d, not above the %d of event 4 before it", last, recs[4].Ordinal)
	}
}

func TestOriginDamage(t *testing.T) {
	const n = 12
	d, text, origin := written(t, n)
	whole, origins := d.content(text), d.content(origin)
	second := strings.Index(origins[40:], "RBob") + 40
	tests := map[string]struct {
		origins string
		lost    int // origins, at most
	}{
		"gone":                      {"", n},
		"empty":                     {" ", n},
		"header zeroed":             {strings.Repeat("\x00", 32) + origins[32:], 0},
		"a block's CRC":             {origins[:second-1] + "~" + origins[second:], 6},
		"a block's marker":          {origins[:second] + "XXXX" + origins[second+4:], 6},
		"a block's length":          {origins[:second+4] + "\xff\xff\xff\x7f" + origins[second+8:], 6},
		"noise behind":              {origins + "RBob noise", 0},
		"zeros from the middle on":  {origins[:second] + strings.Repeat("\x00", len(origins)-second), n},
		"blocks of another segment": {origins[:32] + strings.Repeat("\x00", 64) + origins[32:], 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a, after := recovered(t, text, whole, origin, tt.origins)
			recs := readAll(t, a, place.Place{})
			wantOrdinals(t, recs, 0)
			lost := 0
			for i, rec := range recs {
				if rec.Origin.How == 0 {
					lost++
				} else if o := originOf(i); rec.Origin.How != o.How || rec.Origin.Relay != "" && rec.Origin.Relay != o.Relay {
					t.Errorf("event %d has origin %+v, want %+v or unknown", i, rec.Origin, o)
				}
			}
			if len(recs) != n || lost > tt.lost {
				t.Errorf("%d events, %d without origin, want %d and at most %d", len(recs), lost, n, tt.lost)
			}
			if got := after.content(origin); !strings.HasPrefix(got, "RBORIGIN") {
				t.Error("the origin file has no header after the start")
			}
		})
	}
}
