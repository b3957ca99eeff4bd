package archive_test

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"rebroadcastr/archive"
	"rebroadcastr/record"
)

func TestScanSaysThatASealedSegmentIsCut(t *testing.T) {
	o := onDisk(t)
	r := start(t, o)
	r.append(upTo(50)...)
	r.stop()
	base := strings.TrimSuffix(glob(t, o.Dir, "*.jsonl")[0], ".jsonl")
	seal(t, o.Dir, base, false)
	sealed := filepath.Join(o.Dir, base+".jsonl.zst")
	write(t, sealed, read(t, sealed)[:200])
	var failed error
	for _, err := range archive.Scan(t.Context(), o.Dir, archive.ScanOptions{}) {
		failed = err
	}
	if failed == nil {
		t.Error("the scan ended as if that was all")
	}
}

// A scan beside a running writer, over segments that come while it runs.
func TestScanBesideTheWriter(t *testing.T) {
	o := onDisk(t)
	o.SegmentBytes = 20_000
	r := start(t, o)
	r.append(0)
	r.barrier()
	const events = 6000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; n < events; n++ {
			if err := r.Append(t.Context(), makeEvent(n, n%300), originOf(n)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			r.barrier()
			running = false // and once more, to the end
		default:
		}
		r.index.mu.Lock()
		least := len(r.index.places)
		r.index.mu.Unlock()
		n := 0
		for rec, err := range archive.Scan(t.Context(), o.Dir, archive.ScanOptions{}) {
			if err != nil {
				t.Fatal(err)
			}
			if rec.Ordinal != uint64(n) || rec.Event.ID != ids(n) {
				t.Fatalf("record %d of the scan has ordinal %d", n, rec.Ordinal)
			}
			n++
		}
		if n < least {
			t.Errorf("a scan saw %d events, %d were there before it began", n, least)
		}
	}
	r.stop()
}

func TestScanFromAPlaceAndItsEnds(t *testing.T) {
	o := onDisk(t)
	r := start(t, o)
	r.append(upTo(20)...)
	r.stop()
	all, _ := scan(t, nil, o.Dir)
	var recs []record.Record
	for rec, err := range archive.Scan(t.Context(), o.Dir, archive.ScanOptions{From: all[12].Place}) {
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, rec)
	}
	wantEvents(t, "from a place", recs, between(12, 20))
	wantOrdinals(t, recs, 12)
	n := 0
	for range archive.Scan(t.Context(), o.Dir, archive.ScanOptions{}) {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("a scan that is left after 3 records gave %d", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range archive.Scan(ctx, o.Dir, archive.ScanOptions{}) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a scan whose context has ended gives %v", err)
		}
	}
	for _, err := range archive.Scan(t.Context(), filepath.Join(o.Dir, "no"), archive.ScanOptions{}) {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a scan of nothing gives %v", err)
		}
	}
	text := filepath.Join(o.Dir, glob(t, o.Dir, "*.jsonl")[0])
	content := read(t, text)
	write(t, text, content[:len(content)-5]) // a line that is being written
	recs, damaged := scan(t, nil, o.Dir)
	if len(recs) != 19 || len(damaged) > 0 {
		t.Errorf("with half a line at the end: %d events, %d damaged, want 19 and none", len(recs), len(damaged))
	}
	write(t, text, "#"+content[1:])
	recs, damaged = scan(t, nil, o.Dir)
	if len(recs) != 19 || len(damaged) != 1 || damaged[0].Offset != 0 {
		t.Errorf("with a bad first line: %d events, damaged %v, want 19 and the line at byte 0", len(recs), damaged)
	}
}
