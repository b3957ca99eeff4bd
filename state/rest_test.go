package state_test

import (
	"testing"
	"time"

	"rebroadcastr/state"
)

func TestRest(t *testing.T) {
	const first, last = 24 * time.Hour, 32 * 24 * time.Hour
	now := time.Unix(1_800_000_000, 0)
	var r state.Rest
	if r.Rests(now, last) {
		t.Error("what was never tried rests")
	}
	for _, days := range []time.Duration{1, 2, 4, 8, 16, 32, 32} {
		r = r.Longer(now, first, last)
		if r.Wait != days*24*time.Hour || !r.Due.Equal(now.Add(r.Wait)) {
			t.Errorf("wait %s until %s, want %d days", r.Wait, r.Due, days)
		}
		if !r.Rests(now, last) || r.Rests(r.Due, last) {
			t.Errorf("it is to rest until %s, and no longer", r.Due)
		}
	}
	if r.Rests(now.Add(-2*last), last) {
		t.Error("a row that a clock ahead has made rests for months")
	}
	for _, r.Mark = range []bool{false, true} {
		if got := state.DecodeRest(r.Encode()); !got.Due.Equal(r.Due) || got.Wait != r.Wait || got.Mark != r.Mark {
			t.Errorf("%+v after a round trip, want %+v", got, r)
		}
	}
	for _, row := range [][]byte{nil, {1}, make([]byte, 14)} {
		if got := state.DecodeRest(row); got != (state.Rest{}) {
			t.Errorf("%d bytes are %+v, want no row", len(row), got)
		}
	}
}
