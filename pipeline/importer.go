package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

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
	r.URL, r.State = report.ImportName, report.Connected
	return r
}

// maxImportLine bounds a line of an import, in bytes: no relay takes events of that size, and one line must fit into
// the budget.
const maxImportLine = budgetBytes / 2

// clientForm takes the event out of ["EVENT",{…}], which is what clients send and some programs keep.
func clientForm(line []byte) (raw []byte, ok bool) {
	var parts []json.RawMessage
	if err := json.Unmarshal(line, &parts); err != nil || len(parts) != 2 || string(parts[0]) != `"EVENT"` {
		return nil, false
	}
	return parts[1], len(parts[1]) > 0 && parts[1][0] == '{'
}

// tooLong counts lines beyond maxImportLine.
const tooLong event.Reason = "too long"

// Import takes JSONL through the stages: bare events, or relay messages that hold one. Bad lines are counted, written
// to refused (one JSON object each, may be nil) and passed over. It returns once everything that came is durable. When
// ctx ends or the Mirror stops it returns too, even while a Read of lines waits: that one is left to the owner of lines,
// who closes it. refused is not used after the return; a Write that waits for its reader is waited for, unless refused has
// an Interrupt to end that with.
func (m *Mirror) Import(ctx context.Context, lines io.Reader, noDeliver bool, refused io.Writer) (report.Source, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	i := &importing{door: sources.NewDoor("", wanted(m.config(), nil, nil).Compile()), cancel: cancel}
	i.door.NoDeliver = noDeliver || m.o.NoDeliver
	out := newRejects(refused)
	if refused != nil {
		i.door.OnRefused = out.add
	}
	if !m.addImport(i) {
		return i.report(), errStopping
	}
	defer m.removeImport(i)
	// A reject that cannot be kept would be lost: the import stops.
	writing := start(ctx, "write the rejects", nil, func(ctx context.Context) error {
		defer cancel()
		return out.run(ctx)
	})
	if w, ok := refused.(interface{ Interrupt() }); ok {
		defer context.AfterFunc(ctx, w.Interrupt)()
	}
	err := m.feed(ctx, i.door, interruptible(ctx, lines), out)
	answer, barrierErr := m.intake.Barrier(ctx)
	if barrierErr == nil {
		select {
		case barrierErr = <-answer:
		case <-ctx.Done():
			barrierErr = ctx.Err()
		}
	}
	out.close()
	<-writing.done
	if firstOf([]error{writing.err}) != nil {
		return i.report(), writing.err
	}
	return i.report(), errors.Join(err, barrierErr)
}

// interruptible reads from r until ctx ends, also while r itself waits.
func interruptible(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	go func() { // ends with r, or with the first Read of r that returns after ctx has ended
		in.CloseWithError(guard("input", func() error {
			_, err := io.Copy(in, r)
			return err
		}))
	}()
	context.AfterFunc(ctx, func() { out.CloseWithError(ctx.Err()) })
	return out
}

func (m *Mirror) feed(ctx context.Context, door *sources.Door, lines io.Reader, out *rejects) error {
	number := int64(0)
	r := archive.Lines(lines, maxImportLine)
	for {
		l, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the line after %d: %w", number, err)
		}
		if err := out.wait(ctx); err != nil {
			return err
		}
		number = l.Number
		door.Tally.Received.Add(1)
		if l.TooLong {
			door.Refused(nil, tooLong)
			continue
		}
		f := sources.Frame{Raw: l.Text, Door: door, How: record.Import, Bare: l.Text[0] != '['}
		if !f.Bare {
			f.Scan, f.Simple = event.ScanFrame(l.Text)
		}
		if !f.Bare && !f.Simple {
			if raw, ok := clientForm(l.Text); ok {
				f.Raw, f.Bare = raw, true
			}
		}
		if f.Bare {
			f.Scan, f.Simple = event.ScanLine(f.Raw)
		}
		if err := m.intake.Offer(ctx, f); err != nil {
			door.Tally.Received.Add(-1)
			return err
		}
	}
}
