package sinks

import (
	"testing"
	"time"
)

// flow sends and answers at p's pace for d, at most most events a second, and returns the events sent. limit > 0 answers
// "slower" to whatever comes faster than that many a second.
func flow(p *pace, now *time.Time, d time.Duration, most, limit float64) (sent, refused int) {
	end := now.Add(d)
	var last time.Time
	for now.Before(end) {
		if w := p.wait(*now); w > 0 {
			*now = now.Add(w)
			continue
		}
		p.sent()
		sent++
		if limit > 0 && now.Sub(last) < time.Duration(float64(time.Second)/limit) {
			refused++
			p.slower(*now, *now, 0)
		} else {
			last = *now
			p.answered(*now)
		}
		*now = now.Add(time.Duration(float64(time.Second) / most))
	}
	return sent, refused
}

// TestPaceSettlesBelowALimit: it is found, kept for most of the time, and forgotten when the relay no longer has it.
func TestPaceSettlesBelowALimit(t *testing.T) {
	for _, limit := range []float64{0.5, 5, 50} {
		var p pace
		now := time.Unix(1_000_000, 0)
		flow(&p, &now, time.Minute, 1000, limit)
		sent, refused := flow(&p, &now, 10*time.Minute, 1000, limit)
		taken := float64(sent-refused) / 600
		if taken < 0.4*limit || taken > 1.01*limit {
			t.Errorf("limit %g/s: %g/s were taken, want at least four tenths of it", limit, taken)
		}
		if refused*5 > sent {
			t.Errorf("limit %g/s: %d of %d sends were refused, want less than a fifth", limit, refused, sent)
		}
		flow(&p, &now, 20*time.Minute, 1000, 0)
		if p.rate != 0 && p.rate < 1000 {
			t.Errorf("limit %g/s, 20 minutes after it was lifted: %g/s, want no limit", limit, p.rate)
		}
	}
}

// TestPaceIsHalvedOncePerRoundTrip: a window full of refusals is one sign, not 500.
func TestPaceIsHalvedOncePerRoundTrip(t *testing.T) {
	var p pace
	now := time.Unix(1_000_000, 0)
	for range 100 {
		p.answered(now)
	}
	sent := now
	now = now.Add(50 * time.Millisecond)
	for range 500 {
		p.slower(now, sent, 0)
	}
	if p.rate != 50 {
		t.Fatalf("pace %g/s after 100 answers and one window of refusals, want 50", p.rate)
	}
}

// TestPaceHonoursTheRelaysWait.
func TestPaceHonoursTheRelaysWait(t *testing.T) {
	var p pace
	now := time.Unix(1_000_000, 0)
	p.slower(now, now, 30*time.Second)
	if w := p.wait(now); w != 30*time.Second {
		t.Fatalf("wait %s, want 30 s", w)
	}
	p.slower(now, now.Add(-time.Second), 1000*time.Hour)
	if w := p.wait(now); w != maxPaceAsk {
		t.Fatalf("wait %s, want %s at most", w, maxPaceAsk)
	}
}

// TestWindowAfterDeaths: halved to 1, doubled per full window answered.
func TestWindowAfterDeaths(t *testing.T) {
	w := newWindow(500)
	for range 20 {
		w.died()
	}
	if w.now != 1 {
		t.Fatalf("window %d after many deaths, want 1", w.now)
	}
	n := 0
	for ; w.now < 500; n++ {
		w.heard()
	}
	if n != 511 { // 1 + 2 + 4 + … + 256
		t.Fatalf("full width after %d answers, want 511", n)
	}
}
