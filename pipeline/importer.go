package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"rebroadcastr/archive"
	"rebroadcastr/event"
	"rebroadcastr/record"
	"rebroadcastr/report"
	"rebroadcastr/sources"
)

// importing is one import under way.
type importing struct {
	door   *sources.Door
	cancel context.CancelFunc
}

func (i *importing) report() report.Source {
	r := doorRow(i.door)
	r.URL, r.State = "import", report.Connected
	return r
}

// maxImportLine bounds a line of an import, in bytes: no relay takes events of that size, and one line must fit into
// the budget.
const maxImportLine = budgetBytes / 2

// tooLong counts lines beyond maxImportLine.
const tooLong event.Reason = "too long"

// Reject is one refused line of an import, as --rejects writes it.
type Reject struct {
	Reason string `json:"reason"`
	Line   string `json:"line"`
}

// Import takes JSONL through the stages: bare events, or relay messages that hold one. Bad lines are counted, written
// to rejects (one JSON object each, may be nil) and passed over. It returns once everything that came is durable.
func (m *Mirror) Import(ctx context.Context, lines io.Reader, noDeliver bool, rejects io.Writer) (report.Source, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	i := &importing{door: sources.NewDoor("", wanted(m.config(), nil, nil).Compile()), cancel: cancel}
	i.door.NoDeliver = noDeliver || m.o.NoDeliver
	out := &rejectFile{to: rejects, fail: cancel}
	i.door.OnRefused = out.write
	if !m.addImport(i) {
		return i.report(), errStopping
	}
	defer m.removeImport(i)

	err := m.feed(ctx, i.door, lines)
	answer, barrierErr := m.intake.Barrier(ctx)
	if barrierErr == nil {
		select {
		case barrierErr = <-answer:
		case <-ctx.Done():
			barrierErr = ctx.Err()
		}
	}
	if out.err() != nil {
		return i.report(), fmt.Errorf("write the rejects: %w", out.err())
	}
	return i.report(), errors.Join(err, barrierErr)
}

func (m *Mirror) feed(ctx context.Context, door *sources.Door, lines io.Reader) error {
	r := archive.Lines(lines, maxImportLine)
	for {
		l, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the line after %d: %w", l.Number, err)
		}
		door.Tally.Received.Add(1)
		if l.TooLong {
			door.Refused(nil, tooLong)
			continue
		}
		f := sources.Frame{Raw: l.Text, Door: door, How: record.Import, Bare: l.Text[0] != '['}
		if f.Bare {
			f.Scan, f.Simple = event.ScanLine(l.Text)
		} else {
			f.Scan, f.Simple = event.ScanFrame(l.Text)
		}
		if err := m.intake.Offer(ctx, f); err != nil {
			door.Tally.Received.Add(-1)
			return err
		}
	}
}

// rejectFile writes refused lines; the shards call it from several goroutines.
type rejectFile struct {
	to   io.Writer
	fail context.CancelFunc

	mu     sync.Mutex
	failed error
}

func (r *rejectFile) write(raw []byte, reason event.Reason) {
	if r.to == nil {
		return
	}
	b, err := json.Marshal(Reject{string(reason), string(raw)})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed != nil {
		return
	}
	if err == nil {
		_, err = r.to.Write(append(b, '\n'))
	}
	if err != nil { // a reject that cannot be kept would be lost: the import stops
		r.failed = err
		r.fail()
	}
}

func (r *rejectFile) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}
