package archive_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Sync, min_free and mode change while the archive is open.
func TestChange(t *testing.T) {
	o := onDisk(t)
	o.Sync, o.SegmentBytes = time.Hour, 1<<10
	r := start(t, o)
	r.Change(time.Millisecond, 1<<60, 0o600)
	for end := time.Now().Add(20 * time.Second); !r.Low(); {
		if time.Now().After(end) {
			t.Fatalf("min_free above what any disk has is not heeded: %+v", r.Status())
		}
		time.Sleep(time.Millisecond)
	}
	r.Change(time.Millisecond, 1, 0o600)
	r.append(upTo(20)...)
	r.barrier()
	for end := time.Now().Add(20 * time.Second); r.Status().Unsynced > 0; {
		if time.Now().After(end) {
			t.Fatalf("not synced after the new time: %+v", r.Status())
		}
		time.Sleep(time.Millisecond)
	}
	r.stop()
	names, err := filepath.Glob(filepath.Join(o.Dir, "*.jsonl"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no segments: %v %v", names, err)
	}
	info, err := os.Stat(names[len(names)-1])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v (%v), want mode 0600", names[len(names)-1], info.Mode(), err)
	}
}
