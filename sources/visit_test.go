package sources

import (
	"context"
	"errors"
	"testing"
	"time"

	"rebroadcastr/event"
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
	w := newWalk(event.Filter{}, window{0, openEnd}, newManners(500, false))
	p := newPage(1, record.Page, w, w.next(500), 0, 0)
	v.open.add(p)
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
