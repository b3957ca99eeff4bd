package pipeline

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"rebroadcastr/relaytest"
	"rebroadcastr/report"
)

// running waits until the mirror takes imports and sources.
func (r *rig) running() {
	r.t.Helper()
	r.eventually("it runs", func(s report.Status) bool { return s.State == report.Running })
}

// A stop does not wait for the rest of an import that does not come.
func TestStopWhileAnImportWaits(t *testing.T) {
	cfg := testConfig(t, nil, nil)
	r := begin(t, cfg, Options{})
	r.running()
	lines, in := io.Pipe()
	imported := make(chan error, 1)
	go func() {
		_, err := r.m.Import(context.Background(), lines, false, nil)
		imported <- err
	}()
	if _, err := io.WriteString(in, strings.Join(notes(1, 3), "\n")+"\n"); err != nil {
		t.Fatal(err)
	}
	r.eventually("three events", func(s report.Status) bool { return s.Archive.Lines == 3 })
	r.stop()
	if err := <-imported; !errors.Is(err, context.Canceled) {
		t.Errorf("the import: %v, want %v", err, context.Canceled)
	}
	in.Close()
	sameSet(t, "archive", archived(t, cfg.Archive.Dir), idsOf(notes(1, 3)))
}

// stuckWriter takes nothing until it is let go.
type stuckWriter struct {
	let    chan struct{}
	writes atomic.Int64
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	w.writes.Add(1)
	<-w.let
	return len(p), nil
}

// Someone who does not read the rejects holds up their import only, not the sources; after the import nothing is
// written to them any more.
func TestRejectsThatNobodyReads(t *testing.T) {
	a := relaytest.New(t, relaytest.Script{})
	cfg := testConfig(t, []*relaytest.Relay{a}, nil)
	r := begin(t, cfg, Options{})
	r.running()
	a.Wait("a subscription", func() bool { return len(a.Got("REQ")) > 0 })
	ctx, cancel := context.WithCancel(context.Background())
	w := &stuckWriter{let: make(chan struct{})}
	imported := make(chan report.Source, 1)
	go func() {
		s, err := r.m.Import(ctx, io.MultiReader(strings.NewReader(strings.Repeat("bad line\n", 100_000)), never{ctx}), false, w)
		if err == nil {
			t.Error("an import that was cancelled: nil, want an error")
		}
		imported <- s
	}()
	r.eventually("the import waits", func(s report.Status) bool {
		return w.writes.Load() == 1 && s.Sources[0].Received > 1000
	})
	a.Publish(notes(1, 100)...)
	r.eventually("the source's events", func(s report.Status) bool { return s.Archive.Lines == 100 })
	cancel()
	close(w.let)
	s := <-imported
	if s.Received >= 100_000 {
		t.Error("the import took every line while nobody read its rejects")
	}
	writes := w.writes.Load()
	r.stop()
	if n := w.writes.Load(); n != writes {
		t.Errorf("%d rejects were written after the import had returned", n-writes)
	}
}

// A stop does not wait for someone who does not read the rejects, where that can be ended.
func TestStopWhileNobodyReadsTheRejects(t *testing.T) {
	r := begin(t, testConfig(t, nil, nil), Options{})
	r.running()
	w := &interruptWriter{writes: make(chan struct{}, 1), interrupted: make(chan struct{})}
	imported := make(chan error, 1)
	go func() {
		_, err := r.m.Import(t.Context(), io.MultiReader(strings.NewReader("bad line\n"), never{t.Context()}), false, w)
		imported <- err
	}()
	<-w.writes
	r.stop()
	if err := <-imported; err == nil {
		t.Error("an import that was cut short: nil, want an error")
	}
}

// interruptWriter is a writer that waits for Interrupt.
type interruptWriter struct {
	writes      chan struct{}
	interrupted chan struct{}
}

func (w *interruptWriter) Write([]byte) (int, error) {
	w.writes <- struct{}{}
	<-w.interrupted
	return 0, os.ErrDeadlineExceeded
}

func (w *interruptWriter) Interrupt() { close(w.interrupted) }

// never is a reader that waits until ctx ends.
type never struct{ ctx context.Context }

func (n never) Read([]byte) (int, error) { <-n.ctx.Done(); return 0, n.ctx.Err() }

// A reject that cannot be kept ends the import.
func TestRejectsThatCannotBeWritten(t *testing.T) {
	r := begin(t, testConfig(t, nil, nil), Options{})
	r.running()
	full := errors.New("disk full")
	_, err := r.m.Import(t.Context(), io.MultiReader(strings.NewReader("bad line\n"), never{t.Context()}), false, failingWriter{full})
	if !errors.Is(err, full) {
		t.Errorf("the import: %v, want %v", err, full)
	}
	r.stop()
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// A reader that breaks in the middle: what came before it is kept and the line is named.
func TestImportThatBreaks(t *testing.T) {
	cfg := testConfig(t, nil, nil)
	r := begin(t, cfg, Options{})
	r.running()
	broken := errors.New("broken")
	s, err := r.m.Import(t.Context(), io.MultiReader(strings.NewReader(strings.Join(notes(1, 3), "\n")+"\n"), brokenReader{broken}), false, nil)
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "line after 3") {
		t.Errorf("the import: %v, want the reader's error behind line 3", err)
	}
	if got := archived(t, cfg.Archive.Dir); len(got) != 3 || s.New != 3 {
		t.Errorf("%d archived, %d new, want 3", len(got), s.New)
	}
	r.stop()
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }
