package event_test

import (
	"bytes"
	"slices"
	"testing"

	"rebroadcastr/event"
)

// benchFrame is the real event nearest to 1.1 kB, the usual size of an event on public relays.
func benchFrame(t testing.TB) []byte {
	var best []byte
	for _, frame := range corpus(t) {
		if best == nil || distance(len(frame), 1100) < distance(len(best), 1100) {
			best = frame
		}
	}
	return best
}

func distance(a, b int) int { return max(a-b, b-a) }

// benchSelection asks for 500 authors, some kinds and a tag, with an exception; e is taken.
func benchSelection(e *event.Event) event.Selection {
	authors := []event.PubKey{e.PubKey}
	for i := range 499 {
		authors = append(authors, event.PubKey{byte(i), byte(i >> 8), 1})
	}
	return event.Selection{
		All: [][]event.Filter{{
			{Tags: map[string][]string{"p": {"nobody"}}},
			{Authors: authors, Kinds: []int{0, 1, 3, 6, 7, e.Kind}, Since: 1},
		}},
		Except: []event.Filter{{Tags: map[string][]string{"t": {"spam"}}}},
	}
}

func benchEvent(b *testing.B) (frame []byte, s event.Scan, e event.Event) {
	b.Helper()
	frame = benchFrame(b)
	s, ok := event.ScanFrame(frame)
	if !ok {
		b.Fatal("ScanFrame says the frame is unusual")
	}
	if err := event.ParseScanned(frame, s, &e); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	return frame, s, e
}

// BenchmarkStageFrameToID is the structural scan of an EVENT message up to its id: all that is read of a copy of a known event.
func BenchmarkStageFrameToID(b *testing.B) {
	frame, _, _ := benchEvent(b)
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		event.ScanFrame(frame)
	}
}

// BenchmarkScanCorpus is ScanFrame over all real events, most of them with the id behind the content.
func BenchmarkScanCorpus(b *testing.B) {
	frames := corpus(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		event.ScanFrame(frames[i%len(frames)])
		i++
	}
}

// BenchmarkStageParse makes a new line for each event, as the pipeline does.
func BenchmarkStageParse(b *testing.B) {
	frame, s, e := benchEvent(b)
	b.SetBytes(int64(len(frame)))
	for b.Loop() {
		e.Line = nil
		if err := event.ParseScanned(frame, s, &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHash(b *testing.B) {
	_, _, e := benchEvent(b)
	b.SetBytes(int64(len(e.Line)))
	for b.Loop() {
		e.Hash()
	}
}

// BenchmarkStageVerify is the id and the signature of one event, its author known.
func BenchmarkStageVerify(b *testing.B) {
	_, _, e := benchEvent(b)
	for b.Loop() {
		if err := e.Verify(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStageVerifyBatch is one event of full batches, of real authors.
func BenchmarkStageVerifyBatch(b *testing.B) {
	events := make([]event.Event, event.MaxBatch)
	for i, frame := range corpus(b)[:len(events)] {
		s, ok := event.ScanFrame(frame)
		if !ok {
			b.Fatal("ScanFrame says the frame is unusual")
		}
		if err := event.ParseScanned(frame, s, &events[i]); err != nil {
			b.Fatal(err)
		}
	}
	batch := event.NewBatch()
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if err := batch.Add(&events[n%len(events)]); err != nil {
			b.Fatal(err)
		}
		if batch.Len() == len(events) && slices.Contains(batch.Verify(), false) {
			b.Fatal("a genuine event is refused")
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	_, _, e := benchEvent(b)
	m := benchSelection(&e).Compile()
	for b.Loop() {
		if !m.Match(&e) {
			b.Fatal("not taken")
		}
	}
}

// BenchmarkParseLine is Parse of a line as the archive holds it.
func BenchmarkParseLine(b *testing.B) {
	_, _, e := benchEvent(b)
	line := bytes.Clone(e.Line)
	b.SetBytes(int64(len(line)))
	for b.Loop() {
		e.Line = nil
		if err := event.Parse(line, &e); err != nil {
			b.Fatal(err)
		}
	}
}
