package sources

import (
	"context"
	"errors"
	"testing"
	"time"

	"rebroadcastr/record"
	"rebroadcastr/relaytest"
)

type refusing struct{ nowhere }

func (refusing) Offer(context.Context, Frame) error { return errors.New("stopping") }

// An event that could not be handed over was never archived: its page proves nothing, though the EOSE follows at once.
func TestAPageWithALostEventIsNotComplete(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	s := New(Options{Door: NewDoor("", nil), Intake: refusing{}})
	v := &visit{s: s, ctx: ctx, cancel: cancel, sess: progress{}}
	p := newPage("page-1", record.Page, newWalk(window{0, openEnd}, 500, false, nil), 0, 0)
	v.page.Store(p)
	v.event([]byte(`["EVENT","page-1",` + relaytest.Sign(relaytest.Key(1), 1, 1_700_000_000, nil, "lost") + `]`))
	v.eose("page-1", "finish")
	select {
	case <-p.finished:
	case <-time.After(time.Second):
		t.Fatal("the page did not end")
	}
	if p.ended.eose || p.answer.finish {
		t.Errorf("the page ended by EOSE, want it to be incomplete: %+v", p.ended)
	}
	if ctx.Err() == nil {
		t.Error("the visit goes on")
	}
}
