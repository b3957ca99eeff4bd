package archive_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"rebroadcastr/archive"
	"rebroadcastr/place"
	"rebroadcastr/record"
)

// seal does what sealing will do to the files of segment base.
func seal(t *testing.T, dir, base string, keepText bool) {
	t.Helper()
	for from, to := range map[string]string{".jsonl": ".jsonl.zst", ".origin": ".origin.zst"} {
		out, err := os.Create(filepath.Join(dir, base+to))
		if err != nil {
			t.Fatal(err)
		}
		enc, err := zstd.NewWriter(out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := enc.Write([]byte(read(t, filepath.Join(dir, base+from)))); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(enc.Close(), out.Close()); err != nil {
			t.Fatal(err)
		}
		if !keepText {
			if err := os.Remove(filepath.Join(dir, base+from)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSealedSegments(t *testing.T) {
	for _, stateLost := range []bool{false, true} {
		o := onDisk(t)
		o.SegmentBytes = 40_000
		r := start(t, o)
		r.inGroups(upTo(500)...)
		r.stop()
		all, _ := scan(t, nil, o.Dir)
		names := glob(t, o.Dir, "*.jsonl")
		for i, name := range names {
			seal(t, o.Dir, strings.TrimSuffix(name, ".jsonl"), i == 1) // one has both
		}
		if stateLost {
			o.State = nil
		}
		a := opened(t, o)
		recs := readAll(t, a, place.Place{})
		wantEvents(t, "reader", recs, upTo(500))
		wantOrdinals(t, recs, 0)
		for _, n := range []int{3, 250, 499} {
			recs := readAll(t, a, all[n].Place)
			wantEvents(t, fmt.Sprintf("reader from event %d", n), recs, between(n, 500))
			wantOrdinals(t, recs, uint64(n))
		}
		if end, next := a.End(); end != all[499].End || next != 500 {
			t.Errorf("end is %s, ordinal %d, want %s and 500", end, next, all[499].End)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		recs, damaged := scan(t, nil, o.Dir)
		wantEvents(t, "scan", recs, upTo(500))
		if len(damaged) > 0 {
			t.Errorf("scan found damage: %v", damaged)
		}
		if stateLost {
			continue
		}
		r = start(t, o)
		r.append(500)
		r.stop()
		recs, _ = scan(t, nil, o.Dir)
		wantEvents(t, "with one more", recs, upTo(501))
	}
}

// Segments are sealed under the feet of a reader and of a scan.
func TestSealedWhileBeingRead(t *testing.T) {
	o := onDisk(t)
	o.SegmentBytes = 20_000
	r := start(t, o)
	r.inGroups(upTo(300)...)
	r.stop()
	a := opened(t, o)
	defer a.Close()
	reader := a.Reader(place.Place{})
	defer reader.Close()
	var read []record.Record
	for rec, err := range archive.Scan(t.Context(), o.Dir, archive.ScanOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		read = append(read, rec)
		if len(read) == 10 {
			if _, err := reader.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			for _, name := range glob(t, o.Dir, "*.jsonl") {
				seal(t, o.Dir, strings.TrimSuffix(name, ".jsonl"), false)
			}
		}
	}
	wantEvents(t, "scan", read, upTo(300))
	for n := 1; n < 300; n++ {
		rec, ok, err := reader.TryNext()
		if err != nil || !ok || rec.Ordinal != uint64(n) || rec.Event.ID != ids(n) {
			t.Fatalf("reader at event %d: ordinal %d, %v, %v", n, rec.Ordinal, ok, err)
		}
	}
}
