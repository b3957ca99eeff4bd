package archive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"rebroadcastr/archive"
	"rebroadcastr/place"
)

// written is an archive of one segment with n events, stopped, without a state: the next start checks all of it.
func written(t *testing.T, n int) (d *disk, text, origin string) {
	t.Helper()
	d = newDisk()
	r := start(t, archive.Options{Dir: "/a", FS: d})
	for i := range n {
		r.append(i)
		if i%4 == 3 {
			r.barrier() // several blocks
		}
	}
	r.stop()
	return d, d.files(".jsonl")[0], d.files(".origin")[0]
}

// recovered opens content beside origins, and returns the disk after that.
func recovered(t *testing.T, text, content, origin, origins string) (*archive.Archive, *disk) {
	t.Helper()
	d := newDisk()
	d.set(text, content)
	if origins != "" {
		d.set(origin, origins)
	}
	a := opened(t, archive.Options{Dir: "/a", FS: d})
	t.Cleanup(func() { _ = a.Close() })
	return a, d
}

func TestCutAtEveryByteOfTheLastRecord(t *testing.T) {
	d, text, origin := written(t, 5)
	whole, origins := d.content(text), d.content(origin)
	last := strings.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for n := last; n <= len(whole); n++ {
		a, after := recovered(t, text, whole[:n], origin, origins)
		want := 4
		if n == len(whole) {
			want = 5
		}
		wantEvents(t, fmt.Sprintf("%d bytes", n), readAll(t, a, place.Place{}), upTo(want))
		if got := after.content(text); got != whole[:len(got)] || len(got) != last && want == 4 {
			t.Errorf("%d bytes: %d left, want the last whole line's end at %d", n, len(got), last)
		}
		copies := after.files(fmt.Sprintf(".jsonl.%d", last))
		if n > last && n < len(whole) {
			if len(copies) != 1 || after.content(copies[0]) != whole[last:n]+"\n" {
				t.Errorf("%d bytes: copies %v, want the piece that was cut", n, copies)
			}
		} else if len(copies) > 0 {
			t.Errorf("%d bytes: copies %v, want none", n, copies)
		}
	}
}

// TestEventsAreCounted: what the status says is the lines that hold an event, whatever was lost, blanked or renumbered; and no more than
// what is behind the mark is read for that.
func TestEventsAreCounted(t *testing.T) {
	o := archive.Options{Dir: "/a", FS: newDisk(), State: openState(t, filepath.Join(t.TempDir(), "state.db")), SegmentBytes: 3000}
	wantCount := func(what string, want int) {
		t.Helper()
		a := opened(t, o)
		if got := a.Status().Events; got != uint64(want) {
			_, next := a.End()
			t.Errorf("%s: the status says %d events, want %d; the next ordinal is %d", what, got, want, next)
		}
		if got := len(readAll(t, a, place.Place{})); got != want {
			t.Errorf("%s: %d events can be read, want %d", what, got, want)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
	wantCount("nothing", 0)
	r := start(t, o)
	for i := range 30 {
		r.append(i)
		r.barrier()
		if got := r.Status().Events; got != uint64(i+1) {
			t.Fatalf("event %d is written, the status says %d events", i, got)
		}
	}
	before := o.FS.(*disk).killed()
	r.stop()
	wantCount("stopped", 30)
	reads := 0
	o.FS.(*disk).hook(func(op, name string) error {
		if op == "read" && strings.HasSuffix(name, ".jsonl") {
			reads++
		}
		return nil
	})
	a := opened(t, o)
	if got := a.Status().Events; got != 30 || reads > 1 {
		t.Errorf("opened again: the status says %d events after %d reads of texts, want 30 and at most the last line", got, reads)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	o.FS.(*disk).hook(nil)
	r = start(t, o, func(a *archive.Archive) { a.RaiseFloor(place.Place{}, 1<<20) })
	r.append(30)
	r.stop()
	wantCount("ordinals have jumped", 31)

	o.FS = before
	wantCount("the files of a kill, and a mark of later", 30)
	for _, lost := range []string{"", "origins"} {
		d := before.killed()
		o := o
		o.FS, o.State = d, nil
		texts, origins := d.files(".jsonl"), d.files(".origin")
		last := len(texts) - 1
		whole := d.content(texts[last])
		lines := strings.SplitAfter(whole, "\n")
		d.set(texts[last], "#"+whole[1:len(whole)-len(lines[len(lines)-2])]) // the first is bad, the last is gone
		if lost != "" {
			d.set(origins[last], d.content(origins[last])[:40])
		}
		a := opened(t, o)
		_, next := a.End()
		if got := a.Status().Events; got != 28 || next <= 28 {
			t.Errorf("a bad line, a lost one%s: the status says %d events, want 28; the next ordinal is %d", lost, got, next)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCorruption(t *testing.T) {
	const n = 8
	d, text, origin := written(t, n)
	whole, origins := d.content(text), d.content(origin)
	lines := strings.SplitAfter(whole, "\n")[:n]
	at := func(line int) int { return len(strings.Join(lines[:line], "")) }
	edit := func(off int, s string) string { return whole[:off] + s + whole[off+len(s):] }
	join := func(ls ...string) string { return strings.Join(ls, "") }
	tests := []struct {
		name      string
		content   string
		survivors []int
		ordinals  []uint64 // nil: as the survivors' numbers
		copies    int
	}{
		{"sound", whole, upTo(n), nil, 0},
		{"empty", "", nil, nil, 0},
		{"one byte of the content", edit(at(3)+len(lines[3])-160, "#"), []int{0, 1, 2, 4, 5, 6, 7}, nil, 1},
		{"one hex digit of the id", edit(at(0)+7, flip(lines[0][7])), between(1, 8), nil, 1},
		{"one digit of created_at", edit(at(5)+strings.Index(lines[5], "17000"), "2"), []int{0, 1, 2, 3, 4, 6, 7}, nil, 1},
		{"a quote", edit(at(2), "["), []int{0, 1, 3, 4, 5, 6, 7}, nil, 1},
		{"a newline in the middle of a line", edit(at(4)+50, "\n"), []int{0, 1, 2, 3, 5, 6, 7}, nil, 1},
		{"a newline gone", edit(at(4)-1, " "), []int{0, 1, 2, 5, 6, 7}, nil, 1},
		{"zeros over a whole line", edit(at(6), strings.Repeat("\x00", len(lines[6])-1)), []int{0, 1, 2, 3, 4, 5, 7}, nil, 1},
		{"zeros over three lines and their newlines", edit(at(2), strings.Repeat("\x00", at(5)-at(2))), []int{0, 1, 6, 7}, nil, 1},
		{"zeros at the end", whole[:at(6)] + strings.Repeat("\x00", 700), upTo(6), nil, 1},
		{"zeros beyond the end", whole + strings.Repeat("\x00", 4096), upTo(n), nil, 1},
		{"the last line bad", edit(len(whole)-20, "\x00"), upTo(7), nil, 1},
		{"the first line bad", edit(0, "\x00"), between(1, 8), nil, 1},
		{"everything bad", strings.Repeat("x", len(whole)-1) + "\n", nil, nil, 1},
		{"no newline at all", strings.Repeat("x", len(whole)), nil, nil, 1},
		{"blank line", edit(at(3), strings.Repeat(" ", len(lines[3])-1)), []int{0, 1, 2, 4, 5, 6, 7}, nil, 0},
		{"a foreign line of JSON", edit(at(3), `{"id":1}`+strings.Repeat(" ", len(lines[3])-9)), []int{0, 1, 2, 4, 5, 6, 7}, nil, 1},
		{"two bad lines apart", edit(at(1), "#")[:at(5)] + "#" + whole[at(5)+1:], []int{0, 2, 3, 4, 6, 7}, nil, 1},
		{"spaces at the end, as after an error of the disk", whole[:at(6)] + strings.Repeat(" ", 333), upTo(6), nil, 0},
		{"lines missing at the end", join(lines[:5]...), upTo(5), nil, 0},
		{"a line too long", whole[:at(7)] + strings.Repeat("y", 18<<20) + "\n", upTo(7), nil, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, after := recovered(t, text, tt.content, origin, origins)
			recs := readAll(t, a, place.Place{})
			wantEvents(t, "survivors", recs, tt.survivors)
			off := map[int]int{}
			for i := range n {
				off[i] = at(i)
			}
			for i := range min(len(recs), len(tt.survivors)) {
				if s := tt.survivors[i]; recs[i].Ordinal != uint64(s) || recs[i].Place.Offset() != uint64(off[s]) {
					t.Errorf("event %d is at %s with ordinal %d, want byte %d and ordinal %d", s, recs[i].Place, recs[i].Ordinal, off[s], s)
				}
			}
			// No text moves: what is left has the same bytes in the same places, or spaces.
			left := after.content(text)
			if len(left) > len(tt.content) {
				t.Fatalf("the text has grown from %d to %d bytes", len(tt.content), len(left))
			}
			for i := range left {
				if left[i] != tt.content[i] && left[i] != ' ' {
					t.Fatalf("byte %d was %q and is %q", i, tt.content[i], left[i])
				}
			}
			if left != "" && left[len(left)-1] != '\n' {
				t.Error("the text does not end with a newline")
			}
			var copies []string
			for _, f := range after.files("") {
				if strings.Contains(f, "damaged") {
					copies = append(copies, f)
				}
			}
			if len(copies) != tt.copies {
				t.Errorf("copies in damaged/: %v, want %d", copies, tt.copies)
			}
			if tt.copies > 0 && len(copies) > 0 {
				for piece := range strings.SplitSeq(strings.TrimSuffix(after.content(copies[0]), "\n"), "\n") {
					if !strings.Contains(tt.content, piece) {
						t.Errorf("copy holds %.60q, which was not there", piece)
					}
				}
			}
			// A second start has nothing to do.
			b := opened(t, archive.Options{Dir: "/a", FS: after})
			defer b.Close()
			wantEvents(t, "a second start", readAll(t, b, place.Place{}), tt.survivors)
			if after.content(text) != left {
				t.Error("a second start changed the text")
			}
		})
	}
}

func flip(c byte) string {
	if c == '0' {
		return "1"
	}
	return "0"
}

// Only what is behind the mark is checked; without the mark, everything.
func TestChecksFromTheMark(t *testing.T) {
	o := onDisk(t)
	o.SegmentBytes = 20_000
	r := start(t, o)
	r.inGroups(upTo(300)...)
	r.stop()
	first := filepath.Join(o.Dir, glob(t, o.Dir, "*_0000000001.jsonl")[0])
	content := read(t, first)
	write(t, first, "#"+content[1:])
	checked := func() (bytes int64) {
		o.Progress = func(_, total int64) { bytes = total }
		a := opened(t, o)
		defer a.Close()
		recs := readAll(t, a, place.Place{})
		wantEvents(t, "reader", recs, between(1, 300))
		if recs[0].Ordinal != 1 {
			t.Errorf("the first event that can be read has ordinal %d, want 1", recs[0].Ordinal)
		}
		return bytes
	}
	if n := checked(); n != 0 {
		t.Errorf("with the mark %d bytes were checked, want none", n)
	}
	if got := read(t, first); got[0] != '#' {
		t.Error("what is before the mark was touched")
	}
	o.State = openState(t, filepath.Join(t.TempDir(), "state.db"))
	checked()
	if got := read(t, first); got[0] != ' ' {
		t.Error("without the mark the bad line was not taken out")
	}
	if copies := glob(t, filepath.Join(o.Dir, "damaged"), "*"); len(copies) != 1 {
		t.Errorf("copies: %v, want one", copies)
	}
	if names := glob(t, o.Dir, "*.jsonl"); len(names) < 3 {
		t.Fatalf("segments %v, want several", names)
	}
}

// New segment before DIR's fsync: the names may be gone, both or one.
func TestLeftoversOfASegmentThatWasBeingMade(t *testing.T) {
	d, text, origin := written(t, 3)
	for name, left := range map[string][]string{
		"origin file alone":    {"events_20300101_0000000002.origin"},
		"text alone":           {"events_20300101_0000000002.jsonl"},
		"both empty":           {"events_20300101_0000000002.jsonl", "events_20300101_0000000002.origin"},
		"number 9 of tomorrow": {"events_20300102_0000000009.origin"},
	} {
		t.Run(name, func(t *testing.T) {
			d2 := newDisk()
			d2.set(text, d.content(text))
			d2.set(origin, d.content(origin))
			for _, f := range left {
				d2.set("/a/"+f, "")
			}
			r := start(t, archive.Options{Dir: "/a", FS: d2})
			r.append(3)
			r.stop()
			recs, _ := scan(t, d2, "/a")
			wantEvents(t, "scan", recs, upTo(4))
			wantOrdinals(t, recs, 0)
			names := d2.files(".jsonl")
			newest := names[len(names)-1]
			if slices.Contains(left, filepath.Base(newest)) || newest <= "/a/"+left[0] {
				t.Errorf("the new event is in %s, want a number and a date not below %v", newest, left)
			}
		})
	}
}

func TestTwoFilesOfOneNumber(t *testing.T) {
	o := onDisk(t)
	write(t, filepath.Join(o.Dir, "events_20260101_0000000005.jsonl"), "")
	write(t, filepath.Join(o.Dir, "events_20260102_0000000005.jsonl"), "")
	if _, err := archive.Open(o); err == nil || !strings.Contains(err.Error(), "same number") {
		t.Errorf("opened with two segments of one number: %v", err)
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	o := onDisk(t)
	foreign := []string{"events_2026_1.jsonl", "notes.jsonl", "events_20260101_0000000001.txt", "events_20260101_99999999999.jsonl", ".events_20260101_0000000009.jsonl.zst.tmp"}
	for _, f := range foreign {
		write(t, filepath.Join(o.Dir, f), "mine\n")
	}
	r := start(t, o)
	r.append(1)
	r.stop()
	for _, f := range foreign {
		if got := read(t, filepath.Join(o.Dir, f)); got != "mine\n" {
			t.Errorf("%s holds %q", f, got)
		}
	}
	if names := glob(t, o.Dir, "events_*_0000000001.jsonl"); len(names) != 1 {
		t.Errorf("segments %v, want number 1", names)
	}
}

// Real files: a directory where a bad line cannot be copied is an error, and nothing is lost.
func TestNoPlaceForCopies(t *testing.T) {
	o := onDisk(t)
	r := start(t, o)
	r.append(upTo(3)...)
	r.stop()
	text := filepath.Join(o.Dir, glob(t, o.Dir, "*.jsonl")[0])
	bad := "#" + read(t, text)[1:]
	write(t, text, bad)
	write(t, filepath.Join(o.Dir, "damaged"), "a file")
	o.State = nil
	if _, err := archive.Open(o); err == nil {
		t.Error("opened, although the bad line could not be kept")
	}
	if got := read(t, text); got != bad {
		t.Error("the bad line was taken out without a copy")
	}
	if err := os.Remove(filepath.Join(o.Dir, "damaged")); err != nil {
		t.Fatal(err)
	}
	a := opened(t, o)
	defer a.Close()
	wantEvents(t, "after that", readAll(t, a, place.Place{}), []int{1, 2})
}
