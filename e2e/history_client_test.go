package e2e

import (
	"fmt"
	"testing"

	"github.com/gorilla/websocket"
	"github.com/nbd-wtf/go-nostr"
)

// pager is the client that the program is measured against: one connection, one page after the other, each event parsed and
// verified before the next one is read. It keeps nothing but the ids.
type pager struct {
	ids   map[string]struct{}
	pages int
	wire  int
}

// page fetches all of a relay that sends newest first.
func (p *pager) page(t testing.TB, url string) {
	t.Helper()
	c, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // all was read
	p.ids = make(map[string]struct{})
	f := nostr.Filter{Limit: pageCap}
	parser := nostr.NewMessageParser()
	for {
		p.pages++
		id := fmt.Sprint("page-", p.pages)
		if err := c.WriteJSON(nostr.ReqEnvelope{SubscriptionID: id, Filters: nostr.Filters{f}}); err != nil {
			t.Fatal(err)
		}
		oldest, fresh := nostr.Timestamp(0), 0
		for ended := false; !ended; {
			_, text, err := c.ReadMessage()
			if err != nil {
				t.Fatal(err)
			}
			m, err := parser.ParseMessage(string(text))
			if err != nil {
				t.Fatal(err)
			}
			switch m := m.(type) {
			case *nostr.EventEnvelope:
				p.wire++
				if oldest = m.CreatedAt; p.known(m.ID) {
					continue
				}
				if ok, err := m.CheckSignature(); err != nil || !ok || !m.CheckID() {
					t.Fatalf("event %s is not genuine", m.ID)
				}
				p.ids[m.ID] = struct{}{}
				fresh++
			case *nostr.EOSEEnvelope:
				ended = true
			default:
				t.Fatalf("the relay says %v", m)
			}
		}
		if fresh == 0 {
			return
		}
		if err := c.WriteJSON(nostr.CloseEnvelope(id)); err != nil {
			t.Fatal(err)
		}
		f.Until = &oldest
	}
}

func (p *pager) known(id string) bool {
	_, ok := p.ids[id]
	return ok
}
