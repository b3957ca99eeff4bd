package sources

import (
	"context"

	"rebroadcastr/event"
	"rebroadcastr/record"
)

// Frame is one event on its way in.
type Frame struct {
	Raw    []byte     // a whole EVENT message (Scan.Event tells where its event begins) or a bare event; valid until Offer returns
	Scan   event.Scan // what the structural scan found; Scan.Sub aliases Raw
	Simple bool       // Scan is valid. false: the slow way, parse in full before anything else
	Bare   bool       // Raw is a bare event object, not a message
	Live   bool       // goes to the short queue that is served first
	How    record.How
	Door   *Door
}

// Intake takes events in; the pipeline's stages stand behind it.
type Intake interface {
	// Offer hands one frame over and may block for as long as the stages behind it are full. The frame's bytes are
	// the intake's own only until it returns. An error means that the frame was not taken: its door counts it back.
	Offer(ctx context.Context, f Frame) error
	// Barrier puts a token behind every frame that was offered before it. The channel holds one answer: nil once all
	// of them are on disk (fsynced) or refused.
	Barrier(ctx context.Context) (<-chan error, error)
}
