package e2e

import (
	"errors"
	"fmt"
	"testing"

	"rebroadcastr/report"
)

// status is what `status --json`, /api/status and the summary of a one-shot command with --json say. All reading of its
// fields that several tests need stands here.
type status struct{ report.Status }

// balance asserts the two equations of the contract, computed here.
func (s status) balance(t testing.TB) {
	t.Helper()
	for _, src := range s.Sources {
		if got := src.Copies + src.Invalid + src.Unasked + src.New + src.InFlight; got != src.Received {
			t.Errorf("source %s does not balance: copies %d + invalid %d + unasked %d + new %d + in flight %d = %d, but received %d",
				src.URL, src.Copies, src.Invalid, src.Unasked, src.New, src.InFlight, got, src.Received)
		}
		if got := sum(src.InvalidBy); got != src.Invalid {
			t.Errorf("source %s: invalid by reason adds up to %d (%v), want %d", src.URL, got, src.InvalidBy, src.Invalid)
		}
		if got := sum(src.UnaskedBy); len(src.UnaskedBy) > 0 && got != src.Unasked {
			t.Errorf("source %s: unasked by reason adds up to %d (%v), want %d", src.URL, got, src.UnaskedBy, src.Unasked)
		}
	}
	for _, k := range s.Sinks {
		if got, want := k.Delivered+k.Superseded+k.Rejected+k.Skipped+k.Pending+k.Parked, int64(k.Issued-k.Start); got != want {
			t.Errorf("sink %s does not balance: delivered %d + superseded %d + rejected %d + skipped %d + pending %d + parked %d = %d, but %d were archived for it",
				k.URL, k.Delivered, k.Superseded, k.Rejected, k.Skipped, k.Pending, k.Parked, got, want)
		}
		if got := sum(k.RejectedBy); got != k.Rejected {
			t.Errorf("sink %s: rejected by reason adds up to %d (%v), want %d", k.URL, got, k.RejectedBy, k.Rejected)
		}
		if got := sum(k.SkippedBy); got != k.Skipped {
			t.Errorf("sink %s: skipped by reason adds up to %d (%v), want %d", k.URL, got, k.SkippedBy, k.Skipped)
		}
	}
}

// idle says what is still on its way; nil: nothing.
func (s status) idle() error {
	for _, src := range s.Sources {
		if src.InFlight != 0 {
			return fmt.Errorf("%d events of %s are on their way", src.InFlight, src.URL)
		}
	}
	for _, k := range s.Sinks {
		if k.Pending != 0 {
			return fmt.Errorf("%d events wait for %s", k.Pending, k.URL)
		}
		if k.Issued != s.Archive.Issued {
			return errors.New("the archive grows")
		}
	}
	return nil
}

func (s status) source(t testing.TB, url string) report.Source {
	t.Helper()
	src, err := s.findSource(url)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// findSource is for a program that is still starting, and has not added all its links.
func (s status) findSource(url string) (report.Source, error) {
	for _, src := range s.Sources {
		if src.URL == url {
			return src, nil
		}
	}
	return report.Source{}, fmt.Errorf("no source %s in the status: %+v", url, s.Sources)
}

func (s status) sink(t testing.TB, url string) report.Sink {
	t.Helper()
	k, err := s.findSink(url)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// findSink is for a program that is still starting, and has not added all its links.
func (s status) findSink(url string) (report.Sink, error) {
	for _, k := range s.Sinks {
		if k.URL == url {
			return k, nil
		}
	}
	return report.Sink{}, fmt.Errorf("no sink %s in the status: %+v", url, s.Sinks)
}

// total is the sum of one figure over all sources.
func (s status) total(figure func(report.Source) int64) int64 {
	var n int64
	for _, src := range s.Sources {
		n += figure(src)
	}
	return n
}

func sum(by map[string]int64) int64 {
	var n int64
	for _, v := range by {
		n += v
	}
	return n
}
